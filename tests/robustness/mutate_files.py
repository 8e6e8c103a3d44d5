"""Open damaged files of this package: each is read as before, or refused in one sentence.

``python -m tests.robustness.mutate_files --cases 1000`` is the long form. A file of the kept formats
(tests/data/formats) is changed at random: bytes (cut, flipped, zeroed, replaced, gone, a folder in its place) or, where
it is JSON or YAML, values (of another kind, huge, missing, unknown). Then everything that the product does with it is
done.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from napari_pbip import samples
from napari_pbip.bank import Curation, ImageBank, bank_warnings, cluster_table, near_duplicates
from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.bank.slide_labels import SlideLabels
from napari_pbip.config import CompareJob, JobSettings, ThresholdSettings, planned_runs
from napari_pbip.engine.compare import compare
from napari_pbip.engine.run_facts import runs_in
from napari_pbip.engine.runs import load_model
from napari_pbip.engine.training.train import train
from napari_pbip.errors import PbipError
from napari_pbip.models import backbones, encoders
from napari_pbip.results import ScoreStore, areas, open_labels, write_labels
from napari_pbip.results.label_image import is_label_image, open_label_image
from napari_pbip.results.overlay import labels_like
from napari_pbip.results.places import stores_in
from napari_pbip.slides import TissueMask, open_slide
from napari_pbip.slides.mpp import read_sidecar
from tests.data.formats.make import weak_data

FORMATS = Path(__file__).parents[1] / "data" / "formats"
LIMIT = 60
"""Seconds after which something hangs."""
_VALUES: tuple[Any, ...] = (
    None,
    -1,
    0,
    1e308,
    10**30,
    True,
    "",
    "x",
    "../../x",
    [],
    {},
    [None],
    {"x": 1},
    float("nan"),
)


def unpack(root: Path) -> Path:
    """Unpack the kept formats, and the tiles with which a run is resumed."""
    kept = root / "kept"
    shutil.copytree(FORMATS, kept, ignore=shutil.ignore_patterns("*.py", "*.md", "__pycache__"))
    for packed in kept.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    weak_data(root / "weak")
    for file in ("run/run.json", "comparison/compare.yaml", "comparison/runs/cam/seed3/scores.json"):
        text = (kept / file).read_text(encoding="utf-8")
        (kept / file).write_text(text.replace("/data/weak", str(root / "weak")), encoding="utf-8")
    return kept


# what the product does with each kind ------------------------------------------------------------------------------


def use_bank(folder: Path) -> None:
    bank = ImageBank.read(folder)
    bank_warnings(bank, near_duplicates(bank), Curation.read(folder))
    cluster_table(bank)


def use_run(folder: Path) -> None:
    runs_in(folder.parent)
    for which in ("best", "last"):
        load_model(folder, which)
    settings = json.loads((FORMATS / "run" / "run.json").read_text(encoding="utf-8"))["settings"]
    settings["data"]["folder"] = str(folder.parents[1] / "weak")
    with closing(train(JobSettings.parse(settings), folder, resume=True)) as job:
        for _ in job:
            pass


def use_pretrained(folder: Path) -> None:
    backbones.load("mit-b0", folder)
    encoders.load("pretrained", folder)


def use_store(folder: Path) -> None:
    stores_in(folder.parent)
    store = ScoreStore.open(folder)
    for level, array in enumerate(store.scores):
        store.read_scores(level, slice(0, array.shape[1]), slice(0, array.shape[2]))
    np.count_nonzero(store.done)
    store.presence()
    store.peak()
    areas(store)
    open_labels(store)
    labels_like(store, 100, 75)
    if is_label_image(folder / "labels" / "tissue"):
        open_label_image(folder / "labels" / "tissue")
    with ScoreStore.open(folder, "r+") as growing:
        growing.kept()
        growing.blender()
    write_labels(store, ThresholdSettings())


def use_labels(folder: Path) -> None:
    labelled = LabelledSlides.read(folder)
    if labelled is not None:
        SlideLabels.from_labelled(labelled).snapshot().write(folder)


def use_tissue(file: Path) -> None:
    with open_slide(samples.slide()) as slide:
        TissueMask.read(file, slide)


def use_comparison(folder: Path) -> None:
    values = CompareJob.read_values(folder / "compare.yaml")
    planned_runs(values)
    values["data"]["folder"] = str(folder.parents[1] / "weak")
    with closing(compare(values, folder)) as job:
        for event in job:
            if getattr(event, "done", 0) or getattr(event, "values", None):
                break  # it trains again: what was damaged is made anew


_RESULT = "project/results/CMU-1-Small-Region"
USES: dict[str, Callable[[Path], object]] = {
    "bank": use_bank,
    "run": use_run,
    "pretrained": use_pretrained,
    f"{_RESULT}/CMU-1-Small-Region.ome.zarr": use_store,
    "project/tiles": use_labels,
    f"{_RESULT}/tissue.png": use_tissue,
    "settings/job.yaml": JobSettings.read,
    "comparison": use_comparison,
    "sidecar/slide.tif": read_sidecar,
}
_UNREAD = {".jpg", ".csv"}
"""Pictures and tables for people."""


# damage ------------------------------------------------------------------------------------------------------------


def damage(file: Path, rng: random.Random) -> str:
    """Change a file at random; return how."""
    if file.suffix in (".json", ".yaml") and rng.random() < 0.6:
        return _change_value(file, rng)
    content = bytearray(file.read_bytes())
    size = len(content)
    match how := rng.choice(["cut", "empty", "flip", "zero", "insert", "garbage", "gone", "folder", "twice"]):
        case "cut":
            del content[rng.randrange(size or 1) :]
        case "empty":
            content.clear()
        case "flip":
            for _ in range(rng.choice([1, 3, 30]) if size else 0):
                content[rng.randrange(min(size, 4096))] ^= 1 << rng.randrange(8)
        case "zero":
            start = rng.randrange(size or 1)
            content[start : start + 64] = bytes(len(content[start : start + 64]))
        case "insert":
            start = rng.randrange(size or 1)
            content[start:start] = rng.randbytes(9)
        case "garbage":
            content[:] = rng.randbytes(min(size, 5000) + 1)
        case "twice":
            content += bytes(content)
    if how in ("gone", "folder"):
        file.unlink()
        if how == "folder":
            file.mkdir()
    else:
        file.write_bytes(content)
    return how


def _change_value(file: Path, rng: random.Random) -> str:
    load, dump = (json.loads, json.dumps) if file.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
    document = load(file.read_text(encoding="utf-8"))
    places = list(_places(document))
    if not places:
        return "left"
    holder, key = rng.choice(places)
    match how := rng.choice(["value", "value", "value", "missing", "unknown"]):
        case "value":
            holder[key] = value = rng.choice(_VALUES)
            how = f"{key} = {value!r}"
        case "missing":
            del holder[key]
            how = f"no {key}"
        case _ if isinstance(holder, dict):
            holder["unknown"] = 1
    file.write_text(dump(document), encoding="utf-8")
    return how


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


# trying ------------------------------------------------------------------------------------------------------------


@contextmanager
def _time_limit() -> Iterator[None]:
    def hang(*_: object) -> None:
        raise TimeoutError(f"still at it after {LIMIT} s")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def case(number: int, kept: Path) -> tuple[str, str | None]:
    """Try a case; return its name, and what is wrong with its outcome, or None."""
    rng = random.Random(number)
    kind = list(USES)[number % len(USES)]
    place = kept / kind
    files = (
        [place] if place.is_file() else sorted(f for f in place.rglob("*") if f.is_file() and f.suffix not in _UNREAD)
    )
    if kind.startswith("sidecar"):
        files = [place.with_name("slide.tif.mpp.json")]
    file = rng.choice(files)
    whole = kept.with_name("whole")
    whole_folder = place if place.is_dir() else place.parent
    if whole.exists():
        shutil.rmtree(whole)
    shutil.copytree(whole_folder, whole)
    name = f"{number}: {file.relative_to(kept)}"
    try:
        name += f", {damage(file, rng)}"
        with _time_limit():
            USES[kind](place)
    except PbipError as error:
        return name, f"not one sentence: {error}" if "\n" in str(error) or not str(error).strip() else None
    except Exception:  # noqa: BLE001  # this is what is looked for
        return name, traceback.format_exc()
    finally:
        shutil.rmtree(whole_folder)
        shutil.copytree(whole, whole_folder)
    return name, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        kept = unpack(Path(folder))
        for number in range(options.first, options.first + options.cases):
            name, fault = case(number, kept)
            if fault is not None:
                faults += 1
                sys.stdout.write(f"{name}\n{fault}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{options.cases} cases, {faults} faults\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
