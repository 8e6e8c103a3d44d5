from __future__ import annotations

from typing import Any

import pytest

from napari_pbip.results.comparison import Comparison, RunResult, Spread, paired_t_test


def run(name: str, seed: int, miou: float | None) -> RunResult:
    scores: dict[str, Any] = {"miou": miou, "fwiou": 1.0, "biou": 1.0, "dice": 1.0, "per_class": {"A": {"iou": miou}}}
    figures = {
        "protocols": {"oracle": scores, "predicted": scores},
        "confusion": {"oracle": [[seed, 1]], "predicted": [[seed, 1]]},
        "classes": ["A"],
        "seconds_per_step": 0.5,
        "parameters": 10,
    }
    return RunResult((name,), seed, figures)


@pytest.fixture
def comparison() -> Comparison:
    runs = [run("good", seed, value) for seed, value in enumerate((70.0, 71.0, 72.5))]
    runs += [run("best", seed, value) for seed, value in enumerate((72.0, 73.5, 74.0, 90.0))]
    runs += [run("poor", seed, value) for seed, value in enumerate((50.0, 52.0, 51.0))]
    runs += [RunResult(("broken",), 0, None, "no weights")]
    return Comparison(("method",), tuple(runs))


def test_the_best_and_the_second_best_are_what_others_are_tested_against(comparison: Comparison) -> None:
    assert [choice.names for choice in comparison.ranking("oracle")] == [("best",), ("good",), ("poor",)]
    good, best, poor, broken = comparison.choices
    # differences of the three common seeds: -2, -2.5, -1.5; mean -2, deviation 0.5: t = -6.93 with 2 degrees of freedom
    assert comparison.p_values("oracle", good) == (pytest.approx(0.0202, abs=1e-3), None)
    against_best, against_second = comparison.p_values("oracle", poor)
    assert against_best is not None
    assert against_best < 0.01
    assert against_second is not None
    assert comparison.p_values("oracle", best)[0] is None
    assert comparison.p_values("oracle", broken) == (None, None)


def test_without_two_common_seeds_or_any_spread_there_is_no_test() -> None:
    runs = (run("a", 0, 50.0), run("a", 1, 60.0), run("b", 0, 51.0), run("b", 1, 61.0), run("c", 5, 1.0))
    a, b, c = Comparison(("method",), runs).choices
    assert paired_t_test("oracle", a, b) is None  # one more in every seed: certain, and no spread to test with
    assert paired_t_test("oracle", a, c) is None
    assert paired_t_test("oracle", a, None) is None


def test_spreads_leave_out_what_is_not_there() -> None:
    assert str(Spread.from_values([1.0, None, 2.0])) == "1.50 ± 0.71"
    assert str(Spread.from_values([3.0])) == "3.00"
    assert Spread.from_values([None]) is None


def test_confusion_adds_up_over_seeds(comparison: Comparison) -> None:
    good, *_, broken = comparison.choices
    counts = good.confusion("oracle")
    assert counts is not None
    assert counts.tolist() == [[0 + 1 + 2, 3]]
    assert broken.confusion("oracle") is None
