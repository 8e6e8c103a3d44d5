"""docs/tutorials/several-slides.md, followed in two sittings with a restart between; what is written is checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tifffile

from napari_pbip import samples
from napari_pbip.config import ThresholdSettings
from napari_pbip.replay import SCRIPT
from napari_pbip.slides import open_slide
from tests.gui.reader import Reader
from tests.gui.several_slides import COLOUR, PAGE, TITLE, TUMOURS
from tests.gui.sitting import sitting

ELSEWHERE = {
    "Plugins > PBIP tissue segmentation",
    "File > Open Sample > PBIP tissue segmentation",
    "Skin project",
    "without microns per pixel",
    "Add slides…",  # test_corrected_cohort.py
    "Compare with…",  # panels/test_compare_maps.py
    "Resume",  # docks/test_queue.py
}
"""Names on the page of what is in menus, or is done by another test."""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with parts of the two sample slides without microns per pixel."""
    (tmp_path / "tumours").mkdir()
    for name in TUMOURS:
        whole = getattr(samples, name)()
        with open_slide(whole) as slide:
            pixels = slide.read_level(0, slide.width // 2 - 250, slide.height // 2 - 250, 500, 500)
        tifffile.imwrite(tmp_path / "tumours" / f"{whole.stem}.tif", pixels, tile=(256, 256), photometric="rgb")
    return tmp_path


def test_the_page_can_be_followed_and_all_is_there_another_day(display: None, study: Path) -> None:
    def one(what: str, locale: str) -> dict[str, Any]:
        return sitting("tests.gui.several_slides", what, study, locale)  # type: ignore[no-any-return]

    first = one("follow", "de_DE")
    left = first["left"]
    assert [mpp for _, mpp, _ in left["slides"]] == [pytest.approx(0.499), 0.5, 1]
    skin, squamous, spindle = (Path(name).stem for name, *_ in left["slides"])
    delta = max(thresholds["delta"] for thresholds in left["thresholds"].values())
    usual = ThresholdSettings().delta
    assert delta > usual
    # tables have the names of classes, and what is for others has their titles
    table = pd.read_csv(study / "all.csv").set_index("slide")
    assert table["model"].to_dict() == {skin: "skin", squamous: "skin", spindle: "model 1"}
    assert table["delta"].to_dict() == {skin: delta, squamous: delta, spindle: usual}
    assert table["mpp_from"].to_dict() == {skin: "slide", squamous: "user", spindle: "user"}
    assert table.loc[[skin, spindle], "epidermis mm2"].min() > 0  # of the tumour, a high delta may leave none
    statistics = pd.read_csv(study / "statistics.csv")
    areas = statistics[(statistics["quantity"] == "area") & (statistics["class"] == "epidermis")].set_index("slide")
    assert areas["value"][table.index].to_dict() == pytest.approx(table["epidermis mm2"].to_dict())
    report = (study / "report.html").read_text(encoding="utf-8")
    assert all(f"<h2>{name}</h2>" in report for name in (skin, squamous, spindle))
    assert TITLE in report
    polygons = json.loads((study / "map.geojson").read_text(encoding="utf-8"))["features"]
    given = {"name": TITLE, "color": [*bytes.fromhex(COLOUR.removeprefix("#"))]}
    assert given in [one["properties"]["classification"] for one in polygons]
    assert (Path(left["folder"]) / SCRIPT).exists()

    second = one("open_again", "fr_FR")
    assert second["left"] == left
    assert Reader(PAGE).names - {*first["read"], *second["read"]} == ELSEWHERE
