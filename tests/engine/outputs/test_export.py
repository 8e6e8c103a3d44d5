"""Exports are read again by other libraries."""

from __future__ import annotations

import csv
import errno
import json
import shutil
import sys
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import shapely
import tifffile
import zarr
from ome_zarr_models.v05 import Image as NgffImage
from ome_zarr_models.v05 import ImageLabel
from PIL import Image
from typer.testing import CliRunner

from napari_pbip import cli
from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.outputs.export import FORMATS, export
from napari_pbip.engine.outputs.score_result import annotated_truth, score_result
from napari_pbip.errors import DataError, OutputError
from napari_pbip.events import Finished, Step, Warned
from napari_pbip.project import Project
from napari_pbip.results import ScoreStore, areas, write_labels
from napari_pbip.results.dicom_seg import is_dicom_seg
from napari_pbip.results.label_files import open_labels
from napari_pbip.results.pyramid import create_levels, multiscales
from napari_pbip.slides import SlideFacts, open_slide
from napari_pbip.taxonomy import ClassDisplay
from tests import qupath
from tests.results import stores

SHAPE = (700, 900)
STRICT = ThresholdSettings(delta=0.5)
WRITTEN = [name for name in FORMATS if name not in ("png", "dicom-seg")]  # the slide of these stores is nowhere


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ScoreStore:
    """Return a finished store of two by two blocks, partly tissue, with labels."""
    path = tmp_path_factory.mktemp("store") / "slide.ome.zarr"
    tissue = np.random.default_rng(4).random((70, 90)) > 0.2
    made = stores.create(path, SHAPE, tissue=tissue)
    stores.segment(made, stores.network(stores.smooth_field(SHAPE)))
    write_labels(made, ThresholdSettings())
    return ScoreStore.open(path)


def written(store: ScoreStore, folder: Path, name: str, *thresholds: ThresholdSettings) -> Path:
    target = folder / f"slide{FORMATS[name].ending}"
    *_, last = export(store.path, target, name, *thresholds)
    assert last == Finished(target)
    return target


def test_polygons_cover_what_the_table_of_areas_counts(store: ScoreStore, tmp_path: Path):
    objects = qupath.read(written(store, tmp_path, "geojson"))
    polygons = np.array([one.shape for one in objects])
    assert {one.object_type for one in objects} == {"annotation"}
    assert not any(one.locked or one.name for one in objects)
    assert {one.colour for one in objects if one.names == ("LYM",)} == {(0, 0, 255)}
    names = np.array([one.names for one in objects])[:, 0]
    counted = {row.name: row.cells for row in areas(store) if row.cells and row.label}
    assert set(names) == set(counted)
    for name, cells in counted.items():
        assert shapely.area(polygons[names == name]).sum() == cells * 16**2  # a cell is 16 pixels of this slide
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    assert shapely.union_all(polygons).area == sum(counted.values()) * 16**2
    labels = open_labels(store)[0][0][:]
    rows, columns = np.random.default_rng(0).integers(0, SHAPE, (200, 2)).T
    tree = shapely.STRtree(polygons)
    points, hits = tree.query(shapely.points(columns * 16 + 8, rows * 16 + 8), predicate="within")
    at = dict(zip(points.tolist(), names[hits].tolist(), strict=True))
    values = {**{n + 1: name for n, name in enumerate(store.taxonomy.names)}, 255: "not assigned", 0: None}
    assert [at.get(n) for n in range(200)] == [values[value] for value in labels[rows, columns].tolist()]


def test_exported_polygons_are_a_mask_of_the_same_labels(store: ScoreStore, tmp_path: Path):
    truth = annotated_truth(written(store, tmp_path, "geojson"), store)
    labels = open_labels(store)[0][0][:]
    np.testing.assert_array_equal(truth.values, np.where(labels == 255, 0, labels))
    *_, last = score_result(store.path, truth, ThresholdSettings())
    assert last.summary["protocols"]["predicted"]["miou"] == 100
    other = tmp_path / "other.geojson"
    other.write_text((tmp_path / "slide.geojson").read_text().replace('"name": "', '"name": "my '))
    with pytest.raises(DataError, match="name the classes alike"):
        annotated_truth(other, store)


SHOWN = ClassDisplay(titles={"LYM": "Lymphocytes", "STR": "TUM"}, colours={"LYM": "#12AB34"})


def test_titles_and_colours_are_those_of_the_exports_and_names_those_of_tables(store: ScoreStore, tmp_path: Path):
    shown = ("TUM", "TUM (STR)", "Lymphocytes", "NEC")  # a title that is another name is told apart

    def export_as(name: str) -> Path:
        target = tmp_path / f"slide{FORMATS[name].ending}"
        list(export(store.path, target, name, class_display=SHOWN))
        return target

    objects = qupath.read(polygons := export_as("geojson"))
    assert {one.names for one in objects} <= {(name,) for name in (*shown, "not assigned")}
    assert {one.colour for one in objects if one.names == ("Lymphocytes",)} == {(0x12, 0xAB, 0x34)}
    assert json.loads(polygons.read_text())["napari_pbip"]["titles"] == {"STR": "TUM (STR)", "LYM": "Lymphocytes"}
    truth = annotated_truth(polygons, store, SHOWN)
    labels = open_labels(store)[0][0][:]
    np.testing.assert_array_equal(truth.values, np.where(labels == 255, 0, labels))
    with Image.open(export_as("ome-tiff")) as picture:
        assert picture.getpalette()[3 * 3 : 3 * 3 + 3] == [0x12, 0xAB, 0x34]
        assert "2 = TUM (STR), 3 = Lymphocytes" in picture.tag_v2[270]
    with tifffile.TiffFile(export_as("scores")) as tiff:
        channels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]["Channel"]
        assert tuple(one["Name"] for one in channels) == shown
    meaning = zarr.open_group(export_as("ome-zarr"), mode="r").attrs["ome"]["image-label"]
    assert tuple(one["class"] for one in meaning["properties"]) == (*shown, "not assigned")
    assert meaning["colors"][2] == {"label-value": 3, "rgba": [0x12, 0xAB, 0x34, 255]}
    for name in ("csv", "statistics"):
        table = export_as(name).read_bytes()
        list(export(store.path, tmp_path / "plain", name))
        assert table == (tmp_path / "plain").read_bytes()
        (tmp_path / "plain").unlink()


def test_the_command_line_exports_as_the_project_shows_classes(store: ScoreStore, tmp_path: Path):
    result = tmp_path / "project" / "results" / "slide" / store.path.name
    shutil.copytree(store.path, result)
    target = tmp_path / "slide.geojson"
    command = ["export", str(result), "--format", "geojson", "--out", str(target), "--overwrite"]
    for project, name in ((Project(), "LYM"), (Project(titles=SHOWN.titles, colours=SHOWN.colours), "Lymphocytes")):
        project.write(tmp_path / "project")
        assert CliRunner().invoke(cli.app, command).exit_code == 0
        assert (name,) in {one.names for one in qupath.read(target)}


def test_labels_as_ome_tiff(store: ScoreStore, tmp_path: Path):
    path = written(store, tmp_path, "ome-tiff")
    levels, _ = open_labels(store)
    with tifffile.TiffFile(path) as tiff:
        [series] = tiff.series
        assert len(series.levels) == len(levels)
        for level, array in zip(series.levels, levels, strict=True):
            np.testing.assert_array_equal(level.asarray(), array[:])
            assert level.keyframe.is_tiled
            assert level.keyframe.compression != 1
        [image] = (tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"],)
        assert (image["Pixels"]["PhysicalSizeX"], image["Pixels"]["PhysicalSizeXUnit"]) == (8, "µm")
        assert "3 = LYM" in image["Description"]
    with Image.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), levels[0][:])
        assert picture.getpalette()[3 * 3 : 3 * 3 + 3] == [0, 0, 255]


def test_scores_as_ome_tiff(store: ScoreStore, tmp_path: Path):
    with tifffile.TiffFile(written(store, tmp_path, "scores")) as tiff:
        [series] = tiff.series
        assert series.axes == "CYX"
        for level, array in zip(series.levels, store.scores, strict=True):
            np.testing.assert_array_equal(level.asarray(), array[:].astype(np.float32))
        image = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
        assert tuple(one["Name"] for one in image["Pixels"]["Channel"]) == store.taxonomy.names
        assert json.loads(image["Description"])["weights"] == store.facts.model.hash


def test_labels_as_ome_zarr(store: ScoreStore, tmp_path: Path):
    group = zarr.open_group(written(store, tmp_path, "ome-zarr"), mode="r")
    ImageLabel.from_zarr(group)
    assert "source" not in group.attrs["ome"]["image-label"]  # it lies in no image
    for level, array in enumerate(open_labels(store)[0]):
        np.testing.assert_array_equal(group[str(level)][:], array[:])
    NgffImage.from_zarr(zarr.open_group(store.path, mode="r"))
    linked = zarr.open_group(store.path / "labels/tissue", mode="r")
    assert linked.attrs["ome"]["image-label"]["source"] == {"image": "../../"}


def test_labels_are_linked_to_the_image_that_they_are_written_into(store: ScoreStore, tmp_path: Path):
    image = zarr.create_group(tmp_path / "slide.ome.zarr", zarr_format=3)
    levels = create_levels(image, (700, 900), chunk=256, dtype="uint8", fill_value=0, axes=("y", "x"))
    described = multiscales("slide", len(levels), ("y", "x"), (8, 8), (4, 4))
    image.attrs["ome"] = {"version": "0.5", "multiscales": described}
    target = tmp_path / "slide.ome.zarr" / "labels" / "tissue map"
    assert list(export(store.path, target, "ome-zarr"))[-1] == Finished(target)
    read = NgffImage.from_zarr(zarr.open_group(tmp_path / "slide.ome.zarr", mode="r"))
    assert read.labels.label_paths == ["tissue map"]
    label = ImageLabel.from_zarr(zarr.open_group(target, mode="r"))
    assert label.ome_attributes.image_label.source.image == "../../"


@pytest.fixture
def dicom_store(dicom_folder: Path, tmp_path: Path) -> ScoreStore:
    """Return a store with labels of a DICOM slide, with cells of 8 pixels."""
    with open_slide(dicom_folder) as slide:
        facts = SlideFacts.from_slide(slide).model_dump()
    shape = (-(-facts["height"] // 8), -(-facts["width"] // 8))
    grid = {**stores.facts(shape)["grid"], "model_mpp": facts["mpp"]}
    made = stores.create(tmp_path / "slide.ome.zarr", shape, slide=facts, grid=grid)
    stores.segment(made, stores.network(stores.smooth_field(shape)))
    write_labels(made, ThresholdSettings())
    return made


def test_labels_of_a_dicom_slide_lie_in_their_place(dicom_store: ScoreStore, dicom_folder: Path, tmp_path: Path):
    folder = written(dicom_store, tmp_path, "dicom-seg")
    levels, _ = open_labels(dicom_store)
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in dicom_folder.glob("*.dcm")]
    slide = next(header for header in headers if "VOLUME" in header.ImageType)
    assert len(list(folder.iterdir())) == len(levels)
    assert is_dicom_seg(folder)
    series = set()
    for n, level in enumerate(levels):
        seg = hd.seg.segread(folder / f"level-{n}.dcm")
        series.add((seg.SeriesInstanceUID, seg.PyramidUID, seg.FrameOfReferenceUID))
        written_back = seg.get_total_pixel_matrix(combine_segments=True)
        np.testing.assert_array_equal(written_back, np.where(level[:] == 255, 5, level[:]))
        names = [seg.get_segment_description(number).segment_label for number in range(1, 6)]
        assert names == [*dicom_store.taxonomy.names, "not assigned"]
        side = 8 * 2**n  # pixels of the slide under a cell
        to_slide = hd.spatial.ImageToImageTransformer.for_images(
            seg, slide, for_total_pixel_matrix_from=True, for_total_pixel_matrix_to=True
        )
        cells = np.array([[0, 0], [1, 0], [0, 1], [2, 1]])  # corners of cells, (column, row)
        np.testing.assert_allclose(to_slide(cells), cells * side, atol=1e-3)
        plain = pydicom.dcmread(folder / f"level-{n}.dcm")
        assert plain.pixel_array.shape[-2:] == (256, 256)
        assert plain.StudyInstanceUID == slide.StudyInstanceUID
        [algorithm] = plain.SegmentSequence[-1].SegmentationAlgorithmIdentificationSequence
        assert f'weights="{dicom_store.facts.model.hash}"' in algorithm.AlgorithmParameters
    assert len(series) == 1
    assert series.pop()[2] == slide.FrameOfReferenceUID


def test_dicom_needs_a_dicom_slide_and_a_library(
    store: ScoreStore, dicom_store: ScoreStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(OutputError, match="export them as OME-TIFF"):
        list(export(store.path, tmp_path / "seg", "dicom-seg"))
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(OutputError, match=r"pip install napari-pbip\[dicom\]"):
        list(export(dicom_store.path, tmp_path / "seg", "dicom-seg"))
    assert not (tmp_path / "seg").exists()


def test_other_thresholds_change_the_export_and_not_the_store(store: ScoreStore, tmp_path: Path):
    before = open_labels(store)[0][0][:]
    path = written(store, tmp_path, "csv", STRICT)
    with path.open(newline="", encoding="utf-8") as file:
        cells = {row["name"]: int(row["cells"]) for row in csv.DictReader(file)}
    assert cells["not assigned"] > np.count_nonzero(before == 255)
    image = zarr.open_group(written(store, tmp_path, "ome-zarr", STRICT), mode="r")["0"][:]
    assert cells["LYM"] == np.count_nonzero(image == 3)
    np.testing.assert_array_equal(open_labels(store)[0][0][:], before)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_cancelled_export_leaves_nothing_and_an_earlier_one_as_it_was(store: ScoreStore, tmp_path: Path, name: str):
    target = written(store, tmp_path, name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    job = export(store.path, target, name, STRICT, overwrite=True)
    next(event for event in job if isinstance(event, Step))
    job.close()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", WRITTEN)
def test_what_exists_is_replaced_only_when_asked(store: ScoreStore, tmp_path: Path, name: str):
    target = written(store, tmp_path, name)
    with pytest.raises(OutputError, match=r"exists already; use `overwrite=True`"):
        list(export(store.path, target, name))
    assert list(export(store.path, target, name, overwrite=True))[-1] == Finished(target)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("of mine")
    with pytest.raises(OutputError, match="no earlier export of this kind"):
        list(export(store.path, other, name, overwrite=True))
    with pytest.raises(OutputError, match="no earlier export of this kind"):
        list(export(store.path, store.path, name, overwrite=True))
    assert (other / "mine.txt").exists()


@pytest.mark.parametrize("name", [name for name in WRITTEN if name != "csv"])
def test_a_damaged_store_is_told_and_leaves_nothing(store: ScoreStore, tmp_path: Path, name: str):
    shutil.copytree(store.path, tmp_path / "slide.ome.zarr")
    chunks = "0/c" if name == "scores" else "labels/tissue/0/c"
    for chunk in (tmp_path / "slide.ome.zarr" / chunks).rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:-20])
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="is damaged"):
        list(export(tmp_path / "slide.ome.zarr", tmp_path / "out" / "slide", name))
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_leaves_nothing(store: ScoreStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tifffile.TiffWriter, "write", full)
    with pytest.raises(OutputError, match="disk is full"):
        written(store, tmp_path, "ome-tiff")
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_not_finished_says_so_and_one_without_labels_too(tmp_path: Path):
    path = tmp_path / "slide.ome.zarr"
    begun = stores.create(path, SHAPE)
    stores.segment(begun, stores.network(stores.smooth_field(SHAPE)), blocks=3)
    with pytest.raises(OutputError, match="no labels yet"):
        list(export(path, tmp_path / "areas.csv", "csv"))
    events = list(export(path, tmp_path / "slide.geojson", "geojson", STRICT))
    [warning] = [event for event in events if isinstance(event, Warned)]
    assert "tiles of this slide are segmented" in warning.message
    assert json.loads((tmp_path / "slide.geojson").read_text())["features"]


def test_bad_input_is_one_sentence(store: ScoreStore, tmp_path: Path):
    with pytest.raises(OutputError, match="choose one of csv, statistics, png, geojson"):
        list(export(store.path, tmp_path / "a.shp", "shp"))
    with pytest.raises(OutputError, match="not a score store"):
        list(export(tmp_path, tmp_path / "a.csv", "csv"))
    with pytest.raises(OutputError, match=r"the slide of slide\.ome\.zarr is gone"):
        list(export(store.path, tmp_path / "a.png", "png"))
    assert not list(tmp_path.iterdir())


def test_the_command(store: ScoreStore, tmp_path: Path):
    arguments = ["export", str(store.path), "--format", "csv", "--out", str(tmp_path / "areas.csv")]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    saved = (tmp_path / "areas.csv").read_text()
    again = CliRunner().invoke(cli.app, arguments)
    assert isinstance(again.exception, OutputError)
    assert "--overwrite" in str(again.exception)
    strict = [*arguments, "--overwrite", "--set", "thresholds.delta=0.5"]
    assert CliRunner().invoke(cli.app, strict).exit_code == 0
    assert (tmp_path / "areas.csv").read_text() != saved
