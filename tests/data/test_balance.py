"""Shares of the datasets by strategy: published weights, what is left out, and mistakes named."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmexp.data.balance import BySize, PerDataset, PerSample, PerTask, Subset, Temperature, Tuned
from mmexp.data.build import build_mixture
from mmexp.data.order import SubsetOrder, WeightedOrder
from mmexp.errors import UserError
from tests.data.making import llava_record, write_dataset

SIZES = {"vqa": 400, "gqa": 900, "sqa": 12, "ref": 120}
TASKS = {"vqa": "open", "gqa": "open", "sqa": "choice", "ref": "box"}


def balance(kind: type, **changes: Any) -> Any:
    return kind(**{"tasks": TASKS, "leave_out": [], "only": None, "replacement": False, **changes})


def close(shares: dict[str, float], **expected: float) -> None:
    assert shares == pytest.approx(expected)


def test_shares_of_each_strategy() -> None:
    total = sum(SIZES.values())
    close(BySize().shares(SIZES), **{name: size / total for name, size in SIZES.items()})
    close(balance(PerDataset).shares(SIZES), vqa=0.25, gqa=0.25, sqa=0.25, ref=0.25)
    close(balance(PerTask).shares(SIZES), vqa=1 / 6, gqa=1 / 6, sqa=1 / 3, ref=1 / 3)
    close(balance(PerSample, limit=400).shares(SIZES), vqa=400 / 932, gqa=400 / 932, sqa=12 / 932, ref=120 / 932)
    weights = {"vqa": 4, "gqa": 4, "sqa": 2, "ref": 0}
    close(
        balance(Tuned, dataset_weights=weights, leave_out=["ref"]).shares({"vqa": 1, "gqa": 1, "sqa": 1}),
        vqa=0.4,
        gqa=0.4,
        sqa=0.2,
    )


def test_temperature_lies_between_by_size_and_per_dataset() -> None:
    close(balance(Temperature, temperature=1.0).shares(SIZES), **BySize().shares(SIZES))
    close(balance(Temperature, temperature=math.inf).shares(SIZES), **balance(PerDataset).shares(SIZES))
    roots = {name: size**0.5 for name, size in SIZES.items()}
    close(balance(Temperature, temperature=2.0).shares(SIZES), **{n: r / sum(roots.values()) for n, r in roots.items()})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"leave_out": ["open"]}, ["sqa", "ref"]),
        ({"leave_out": ["gqa", "box"]}, ["vqa", "sqa"]),
        ({"only": ["gqa", "sqa"]}, ["gqa", "sqa"]),
        ({"only": ["open"], "leave_out": ["vqa"]}, ["gqa"]),
    ],
)
def test_leaving_out_tasks_and_datasets(changes: dict[str, Any], expected: list[str]) -> None:
    chosen = balance(Tuned, dataset_weights={name: 1.0 for name in SIZES}, **changes)
    assert chosen.needed(list(SIZES)) == expected
    shares = chosen.shares({name: SIZES[name] for name in expected})
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: balance(PerDataset, leave_out=["opn"]), r"balance\.leave_out: no dataset or task 'opn'.*open"),
        (lambda: balance(PerDataset, only=["x"]), r"balance\.only: no dataset or task 'x'"),
        (lambda: balance(PerDataset, leave_out=["open", "sqa", "ref"]), "nothing is left to draw from"),
        (
            lambda: balance(Tuned, dataset_weights={**dict.fromkeys(SIZES, 1), "gqaa": 2}),
            r"dataset_weights\.gqaa: no such dataset.*gqa",
        ),
        (lambda: balance(Tuned, dataset_weights={"vqa": 1}), "dataset 'gqa' has no weight"),
        (
            lambda: balance(Tuned, dataset_weights=dict.fromkeys(SIZES, 0)),
            "none of the weights that are left is above 0",
        ),
        (lambda: balance(Tuned, dataset_weights={**dict.fromkeys(SIZES, 1), "sqa": -1}), r"dataset_weights\.sqa: -1"),
        (lambda: balance(PerSample, limit=0), r"balance\.limit: 0"),
        (lambda: balance(Temperature, temperature=0), r"balance\.temperature: 0"),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make().needed(list(SIZES))


def subset(**changes: Any) -> Subset:
    return Subset(**{"fraction": 0.25, "tasks": TASKS, "leave_out": [], "only": None, **changes})


def test_a_subset_is_a_fraction_of_each_dataset_seen_once_per_epoch() -> None:
    order = subset().order(SIZES, 3, {})
    kept = {"vqa": 100, "gqa": 225, "sqa": 3, "ref": 30}
    total = sum(kept.values())
    epochs = []
    for epoch in range(2):
        datasets, indices = order.locate(np.arange(epoch * total, (epoch + 1) * total))
        assert np.bincount(datasets).tolist() == list(kept.values())
        epochs.append(list(zip(datasets.tolist(), indices.tolist(), strict=True)))
    assert set(epochs[0]) == set(epochs[1])
    assert len(set(epochs[0])) == total
    assert epochs[0] != epochs[1]
    assert sorted(index for dataset, index in epochs[0] if dataset == 0) != list(range(100))
    assert order.counts(2 * total).tolist() == [2 * size for size in kept.values()]


def test_subsets_of_a_seed_lie_in_each_other_and_do_not_depend_on_the_neighbours() -> None:
    small, large = (SubsetOrder(SIZES, fraction, 3).kept for fraction in (0.1, 0.5))
    assert all(set(few) < set(many) for few, many in zip(small, large, strict=True))
    assert np.array_equal(SubsetOrder({"gqa": 900}, 0.5, 3).kept[0], large[1])
    assert set(SubsetOrder(SIZES, 0.5, 4).kept[0]) != set(large[0])
    assert len(SubsetOrder({"sqa": 12}, 0.01, 3).kept[0]) == 1


def test_a_whole_subset_is_by_size() -> None:
    positions = np.arange(2000)
    whole, plain = (kind.order(SIZES, 3, {}) for kind in (subset(fraction=1.0), BySize()))
    assert np.array_equal(whole.locate(positions), plain.locate(positions))
    assert subset(only=["open"], leave_out=["gqa"]).needed(list(SIZES)) == ["vqa"]
    close(subset(fraction=0.5).shares({"vqa": 400, "sqa": 100}), vqa=0.8, sqa=0.2)


@pytest.mark.parametrize("fraction", [0, -0.5, 1.5, math.nan])
def test_a_subset_needs_a_fraction(fraction: float) -> None:
    with pytest.raises(UserError, match=r"balance\.fraction: .* must be above 0 and at most 1"):
        subset(fraction=fraction)


def test_a_dataset_in_shards_has_no_subset() -> None:
    with pytest.raises(UserError, match=r"balance\.fraction: dataset 'coyo' is in shards"):
        subset().order({"coyo": 10}, 0, {"coyo": [5, 5]})
    assert subset(fraction=1).order({"coyo": 10}, 0, {"coyo": [5, 5]}).counts(10).tolist() == [10]


def test_a_dataset_without_task() -> None:
    with pytest.raises(UserError, match=r"balance\.tasks: dataset 'new' has no task"):
        balance(PerTask).shares({**SIZES, "new": 3})


def test_with_replacement_draws_repeat_and_cover_evenly() -> None:
    order = WeightedOrder({"a": 50, "b": 5}, {"a": 1.0, "b": 1.0}, seed=0, replacement=True)
    datasets, indices = order.locate(np.arange(20000))
    first = indices[datasets == 0]
    assert len(set(first[:50].tolist())) < 45, "without replacement the first 50 draws would be all 50 samples"
    frequencies = np.bincount(first, minlength=50) / len(first)
    np.testing.assert_allclose(frequencies, 1 / 50, atol=0.006)  # 4 standard deviations
    assert indices[datasets == 1].max() == 4
    again = WeightedOrder({"a": 50, "b": 5}, {"a": 1.0, "b": 1.0}, seed=0, replacement=True)
    np.testing.assert_array_equal(again.locate(np.arange(15000, 15100))[1], indices[15000:15100])


def test_a_dataset_that_is_never_drawn_is_not_opened(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, [llava_record(1)])
    source = {"_target_": "mmexp.data.sources.llava_json.LlavaJson", "image_folder": str(tmp_path / "images")}
    node = {
        "datasets": {"here": {**source, "annotations": str(path)}, "gone": {**source, "annotations": "/nowhere"}},
        "balance": {
            "_target_": "mmexp.data.balance.Tuned",
            "dataset_weights": {"here": 1.0, "gone": 0.0},
            "tasks": {},
            "leave_out": [],
            "only": None,
            "replacement": False,
        },
    }
    assert build_mixture(node, 0).names == ["here"]
    node["balance"]["dataset_weights"]["gone"] = 0.1
    with pytest.raises(UserError, match="dataset 'gone'"):
        build_mixture(node, 0)
