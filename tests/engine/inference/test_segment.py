from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import shapely
import tifffile
import torch
import zarr
from PIL import Image

from napari_pbip import samples
from napari_pbip.config import SegmentSettings, ThresholdSettings
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.inference.segment_slides import segment_slides
from napari_pbip.engine.loading import to_tensor
from napari_pbip.engine.outputs.export import export
from napari_pbip.engine.runs import load_model
from napari_pbip.engine.training.train import train
from napari_pbip.errors import ConfigError, ModelError, OutputError, PbipError, SlideError
from napari_pbip.events import Event, Finished, Loading, Noted, RegionDone, Started, Step, Warned
from napari_pbip.results import open_labels
from napari_pbip.results.places import FURTHER_MAPS, REGIONS, result_folder, stores_in
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import Slide, open_slide
from napari_pbip.slides.regions import Kind, Region, Regions
from tests.engine.conftest import settings_for

QUICK = SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=8)
THRESHOLDS = ThresholdSettings()


@pytest.fixture(scope="module")
def model(weak_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of two steps at 4 microns per pixel, for which the sample slide is a few tiles."""
    out = tmp_path_factory.mktemp("model") / "run"
    list(train(settings_for(weak_data, data={"mpp": 4.0}, train={"steps": 2}), out))
    return out


@pytest.fixture(scope="module")
def segmented(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    out = tmp_path_factory.mktemp("result")
    return out, list(segment(samples.slide(), model, out, QUICK, THRESHOLDS))


def store_in(folder: Path) -> ScoreStore:
    (path,) = stores_in(folder)
    return ScoreStore.open(path)


def test_the_events_tell_how_far_it_is(segmented: tuple[Path, list[Event]]) -> None:
    _, events = segmented
    started = next(e for e in events if isinstance(e, Started))
    steps = [e.done for e in events if isinstance(e, Step)]
    assert steps == sorted(steps)
    assert steps[-1] == started.total > 0
    assert any(isinstance(e, RegionDone) for e in events)
    assert isinstance(events[-1], Finished)


def test_an_array_gets_the_scores_of_a_file_of_the_same_pixels(
    segmented: tuple[Path, list[Event]], model: Path, sample_pixels: np.ndarray, tmp_path: Path
) -> None:
    with open_slide(samples.slide()) as slide:
        mpp = slide.require_mpp()
    chunked = da.from_array(sample_pixels, chunks=(960, 960, 3))  # about as the file is stored
    expected = store_in(segmented[0])
    for name, pixels in (("whole", sample_pixels), ("lazy", chunked)):
        array = Slide.from_array(pixels, mpp, name)
        *_, last = segment(array, str(model), str(tmp_path / name), QUICK)
        assert isinstance(last, Finished)
        assert last.output == tmp_path / name
        got = store_in(tmp_path / name)
        assert (got.path.name, got.facts.slide.name) == (f"{name}.ome.zarr", name)
        everywhere = slice(0, None)
        np.testing.assert_array_equal(
            got.read_scores(0, everywhere, everywhere), expected.read_scores(0, everywhere, everywhere)
        )
        np.testing.assert_array_equal(got.presence(), expected.presence())
        np.testing.assert_array_equal(got.tissue, expected.tissue)
        assert array.read_level(0, 0, 0, 5, 5).shape == (5, 5, 3)  # what somebody has open stays open
    *_, again = segment(Slide.from_array(chunked, mpp, "whole"), model, tmp_path / "whole", QUICK, resume=True)
    assert isinstance(again, Finished)  # the same slide, however it is held


def test_a_bare_array_has_no_microns(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"give segment\(\) a Slide\.from_array"):
        list(segment(np.zeros((64, 64, 3), np.uint8), model, tmp_path, QUICK))  # type: ignore[arg-type]


def test_microns_of_the_settings_count_for_an_open_slide(
    model: Path, sample_pixels: np.ndarray, tmp_path: Path
) -> None:
    array = Slide.from_array(sample_pixels, 0.5)
    list(segment(array, model, tmp_path, QUICK.model_copy(update={"mpp": 1.0})))
    assert store_in(tmp_path).facts.slide.mpp == 1.0


def check_scores(store: ScoreStore, run: Path) -> None:
    """Check that the store has the network's scores in the middle of a tile, which no other tile covers."""
    row, column = np.argwhere(store.planned)[len(np.argwhere(store.planned)) // 2]
    grid, lattice = store.facts.grid, store.lattice
    with open_slide(samples.slide()) as slide:
        step = grid.stride * grid.model_mpp / slide.require_mpp()
        image = slide.read(column * step, row * step, grid.tile, grid.tile, grid.model_mpp)
    with torch.inference_mode():
        expected = load_model(run).method.scores(to_tensor(image[None])).maps[0].numpy()
    assert expected.shape[1:] == (lattice.tile, lattice.tile)
    y, x, border = row * lattice.stride, column * lattice.stride, lattice.tile - lattice.stride
    inner = slice(border, lattice.tile - border)
    got = store.read_scores(0, slice(y, y + lattice.tile), slice(x, x + lattice.tile))[:, inner, inner]
    clipped = expected[:, inner, inner][:, : got.shape[1], : got.shape[2]]
    np.testing.assert_allclose(got.astype(np.float32), clipped, rtol=2e-3, atol=2e-3)  # float16


def test_scores_are_those_of_the_network(segmented: tuple[Path, list[Event]], model: Path) -> None:
    check_scores(store_in(segmented[0]), model)


def test_a_weight_for_the_first_stage_gives_a_slide_its_resolution(
    weak_data: Path, segmented: tuple[Path, list[Event]], tmp_path: Path
) -> None:
    method = {"name": "cam", "stage_weights": [1, 1, 1, 0], "fusion_weights": [1, 1, 1, 0]}
    run, out = tmp_path / "run", tmp_path / "out"
    list(train(settings_for(weak_data, data={"mpp": 4.0}, train={"steps": 1}, method=method), run))
    list(segment(samples.slide(), run, out, QUICK, THRESHOLDS))
    fine, coarse = store_in(out), store_in(segmented[0])
    assert (fine.facts.grid.cell, coarse.facts.grid.cell) == (4, 8)
    assert fine.cell_um == coarse.cell_um / 2
    assert [-(-side // 2) for side in fine.scores[0].shape[1:]] == list(coarse.scores[0].shape[1:])
    labels = zarr.open_group(fine.path, mode="r")["labels/tissue/0"]
    assert labels.shape == fine.scores[0].shape[1:]
    check_scores(fine, run)
    # a store that was begun with the other cells is not gone on with
    facts = coarse.facts.model_dump(include={"slide", "model", "settings"})
    with pytest.raises(OutputError, match=r"another grid \(cell was 8, now 4\)"):
        coarse.facts.require_same(coarse.path, **facts, grid={**coarse.facts.grid.model_dump(), "cell": 4})


def test_results_agree_with_each_other(segmented: tuple[Path, list[Event]]) -> None:
    out, events = segmented
    store = store_in(out)
    labels = np.asarray(zarr.open_group(store.path, mode="r")["labels/tissue/0"])
    with (out / "areas.csv").open() as file:
        rows = {row["name"]: float(row["area_mm2"]) for row in csv.DictReader(file)}
    cell_mm2 = (store.cell_um / 1000) ** 2
    for n, name in enumerate(store.taxonomy.names):
        assert rows[name] == pytest.approx(np.count_nonzero(labels == n + 1) * cell_mm2, rel=1e-6)
    last = events[-1]
    assert isinstance(last, Finished)
    analysed = np.count_nonzero(labels) * cell_mm2
    assert analysed == pytest.approx(last.summary["tissue_mm2"], rel=0.1)
    overlay = Image.open(out / "overlay.png").convert("RGB")
    assert len(overlay.getcolors(1 << 24) or []) > 100
    json.dumps(last.summary)


@pytest.mark.parametrize("after", [1, 2])
def test_a_stopped_slide_is_resumed_to_the_same_scores(
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    quick = QUICK.model_copy(update={"batch_size": 2})
    uninterrupted = tmp_path_factory.mktemp("uninterrupted")
    list(segment(samples.slide(), model, uninterrupted, quick, THRESHOLDS))
    job = segment(samples.slide(), model, tmp_path, quick, THRESHOLDS)
    for event in job:
        if isinstance(event, Step) and event.done >= 4 * after:
            break
    stopped = event.done
    job.close()
    store = store_in(tmp_path)
    assert store.progress[0] < store.progress[1]
    assert not np.isnan(store.presence()).all()  # what was shown is still there, and does not count as done
    with pytest.raises(OutputError, match="`resume=True`"):
        list(segment(samples.slide(), model, tmp_path, quick, THRESHOLDS))
    monkeypatch.delattr("napari_pbip.engine.inference.segment.find_tissue")  # which takes seconds on a large slide
    events = list(segment(samples.slide(), model, tmp_path, quick, THRESHOLDS, resume=True))
    assert isinstance(events[-1], Finished)
    assert next(e.done for e in events if isinstance(e, Started)) == stopped  # not a tile is computed again
    assert next(e.done for e in events if isinstance(e, Step)) == stopped + 2
    whole, parts = store_in(uninterrupted), store_in(tmp_path)
    assert parts.progress[0] == parts.progress[1]
    np.testing.assert_array_equal(parts.scores[0][:], whole.scores[0][:])


def test_the_tiles_in_view_come_first_and_can_be_seen_before_their_block_is_finished(
    segmented: tuple[Path, list[Event]], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_pbip.engine.inference.fill_store.SHOW_SECONDS", 0.0)
    # the first look is not mixed with later ones
    monkeypatch.setattr("napari_pbip.engine.inference.fill_store.UNWRITTEN", 0)
    looking = (1500.0, 2200.0, 200.0, 200.0)
    quick = QUICK.model_copy(update={"batch_size": 1})
    asked: set[int] = set()

    def focus() -> tuple[float, float, float, float]:
        asked.add(threading.get_ident())
        return looking

    job = segment(samples.slide(), model, tmp_path, quick, THRESHOLDS, focus=focus)
    batches = 0
    for event in job:
        batches += isinstance(event, Step)
        if isinstance(event, RegionDone):
            break
    assert batches == 1  # the first batch can be seen before the second one is computed
    assert not event.complete
    assert asked == {threading.get_ident()}
    store = store_in(tmp_path)
    cells = 1 / 8 / (store.facts.grid.model_mpp / store.facts.slide.mpp)  # of a level-0 pixel
    scores = store.read_scores(0, slice(None), slice(None))
    known = np.argwhere(~np.isnan(scores[0]))
    assert (known.min(0) <= np.array([2300, 1600]) * cells).all()
    assert (known.max(0) >= np.array([2300, 1600]) * cells).all()
    assert np.isnan(scores[0, 0]).all()
    rest = list(job)
    assert any(isinstance(e, RegionDone) and e.complete for e in rest)
    whole = store_in(segmented[0])
    np.testing.assert_array_equal(store_in(tmp_path).scores[-1][:].shape, whole.scores[-1][:].shape)
    assert store_in(tmp_path).progress == whole.progress


def test_what_differs_is_not_resumed(segmented: tuple[Path, list[Event]], model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "result"
    shutil.copytree(segmented[0], copy)
    other = QUICK.model_copy(update={"overlap": 32})
    with pytest.raises(OutputError, match="overlap"):
        list(segment(samples.slide(), model, copy, other, THRESHOLDS, resume=True))


def test_a_result_is_not_mixed_with_that_of_another_slide(
    segmented: tuple[Path, list[Event]], model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "another.svs"
    other.write_bytes(samples.slide().read_bytes() + b"another")
    before = (segmented[0] / "areas.csv").read_bytes()
    with pytest.raises(OutputError, match="another slide"):
        list(segment(other, model, segmented[0], QUICK, THRESHOLDS, overwrite=True))
    assert (segmented[0] / "areas.csv").read_bytes() == before


def test_a_slide_that_was_renamed_is_gone_on_with_and_exports_are_no_results_of_others(
    segmented: tuple[Path, list[Event]], model: Path, tmp_path: Path
) -> None:
    out, renamed = tmp_path / "result", tmp_path / "renamed.svs"
    shutil.copytree(segmented[0], out)
    shutil.copy(samples.slide(), renamed)
    store = store_in(out).path
    list(
        export(store, out / "labels.ome.zarr", "ome-zarr", THRESHOLDS)
    )  # beside the store, where a file dialog suggests it
    for slide, ways in (
        (samples.slide(), {"resume": True}),
        (renamed, {"resume": True}),
        (renamed, {"overwrite": True}),
    ):
        assert isinstance(list(segment(slide, model, out, QUICK, THRESHOLDS, **ways))[-1], Finished)
        assert list(stores_in(out).values()) == [store_in(segmented[0]).facts.slide.identity]
        assert store_in(out).facts.slide.path == slide
    assert (out / "labels.ome.zarr").exists()


def test_of_several_maps_of_a_slide_that_of_the_model_is_gone_on_with(
    segmented: tuple[Path, list[Event]], model: Path, tmp_path: Path
) -> None:
    facts = store_in(segmented[0]).facts
    folder = result_folder(tmp_path, facts.slide.name, facts.slide.identity)
    own = folder / FURTHER_MAPS / f"{facts.model.run}-0123"  # as earlier versions named it
    shutil.copytree(segmented[0], folder)
    shutil.copytree(segmented[0], own)
    first = store_in(folder).path / "zarr.json"
    first.write_text(first.read_text().replace(facts.model.hash, "another model"))
    again = partial(segment_slides, [samples.slide()], model, tmp_path, QUICK, THRESHOLDS, resume=True)
    *_, last = again()
    assert isinstance(last, Finished)
    [summary] = last.summary["slides"].values()
    assert Path(summary["store"]).parent == own
    shutil.rmtree(own)
    said = [event.message for event in again() if isinstance(event, Warned)]
    assert "choose another `out` to keep both" in said[0]


def test_a_slide_without_microns_per_pixel_needs_them(model: Path, tmp_path: Path) -> None:
    with open_slide(samples.slide()) as slide:
        picture = slide.read(0, 0, slide.width // 2, slide.height // 2, 2 * slide.require_mpp())
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb")
    with pytest.raises(SlideError, match=r"`mpp=0\.5`"):
        list(segment(path, model, tmp_path / "out", QUICK, THRESHOLDS))
    assert not (tmp_path / "out").exists()
    given = QUICK.model_copy(update={"mpp": 0.998})
    assert isinstance(list(segment(path, model, tmp_path / "out", given, THRESHOLDS))[-1], Finished)


def test_a_model_without_microns_per_pixel_says_so(weak_data: Path, tmp_path: Path) -> None:
    list(train(settings_for(weak_data, data={"mpp": None}, train={"steps": 1}), tmp_path / "run"))
    with open_slide(samples.slide()) as slide:
        picture = slide.read(6000, 6000, 10, 10, slide.require_mpp())
        tissue = slide.read(900, 900, 256, 256, slide.require_mpp())
    assert picture.min() == 255
    path = tmp_path / "small.tif"
    tifffile.imwrite(path, tissue, tile=(256, 256), photometric="rgb")
    given = QUICK.model_copy(update={"mpp": 0.5})
    events = list(segment(path, tmp_path / "run", tmp_path / "out", given, THRESHOLDS))
    assert [e for e in events if isinstance(e, Warned) and "data.mpp" in e.message]
    assert store_in(tmp_path / "out").facts.grid.model_mpp == 0.5


def test_wrong_slides_and_models_are_one_sentence(model: Path, tmp_path: Path) -> None:
    white = tmp_path / "white.tif"
    tifffile.imwrite(white, np.full((1024, 1024, 3), 255, np.uint8), tile=(256, 256), photometric="rgb")
    cut = tmp_path / "cut.svs"
    cut.write_bytes(samples.slide().read_bytes()[:900_000])
    text = tmp_path / "text.svs"
    text.write_text("no slide")
    given = QUICK.model_copy(update={"mpp": 0.5})
    expected: list[tuple[Path, Path, type[PbipError]]] = [
        (white, model, SlideError),
        (cut, model, SlideError),
        (text, model, SlideError),
        (tmp_path / "missing.svs", model, SlideError),
        (samples.slide(), tmp_path, ModelError),
    ]
    for slide, run, error in expected:
        with pytest.raises(error) as caught:
            list(segment(slide, run, tmp_path / "out", given, THRESHOLDS))
        assert "\n" not in str(caught.value), slide


def test_no_thread_is_left_behind(model: Path, tmp_path: Path) -> None:
    before = threading.active_count()
    job = segment(samples.slide(), model, tmp_path, QUICK, THRESHOLDS)
    for event in job:
        if isinstance(event, Step):
            break
    job.close()
    assert threading.active_count() == before


# VmHWM is the peak of this program alone; ru_maxrss would count the test process that it was forked from
_HUGE = """
import re, sys
from pathlib import Path
from napari_pbip.config import SegmentSettings, ThresholdSettings
from napari_pbip.engine.inference.segment import segment
from napari_pbip.events import Started, Step
settings = SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=8)
job = segment(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), settings, ThresholdSettings())
total = 0
for event in job:
    if isinstance(event, Started):
        total = event.total
    if isinstance(event, Step) and event.done >= 100:
        break
job.close()
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
print(total, int(peak[1]) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_slide(weak_data: Path, huge_slide: Path, tmp_path: Path) -> None:
    """A slide of 100,000 x 100,000 pixels is planned and partly segmented with less than 2 GB."""
    run = tmp_path / "run"
    list(train(settings_for(weak_data, data={"mpp": 0.499}, train={"steps": 1}), run))
    called = subprocess.run(
        [sys.executable, "-c", _HUGE, str(huge_slide), str(run), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    total, megabytes = map(int, called.stdout.split())
    assert total > 1000
    assert megabytes < 2000
    assert store_in(tmp_path / "out").facts.score_shape == (12500, 12500)


def test_damaged_tiles_are_left_out_and_told(
    segmented: tuple[Path, list[Event]], model: Path, tmp_path: Path, sample_pixels: np.ndarray
) -> None:
    """Only the finest level is damaged: tissue is found on a coarser one, and tiles are damaged."""
    path = tmp_path / "slide.tif"
    side = 256
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 16):
            cells = sample_pixels[: 2967 // step * step, : 2220 // step * step]
            cells = cells.reshape(len(cells) // step, step, -1, step, 3).mean((1, 3)).astype(np.uint8)
            tiff.write(
                cells,
                tile=(side, side),
                photometric="rgb",
                compression="zlib",
                subfiletype=int(step > 1),
                metadata=None,
            )
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        start = page.dataoffsets[8 * 9 + 4]  # nine in a row: x 1024 to 1280, y 2048 to 2304
    content = bytearray(path.read_bytes())
    content[start : start + 200] = bytes(200)
    path.write_bytes(content)
    out, settings = tmp_path / "out", QUICK.model_copy(update={"mpp": 0.499})
    events = list(segment(path, model, out, settings, THRESHOLDS))
    [warned] = [event.message for event in events if isinstance(event, Warned)]
    assert "x 1024 to 1280, y 2048 to 2304" in warned
    assert isinstance(events[-1], Finished)
    assert (out / "overlay.png").exists()
    store = store_in(out)
    analysed = ~np.isnan(store.presence()).any(axis=0)
    grid = store.facts.grid
    step, width = grid.stride * grid.model_mpp / 0.499, grid.tile * grid.model_mpp / 0.499
    reach = 16 * 3  # pixels that resampling looks at beyond a tile
    for row, column in np.argwhere(store.planned):
        x, y = column * step, row * step
        touched = x < 1280 + reach and x + width > 1024 - reach and y < 2304 + reach and y + width > 2048 - reach
        inside = x < 1280 and x + width > 1024 and y < 2304 and y + width > 2048
        if not touched:
            assert analysed[row, column]
        if inside:
            assert not analysed[row, column]
    assert events[-1].summary["tiles"] == np.count_nonzero(store.planned & analysed)
    assert f"{np.count_nonzero(store.planned & ~analysed)} of {store.planned.sum()} tiles" in warned
    labels = np.asarray(zarr.open_group(store.path, mode="r")["labels/tissue/0"])
    cell = 8 * grid.model_mpp / 0.499
    assert (labels[int(2100 / cell) : int(2250 / cell), int(1100 / cell) : int(1200 / cell)] == 0).all()
    with (out / "areas.csv").open() as file:
        assert any("not analysed" in ",".join(row.values()) for row in csv.DictReader(file))
    again = list(segment(path, model, out, settings, THRESHOLDS, resume=True))
    assert isinstance(again[-1], Finished)


def test_odd_size_is_told(model: Path, tmp_path: Path, sample_pixels: np.ndarray) -> None:
    """The file says twenty thousand pixels per inch instead of per centimetre."""
    tifffile.imwrite(
        tmp_path / "slide.tif", sample_pixels[:1024, :1024], tile=(256, 256), photometric="rgb", metadata=None,
        resolution=(200_000, 200_000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    events = segment(tmp_path / "slide.tif", model, tmp_path / "out", QUICK, THRESHOLDS)
    assert next(events) == Loading(f"the model {model.name}")
    first = next(events)
    events.close()
    assert isinstance(first, Warned)
    assert "0.05 microns per pixel" in first.message
    assert "`mpp=0.5`" in first.message


def test_a_threshold_of_an_unknown_class_is_told_before_the_slide_is_read(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NO"):
        list(segment(samples.slide(), model, tmp_path / "out", QUICK, ThresholdSettings(class_delta={"NO": 0.2})))
    assert not list((tmp_path / "out").glob("*.ome.zarr"))


def test_only_tiles_that_touch_regions_are_computed(
    segmented: tuple[Path, list[Event]], model: Path, tmp_path: Path
) -> None:
    whole, out, drawn = store_in(segmented[0]), tmp_path / "out", tmp_path / "drawn.geojson"
    inside = Region("tumour bed", Kind.ANALYSE, shapely.Point(1100, 1400).buffer(500))
    pen = Region("pen", Kind.LEAVE_OUT, shapely.box(1000, 0, 1060, 3000))
    Regions((inside, pen)).write(drawn)
    *events, last = segment(samples.slide(), model, out, QUICK, regions=drawn)
    assert any(isinstance(e, Noted) and "regions.geojson (2)" in e.message for e in events)
    store = store_in(out)
    assert 0 < store.planned.sum() < whole.planned.sum()
    assert store.facts.regions == Regions.read(drawn).identity
    everything = slice(None), slice(None)
    counted = store.tiles_and_tissue(0, *everything)[2]
    np.testing.assert_array_equal(  # every tile over a cell that counts was computed
        store.read_scores(0, *everything)[:, counted], whole.read_scores(0, *everything)[:, counted]
    )
    assert isinstance(last, Finished)
    assert {row["region"] for row in last.summary["areas"]} == {"", "tumour bed"}

    smaller = Region("tumour bed", Kind.ANALYSE, shapely.Point(1100, 1400).buffer(300))
    Regions((smaller,)).write(out / REGIONS)  # as the window does
    *events, _ = segment(samples.slide(), model, out, QUICK, resume=True)
    assert not any(isinstance(e, RegionDone) for e in events)  # no new scores
    assert open_labels(store_in(out))[1].regions == Regions.read(out / REGIONS).identity
    before = (out / REGIONS).read_bytes()
    with pytest.raises(OutputError, match="holds other regions"):
        list(segment(samples.slide(), model, out, QUICK, regions=drawn, resume=True))
    with pytest.raises(OutputError, match="exists already"):
        list(segment(samples.slide(), model, out, QUICK, regions=out / REGIONS))
    assert (out / REGIONS).read_bytes() == before
    (out / REGIONS).unlink()
    *events, _ = segment(samples.slide(), model, out, QUICK, resume=True)  # computes what is missing
    assert any(isinstance(e, RegionDone) for e in events)
    completed = store_in(out)
    np.testing.assert_array_equal(completed.planned, whole.planned)
    np.testing.assert_array_equal(completed.read_scores(0, *everything), whole.read_scores(0, *everything))
    np.testing.assert_array_equal(completed.presence(), whole.presence())
    assert open_labels(completed)[1].cells == open_labels(whole)[1].cells
    glass = Region("glass", Kind.ANALYSE, shapely.box(0, 0, 30, 30))
    Regions((glass,)).write(drawn)
    with pytest.raises(SlideError, match="No tile in the regions"):
        list(segment(samples.slide(), model, tmp_path / "glass", QUICK, regions=drawn))
