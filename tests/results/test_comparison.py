from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_pbip.errors import OutputError
from napari_pbip.results.comparison import (
    Comparison,
    RunResult,
    Spread,
    paired_t_test,
    read_counts,
    write_counts,
    write_results,
    write_table,
)
from napari_pbip.results.metrics import PROTOCOLS, SegmentationScores
from napari_pbip.results.resampling import PairedTest, intervals


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


def with_counts(name: str, seed: int, wrong: float) -> RunResult:
    """Return a run of a network that errs in this share of the pixels of twelve images."""
    scores, truths = SegmentationScores(["A", "B"]), np.random.default_rng(0)
    errors = np.random.default_rng([seed, round(1000 * wrong)])
    for _ in range(12):
        truth = truths.integers(0, 2, (30, 30))
        scores.add(truth, np.where(errors.random((30, 30)) < wrong, 1 - truth, truth))
    report = {**scores.report(), "intervals": intervals({"images": scores.counts}, scores.names)}
    figures = {
        "protocols": dict.fromkeys(PROTOCOLS, report),
        "confusion": {},
        "classes": scores.names,
        "seconds_per_step": 1.0,
        "parameters": 1,
    }
    return RunResult((name,), seed, figures, counts=dict.fromkeys(PROTOCOLS, scores.counts))


def test_choices_are_tested_over_images_and_corrected_for_their_number(tmp_path: Path) -> None:
    runs = [with_counts(name, seed, wrong) for name, wrong in (("a", 0.1), ("b", 0.11), ("c", 0.2)) for seed in (0, 1)]
    comparison = Comparison(("method",), (*runs, run("earlier", 0, 20.0)))
    best, near, far, earlier = comparison.tests("predicted")
    assert best is None
    assert earlier is None  # its images are not known
    assert near is not None
    assert far is not None
    a, _, c, _ = comparison.choices
    alone = PairedTest.between(c.counts("predicted"), a.counts("predicted"))
    assert (far.difference, far.ends) == (alone.difference, alone.ends)
    assert far.permutation == pytest.approx(2 * alone.permutation)  # of two tests, it is the smaller one
    assert far.permutation < 0.05
    assert far.ends[1] < 0
    low, high = a.interval("predicted", "miou")
    assert low < a.spread("predicted", "miou").mean < high
    write_table(tmp_path / "table.csv", comparison)
    write_results(tmp_path / "results.csv", comparison)
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[2]["oracle_background_p_permutation"]) == far.permutation
    assert float(rows[2]["predicted_difference_high"]) == far.ends[1]
    assert float(rows[0]["predicted_miou_low"]) == low
    assert (rows[0]["predicted_difference"], rows[3]["predicted_miou_low"]) == ("", "")
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        first, *_, last = csv.DictReader(file)
    assert float(first["predicted_dice_low"]) < float(first["predicted_dice"]) < float(first["predicted_dice_high"])
    assert last["oracle_background_miou"] == last["predicted_accuracy"] == ""  # earlier versions had neither


def test_counts_of_slides_are_kept_where_there_are_several(tmp_path: Path) -> None:
    scores = SegmentationScores(["A", "B"])
    for image in range(12):
        scores.add(np.zeros((4, 4), int), np.eye(4, dtype=int), f"slide {image % 6}")
    write_counts(tmp_path / "counts.safetensors", {"oracle": scores})
    np.testing.assert_array_equal(read_counts(tmp_path / "counts.safetensors")["oracle"], scores.slide_counts)
    assert read_counts(tmp_path / "nowhere") == {}
    (tmp_path / "counts.safetensors").write_bytes(b"broken")
    with pytest.raises(OutputError, match="damaged"):
        read_counts(tmp_path / "counts.safetensors")
