from __future__ import annotations

import pytest

from napari_pbip.results.tile_scores import tile_scores


def test_figures_of_a_classification_worked_out_by_hand() -> None:
    truth = ["a", "a", "a", "b", "b"]
    guess = ["a", "a", "b", "b", "c"]
    scores = tile_scores(truth, guess, ["a", "b", "c"])
    assert scores["accuracy"] == pytest.approx(60)
    assert scores["recall"] == pytest.approx({"a": 200 / 3, "b": 50})
    assert scores["recall_mean"] == pytest.approx((200 / 3 + 50) / 2)
    assert scores["f1"] == pytest.approx({"a": 80, "b": 50})  # 2 TP / (2 TP + FP + FN)
    assert scores["f1_mean"] == pytest.approx(65)
    assert scores["confusion"] == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_without_labels_there_are_no_figures() -> None:
    scores = tile_scores([], [], ["a", "b"])
    assert scores["accuracy"] is None
    assert scores["f1"] == {}
