"""Cutting labelled tiles out of real slides, read back as training reads them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_pbip.bank import Origin, load_tiles
from napari_pbip.bank.labelled_slides import TABLE, LabelledSlides
from napari_pbip.bank.slide_labels import SlideLabels
from napari_pbip.config import DataSettings
from napari_pbip.engine.banks.cut_tiles import cut_tiles
from napari_pbip.engine.banks.inspect_tiles import inspect_tiles
from napari_pbip.errors import ConfigError, DataError, OutputError
from napari_pbip.events import Finished, Started, Step, Warned
from napari_pbip.samples import tiles as sample_tiles
from napari_pbip.slides import SlideFacts, TileSize, open_slide


@pytest.fixture
def slide(tmp_path: Path, sample_slide: Path) -> Path:
    return Path(shutil.copy(sample_slide, tmp_path / "my slide.svs"))


@pytest.fixture
def labels(slide: Path) -> SlideLabels:
    labels = SlideLabels()
    with open_slide(slide) as opened:
        labels.add_slide(SlideFacts.from_slide(opened))
    return labels


@pytest.fixture
def identity(sample_slide: Path) -> str:
    with open_slide(sample_slide) as slide:
        return slide.identity


def test_cut_tiles_are_read_back_with_labels_origin_and_colours(labels, identity, slide, tmp_path):
    out = tmp_path / "tiles"
    labels.recolour_class(0, "#123456")
    labels.label(identity, [(2, 3)], {0})
    labels.label(identity, [(3, 3)], {0, 1})
    events = list(cut_tiles(labels.snapshot(), out))
    assert events[0] == Started("Cutting tiles", 2, "tiles")
    assert [e.done for e in events if isinstance(e, Step)] == [1, 2]
    assert events[-1] == Finished(out, {"tiles": 2, "cut": 2})
    tiles = load_tiles(out, settings=DataSettings(folder=out, mpp=0.5))
    assert tiles.layout == "csv"
    assert tiles.taxonomy == labels.taxonomy
    side = 112 / 0.499
    assert [(t.labels, t.origin) for t in tiles] == [
        ({0}, Origin("my slide", round(2 * side), round(3 * side))),
        ({0, 1}, Origin("my slide", round(3 * side), round(3 * side))),
    ]
    with open_slide(slide) as opened:
        for tile in tiles:
            np.testing.assert_array_equal(tile.read(), opened.read(tile.origin.x, tile.origin.y, 224, 224, 0.5))


def test_only_what_changed_is_cut_again(labels, identity, tmp_path):
    out = tmp_path / "tiles"
    labels.label(identity, [(2, 3), (3, 3)], {0})
    list(cut_tiles(labels.snapshot(), out))
    labels.label(identity, [(3, 3)], {1})
    labels.label(identity, [(4, 3)], {1})
    labels.rename_class(1, "lymphocytes")
    started, *_, finished = cut_tiles(labels.snapshot(), out)
    assert started.done == 2
    assert finished.summary == {"tiles": 3, "cut": 1}
    assert [t.labels for t in load_tiles(out)] == [{0}, {1}, {1}]
    assert load_tiles(out).taxonomy.names == ("tumour", "lymphocytes")
    labels.label(identity, [(2, 3)], ())
    list(cut_tiles(labels.snapshot(), out))
    assert len(load_tiles(out)) == 2
    labels.undo()
    *_, finished = cut_tiles(labels.snapshot(), out)
    assert finished.summary == {"tiles": 3, "cut": 0}


def test_another_size_is_another_cut(labels, identity, tmp_path):
    out = tmp_path / "tiles"
    labels.label(identity, [(2, 3)], {0})
    list(cut_tiles(labels.snapshot(), out))
    labels.clear()
    labels.resize(TileSize(pixels=96, mpp=1.0))
    labels.label(identity, [(2, 3)], {0})
    *_, finished = cut_tiles(labels.snapshot(), out)
    assert finished.summary["cut"] == 1
    (tile,) = load_tiles(out)
    assert tile.read().shape == (96, 96, 3)


def test_a_cancelled_job_keeps_labels_and_pictures(labels, identity, tmp_path):
    out = tmp_path / "tiles"
    labels.label(identity, [(c, 3) for c in range(6)], {0})
    job = cut_tiles(labels.snapshot(), out)
    for event in job:
        if isinstance(event, Step) and event.done == 2:
            job.close()
    assert LabelledSlides.read(out) == labels.snapshot()
    assert not (out / TABLE).exists()
    started, *_, finished = cut_tiles(labels.snapshot(), out)
    assert started.done == 2
    assert finished.summary == {"tiles": 6, "cut": 4}


def test_no_labels_leave_no_table(labels, identity, tmp_path):
    out = tmp_path / "tiles"
    labels.label(identity, [(2, 3)], {0})
    list(cut_tiles(labels.snapshot(), out))
    labels.clear()
    *_, finished = cut_tiles(labels.snapshot(), out)
    assert finished.summary["tiles"] == 0
    assert not (out / TABLE).exists()


def test_a_slide_that_is_gone_leaves_its_new_tiles_out(labels, identity, slide, sample_slide, tmp_path):
    out = tmp_path / "tiles"
    labels.label(identity, [(2, 3)], {0})
    list(cut_tiles(labels.snapshot(), out))
    slide.unlink()
    labels.label(identity, [(3, 3), (4, 3)], {1})
    events = list(cut_tiles(labels.snapshot(), out))
    (warned,) = (e.message for e in events if isinstance(e, Warned))
    assert warned.startswith("2 tiles of my slide are left out until it can be read: There is no slide at")
    assert [t.labels for t in load_tiles(out)] == [{0}]
    with open_slide(sample_slide) as moved:  # found again, elsewhere and under another name
        labels.add_slide(SlideFacts.from_slide(moved))
    *_, finished = cut_tiles(labels.snapshot(), out)
    assert finished.summary["tiles"] == 3


def test_another_slide_of_the_same_name_is_not_cut(labels, identity, slide, tmp_path):
    labels.label(identity, [(2, 3)], {0})
    slide.unlink()
    picture = next((sample_tiles() / "TUM").iterdir())
    shutil.copy(picture, slide)
    events = list(cut_tiles(labels.snapshot(), tmp_path / "tiles"))
    assert any(isinstance(e, Warned) for e in events)
    assert events[-1].summary["tiles"] == 0


def test_a_folder_that_cannot_be_written_is_told(labels, tmp_path):
    (tmp_path / "tiles").write_text("a file")
    with pytest.raises(OutputError):
        list(cut_tiles(labels.snapshot(), tmp_path / "tiles"))


def test_a_look_at_a_folder_of_tiles():
    *_, finished = inspect_tiles(DataSettings(folder=sample_tiles()))
    assert finished.summary["layout"] == "folders"
    names = [c["name"] for c in finished.summary["classes"]]
    assert names == ["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"]
    assert finished.summary["splits"] == {"train": {"tiles": 41, "counts": [5, 1, 5, 5, 5, 5, 5, 5, 5]}}


def test_a_look_at_nothing_is_told(tmp_path):
    with pytest.raises(ConfigError):
        list(inspect_tiles(DataSettings()))
    with pytest.raises(DataError, match="no pictures"):
        list(inspect_tiles(DataSettings(folder=tmp_path)))
