"""The order of the data: a pure function, with the promised shares."""

import numpy as np
import pytest

from mmexp.data.balance import BySize, PerDataset, PerSample, Tuned
from mmexp.data.mixture import Mixture
from mmexp.data.order import EpochOrder, WeightedOrder
from mmexp.errors import UserError

SIZES = {"a": 50, "b": 7, "c": 1}
COMMON: dict = {"tasks": {}, "leave_out": [], "only": None}
EVEN = PerDataset(**COMMON, replacement=False)
BALANCES = [
    BySize(),
    EVEN,
    PerSample(limit=20, **COMMON, replacement=False),
    Tuned(dataset_weights={"a": 5, "b": 1, "c": 3}, **COMMON, replacement=True),
]


def mixture(balance, sizes=SIZES, seed=0) -> Mixture:
    return Mixture(datasets={name: range(size) for name, size in sizes.items()}, balance=balance, seed=seed)


@pytest.mark.parametrize("balance", BALANCES)
def test_positions_in_any_portions_give_the_same(balance):
    number = 5000
    whole = mixture(balance).places(range(number))
    for step in (1, 16, 1023, 3000):
        assert [
            place
            for at in range(0, number, step)
            for place in mixture(balance).places(range(at, min(at + step, number)))
        ] == whole
    shuffled = np.random.default_rng(0).permutation(number)
    assert mixture(balance).places(shuffled) == [whole[position] for position in shuffled]


@pytest.mark.parametrize("balance", BALANCES)
def test_a_far_position_needs_no_history(balance):
    order = mixture(balance)
    far = order.places(range(10**7, 10**7 + 50))
    order.places(range(2000))
    assert order.places(range(10**7, 10**7 + 50)) == far


@pytest.mark.parametrize("balance", BALANCES)
def test_seed_decides(balance):
    assert mixture(balance, seed=1).places(range(100)) == mixture(balance, seed=1).places(range(100))
    assert mixture(balance, seed=1).places(range(100)) != mixture(balance, seed=2).places(range(100))


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("number", [0, 1, 58, 1023, 1024, 5000])
def test_counts_are_exact(balance, number):
    counted = mixture(balance)
    datasets = [dataset for dataset, _ in counted.places(range(number))]
    assert counted.counts(number) == {name: datasets.count(place) for place, name in enumerate(SIZES)}


def test_by_size_sees_each_sample_once_per_epoch():
    places = mixture(BySize()).places(range(3 * 58))
    epochs = [places[start : start + 58] for start in range(0, len(places), 58)]
    everything = {(dataset, index) for dataset, size in enumerate(SIZES.values()) for index in range(size)}
    assert all(set(epoch) == everything for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_per_dataset_is_even_and_walks_without_repetition():
    places = mixture(EVEN).places(range(30000))
    shares = np.bincount([dataset for dataset, _ in places]) / len(places)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.02)  # 7 standard deviations
    for dataset, size in enumerate(SIZES.values()):
        indices = [index for number, index in places if number == dataset]
        epochs = [indices[start : start + size] for start in range(0, len(indices) - size, size)]
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert size == 1 or epochs[0] != epochs[1]


def test_weights_decide_the_shares_and_zero_means_never():
    order = WeightedOrder(SIZES, {"a": 3.0, "b": 1.0, "c": 0.0}, seed=0)
    datasets, _ = order.locate(np.arange(20000))
    np.testing.assert_allclose(np.bincount(datasets, minlength=3) / 20000, [0.75, 0.25, 0], atol=0.015)
    assert order.counts(20000)[2] == 0


def test_a_datasets_own_order_does_not_depend_on_its_neighbours():
    def walk(sizes):
        chosen = mixture(EVEN, sizes)
        return [index for dataset, index in chosen.places(range(2000)) if chosen.names[dataset] == "a"][:300]

    assert walk(SIZES) == walk({"c": 1, "a": 50})


def test_blocks_are_not_periodic():
    order = WeightedOrder({"a": 9, "b": 9}, {"a": 1, "b": 1}, seed=0)
    datasets, _ = order.locate(np.arange(2 * order.BLOCK))
    assert datasets[: order.BLOCK].tolist() != datasets[order.BLOCK :].tolist()
    halves = datasets.reshape(2, -1).sum(axis=1)
    assert halves[0] != halves[1], "counts of a block are random, too"


@pytest.mark.parametrize("balance", BALANCES)
def test_substitutes_are_of_the_same_dataset(balance):
    chosen = mixture(balance)
    for position, (dataset, _) in enumerate(chosen.places(range(50))):
        picks = [chosen.substitute(position, attempt) for attempt in range(1, 30)]
        assert {pick[0] for pick in picks} == {dataset}
        assert picks == [mixture(balance).substitute(position, attempt) for attempt in range(1, 30)]
        assert len(set(picks)) > 1 or dataset == 2


def test_no_datasets_or_empty_ones():
    with pytest.raises(UserError, match=r"data\.datasets: is empty"):
        mixture(BySize(), {})
    with pytest.raises(UserError, match=r"data\.datasets\.b: has no samples"):
        mixture(BySize(), {"a": 1, "b": 0})


def test_epoch_order_is_one_permutation():
    order = EpochOrder({"a": 1000}, seed=3, shards={})
    _, indices = order.locate(np.arange(1000))
    assert sorted(indices.tolist()) == list(range(1000))
    assert indices.tolist() != list(range(1000))
