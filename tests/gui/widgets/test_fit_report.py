"""The report on a fit: the shares of correct tiles."""

from __future__ import annotations

from napari_pbip.gui.widgets.fit_report import shares


def test_shares_of_classes_and_slides_are_shown_lowest_first() -> None:
    fit = {"confusion": [[9, 1, 0], [2, 2, 0], [0, 0, 0]], "slides": {"A": [8, 8], "B": [3, 6]}}
    assert shares(fit, ["tumour", "stroma", "nerve"]) == (
        "By class: stroma 50% of 4, tumour 90% of 10\nBy slide: B 50% of 6, A 100% of 8"
    )
    assert shares(fit | {"slides": {"A": [11, 14]}}, ["tumour", "stroma", "nerve"]).count("By") == 1
    assert shares({"confusion": None, "slides": {}}, ["tumour", "stroma"]) == ""
    assert shares({"confusion": [[1, 0], [0, 1]]}, ["a", "b"]) == "By class: a 100% of 1, b 100% of 1"  # an older run
