"""Labels that are saved with napari's menu and opened again; banks that are opened by dropping them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.notifications import notification_manager
from ome_zarr_models.v05 import ImageLabel

from napari_pbip import samples
from napari_pbip.bank import load_single_tiles
from napari_pbip.config import BankSettings, DataSettings, ThresholdSettings
from napari_pbip.engine.banks.build_bank import build_bank
from napari_pbip.gui.reader import get_reader, read_as_napari
from napari_pbip.gui.sessions import session_of
from napari_pbip.results.label_image import LabelImage, write_label_image
from tests.gui.qt_helpers import Settle
from tests.results import stores

ALL = slice(None)


@pytest.fixture
def painted(viewer: Any) -> Any:
    """Return a painted mask, larger than a chunk, in micrometres, with colours and names."""
    values = np.zeros((700, 900), np.uint8)
    values[100:400, 200:800], values[500:, :300] = 1, 7
    colours = {None: "transparent", 0: "transparent", 1: (0.8, 0.4, 0.0, 1.0), 7: (0.0, 0.6, 0.4, 1.0)}
    return viewer.add_labels(
        values,
        name="gland",
        scale=(2.0, 2.0),
        translate=(30.0, 40.0),
        units=("um", "um"),
        colormap=DirectLabelColormap(color_dict=colours),
        features={"index": [0, 1, 7], "class": ["", "gland", "stroma"]},
    )


def save(viewer: Any, layer: Any, target: Path, settle: Settle) -> None:
    """Save a layer as *File > Save Selected Layers* does."""
    viewer.layers.selection = {layer}
    notification_manager.records.clear()
    assert viewer.layers.save(str(target), selected=True) == [str(target)]
    settle(lambda: notification_manager.records)


def test_a_painted_mask_comes_back_as_it_was(viewer: Any, painted: Any, settle: Settle, tmp_path: Path) -> None:
    target = tmp_path / "gland.ome.zarr"
    save(viewer, painted, target, settle)
    assert "Saved" in notification_manager.records[-1].message
    ImageLabel.from_zarr(zarr.open_group(target, mode="r"))  # another library reads it
    viewer.layers.remove(painted)
    [layer] = viewer.open(target, plugin="napari-pbip")
    assert layer.name == "gland"
    np.testing.assert_array_equal(np.asarray(layer.data[0]), painted.data)
    assert np.asarray(layer.data[1]).shape == (350, 450)
    np.testing.assert_allclose(layer.scale, painted.scale)
    np.testing.assert_allclose(layer.translate, painted.translate)
    assert {str(unit) for unit in layer.units} == {"micrometer"}
    for value in (1, 7):
        np.testing.assert_allclose(layer.get_color(value), painted.get_color(value), atol=1 / 255)
    assert layer.features.set_index("index")["class"].to_dict() == {1: "gland", 7: "stroma"}


def test_pixels_of_nobody_knows_what_size_stay_that(viewer: Any, settle: Settle, tmp_path: Path) -> None:
    layer = viewer.add_labels(np.eye(20, dtype=np.int32) * 300)  # napari's own colours
    save(viewer, layer, tmp_path / "cells.zarr", settle)
    [again] = viewer.open(tmp_path / "cells.zarr", plugin="napari-pbip")
    assert {str(unit) for unit in again.units} == {"slide_pixel"}
    np.testing.assert_array_equal(np.asarray(again.data), layer.data)
    np.testing.assert_allclose(again.get_color(300), layer.get_color(300), atol=1 / 255)


def test_a_tissue_map_is_saved_as_its_thresholds_show_it(viewer: Any, settle: Settle, tmp_path: Path) -> None:
    store = stores.create(tmp_path / "result" / "slide.ome.zarr", (300, 520))
    stores.segment(store, stores.network(stores.smooth_field((300, 520))))
    result = session_of(viewer).results.open(store.path)
    result.display.thresholds = ThresholdSettings(delta=0.6)
    settle(lambda: result.areas.exact)
    target = tmp_path / "map.ome.zarr"
    save(viewer, result.layer, target, settle)
    [again] = viewer.open(target, plugin="napari-pbip")
    result.view.micrometres = 0  # all cells, not only as many as the screen shows
    np.testing.assert_array_equal(np.asarray(again.data[0]), result.view.read(0, ALL, ALL))
    np.testing.assert_allclose(again.translate, result.layer.translate)
    assert "STR" in list(again.features["class"])


def test_what_cannot_be_saved_is_a_sentence(viewer: Any, painted: Any, settle: Settle, tmp_path: Path) -> None:
    target = tmp_path / "there.zarr"
    target.mkdir()
    save(viewer, painted, target, settle)
    assert "exists already" in notification_manager.records[-1].message
    volume = viewer.add_labels(np.ones((3, 8, 8), np.uint8))
    save(viewer, volume, tmp_path / "volume.zarr", settle)
    assert "3 dimensions" in notification_manager.records[-1].message
    assert not (tmp_path / "volume.zarr").exists()


def test_a_save_that_was_stopped_leaves_nothing(tmp_path: Path) -> None:
    facts = LabelImage("half", cell=(1.0, 1.0), first=(0.0, 0.0))
    writing = write_label_image(tmp_path / "half.zarr", np.ones((1200, 600), np.uint8), facts)
    next(writing)
    writing.close()
    assert list(tmp_path.iterdir()) == []


def test_label_images_of_others_are_left_alone(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "other.zarr", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "image-label": {}, "multiscales": []}
    assert get_reader(str(tmp_path / "other.zarr")) is read_as_napari
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text(json.dumps({"attributes": 3}))
    assert get_reader(str(tmp_path / "broken.zarr")) is read_as_napari


def test_a_bank_opens_as_its_contact_sheets(viewer: Any, tmp_path: Path) -> None:
    for name in ("LYM", "TUM"):
        shutil.copytree(samples.tiles() / name, tmp_path / "tiles" / name)
    data = DataSettings(folder=tmp_path / "tiles")
    list(build_bank(load_single_tiles(data.folder, data), tmp_path / "b", BankSettings(encoder="tiny", k=2), data))
    (slide,) = viewer.open(samples.slide(), plugin="napari-pbip")
    first, second = viewer.open(tmp_path / "b", plugin="napari-pbip")
    assert [str(unit) for unit in first.units] == ["slide_pixel", "slide_pixel"]
    assert first.units[0].is_compatible_with(slide.units[0])  # or napari would have warned, which is an error here
    assert (first.name, second.name) == ("b: LYM", "b: TUM")
    assert first.rgb
    assert second.translate[0] >= first.data.shape[0]
