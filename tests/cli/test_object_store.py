"""Results at addresses of a real server of S3, which another library lists."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_pbip import claims, samples
from napari_pbip.config import SegmentSettings, ThresholdSettings
from napari_pbip.engine import fetch_results as fetching
from napari_pbip.engine import object_store
from napari_pbip.engine.fetch_results import fetch_results
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.inference.segment_slides import segment_slides
from napari_pbip.errors import OtherResult, OutputError
from napari_pbip.events import Finished, Job, Started, Step
from napari_pbip.results import ScoreStore, open_labels
from napari_pbip.results.corrections import CorrectionEditor
from napari_pbip.results.places import STORE_MARKER
from tests.cli.conftest import Called
from tests.object_store import KEY, SECRET, Bucket, serving
from tests.test_readme import DOCS, blocks, follow

MODEL = samples.project() / "model"
QUICK = SegmentSettings(precision="float32", device="cpu")
ROOT = "slide.ome.zarr/zarr.json"
BED = {
    "type": "Feature",
    "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [400, 0], [400, 300], [0, 300], [0, 0]]]},
    "properties": {"name": "bed"},
}
REGIONS = json.dumps({"type": "FeatureCollection", "features": [BED]}).encode()


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pictures of the small slides be small, because compressing them takes half of the time of a job."""
    monkeypatch.setattr("napari_pbip.engine.inference.segment.OVERLAY_SIDE", 400)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    with serving(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the user's cache folder."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "napari-pbip"


@pytest.fixture
def bucket(
    server: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Bucket:
    """Return a bucket for this test alone, which the environment says how to reach."""
    endpoint, log = server
    made = Bucket(endpoint, re.sub("[^a-z]+", "-", request.node.name)[-50:].strip("-"), log)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture(scope="module")
def slides(sample_pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two small slides."""
    folder = tmp_path_factory.mktemp("slides")
    resolution = {"resolution": (1e4 / 0.499, 1e4 / 0.499), "resolutionunit": "CENTIMETER"}
    for name, top in (("slide", 1200), ("other", 1500)):
        pixels = sample_pixels[top : top + 400, 600:1000]
        tifffile.imwrite(folder / f"{name}.tif", pixels, tile=(256, 256), photometric="rgb", **resolution)
    return folder


@pytest.fixture(scope="module")
def alone(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the result of the same job with a folder."""
    out = tmp_path_factory.mktemp("alone")
    list(segment(slides / "slide.tif", MODEL, out, QUICK))
    return out


def finish(job: Job) -> Finished:
    *_, last = job
    assert isinstance(last, Finished)
    return last


def without_times(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files of a result without the times at which they were made; a picture's header has one, too."""
    moment = rb"20\d\d-\d\d-\d\d[T ]\d\d:\d\d[\d:.+]*"
    return {name: re.sub(moment, b"", content) for name, content in files.items() if not name.endswith(".png")}


def on_disk(folder: Path) -> dict[str, bytes]:
    return {one.relative_to(folder).as_posix(): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def uploaded(requests: list[tuple[str, str]]) -> list[str]:
    """Return the names of the results that were uploaded, in this order."""
    return [name for method, name in requests if method == "PUT" and "/.uploading-" not in name]


def test_the_page_works(
    bucket: Bucket, slides: Path, alone: Path, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(slides, tmp_path / "slides")
    shutil.copy(slides / "slide.tif", tmp_path)
    shutil.copytree(MODEL, tmp_path / "run")
    page = [one for one in blocks(DOCS / "how-to" / "object-store.md") if one.language in ("console", "python")]
    assert len(page) == 3
    for block in page:
        text = block.text.replace("s3://bucket/", f"s3://{bucket.name}/")
        follow(type(block)(block.language, text, block.where), tmp_path)
    held = bucket.contents("slide/")
    assert held.keys() == on_disk(alone).keys()
    assert [path.name for path in cache.iterdir()] == ["downloads"]  # nothing is left of what was uploaded
    with (tmp_path / "cohort.csv").open(newline="", encoding="utf-8") as file:
        assert {row["slide"] for row in csv.DictReader(file)} >= {"slide", "other"}
    assert json.loads((tmp_path / "slide.geojson").read_text(encoding="utf-8"))["features"]
    everything = [*bucket.contents().values(), *on_disk(cache).values(), "".join(capfd.readouterr()).encode()]
    assert not any(secret.encode() in one for one in everything for secret in (KEY, SECRET))


def test_resuming_leaves_replaces_or_refuses_as_in_a_folder(
    bucket: Bucket, slides: Path, call: Called, cache: Path
) -> None:
    address = f"s3://{bucket.name}/one"
    command = ["segment", slides / "slide.tif", "--model", MODEL, "--out", address, "--set", "segment.device=cpu"]
    assert call(*command) == 0, call.error
    puts = uploaded(bucket.requests())
    assert puts[-1] == f"one/{ROOT}"
    assert len(puts) == len(set(puts)) == len(bucket.contents("one/"))
    assert call(*command) == 2
    assert f"{address}/slide.ome.zarr exists already; use --resume to continue it" in call.error
    bucket.requests()
    assert call(*command, "--resume") == 0
    assert f"The result is there already: {address}/slide.ome.zarr" in call.error
    assert {name for method, name in bucket.requests() if "json" in name or method != "GET"} == {
        f"one/{ROOT}",
        "one/slide.ome.zarr/labels/tissue/zarr.json",
    }
    assert call(*command, "--resume", "--set", "thresholds.delta=0.6") == 0
    requests = bucket.requests()
    assert ("DELETE", f"one/{ROOT}") in requests
    puts = uploaded(requests)
    assert puts[-1] == f"one/{ROOT}"
    assert not [name for name in puts if re.search(r"zarr/\d+/c/", name)]  # the scores are there
    store = ScoreStore.open(Path(finish(fetch_results(f"{address}/slide.ome.zarr")).summary["folder"]))
    assert open_labels(store)[1].thresholds.delta == 0.6
    assert call(*command, "--resume", "--set", "segment.overlap=16") == 2
    assert f"{address}/slide.ome.zarr was begun with another setting" in call.error
    other = ["segment", slides / "other.tif", "--model", MODEL, "--out", address, "--set", "segment.device=cpu"]
    for option in ("--resume", "--overwrite"):
        assert call(*other, option) == 2
        assert f"{address} holds the result of another slide (slide.ome.zarr)" in call.error
    assert not (cache / "uploads").exists() or not any((cache / "uploads").iterdir())


def test_an_upload_that_ends_is_no_result_and_is_gone_on_with(
    bucket: Bucket, slides: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_AT_ONCE", 4)
    address = f"s3://{bucket.name}/one"

    def job(resume: bool) -> Job:
        return segment(slides / "slide.tif", MODEL, address, QUICK, resume=resume, scratch=tmp_path / "scratch")

    begun = job(False)
    uploading = False
    for event in begun:
        uploading |= isinstance(event, Started) and event.job.startswith("Uploading")
        if uploading and isinstance(event, Step):
            break
    begun.close()
    held = bucket.contents("one/")
    assert 0 < len(held) < len(on_disk(alone))
    assert ROOT not in held
    with pytest.raises(OutputError, match=f"There is no result at {address};"):
        list(fetch_results(address))
    with pytest.raises(OutputError, match="exists already; use `resume=True`"):
        list(job(False))
    bucket.requests()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(OutputError, match="may not be read with the credentials of this environment"):
        list(job(True))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    finish(job(True))
    puts = [name.removeprefix("one/") for method, name in bucket.requests() if method == "PUT"]
    chunks = {name for name in held if "/c/" in name}
    assert chunks
    assert not chunks & set(puts)
    assert without_times(bucket.contents("one/")) == without_times(on_disk(alone))
    labels = zarr.open_array(f"{address}/slide.ome.zarr/labels/tissue/0", mode="r")[:]  # in place, as other programs do
    np.testing.assert_array_equal(labels, zarr.open_array(alone / "slide.ome.zarr/labels/tissue/0", mode="r")[:])
    assert not list((tmp_path / "scratch").rglob("*.zarr"))


def test_an_upload_that_fails_says_where_the_result_is_kept(
    bucket: Bucket, slides: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"s3://{bucket.name}/one"
    with pytest.raises(OutputError, match=r"What was computed is kept in .*; `resume=True` goes on") as raised:
        for event in segment(slides / "slide.tif", MODEL, address, QUICK):
            if isinstance(event, Started) and event.job.startswith("Uploading"):
                for name in bucket.contents():
                    bucket.client.delete_object(Bucket=bucket.name, Key=name)
                bucket.client.delete_bucket(Bucket=bucket.name)
    assert f"There is no {address}" in str(raised.value)
    assert [path.name for path in cache.glob("uploads/*/result/*.zarr")] == ["slide.ome.zarr"]
    bucket.client.create_bucket(Bucket=bucket.name)
    computed = [e for e in segment(slides / "slide.tif", MODEL, address, QUICK, resume=True) if isinstance(e, Started)]
    assert computed[0].done == computed[0].total
    assert ROOT in bucket.contents("one/")


def test_two_machines_do_not_mix_results_of_a_slide_at_one_address(
    bucket: Bucket, slides: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_AT_ONCE", 4)
    address, coarse = f"s3://{bucket.name}/one", QUICK.model_copy(update={"overlap": 16})

    def job(machine: str, settings: SegmentSettings, **how: bool) -> Job:
        return segment(slides / "slide.tif", MODEL, address, settings, scratch=tmp_path / machine, **how)

    first = job("first", QUICK)
    uploading = False
    for event in first:
        uploading |= isinstance(event, Started) and event.job.startswith("Uploading")
        if uploading and isinstance(event, Step):
            break
    by_name = f"Process {os.getpid()} on {re.escape(socket.gethostname())} is uploading to {address}; wait until"
    for machine, settings in (("same", QUICK), ("other", coarse)):
        with pytest.raises(OutputError, match=f"{by_name}.* What was computed is kept in .*`resume=True` goes on"):
            list(job(machine, settings))
    list(first)
    results = without_times(bucket.contents("one/"))
    assert results == without_times(on_disk(alone))
    assert finish(job("same", QUICK, resume=True)).summary["already"]
    with pytest.raises(OutputError, match=r"another result\. What was computed is kept in .* with `overw"):
        list(job("other", coarse, resume=True))
    assert without_times(bucket.contents("one/")) == results
    computed = [one for one in job("other", coarse, resume=True, overwrite=True) if isinstance(one, Started)]
    assert computed[0].done == computed[0].total  # no tile is computed again
    assert json.loads(bucket.contents("one/")[ROOT])["attributes"]["pbip"]["settings"]["overlap"] == 16
    assert not [name for name in bucket.contents("one/") if "uploading" in name]
    assert not [path for path in tmp_path.glob("*/*") if path.parent.name in ("first", "same", "other")]


def test_what_a_person_made_is_kept_when_a_result_is_replaced(
    bucket: Bucket, slides: Path, alone: Path, tmp_path: Path
) -> None:
    address = f"s3://{bucket.name}/one"
    corrected = ScoreStore.open(shutil.copytree(alone, tmp_path / "corrected") / "slide.ome.zarr")
    editor = CorrectionEditor(corrected.corrections, "Jane")
    corrected.corrections.cells[:5, :5] = 1
    editor.save()
    editor.close()
    by_hand = {name: content for name, content in on_disk(tmp_path / "corrected").items() if "/corrections/" in name}
    assert by_hand
    for name, content in {**on_disk(alone), **by_hand}.items():
        bucket.put(f"one/{name}", content)
    bucket.put("one/regions.geojson", REGIONS)
    bucket.put("one/notes.txt", b"of mine")
    bucket.put(f"one/other-slide/{ROOT}", b"of another slide")
    bucket.put("one/slide.ome.zarr/0/c/0/9/9", b"of an earlier version")
    coarse = QUICK.model_copy(update={"overlap": 16})
    with pytest.raises(OtherResult):
        list(segment(slides / "slide.tif", MODEL, address, coarse, resume=True))
    summary = finish(segment(slides / "slide.tif", MODEL, address, coarse, overwrite=True)).summary
    assert {row["region"] for row in summary["areas"]} == {"", "bed"}
    held = bucket.contents("one/")
    assert (held["notes.txt"], held[f"other-slide/{ROOT}"]) == (b"of mine", b"of another slide")
    assert {name: held[name] for name in by_hand} == by_hand
    assert "slide.ome.zarr/0/c/0/9/9" not in held
    assert json.loads(held[ROOT])["attributes"]["pbip"]["settings"]["overlap"] == 16


def test_a_copy_is_made_once_holds_results_alone_and_follows_changes(
    bucket: Bucket, alone: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = on_disk(alone)
    for name, content in files.items():
        bucket.put(f"all/one/{name}", content)
        if name != ROOT:
            bucket.put(f"all/begun/{name}", content)
    for other in ("all/notes.txt", "all/one/../../../outside.txt", f"all/one/slide.ome.zarr/../../../{ROOT}"):
        bucket.put(other, b"no result")
    assert any("../" in name for name in bucket.contents("all/"))
    address = f"s3://{bucket.name}/all"
    folder = Path(finish(fetch_results(address)).summary["folder"])
    assert on_disk(folder) == {f"one/{name}": content for name, content in files.items()}
    assert {path.name for path in folder.parent.iterdir() if path.name[0] != "."} == {"copy.json", "results"}
    assert {path.name for path in (cache / "downloads").iterdir()} == {folder.parent.name}
    bucket.requests()
    assert Path(finish(fetch_results(f"{address}/")).summary["folder"]) == folder
    assert not [name for method, name in bucket.requests() if method == "GET" and "json" in name]
    bucket.put("all/one/areas.csv", b"changed")
    (folder / "one" / ROOT).unlink()
    bucket.client.delete_object(Bucket=bucket.name, Key="all/one/overlay.png")
    list(fetch_results(address))
    expected = {f"one/{name}": content for name, content in files.items() if name != "overlay.png"}
    assert on_disk(folder) == {**expected, "one/areas.csv": b"changed"}
    assert {name for method, name in bucket.requests() if method == "GET" and "." in name.rpartition("/")[2]} == {
        "all/one/areas.csv",
        f"all/one/{ROOT}",
    }


def test_copies_are_deleted_when_there_are_too_many_but_none_that_is_in_use(
    bucket: Bucket, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = {f"slide.ome.zarr/{name}": b"{}" for name in ("zarr.json", STORE_MARKER)}

    def fetch(name: str) -> Path:
        return Path(finish(fetch_results(f"s3://{bucket.name}/{name}")).summary["folder"]).parent

    for one in "abcd":
        for name, content in {**store, "areas.csv": bytes(1000)}.items():
            bucket.put(f"{one}/{name}", content)
    places = [fetch(name) for name in "abc"]
    for used, place in enumerate(places):
        os.utime(place / "copy.json", (used, used))
    monkeypatch.setattr(fetching, "LIMIT", 3 * 1000)
    fetch("d")
    assert all(place.exists() for place in places)  # this process may read them
    for place in places[1:]:  # as if processes that had fetched them had ended
        claims._read_here.pop(place).release()
    with claims.claim(places[1], "fetching results"):  # is being brought up to date
        fetch("d")
    assert [place.exists() for place in places] == [True, True, False]
    fetch("b")  # is there still
    assert len(list((cache / "downloads").iterdir())) == 3
    assert places[1].exists()


def test_a_copy_has_the_regions_of_its_slide(bucket: Bucket, alone: Path, cache: Path) -> None:
    for name, content in on_disk(alone).items():
        bucket.put(f"one/{name}", content)
        bucket.put(f"one/further-maps/other/{name}", content)
    bucket.put("one/regions.geojson", REGIONS)
    for place, stores in (
        ("", [".", "further-maps/other"]),
        ("/slide.ome.zarr", [""]),
        ("/further-maps", ["other"]),
        ("/further-maps/other", ["."]),
        ("/further-maps/other/slide.ome.zarr", [""]),
    ):
        folder = Path(finish(fetch_results(f"s3://{bucket.name}/one{place}")).summary["folder"])
        for store in stores:
            opened = ScoreStore.open(folder / store / "slide.ome.zarr" if store else folder)
            assert set(opened.regions.shapes) == {"bed"}, place


def test_several_slides_have_folders_there_by_which_they_are_known_again(
    bucket: Bucket, slides: Path, call: Called, tmp_path: Path
) -> None:
    shutil.copytree(slides, tmp_path / "slides")
    (tmp_path / "slides" / "damaged.svs").write_bytes(b"no slide")
    address, scratch = f"s3://{bucket.name}/cohort", tmp_path / "scratch"
    last = finish(segment_slides([tmp_path / "slides" / "slide.tif"], MODEL, address, QUICK, ThresholdSettings()))
    assert last.output is None
    (first,) = {name.partition("/")[0] for name in bucket.contents("cohort/")}
    (tmp_path / "slides" / "slide.tif").rename(tmp_path / "slides" / "renamed.tif")
    command = ["segment", tmp_path / "slides", "--model", MODEL, "--out", address, "--scratch", scratch, "--resume"]
    assert call(*command, "--set", "segment.device=cpu", "--set", "segment.precision=float32") == 1
    assert f"Results of 2 slides in {address} (1 were there already)" in call.error
    assert "damaged.svs failed" in call.error
    folders = {name.partition("/")[0] for name in bucket.contents("cohort/")}
    assert len(folders) == 2
    assert first in folders
    assert not list(scratch.rglob("*.zarr"))


def test_what_is_no_address_of_results_is_one_sentence(
    bucket: Bucket, slides: Path, alone: Path, call: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def refused(out: str) -> str:
        assert call("segment", slides / "slide.tif", "--model", MODEL, "--out", out) == 2
        return " ".join(call.error.split())

    assert "There is no s3://no-such-bucket/one" in refused("s3://no-such-bucket/one")
    assert call("segment", slides, "--model", MODEL, "--out", "s3://no-such-bucket/all") == 2
    assert "There is no s3://no-such-bucket/all" in call.error
    assert "must not have a password in it" in refused("s3://jane:secret@bucket/one")
    assert "is a folder of this machine; give its path." in refused(f"file://{tmp_path}/one")
    assert "is no address of an object store" in refused("nonsense://bucket/one")
    assert call("statistics", f"s3://{bucket.name}/none", "--out", "cohort.csv") == 2
    assert f"There is no result at s3://{bucket.name}/none; name a <slide>.ome.zarr" in call.error
    for command in (
        ["bank", "build", samples.tiles(), "--out", "s3://bucket/bank"],
        ["evaluate", MODEL, samples.tiles(), "--json", "s3://bucket/scores.json"],
        ["replay", samples.project(), "--out", "s3://bucket/again"],
        ["export", alone / "slide.ome.zarr", "--format", "csv", "--out", "s3://bucket/areas.csv"],
        ["pack", MODEL, "--out", "s3://bucket/model.zip"],
        ["train", "--data", samples.tiles(), "--out", "s3://bucket/run"],
    ):
        assert call(*command) == 2
        assert "looks like an address, and only `segment` writes to one" in call.error
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert "run `pip install napari-pbip[remote]`." in refused("s3://bucket/one")
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())
