"""Tiles are labelled by annotations of QuPath, and a tissue map that was exported labels the tiles that it shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from typer.testing import CliRunner

from napari_pbip import cli
from napari_pbip.bank import load_tiles
from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.bank.slide_labels import SlideLabels
from napari_pbip.engine.banks.import_annotations import import_annotations
from napari_pbip.errors import DataError, SlideError
from napari_pbip.events import Finished, Noted
from napari_pbip.slides import SlideFacts, open_slide
from napari_pbip.taxonomy import ClassDisplay
from tests.slides.test_annotations import feature, write


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """Return two annotations on the sample slide of 2220 x 2967 pixels at 0.499 µm."""
    return write(
        tmp_path / "slide.geojson",
        feature(shapely.box(600, 700, 1500, 1700), "Tumor", [200, 0, 0]),
        feature(shapely.box(900, 1500, 1500, 2200), "Immune cells: CD3"),
        feature(shapely.box(0, 0, 50, 50), None),
    )


def test_annotations_become_labelled_tiles(annotations: Path, sample_slide: Path, tmp_path: Path):
    *events, last = import_annotations(annotations, sample_slide, tmp_path / "tiles", pixels=100, tile_mpp=0.998)
    assert [event.message for event in events if isinstance(event, Noted)] == [
        "Left out: annotations without a class (1)."
    ]
    tiles = load_tiles(tmp_path / "tiles")
    assert tiles.taxonomy.names == ("Immune cells: CD3", "Tumor")
    assert tiles.taxonomy.classes[1].colour == "#C80000"
    assert last == Finished(tmp_path / "tiles", {"labelled": len(tiles), "tiles": len(tiles), "cut": len(tiles)})
    with open_slide(sample_slide) as slide:
        for tile in tiles:
            square = shapely.box(tile.origin.x, tile.origin.y, tile.origin.x + 200, tile.origin.y + 200)
            for n, area in enumerate((shapely.box(900, 1500, 1500, 2200), shapely.box(600, 700, 1500, 1700))):
                share = shapely.intersection(square, area).area / square.area
                assert (n in tile.labels) == (share >= 0.5)
            np.testing.assert_array_equal(tile.read(), slide.read(tile.origin.x, tile.origin.y, 100, 100, 0.998))
    assert {len(tile.labels) for tile in tiles} == {1, 2}


def test_labels_of_the_folder_are_kept(annotations: Path, sample_slide: Path, tmp_path: Path):
    list(import_annotations(annotations, sample_slide, tmp_path / "tiles"))
    before = LabelledSlides.read(tmp_path / "tiles")
    more = write(tmp_path / "more.geojson", feature(shapely.box(0, 0, 1200, 2000), "Stroma"))
    *_, last = import_annotations(more, sample_slide, tmp_path / "tiles")
    after = LabelledSlides.read(tmp_path / "tiles")
    assert after.taxonomy.names == (*before.taxonomy.names, "Stroma")
    assert last.summary["tiles"] == len(after) > len(before)
    renamed = ClassDisplay(titles={"Stroma": "Connective tissue"})
    again = write(tmp_path / "again.geojson", feature(shapely.box(0, 0, 1200, 2000), "Connective tissue"))
    list(import_annotations(again, sample_slide, tmp_path / "tiles", class_display=renamed))
    assert LabelledSlides.read(tmp_path / "tiles").taxonomy == after.taxonomy  # its title is no class of its own
    for place, labels in before.tiles[0].items():
        assert after.tiles[0][place] >= labels
    with pytest.raises(DataError, match="tiles are labelled at 224 px"):
        list(import_annotations(more, sample_slide, tmp_path / "tiles", pixels=100))


def test_bad_input_leaves_the_folder_as_it_was(sample_slide: Path, tmp_path: Path):
    outside = write(tmp_path / "a.geojson", feature(shapely.box(5000, 0, 6000, 500), "Tumor"))
    odd = write(tmp_path / "b.geojson", feature(shapely.box(0, 0, 1000, 1000), "a,b"))
    for path, said in ((outside, "lie outside CMU-1-Small-Region"), (odd, "cannot hold commas")):
        with pytest.raises(DataError, match=said):
            list(import_annotations(path, sample_slide, tmp_path / "tiles"))
    with pytest.raises(SlideError):
        list(import_annotations(outside, tmp_path / "gone.svs", tmp_path / "tiles"))
    assert not (tmp_path / "tiles").exists()


def test_an_import_is_one_step_that_can_be_undone(annotations: Path):
    labels = SlideLabels()
    labels.add_slide(SlideFacts(identity="a1", name="slide", path=Path("slide.svs"), mpp=0.5, width=500, height=400))
    steps = []
    labels.stepped.connect(lambda: steps.append(1))
    assert labels.annotate("a1", {"fat": [(0, 0), (1, 0)], "vessel": [(1, 0)]}, {"fat": "#102030"}) == 2
    assert labels.taxonomy.names == ("fat", "vessel")
    assert labels.taxonomy.classes[0].colour == "#102030"
    assert labels.tiles("a1") == {(0, 0): {0}, (1, 0): {0, 1}}
    assert labels.annotate("a1", {"nerve": [(0, 0)], "fat": [(1, 0)]}) == 1
    assert labels.tiles("a1")[0, 0] == {0, 2}
    assert len(steps) == 2
    labels.undo()
    labels.undo()
    assert labels.taxonomy.names == ("tumour", "stroma")
    assert not len(labels)


def test_the_command(annotations: Path, sample_slide: Path, tmp_path: Path):
    arguments = [
        "import",
        str(annotations),
        "--slide",
        str(sample_slide),
        "--out",
        str(tmp_path / "tiles"),
        "--tile",
        "128",
    ]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert len(load_tiles(tmp_path / "tiles")) > 20
    assert json.loads((tmp_path / "tiles" / "labels.json").read_text())["size"]["pixels"] == 128
