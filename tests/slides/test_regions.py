"""Regions of a slide: their file, and which cells and tiles count."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from napari_pbip.errors import DataError
from napari_pbip.slides import SlideFacts, TissueMask
from napari_pbip.slides.geojson import cells_inside
from napari_pbip.slides.regions import Kind, Region, Regions
from tests import qupath

SLIDE = SlideFacts(identity="a1", name="slide", path=Path("slide.svs"), mpp=0.5, width=500, height=400)
RING = shapely.box(50, 50, 350, 350).difference(shapely.box(100, 100, 300, 300))


def some_regions() -> Regions:
    return Regions(
        (
            Region("tumour bed", Kind.ANALYSE, RING),
            Region("tumour bed", Kind.ANALYSE, shapely.Point(420, 100).buffer(60)),
            Region("invasive front", Kind.ANALYSE, shapely.box(300, 200, 480, 380)),
            Region("pen", Kind.LEAVE_OUT, shapely.box(330, 0, 360, 400)),
        ),
        (500, 400),
    )


corner = st.tuples(st.integers(-50, 450), st.integers(-50, 450))


@given(st.lists(corner, min_size=3, max_size=12), st.integers(1, 30), st.integers(1, 30))
def test_cells_lie_in_the_polygons_in_which_shapely_finds_their_centres(corners, height, width):
    shape = shapely.make_valid(shapely.Polygon(np.array(corners) / 10), method="structure", keep_collapsed=False)
    y, x = np.arange(height) * 1.3 + 0.123456, np.arange(width) * 1.7 + 0.654321
    found = cells_inside(shape, y, x)
    points = shapely.points(*np.meshgrid(x, y))
    certain = ~(shapely.distance(shapely.boundary(shape), points) < 1e-9)  # NaN where nothing is enclosed
    np.testing.assert_array_equal(found[certain], shapely.contains(shape, points)[certain])


def test_polygons_that_touch_share_no_cell_and_leave_none_out():
    y, x = np.arange(40.0), np.arange(50.0)  # centres of cells lie on the borders
    line = [(0, 10), (20, 30), (49, 12)]
    above = shapely.Polygon([(0, -1), (60, -1), (60, 12), *line[::-1]])
    below = shapely.Polygon([(0, 50), (60, 50), (60, 12), *line[::-1]])
    one, other = cells_inside(above, y, x), cells_inside(below, y, x)
    assert not (one & other).any()
    assert (one | other).all()


def test_a_place_that_does_not_count_is_said_to_be_left_out_or_outside():
    regions = some_regions()
    assert regions.why_not(70, 70) == ""
    assert "“pen”, which is left out" in regions.why_not(340, 70)
    assert regions.why_not(200, 200) == "It lies outside the regions to analyse."
    only_pen = Regions(tuple(one for one in regions if one.kind is Kind.LEAVE_OUT))
    assert only_pen.why_not(200, 200) == ""
    assert Regions().why_not(200, 200) == ""


def test_tissue_counts_where_the_centres_of_its_pixels_do():
    array = np.random.default_rng(0).random((40, 50)) < 0.7
    tissue = TissueMask(array, 10.0, 5.0)
    y, x = (10 * (np.arange(count) + 0.5) for count in array.shape)
    np.testing.assert_array_equal(some_regions().tissue(tissue).array, array & some_regions().counted(y, x))
    assert Regions().tissue(tissue) is tissue


def test_what_counts_is_inside_and_not_left_out():
    regions, y, x = some_regions(), np.arange(3.1, 400, 9.7), np.arange(2.3, 500, 8.9)
    inside = shapely.union_all([one.shape for one in regions if one.kind is Kind.ANALYSE])
    at = np.meshgrid(x, y)
    expected = shapely.contains_xy(inside, *at) & ~shapely.contains_xy(shapely.box(330, 0, 360, 400), *at)
    np.testing.assert_array_equal(regions.counted(y, x), expected)
    only_pen = Regions(regions.items[-1:])
    np.testing.assert_array_equal(only_pen.counted(y, x), ~shapely.contains_xy(only_pen.items[0].shape, *at))
    assert Regions().counted(y, x).all()
    assert list(regions.shapes) == ["tumour bed", "invasive front"]


def test_tiles_are_those_that_touch_what_counts():
    left, top = np.arange(0.0, 500, 10)[None], np.arange(0.0, 400, 10)[:, None]
    touched = some_regions().touched(left, top, 10)
    assert touched.shape == (40, 50)
    assert touched[10, 6]  # in the ring
    assert not touched[20, 20]  # in its hole
    assert not touched[36, 34]  # wholly left out
    only_pen = Regions(some_regions().items[-1:]).touched(left, top, 10)
    np.testing.assert_array_equal(np.flatnonzero(~only_pen.all(0)), [33, 34, 35])
    assert Regions().touched(left, top, 10).all()


def test_the_file_is_read_as_it_was_written(tmp_path: Path):
    path, regions = tmp_path / "regions.geojson", some_regions()
    regions.write(path)
    again = Regions.read(path)
    assert [(one.name, one.kind) for one in again] == [(one.name, one.kind) for one in regions]
    assert all(one.shape.equals(other.shape) for one, other in zip(again, regions, strict=True))
    assert again.identity == regions.identity != ""
    assert again.size == (500, 400)
    objects = qupath.read(path)
    assert [one.names for one in objects] == [("Region*",)] * 3 + [("Ignore*",)]
    assert [one.name for one in objects] == [one.name for one in regions]
    assert objects[0].shape.equals(RING)
    Regions().write(path)
    assert not path.exists()
    assert Regions().identity == ""


def test_annotations_of_qupath_are_regions(tmp_path: Path):
    def feature(shape: shapely.Geometry, **properties: object) -> dict[str, object]:
        return {"type": "Feature", "geometry": json.loads(shapely.to_geojson(shape)), "properties": properties}

    crossing = shapely.Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])
    features = [
        feature(shapely.box(0, 0, 50, 50), classification={"name": "Tumor"}),
        feature(shapely.box(0, 0, 50, 50), name="hot spot", classification={"name": "Tumor"}),
        feature(crossing, classification={"name": "Region*"}),
        feature(shapely.box(9, 9, 12, 12), classification={"name": "Ignore*"}),
        feature(shapely.Point(3, 3), name="cell"),
        feature(shapely.Polygon([(0, 0), (5, 5), (0, 0)]), name="line"),
    ]
    path = tmp_path / "q.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    found = Regions.read(path)
    assert [one.name for one in found] == ["Tumor", "hot spot", "region 3", "region 4"]
    assert [one.kind for one in found] == [Kind.ANALYSE] * 3 + [Kind.LEAVE_OUT]
    assert found.items[2].shape.is_valid
    assert found.items[2].shape.area == pytest.approx(5000)  # both lobes
    path.write_text('{"type": "FeatureCollection", "features": []}', encoding="utf-8")
    with pytest.raises(DataError, match="has no polygons with an area"):
        Regions.read(path)


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        (Regions(some_regions().items, (900, 400)), "slide of 900 x 400 pixels and not on slide"),
        (Regions((Region("far", Kind.ANALYSE, shapely.box(600, 0, 700, 9)),)), "The region far lies outside slide"),
        (Regions((Region("all", Kind.LEAVE_OUT, shapely.box(-1, -1, 501, 401)),)), "leave out all of slide"),
        (
            Regions(
                (
                    Region("one", Kind.ANALYSE, shapely.box(5, 5, 9, 9)),
                    Region("pen", Kind.LEAVE_OUT, shapely.box(0, 0, 20, 20)),
                )
            ),
            "leave out all of slide",
        ),
    ],
)
def test_regions_that_do_not_suit_the_slide_are_refused(regions: Regions, said: str):
    with pytest.raises(DataError, match=said):
        regions.check_on(SLIDE)
    some_regions().check_on(SLIDE)
