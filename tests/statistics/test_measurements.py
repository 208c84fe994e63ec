"""Statistics where the truth is known: a real difference is found, equal rows are not told apart."""

import numpy as np
import pytest

from mmexp.evaluation.metrics import Answers
from mmexp.statistics.measurements import (
    Measurements,
    Noise,
    bootstrap,
    holm,
    more_seeds,
    pooled_noise,
    question_errors,
    question_weights,
)
from tests.report.synthetic import lab_answers, sweep, trial, write_run
from tests.rules import make_metric

OVERALL = "overall"


def compare(results, one, other, **arguments):
    measurements = Measurements(results.lines(), ["blind"], **arguments)
    return measurements.compare({(one, OVERALL): 1.0, (other, OVERALL): -1.0})


def test_a_true_difference_is_found_and_its_size_is_in_the_interval(tmp_path):
    results = sweep(tmp_path, {"a": 0.5, "b": 0.65, "c": 0.5})
    found = compare(results, "b", "a")
    assert found.sure
    assert found.low < 15 < found.high
    assert found.p < 0.01
    assert found.seeds == 3
    assert found.more_seeds == 0


def test_equal_rows_are_not_resolved(tmp_path):
    results = sweep(tmp_path, {"a": 0.5, "b": 0.5, "c": 0.6})
    found = compare(results, "b", "a")
    assert not found.sure
    assert found.low < 0 < found.high
    assert found.p > 0.05
    assert found.more_seeds is None or found.more_seeds > 0


def test_a_row_against_itself_has_no_difference_at_all(tmp_path):
    for row, seed in ((row, seed) for row in "ab" for seed in (0, 1)):
        write_run(tmp_path / f"{row}{seed}", lab_answers(0.5, 0.1, seed, "same"))
    trials = {row: [trial(row, seed, tmp_path / f"{row}{seed}") for seed in (0, 1)] for row in "ab"}
    found = Measurements(trials, []).compare({("a", OVERALL): 1.0, ("b", OVERALL): -1.0})
    assert (found.value, found.low, found.high, found.question_std) == (0, 0, 0, 0)
    assert found.p == 1
    assert not found.sure


def test_one_seed_is_never_sure(tmp_path):
    found = compare(sweep(tmp_path, {"a": 0.3, "b": 0.8}, seeds=(0,)), "b", "a")
    assert found.low > 0
    assert not found.sure
    assert found.seed_std is None
    assert found.more_seeds == 1


def test_seed_noise_widens_the_interval(tmp_path):
    quiet = compare(sweep(tmp_path / "quiet", {"a": 0.5, "b": 0.6}, seed_noise=0.0), "b", "a")
    noisy = compare(sweep(tmp_path / "noisy", {"a": 0.5, "b": 0.6}, seed_noise=0.1), "b", "a")
    assert noisy.high - noisy.low > 1.5 * (quiet.high - quiet.low)


def test_only_seeds_that_all_terms_have_are_used(tmp_path):
    results = sweep(tmp_path, {"a": 0.5, "b": 0.6}, seeds=(0, 1, 2))
    lines = {label: list(trials) for label, trials in results.lines().items()}
    lines["b"] = lines["b"][:2]
    found = Measurements(lines, []).compare({("b", OVERALL): 1.0, ("a", OVERALL): -1.0})
    assert found.seeds == 2
    assert Measurements({"a": lines["a"], "b": []}, []).compare({("b", OVERALL): 1.0, ("a", OVERALL): -1.0}) is None


def test_other_questions_are_not_paired(tmp_path):
    for row, questions in (("a", 100), ("b", 50)):
        for seed in (0, 1):
            write_run(tmp_path / f"{row}{seed}", lab_answers(0.5, 0.02, seed, row, questions))
    lines = {row: [trial(row, seed, tmp_path / f"{row}{seed}") for seed in (0, 1)] for row in "ab"}
    found = Measurements(lines, []).compare({("b", OVERALL): 1.0, ("a", OVERALL): -1.0})
    assert found.question_std is None
    assert found.seed_std is not None


def test_coverage_of_the_interval():
    """Over many sweeps of equal rows the 95 % interval holds 0 about as often as it says, with 3 seeds."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        block = rng.normal(0, 2, 3)
        per_seed = {row: 50 + block + rng.normal(0, 1.5, 3) for row in "abcd"}
        values = {(row, seed): value for row, numbers in per_seed.items() for seed, value in enumerate(numbers)}
        noise = pooled_noise(values, paired=True)
        assert noise.df == 6
        half = 2.447 * np.sqrt(2 * noise.variance / 3)
        held.append(abs(per_seed["a"].mean() - per_seed["b"].mean()) < half)
    assert 0.92 < np.mean(held) < 0.98


def test_pooled_noise():
    values = {("a", 0): 1.0, ("a", 1): 3.0, ("b", 0): 11.0, ("b", 1): 13.0}
    assert pooled_noise(values, paired=True).variance == pytest.approx(0, abs=1e-20)
    assert pooled_noise(values, paired=False) == Noise(pytest.approx(2.0), 2)
    assert pooled_noise({("a", 0): 1.0, ("b", 0): 2.0}, paired=False) is None
    assert pooled_noise({}, paired=True) is None


def test_flips_are_counted_once():
    """Independent flips only: no part of the mean's error belongs to the questions."""
    rng = np.random.default_rng(0)
    flips = rng.normal(0, 1, (4, 4000))
    assert question_errors(flips, np.zeros(4)).std() < 0.1
    shared = np.tile(rng.normal(0, 1, 4000), (4, 1))
    assert question_errors(shared, np.zeros(4)).std() == pytest.approx(1, abs=0.05)


def test_more_seeds_is_the_first_number_that_would_do():
    noise = Noise(4.0, 6)
    more = more_seeds(2.0, 0.0, noise, 3)
    # Half-width t * sqrt(4 / n) with 3 (n - 1) degrees of freedom: 2.26 with 4 seeds, 2.18 * 0.89 = 1.95 with 5.
    assert more == 2
    assert more_seeds(2.0, 5.0, noise, 3) is None
    assert more_seeds(2.0, 0.0, None, 1) == 1


@pytest.mark.parametrize("name", ["pope", "mme"])
def test_weights_keep_families_and_pairs(name):
    n = 40
    ids = [str(index // 2) for index in range(n)]
    answers = Answers(
        question_ids=ids,
        families=["count" if index < 10 else "scene" for index in range(n)],
        images=ids,
        questions=[""] * n,
        predictions=["yes"] * n,
        answers=["yes"] * n,
        scores=np.ones(n),
    )
    metric = make_metric(name, "lmms_eval")
    weights = np.concatenate(list(question_weights(metric, answers, 50, np.random.default_rng(0))))
    assert weights.shape == (50, n)
    assert (weights[:, :10].sum(axis=1) == 10).all()
    assert (weights[:, 10:].sum(axis=1) == 30).all()
    assert weights.std() > 0.5
    assert ((weights[:, ::2] == weights[:, 1::2]).all()) == (name == "mme")


def test_chunks_give_the_same_shape(monkeypatch, tmp_path):
    from mmexp.statistics import measurements as statistics

    write_run(tmp_path / "run", lab_answers(0.5, 0, 0, "a", 20))
    trials = {("a", 0): trial("a", 0, tmp_path / "run")}
    monkeypatch.setattr(statistics, "CELLS", 100 * 7)
    draws = bootstrap(trials, 30)["a", 0]
    assert draws["overall"].shape == draws["count"].shape == (30,)
    assert draws["overall"] == pytest.approx(draws["lab"])
    assert draws["overall"].mean() == pytest.approx(trials["a", 0].metrics["overall"], abs=3)


def test_bootstrap_of_a_mean_has_its_standard_error(tmp_path):
    answers = lab_answers(0.5, 0, 0, "a", 400)
    write_run(tmp_path / "run", answers)
    draws = bootstrap({("a", 0): trial("a", 0, tmp_path / "run")}, 2000)["a", 0]
    assert draws["lab"].std() == pytest.approx(100 * answers.scores.std() / np.sqrt(2000), rel=0.1)


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
