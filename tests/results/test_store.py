"""The score store: readable by other programs and while it grows, resumable, and consistent after any stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import ome_zarr_models.v05
import pytest
import zarr
from stores import create, facts, network, segment, smooth_field

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import OtherResult, OutputError
from napari_pbip.results import LargestScores, ScoreStore, label_region
from napari_pbip.results.lattice import BLOCK
from napari_pbip.taxonomy import BCSS

HERE = Path(__file__).parent


def contents(path):
    """Return every array of a store by path."""
    group = zarr.open_group(path, mode="r")
    return {name: node[...] for name, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}


# what others read


def test_another_library_finds_a_valid_image(finished):
    image = ome_zarr_models.v05.Image.from_zarr(zarr.open_group(finished, mode="r"))
    [multiscale] = image.attributes.ome.multiscales
    assert [axis.name for axis in multiscale.axes] == ["c", "y", "x"]
    assert {axis.unit for axis in multiscale.axes if axis.type == "space"} == {"micrometer"}
    for level, dataset in enumerate(multiscale.datasets):
        scale, translation = dataset.coordinateTransformations
        assert scale.scale == [1, 8 * 2**level, 8 * 2**level]
        # cell 0 covers pixels 0..16 * 2**level - 1 of 0.5 microns, counted from the centre of pixel 0
        assert translation.translation == [0, *[np.arange(16 * 2**level).mean() * 0.5] * 2]


def test_plain_zarr_reads_the_scores(finished):
    group = zarr.open_group(finished, mode="r")
    level = group["0"]
    assert level.shape == (4, 700, 900)
    assert level.dtype == np.float16
    assert np.isnan(level.fill_value)
    assert level.metadata.dimension_names == ("c", "y", "x")
    assert group.attrs["pbip"]["classes"][0] == {"name": "TUM", "colour": "#FF0000"}


def test_levels_halve_down_to_128_and_are_means_of_what_was_analysed(finished):
    store = ScoreStore.open(finished)
    assert [level.shape[1:] for level in store.scores] == [(700, 900), (350, 450), (175, 225), (88, 113)]
    assert max(store.scores[-1].shape) <= 128
    for fine, coarse in pairwise(store.scores):
        cells = fine[:].astype(np.float64)
        height, width = coarse.shape[1:]
        padded = np.full((4, 2 * height, 2 * width), np.nan)
        padded[:, : cells.shape[1], : cells.shape[2]] = cells
        quarters = np.stack([padded[:, y::2, x::2] for y in (0, 1) for x in (0, 1)])
        count = (~np.isnan(quarters)).sum(0)
        expected = np.where(count, np.nansum(quarters, 0) / np.maximum(count, 1), np.nan)
        np.testing.assert_allclose(coarse[:], expected, atol=2e-3)


def test_background_takes_no_room(tmp_path):
    shape = (2000, 2000)
    planned = np.zeros((84, 84), bool)
    planned[:5, :5] = True
    store = create(tmp_path / "s.ome.zarr", shape, planned)
    segment(store, network(smooth_field((200, 200))))
    assert len(list((tmp_path / "s.ome.zarr" / "0" / "c").rglob("*"))) == 3  # folders 0 and 0/0, one chunk
    assert store.progress == (25, 25)
    assert np.isnan(store.read_scores(0, slice(300, 400), slice(0, 100))).all()


# facts


def test_what_was_given_comes_back(finished):
    store = ScoreStore.open(finished)
    assert store.taxonomy == BCSS
    assert store.facts.slide.identity == "a1"
    assert store.facts.settings == facts((700, 900))["settings"]
    assert store.cell_um == 8
    assert store.tissue.shape == (70, 90)
    assert store.tissue_cells == store.tiles_and_tissue(0, slice(None), slice(None))[2].sum()


def test_tiles_know_their_presence_and_peak(finished):
    store = ScoreStore.open(finished)
    answer = network(smooth_field((700, 900)))
    presence, peak = store.presence(), store.peak()
    np.testing.assert_array_equal(np.isnan(presence[0]), ~store.planned)
    for row, column in np.argwhere(store.planned)[::50]:
        scores, present = answer(row, column)
        np.testing.assert_allclose(presence[:, row, column], present, atol=5e-4)
        np.testing.assert_allclose(peak[:, row, column], scores.max((1, 2)), atol=2e-3)


# resuming


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, finished):
    path = tmp_path / "slide.ome.zarr"
    shape, answer = (700, 900), network(smooth_field((700, 900)))
    whole = ScoreStore.open(finished)
    segment(create(path, shape, whole.planned, whole.tissue), answer, blocks=4)
    first = ScoreStore.open(path)
    done, total = first.progress
    assert 0 < done < total == whole.progress[1]
    assert first.written.sum() == 4
    segment(ScoreStore.open(path, "r+"), answer, blocks=3)
    second = ScoreStore.open(path, "r+")
    assert second.progress[0] > done
    segment(second, answer)
    assert second.progress == (total, total)
    expected = contents(finished)
    for name, values in contents(path).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def watch(store, answer, tiles):
    """Add a number of tiles, and write the unfinished blocks after every ten."""
    blender = store.blender()
    with store:
        for i, (row, column) in enumerate(blender.order[:tiles]):
            for region in blender.add(row, column, *answer(row, column)):
                store.write_region(region)
            if i % 10 == 9:
                for region in blender.partials():
                    store.write_region(region)
                store.commit()


def test_unfinished_blocks_can_be_read_and_are_replaced(tmp_path, finished):
    path = tmp_path / "slide.ome.zarr"
    shape, answer = (700, 900), network(smooth_field((700, 900)))
    whole = ScoreStore.open(finished)
    watch(create(path, shape, whole.planned, whole.tissue), answer, 40)
    begun = ScoreStore.open(path)
    assert begun.progress[0] == 0
    assert not begun.written.any()
    known = ~np.isnan(begun.presence())
    assert known[0].sum() == 40
    assert (known == known[0]).all()
    np.testing.assert_array_equal(~np.isnan(begun.peak()), known)
    scores = begun.read_scores(0, slice(None), slice(None))
    row, column = np.argwhere(known[0])[0]
    inner = np.s_[:, row * 24 + 4 : row * 24 + 24, column * 24 + 4 : column * 24 + 24]
    np.testing.assert_array_equal(scores[inner], whole.read_scores(0, slice(None), slice(None))[inner])
    for level in range(1, len(begun.scores)):
        assert not np.isnan(begun.read_scores(level, slice(None), slice(None))).all()
    counts = LargestScores(begun)
    provisional = counts.percentile(99.5)
    assert (provisional > 0).all()
    labels = label_region(begun, ThresholdSettings(), provisional, 0, slice(0, 300), slice(0, 300))
    assert set(np.unique(labels)) > {0}
    assert (labels[np.isnan(scores[0, :300, :300])] == 0).all()
    # an interrupted run that showed unfinished blocks goes on to the same store
    watch(ScoreStore.open(path, "r+"), answer, 400)
    assert 0 < ScoreStore.open(path).progress[0] < whole.progress[1]
    segment(ScoreStore.open(path, "r+"), answer)
    expected = contents(finished)
    for name, values in contents(path).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)
    np.testing.assert_array_equal(counts.percentile(99.5), LargestScores(whole).percentile(99.5))


WRITER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from stores import create, network, segment, smooth_field
from napari_pbip.results import ScoreStore

shape = (1000, 1000)
store = create(Path(sys.argv[1]), shape)
answer = network(smooth_field(shape))
def slow(row, column):
    time.sleep(float(sys.argv[3]))
    return answer(row, column)
print("begun", flush=True)
segment(store, slow)
print("done", flush=True)
"""


def start_writer(path, seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(HERE), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    return process


def test_another_process_watches_it_grow(tmp_path):
    path = tmp_path / "s.ome.zarr"
    with start_writer(path, 0.001) as process:
        store = ScoreStore.open(path)
        seen = []
        while process.poll() is None:
            done = store.done
            seen.append(int(done.sum()))
            for row, column in np.argwhere(done)[-20:]:
                y, x = row * 24, column * 24
                scores = store.read_scores(0, slice(y, y + 28), slice(x, x + 28))
                assert not np.isnan(scores).any()
                assert not np.isnan(store.presence(slice(row, row + 1), slice(column, column + 1))).any()
            for level in range(len(store.scores)):
                store.read_scores(level, slice(None), slice(0, 64))
        assert process.wait() == 0
    assert sorted(seen) == seen
    assert len(set(seen)) > 3
    assert store.progress == (42 * 42, 42 * 42)


def test_killed_in_the_middle_it_is_valid_and_goes_on(tmp_path):
    path, whole = tmp_path / "killed.ome.zarr", tmp_path / "whole.ome.zarr"
    with start_writer(path, 0.0005) as process:
        while ScoreStore.open(path).written.sum() < 5:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    shape = (1000, 1000)
    answer = network(smooth_field(shape))
    with ScoreStore.open(path, "r+") as store:
        done, total = store.progress
        assert 0 < done < total
        assert not np.isnan(store.presence()[:, store.done]).any()
        segment(store, answer)
        assert store.progress == (total, total)
    segment(create(whole, shape), answer)
    expected = contents(whole)
    for name, values in contents(path).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("of", ["the facts", "an array"])
def test_what_a_killed_process_had_begun_to_write_is_removed(tmp_path, finished, of):
    path = shutil.copytree(finished, tmp_path / "slide.ome.zarr")
    write = {
        "the facts": "store.record_computation({'runtime': 'torch'})",
        "an array": "store.plan(store.planned)",
    }
    code = f"""
import os, signal
from napari_pbip.results import ScoreStore
store = ScoreStore.open({str(path)!r}, "r+")
os.replace = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
{write[of]}
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(path.rglob("*.partial"))) == 1
    with ScoreStore.open(path, "r+") as store:
        assert store.facts.computed == {}
        assert store.written.any()
    assert not list(path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"identity": "b2"}, r"another slide \(identity was a1, now b2\)"),
        ({"weights": "w2"}, r"another model \(hash was w1, now w2\)"),
        ({"tissue_mpp": 4}, r"another setting \(`segment.tissue.mpp` was 8, now 4\)"),
    ],
)
def test_resuming_something_else_names_the_difference(finished, change, sentence):
    with pytest.raises(OtherResult, match=sentence) as caught:
        ScoreStore.open(finished).facts.require_same(finished, **facts((700, 900), **change))
    assert f"another {caught.value.what}" in sentence


def test_resuming_with_another_grid_or_a_new_setting_is_named(finished):
    store = ScoreStore.open(finished)
    same = facts((700, 900))
    store.facts.require_same(store.path, **same)
    with pytest.raises(OutputError, match=r"another grid \(rows was 29, now 30\)"):
        store.facts.require_same(store.path, **{**same, "grid": {**same["grid"], "rows": 30}})
    with pytest.raises(OutputError, match=r"another setting \(`segment.stain` was None, now reinhard\)"):
        store.facts.require_same(store.path, **{**same, "settings": {**same["settings"], "stain": "reinhard"}})


def test_the_slide_and_the_model_may_have_moved(finished):
    same = facts((700, 900))
    same["slide"]["path"] = "elsewhere/slide.svs"
    same["model"]["run"] = "elsewhere/run"
    ScoreStore.open(finished).facts.require_same(finished, **same)


# bad input


def test_an_existing_folder_is_kept(tmp_path):
    path = tmp_path / "s.ome.zarr"
    segment(create(path, (100, 100)), network(smooth_field((100, 100))))
    with pytest.raises(OutputError, match=r"exists already; use `resume=True` .* `overwrite=True`"):
        create(path, (100, 100))
    assert ScoreStore.open(path).progress == (16, 16)
    assert create(path, (100, 100), overwrite=True).progress == (0, 16)


def test_overwriting_spares_other_folders(tmp_path):
    slide = tmp_path / "slide.ome.zarr"
    zarr.create_group(slide).create_array("0", shape=(4, 4), dtype="uint8")
    with pytest.raises(OutputError, match="holds other files"):
        create(slide, (100, 100), overwrite=True)
    assert (slide / "0" / "zarr.json").exists()


def test_what_is_no_store_is_said_so(tmp_path):
    zarr.create_group(tmp_path / "slide.ome.zarr")
    (tmp_path / "file.txt").write_text("no store")
    for name in ("nothing", "file.txt", "slide.ome.zarr", "."):
        with pytest.raises(OutputError, match="is not a score store; name the"):
            ScoreStore.open(tmp_path / name)


def damage(path, what):
    root = path / "zarr.json"
    if what == "truncated json":
        root.write_text(root.read_text()[:300])
    elif what == "missing level":
        shutil.rmtree(path / "2")
    elif what == "missing tissue":
        shutil.rmtree(path / "pbip" / "tissue")
    elif what == "truncated mask":
        chunk = next((path / "pbip" / "planned" / "c").rglob("0"))
        chunk = chunk if chunk.is_file() else chunk / "0"
        chunk.write_bytes(chunk.read_bytes()[:10])
    else:
        values = json.loads(root.read_text())
        if what == "no multiscales":
            del values["attributes"]["ome"]
        elif what == "unknown fact":
            values["attributes"]["pbip"]["extra"] = 1
        elif what == "newer":
            values["attributes"]["pbip"]["version"] = 2
        root.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("truncated json", "is damaged"),
        ("missing level", "is damaged"),
        ("missing tissue", "is damaged"),
        ("truncated mask", "is damaged"),
        ("no multiscales", "is damaged"),
        ("unknown fact", "is damaged .*extra"),
        ("newer", "version 2, and this program reads version 1; update"),
    ],
)
def test_a_damaged_store_is_said_so(tmp_path, finished, what, sentence):
    path = tmp_path / "s.ome.zarr"
    shutil.copytree(finished, path)
    damage(path, what)
    with pytest.raises(OutputError, match=sentence):
        ScoreStore.open(path)


def test_a_damaged_chunk_is_said_so(tmp_path, finished):
    path = tmp_path / "s.ome.zarr"
    shutil.copytree(finished, path)
    chunk = path / "0" / "c" / "0" / "1" / "1"
    chunk.write_bytes(chunk.read_bytes()[:100])
    store = ScoreStore.open(path)
    store.read_scores(0, slice(0, BLOCK), slice(0, BLOCK))
    with pytest.raises(OutputError, match="is damaged"):
        store.read_scores(0, slice(None), slice(None))


def test_a_store_whose_making_was_killed_may_be_overwritten(tmp_path, finished):
    path = tmp_path / "s.ome.zarr"
    shutil.copytree(finished, path)
    root = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps(root | {"attributes": {}}))
    with pytest.raises(OutputError, match="is not a score store"):
        ScoreStore.open(path)
    create(path, (100, 100), overwrite=True)


def test_reading_does_not_write(finished):
    with pytest.raises(ValueError, match="opened for reading"):
        ScoreStore.open(finished).commit()


def test_what_does_not_fit_together_is_refused(tmp_path):
    with pytest.raises(ValueError, match="plan is for"):
        create(tmp_path / "a", (100, 100), np.ones((2, 2), bool))
    grid = facts((100, 100))["grid"]
    with pytest.raises(ValueError, match="do not cover"):
        create(tmp_path / "b", (100, 100), np.ones((2, 4), bool), grid={**grid, "rows": 2})
    with pytest.raises(ValueError, match="do not lie on cells"):
        create(tmp_path / "c", (100, 100), grid={**grid, "stride": 190})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def ordinary_user():
    """Run a test as an ordinary user, because root may write everywhere."""
    if os.name != "posix":
        pytest.skip("permissions are POSIX")
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_a_folder_that_may_not_be_written(ordinary_user):
    with pytest.raises(OutputError, match=r"cannot be written \(Permission denied\); choose another folder"):
        create(Path("/usr/slide.ome.zarr"), (100, 100))


def test_a_store_that_may_not_be_read_or_written(ordinary_user):
    folder = Path(tempfile.mkdtemp())  # of the ordinary user: where pytest puts its files belongs to another
    try:
        with create(folder / "s.ome.zarr", (100, 100)) as store:
            (store.path / "0").chmod(0o500)
            with pytest.raises(OutputError, match=r"cannot be written \(Permission denied\)"):
                segment(store, network(smooth_field((100, 100))))
            (store.path / "0").chmod(0o700)
            store.path.chmod(0)
            with pytest.raises(OutputError, match="may not be read; ask its owner"):
                ScoreStore.open(store.path)
            store.path.chmod(0o700)
    finally:
        shutil.rmtree(folder)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        create(tmp_path / "file" / "s.ome.zarr", (100, 100))


# a full disk


def fill(path):
    """Write random (incompressible) scores until the disk is full; return the error."""
    shape = (2000, 2000)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4, 28, 28)).astype(np.float32)
    store = create(path, shape)

    def answer(row, column):
        time.sleep(0.001)  # about as long as a network takes: commits are half a second apart
        return noise + row + column / 100, np.ones(4)

    with pytest.raises(OutputError) as caught:
        segment(store, answer)
    return str(caught.value)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_so_and_what_was_written_is_valid(small_disk):
    path = small_disk / "s.ome.zarr"
    message = fill(path)
    assert "The disk is full" in message
    assert "resume" in message
    store = ScoreStore.open(path)
    done, total = store.progress
    assert 0 < done < total
    assert not np.isnan(store.presence()[:, store.done]).any()
    for y, x in np.argwhere(store.written) * BLOCK:
        assert not np.isnan(store.read_scores(0, slice(y, y + BLOCK), slice(x, x + BLOCK))).any()


def test_no_room_from_the_start_is_said_so(small_disk):
    (small_disk / "rest").write_bytes(bytes(6 << 20))
    with pytest.raises(OutputError, match="The disk is full"):
        create(small_disk / "s.ome.zarr", (100, 100))


LIMITED = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from stores import create, network, segment, smooth_field
from napari_pbip.errors import OutputError
try:
    segment(create(Path(sys.argv[1]), (600, 600)), network(smooth_field((600, 600))))
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_quota_is_said_so_and_the_store_stays_valid(tmp_path):
    path = tmp_path / "s.ome.zarr"
    found = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(HERE)], capture_output=True, text=True, check=True
    )
    assert "cannot be written (File too large)" in found.stdout
    store = ScoreStore.open(path)
    assert store.progress[0] == 0
    assert np.isnan(store.read_scores(0, slice(None), slice(None))).all()


# size

# VmHWM is the peak of this program alone; ru_maxrss would count the test process that it was forked from
LARGE = """
import re, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[2])
from stores import create, facts, segment
from napari_pbip.config import ThresholdSettings
from napari_pbip.results import areas, write_labels

shape = (12_500, 12_500)
grid = facts(shape)["grid"]
planned = np.zeros((grid["rows"], grid["columns"]), bool)
planned[::100] = planned[:, ::100] = True  # thin lines of tissue: blocks everywhere, few tiles
scores = np.random.default_rng(0).normal(size=(4, 28, 28)).astype(np.float32)
store = create(Path(sys.argv[1]), shape, planned, np.ones((1250, 1250), bool))
segment(store, lambda row, column: (scores, np.ones(4)), blocks=int(sys.argv[3]))
write_labels(store, ThresholdSettings())
areas(store)
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
print(int(peak[1]) // 1024, int(store.written.sum()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_slide(tmp_path):
    """The slide has 100,000 x 100,000 pixels at stride 8, and is partly written, including labels."""
    peaks = []
    for blocks in (10, 120):
        found = subprocess.run(
            [sys.executable, "-c", LARGE, str(tmp_path / f"{blocks}.ome.zarr"), str(HERE), str(blocks)],
            capture_output=True,
            text=True,
            check=True,
        )
        megabytes, written = map(int, found.stdout.split())
        assert written == blocks
        peaks.append(megabytes)
    assert max(peaks) < 500
    assert peaks[1] - peaks[0] < 60, peaks


def test_tiles_of_unfinished_blocks_are_kept_and_gone_on_with_bit_for_bit(tmp_path):
    """A run that is stopped at any tile, also between a save and the next block, ends with the same store."""
    shape = (600, 600)
    answer = network(smooth_field(shape))
    whole = create(tmp_path / "whole.ome.zarr", shape)
    segment(whole, answer)
    for kept_at, stopped_at in ((1, 1), (100, 100), (150, 170), (400, 500)):
        path = tmp_path / f"{stopped_at}.ome.zarr"
        with create(path, shape) as store:
            blender = store.blender()
            for number, (row, column) in enumerate(blender.order[:stopped_at], 1):
                for region in blender.add(row, column, *answer(row, column)):
                    store.write_region(region)
                if number == kept_at:
                    store.keep(blender.keep())
        with ScoreStore.open(path, "r+") as store:
            blender = store.blender()
            kept = store.kept()
            assert kept is not None
            for region in blender.restore(kept):
                store.write_region(region)
            left = blender.order
            assert kept_at != stopped_at or len(left) == store.planned.sum() - stopped_at
            for row, column in left:
                for region in blender.add(row, column, *answer(row, column)):
                    store.write_region(region)
            assert blender.keep() is None
            store.keep(None)
            assert store.kept() is None
        for level, expected in zip(store.scores, whole.scores, strict=True):
            np.testing.assert_array_equal(level[:], expected[:])
        np.testing.assert_array_equal(store.presence(), whole.presence())
        np.testing.assert_array_equal(store.peak(), whole.peak())


def test_damaged_tiles_of_unfinished_blocks_are_computed_again(tmp_path):
    with create(tmp_path / "s.ome.zarr", (300, 300)) as store:
        blender = store.blender()
        answer = network(smooth_field((300, 300)))
        for place in blender.order[:5]:
            blender.add(*place, *answer(*place))
        store.keep(blender.keep())
        file = store.path / "pbip" / "begun.safetensors"
        whole = file.read_bytes()
        kept = store.kept()
        assert kept is not None
        assert len(kept) == 5
        wrong_size = replace(kept, scores=kept.scores[:, :2])
        store.keep(wrong_size)
        for damaged in (file.read_bytes(), whole[:-100], whole[:4], b""):
            file.write_bytes(damaged)
            assert store.kept() is None
