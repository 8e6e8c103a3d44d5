"""The overlay is aligned with the labels and can be read."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from stores import halves

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import OutputError
from napari_pbip.results import areas, overlay, write_overlay
from napari_pbip.results.lazy import label_blocks
from napari_pbip.results.overlay import LabelSummary, labels_like
from napari_pbip.taxonomy import BCSS, ClassDisplay


@pytest.mark.parametrize("size", [(800, 1200), (200, 300), (133, 200), (1600, 2400)])
def test_labels_lie_under_the_same_pixels_of_the_thumbnail(tmp_path, size):
    labels = labels_like(halves(tmp_path / "s.ome.zarr"), *size)
    height, width = size
    assert labels.shape == size
    assert (labels[: height * 7 // 10, : width // 2 - 4] == 1).all()
    assert (labels[: height * 7 // 10, width // 2 + 4 :] == 3).all()
    assert (labels[height * 19 // 20 :] == 0).all()


def test_a_small_picture_needs_no_fine_level(tmp_path):
    store = halves(tmp_path / "s.ome.zarr")
    shutil.rmtree(store.path / "labels" / "tissue" / "0" / "c")
    assert labels_like(store, 400, 600).any()
    assert not labels_like(store, 401, 600).any()


def test_the_overlay_mixes_colours_and_leaves_the_rest(tmp_path):
    thumbnail = np.full((4, 4, 3), 200, np.uint8)
    labels = np.array([[0, 1, 3, 255]] * 4, np.uint8)
    mixed = overlay(thumbnail, labels, BCSS, opacity=0.5)
    assert mixed[0].tolist() == [[200, 200, 200], [228, 100, 100], [100, 100, 228], [195, 195, 195]]


def test_the_picture_has_a_legend_in_the_class_colours(tmp_path):
    store = halves(tmp_path / "s.ome.zarr")
    write_overlay(tmp_path / "overlay.png", store, np.full((200, 300, 3), 255, np.uint8))
    with Image.open(tmp_path / "overlay.png") as image:
        picture = np.asarray(image)
        origin = json.loads(image.text["napari-pbip"])
    assert (origin["slide"], origin["weights"]) == (store.facts.slide.name, store.facts.model.hash)
    assert picture.shape[0] >= 200
    legend = picture[:, 300:]
    for one in BCSS:
        assert (legend == one.rgb).all(-1).sum() > 50
    assert (legend.max(-1) < 100).sum() > 200  # text
    shown = ClassDisplay(titles={"TUM": "T"}, colours={"TUM": "#123456"}).of(BCSS)
    write_overlay(tmp_path / "shown.png", store, np.full((200, 300, 3), 255, np.uint8), classes=shown)
    with Image.open(tmp_path / "shown.png") as image:
        assert json.loads(image.text["napari-pbip"])["titles"] == {"TUM": "T"}
        assert (np.asarray(image)[:, 300:] == (0x12, 0x34, 0x56)).all(-1).sum() > 50


def test_a_picture_that_cannot_be_written_is_said_so(tmp_path, labelled):
    (tmp_path / "overlay.png").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_overlay(tmp_path / "overlay.png", labelled, np.zeros((70, 90, 3), np.uint8))


@pytest.mark.parametrize("size", [(70, 90), (133, 200), (700, 900), (1000, 1300)])
def test_a_summary_without_writing_is_that_of_the_written_labels(labelled, size):
    summary = LabelSummary(labelled, *size)
    for block in label_blocks(labelled, ThresholdSettings()):
        summary.add(*block)
    assert summary.areas == areas(labelled)
    np.testing.assert_array_equal(summary.picture, labels_like(labelled, *size))
