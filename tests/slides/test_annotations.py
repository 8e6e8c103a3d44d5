"""Annotations of other programs: which tiles and cells they cover."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import shapely

from napari_pbip.errors import DataError
from napari_pbip.slides import SlideFacts, TileSize
from napari_pbip.slides.annotations import read_annotations
from tests import qupath

SLIDE = SlideFacts(identity="a1", name="slide", path=Path("slide.svs"), mpp=0.5, width=500, height=400)
SIZE = TileSize(pixels=100, mpp=0.5)


def feature(geometry: shapely.Geometry | None, name: str | None, colour: list[int] | None = None) -> dict[str, Any]:
    classification = {"name": name} | ({} if colour is None else {"color": colour})
    properties: dict[str, Any] = {"objectType": "annotation"}
    if name is not None:
        properties["classification"] = classification
    return {
        "type": "Feature",
        "id": "a1",
        "geometry": None if geometry is None else json.loads(shapely.to_geojson(geometry)),
        "properties": properties,
    }


def write(path: Path, *features: dict[str, Any], collection: bool = True) -> Path:
    document = {"type": "FeatureCollection", "features": features} if collection else features
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("collection", [True, False])
def test_a_tile_has_the_classes_that_cover_half_of_it(tmp_path: Path, collection: bool):
    path = write(
        tmp_path / "a.geojson",
        feature(shapely.box(0, 0, 150, 100), "Tumor", [200, 0, 0]),  # half of the second tile
        feature(shapely.box(40, 0, 160, 100), "Stroma"),  # 60 % of both
        feature(shapely.box(200, 100, 249, 200), "Tumor"),  # 49 % of a tile
        feature(shapely.box(300, 100, 340, 200), "Tumor"),  # 40 % and 20 %, which overlap in 10 %
        feature(shapely.box(330, 100, 350, 200), "Tumor"),
        feature(shapely.box(0, 300, 100, 400).difference(shapely.box(20, 320, 90, 390)), "Stroma"),  # a hole of half
        feature(shapely.Point(5, 5), "Tumor"),
        collection=collection,
    )
    annotations = read_annotations(path)
    assert annotations.tiles_of(SLIDE, SIZE) == {"Tumor": [(0, 0), (1, 0), (3, 1)], "Stroma": [(0, 0), (1, 0), (0, 3)]}
    assert annotations.colours == {"Tumor": "#C80000"}
    assert annotations.notes == ("Left out: points and lines (1).",)


def test_the_mask_has_the_class_at_the_centre_of_a_cell(tmp_path: Path):
    rng = np.random.default_rng(1)
    polygons = [shapely.Point(*rng.uniform(0, 400, 2)).buffer(rng.uniform(20, 80)) for _ in range(6)]
    ring = shapely.box(50, 50, 350, 350).difference(shapely.box(100, 100, 300, 300))
    polygons.append(shapely.union(ring, shapely.box(180, 180, 220, 220)))
    path = write(tmp_path / "a.geojson", *(feature(one, "ABC"[n % 3]) for n, one in enumerate(polygons)))
    mask = read_annotations(path).mask(("A", "B", "C"), (41, 40), 9.8)
    y, x = (np.mgrid[:41, :40] + 0.5) * 9.8
    truth = np.zeros((3, 41, 40), bool)
    for n, polygon in enumerate(polygons):
        truth[n % 3] |= shapely.contains_xy(polygon, x, y)
    expected = np.where(truth.sum(0) == 1, truth.argmax(0) + 1, 0)
    np.testing.assert_array_equal(mask, expected)
    assert (truth.sum(0) > 1).any()


def test_colours_and_names_of_other_versions_of_qupath(tmp_path: Path):
    one = feature(shapely.box(0, 0, 100, 100), "Tumor")
    one["properties"]["classification"] = {"name": "Tumor", "colorRGB": -3670016}
    other = feature(shapely.box(0, 0, 100, 100), "")
    other["properties"]["classification"] = {"names": ["Immune cells", "CD3"], "color": [1, 2, 3]}
    annotations = read_annotations(write(tmp_path / "a.geojson", one, other))
    assert annotations.colours == {"Tumor": "#C80000", "Immune cells: CD3": "#010203"}


def test_what_has_no_class_is_counted(tmp_path: Path):
    box = shapely.box(0, 0, 100, 100)
    path = write(tmp_path / "a.geojson", feature(box, "Tumor"), feature(box, None), feature(box, "not assigned"))
    annotations = read_annotations(path)
    assert annotations.notes == ("Left out: annotations without a class (1).",)
    assert list(annotations.polygons) == ["Tumor"]


def test_every_form_of_a_class_that_qupath_reads_is_read(tmp_path: Path):
    box, forms = shapely.box(0, 0, 100, 100), ["Tumor", {"name": "Stroma", "color": [0, 128, 0, 200]}]
    forms += [{"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, {"name": "Necrosis", "colorRGB": -13158600}]
    features = [feature(box, "") for _ in forms]
    for one, form in zip(features, forms, strict=True):
        one["id"] = str(uuid4())
        one["properties"] |= {"classification": form, "isLocked": True, "measurements": {"Area": 1.5}}
    path = write(tmp_path / "a.geojson", *features)
    annotations, objects = read_annotations(path), qupath.read(path)
    assert list(annotations.polygons) == [": ".join(one.names) for one in objects]
    colours = {": ".join(one.names): "#{:02X}{:02X}{:02X}".format(*one.colour) for one in objects if one.colour}
    assert annotations.colours == colours
    assert len(colours) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no GeoJSON of annotations"),
        ("[1, 2]", "is no GeoJSON of annotations"),
        ('{"type": "Polygon"}', "is no GeoJSON of annotations"),
        ('{"type": "FeatureCollection", "features": [{"geometry": {"type": "Polygon"}}]}', "is no GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', "has no polygons with a class"),
    ],
)
def test_what_is_no_geojson_is_said(tmp_path: Path, text: str, said: str):
    path = tmp_path / "a.geojson"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_annotations(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_annotations(tmp_path / "gone.geojson")


def test_annotations_of_another_slide_are_refused(tmp_path: Path):
    path = write(
        tmp_path / "a.geojson", feature(shapely.box(0, 0, 9, 9), "A"), feature(shapely.box(600, 0, 700, 9), "A")
    )
    with pytest.raises(DataError, match="lie outside slide"):
        read_annotations(path).check_on(SLIDE)
    small = write(tmp_path / "b.geojson", feature(shapely.box(0, 0, 60, 60), "A"))
    with pytest.raises(DataError, match=r"covers half of a tile of 100 px at 0\.5 µm"):
        read_annotations(small).tiles_of(SLIDE, SIZE)
