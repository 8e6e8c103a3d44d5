"""Jobs on a real cluster: a scheduler and workers in processes of their own, which are killed in the middle."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from distributed import Client

from napari_pbip import samples
from napari_pbip.bank import ImageBank, load_single_tiles
from napari_pbip.bank.features import FEATURES
from napari_pbip.config import BankSettings, JobSettings, SegmentSettings
from napari_pbip.engine.banks.build_bank import build_bank
from napari_pbip.engine.cluster.connect import connected
from napari_pbip.engine.compare import compare
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.inference.segment_slides import segment_slides
from napari_pbip.engine.outputs.cohort_statistics import cohort_statistics
from napari_pbip.errors import ClusterError, ConfigError, SlideError
from napari_pbip.events import Event, Finished, RegionDone, RunStep, Started, Step, Warned
from napari_pbip.results.blend import Region
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import Slide
from tests.engine import slow_disk
from tests.engine.conftest import settings_for
from tests.object_store import Bucket, serving
from tests.waiting import PATIENCE, wait_until

QUICK = SegmentSettings(precision="float32", device="cpu", batch_size=2)
pytestmark = pytest.mark.filterwarnings("ignore:.*:ResourceWarning")  # sockets of processes that were killed


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Let networks have one thread here, as in the workers; with several, they sum in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Processes:
    """A scheduler at an address and workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = folder / "scheduler.json"
        self._running: list[subprocess.Popen[bytes]] = []
        self._port = 0
        self.start_scheduler()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._port}"

    def _start(self, program: str, *arguments: object, first: Path | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{program}", *map(str, arguments)]
        modules = os.pathsep.join([*([] if first is None else [str(first)]), *filter(None, sys.path)])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": modules}
        with (self._folder / f"{program}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self._folder)
        self._running.append(process)
        return process

    def start_scheduler(self) -> None:
        """Start the scheduler, the second time at the same address."""
        self._known.unlink(missing_ok=True)
        where = ("--host", "127.0.0.1", "--port", self._port, "--no-dashboard", "--scheduler-file", self._known)
        self.scheduler = self._start("dask_scheduler", *where)
        while not (self._known.exists() and self._known.read_text().rstrip().endswith("}")):  # complete
            assert self.scheduler.poll() is None, (self._folder / "dask_scheduler.log").read_text()
            time.sleep(0.05)
        self._port = int(json.loads(self._known.read_text())["address"].rpartition(":")[2])

    def start_workers(self, count: int) -> None:
        options = ("--nworkers", count, "--nthreads", 1, "--no-dashboard", "--local-directory", self._folder)
        self._start("dask_worker", self.address, *options)
        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=PATIENCE)

    def end_workers(self) -> None:
        """End all workers, as a batch system does at the end of their time."""
        for process in self._running:
            if process is not self.scheduler:
                process.terminate()

    @contextmanager
    def worker_with(self, first: Path) -> Iterator[None]:
        """Have a worker that finds packages in a folder first."""
        options = ("--no-nanny", "--no-dashboard", "--local-directory", self._folder)
        with Client(self.address, set_as_default=False) as client:
            count = len(client.nthreads())
            worker = self._start("dask_worker", self.address, *options, first=first)
            client.wait_for_workers(count + 1, timeout=PATIENCE)
            yield
            worker.kill()
            wait_until(lambda: len(client.nthreads()) == count)

    def close(self) -> None:
        for process in self._running:  # a worker that is asked to end may wait for ever for another one that was killed
            process.kill()
        for process in self._running:
            process.wait()


@contextmanager
def processes(folder: Path) -> Iterator[Processes]:
    with closing(Processes(folder)) as started:
        yield started


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with processes(tmp_path_factory.mktemp("cluster")) as started:
        started.start_workers(2)
        yield started


CONNECT_SECONDS = "napari_pbip.engine.cluster.connect._CONNECT_SECONDS"
WORKER_SECONDS = "napari_pbip.engine.cluster.workers._WORKER_SECONDS"


@pytest.fixture(autouse=True)
def _however_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a scheduler have the time to answer that it needs on a busy machine."""
    monkeypatch.setattr(CONNECT_SECONDS, PATIENCE)


@pytest.fixture(scope="module")
def slide(sample_pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a part of the sample slide, of which the sample model computes some fifty tiles."""
    path = tmp_path_factory.mktemp("slide") / "part.tif"
    resolution = {"resolution": (1e4 / 0.499, 1e4 / 0.499), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, sample_pixels[1200:2000, 600:1400], tile=(256, 256), photometric="rgb", **resolution)
    return path


MODEL = samples.project() / "model"


@pytest.fixture(scope="module")
def alone(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the result of one process."""
    out = tmp_path_factory.mktemp("alone")
    list(segment(slide, MODEL, out, QUICK))
    return out


def contents(out: Path) -> dict[str, bytes]:
    """Return the bytes of the files of a result, without the times at which they were made."""
    files = [one for one in out.rglob("*") if one.is_file() and one.suffix != ".png"]  # whose header has the time
    moment = rb"20\d\d-\d\d-\d\d[T ]\d\d:\d\d[\d:.+]*"
    return {str(one.relative_to(out)): re.sub(moment, b"", one.read_bytes()) for one in files}


def progress(events: list[Event]) -> list[int]:
    return [event.done for event in events if isinstance(event, Step)]


def test_workers_give_the_bytes_of_one_process_and_one_that_is_killed_costs_nothing(
    cluster: Processes, slide: Path, alone: Path, tmp_path: Path
) -> None:
    events = []
    with Client(cluster.address, set_as_default=False) as client:
        victim = next(iter(client.run(os.getpid).values()))
        for event in segment(slide, MODEL, tmp_path, QUICK, scheduler=client):
            events.append(event)
            if isinstance(event, Step) and event.done and victim:
                os.kill(victim, signal.SIGKILL)
                victim = 0
        assert not victim
        assert client.status == "running"  # a client that was given stays open
    assert contents(tmp_path) == contents(alone)
    (started,) = (event for event in events if isinstance(event, Started))
    steps = progress(events)
    assert len(set(steps)) > 5
    assert steps == sorted(steps)
    assert steps[-1] == started.total
    assert any(isinstance(event, RegionDone) and event.complete for event in events)


def test_workers_segment_whole_slides_and_one_that_is_killed_costs_nothing(
    cluster: Processes, slide: Path, alone: Path, tmp_path: Path
) -> None:
    folder, out = slide.parent, tmp_path / "out"
    (folder / "damaged.svs").write_bytes(slide.read_bytes()[:1000])
    list(segment_slides([slide], MODEL, out, QUICK.model_copy(update={"overlap": 16})))  # is replaced
    events = []
    with Client(cluster.address, set_as_default=False) as client:
        pids, killed = client.run(os.getpid), False

        def busy() -> list[str]:
            return [worker for worker, tasks in client.processing().items() if tasks]

        client.run(slow_disk.answer_after, 0.1)  # so that it is not done before this hears of it
        for event in segment_slides([folder], MODEL, out, QUICK, overwrite=True, scheduler=client):
            events.append(event)
            if not killed and isinstance(event, RunStep) and "part.tif: " in event.run and "0 of" not in event.run:
                wait_until(lambda: len(busy()) == 1)  # the damaged slide is given up
                (working,) = busy()
                os.kill(pids[working], signal.SIGKILL)
                killed = True
                client.run(slow_disk.answer_after, 0, workers=[one for one in pids if one != working])
        assert killed
    assert isinstance(events[0], Started)
    assert events[0].total == 2
    assert any(isinstance(one, Warned) and one.message.startswith("damaged.svs failed") for one in events)
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.summary["failed"] == 1
    (result,) = (Path(one["store"]).parent for one in end.summary["slides"].values() if "store" in one)
    assert contents(result) == contents(alone)


def test_slow_disks_of_a_worker_and_of_the_writer_cost_only_time(
    cluster: Processes, slide: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ScoreStore.write_region

    def write_late(store: ScoreStore, region: Region) -> None:
        time.sleep(0.2)
        write(store, region)

    monkeypatch.setattr(ScoreStore, "write_region", write_late)
    with Client(cluster.address, set_as_default=False) as client:
        late = [next(iter(client.nthreads()))]
        client.run(slow_disk.answer_after, 0.1, workers=late)
        try:
            events = list(segment(slide, MODEL, tmp_path, QUICK, scheduler=client))
        finally:
            client.run(slow_disk.answer_after, 0, workers=late)
    (started,) = (event for event in events if isinstance(event, Started))
    assert progress(events)[-1] == started.total  # no tile was computed twice
    assert contents(tmp_path) == contents(alone)


def test_workers_upload_the_slides_that_they_segment(
    cluster: Processes, slide: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "damaged.svs").write_bytes(slide.read_bytes()[:1000])
    slides, scratch = [slide, tmp_path / "damaged.svs"], tmp_path / "scratch"
    with serving(tmp_path) as (endpoint, log), Client(cluster.address, set_as_default=False) as client:
        bucket = Bucket(endpoint, "bucket", log)
        client.wait_for_workers(2, timeout=PATIENCE)  # one may have been killed by another test
        client.run(exec, f"import os; os.environ.update({bucket.environment!r})")
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        *_, end = segment_slides(slides, MODEL, "s3://bucket/all", QUICK, scheduler=client, scratch=scratch)
        assert isinstance(end, Finished)
        assert end.summary["failed"] == 1, end.summary
        (result,) = (one["store"] for one in end.summary["slides"].values() if "store" in one)
        held = bucket.contents(result.removeprefix("s3://bucket/").rpartition("/")[0] + "/")
    for name, content in held.items():
        (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / name).write_bytes(content)
    assert contents(tmp_path / "there") == contents(alone)
    assert not list(scratch.rglob("*.zarr"))


def test_workers_encode_the_tiles_of_a_bank(cluster: Processes, tmp_path: Path) -> None:
    settings = BankSettings(k=2, batch_size=5)
    for name in ("LYM", "MUS"):
        shutil.copytree(samples.tiles() / name, tmp_path / "tiles" / name)
    tiles = load_single_tiles(tmp_path / "tiles")
    few = replace(tiles, tiles=tiles.tiles[1:])
    banks = {}
    for name, scheduler in (("one", None), ("workers", cluster.address)):
        list(build_bank(few, tmp_path / name, settings, scheduler=scheduler))
        *_, end = build_bank(tiles, tmp_path / name, settings, update=True, scheduler=scheduler)
        assert isinstance(end, Finished)
        assert end.summary["encoded"] == 1  # the others were known
        banks[name] = (ImageBank.read(tmp_path / name).identity, (tmp_path / name / FEATURES).read_bytes())
    assert banks["one"] == banks["workers"]


def test_workers_measure_the_results_of_a_cohort(
    cluster: Processes, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("seed0", "seed1", "unfinished"):
        shutil.copytree(alone, tmp_path / name)
    (unlabelled,) = (tmp_path / "unfinished").glob("*.ome.zarr/labels")
    shutil.rmtree(unlabelled)
    monkeypatch.chdir(tmp_path)  # workers have another folder
    stores = dict.fromkeys(sorted(Path().glob("*/*.ome.zarr")))
    tables = {}
    for name, scheduler in (("one", None), ("workers", cluster.address)):
        *events, end = cohort_statistics(stores, Path(f"{name}.csv"), scheduler=scheduler)
        assert isinstance(end, Finished)
        assert end.summary == {"slides": 1, "results": 2, "failed": 1}
        (warned,) = (event.message for event in events if isinstance(event, Warned))
        assert warned.startswith("unfinished/part.ome.zarr is left out: ")
        tables[name] = Path(f"{name}.csv").read_bytes()
    assert tables["one"] == tables["workers"]


def test_workers_make_the_runs_of_a_comparison(cluster: Processes, weak_data: Path, tmp_path: Path) -> None:
    shared = settings_for(weak_data, train={"steps": 2, "batch_size": 4}).model_dump(mode="json", exclude_unset=True)
    choices = {"cam": {"method.name": "cam"}, "fails": {"method.name": "pbip", "bank.encoder": "nonsense"}}
    compared = {"axes": {"method": choices}, "seeds": [0, 1], "pictures": 1}
    tables = {}
    for name, scheduler in (("one", None), ("workers", cluster.address)):
        events = list(compare(shared | {"compare": compared, "scheduler": scheduler}, tmp_path / name))
        end = events[-1]
        assert isinstance(end, Finished)
        assert end.summary["failed"] == 2
        ended = [event.run for event in events if isinstance(event, RunStep) and event.finished]
        assert sorted(ended) == ["cam, seed 0", "cam, seed 1", "fails, seed 0", "fails, seed 1"]
        tables[name] = {run: one["oracle/miou"] for run, one in end.summary["runs"].items() if not one["error"]}
    assert tables["one"] == tables["workers"]
    events = list(compare(shared | {"compare": compared, "scheduler": cluster.address}, tmp_path / "one"))
    assert not any(
        isinstance(event, RunStep) and event.values.get("loss") for event in events
    )  # finished runs are kept


def test_what_workers_cannot_do_is_said_in_a_sentence(
    cluster: Processes, slide: Path, sample_pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = Slide.from_array(sample_pixels[1200:2000, 600:1400], 0.499)
    with pytest.raises(SlideError, match="write it as OME-Zarr first, or leave `scheduler` out"):
        list(segment(array, MODEL, tmp_path / "array", QUICK, scheduler=cluster.address))
    with pytest.raises(ConfigError, match="scheduler"):
        JobSettings.parse({"scheduler": "local:none"})
    if Path("/proc/self/cwd").exists():  # a path at which each process sees something else
        monkeypatch.chdir(slide.parent)
        with pytest.raises(ClusterError, match=r"does not see /proc/self/cwd/part\.tif; use a folder that all"):
            list(segment(Path("/proc/self/cwd/part.tif"), MODEL, tmp_path / "unseen", QUICK, scheduler=cluster.address))
    facts = tmp_path / "napari_pbip-99.0.dist-info" / "METADATA"
    facts.parent.mkdir()
    facts.write_text("Metadata-Version: 2.1\nName: napari-pbip\nVersion: 99.0\n")
    with (
        cluster.worker_with(tmp_path),
        pytest.raises(ClusterError, match=r"has napari-pbip 99\.0, and this is .*; install one version everywhere"),
    ):
        list(segment(slide, MODEL, tmp_path / "other", QUICK, scheduler=cluster.address))


@pytest.fixture
def silent() -> Iterator[int]:
    """Return the port of a program that is no scheduler: it accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_an_address_at_which_no_scheduler_answers(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONNECT_SECONDS, 1.0)
    for address, reason in (
        ("tcp://127.0.0.1:1", "No scheduler answers at .*, not that of the dashboard"),
        (f"127.0.0.1:{silent}", "No scheduler answers at"),
        ("http://127.0.0.1:8787/status", "No scheduler answers at"),  # of the dashboard
        ("tcp://127.0.0.1", "No scheduler answers at"),
        ("tls://127.0.0.1:1", "asks for certificates"),
    ):
        began = time.monotonic()
        with pytest.raises(ClusterError, match=reason) as caught, connected(address):
            pass
        assert address in str(caught.value)
        assert time.monotonic() - began < PATIENCE


def test_without_workers_a_job_ends_and_says_how_to_start_some(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have not come, or have left: at the end of the time that a batch system gives them, for example."""
    folder, out = tmp_path / "cluster", tmp_path / "out"
    folder.mkdir()
    with processes(folder) as started:
        job = segment(slide, MODEL, out, QUICK, scheduler=started.address)
        with monkeypatch.context() as patch:
            patch.setattr(WORKER_SECONDS, 0.5)
            with pytest.raises(ClusterError, match=f"No worker has joined .*`dask worker {started.address}`"):
                list(job)
        started.start_workers(1)
        job = segment(slide, MODEL, out, QUICK, scheduler=started.address)
        assert any(isinstance(event, Started) for event in job)
        started.end_workers()
        monkeypatch.setattr(WORKER_SECONDS, 0.5)
        with pytest.raises(ClusterError, match=r"All workers of .* have left; what is finished is kept\..*resume"):
            list(job)


def test_a_scheduler_that_is_lost_ends_the_job_which_is_resumed(
    cluster: Processes, slide: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is the last test of the file, since the workers end with their scheduler."""
    monkeypatch.setattr(CONNECT_SECONDS, 10.0)  # for so long it is tried again
    done = 0
    with pytest.raises(ClusterError, match="has ended or can no longer be reached"):
        for event in segment(slide, MODEL, tmp_path, QUICK, scheduler=cluster.address):
            if isinstance(event, Step) and event.done:
                done = max(done, event.done)
                cluster.scheduler.kill()
    cluster.start_scheduler()
    cluster.start_workers(1)
    events = list(segment(slide, MODEL, tmp_path, QUICK, scheduler=cluster.address, resume=True))
    assert isinstance(events[-1], Finished)
    (started,) = (event for event in events if isinstance(event, Started))
    assert started.done == done > 0  # not a tile is lost, or computed again
    assert contents(tmp_path) == contents(alone)
