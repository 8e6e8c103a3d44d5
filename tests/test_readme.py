"""The commands of the documentation run in the order of the pages, on the bundled tissue."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from napari_pbip.bank import Curation
from napari_pbip.bank.slide_labels import SlideLabels
from napari_pbip.cli import app
from napari_pbip.engine.banks.cut_tiles import cut_tiles
from napari_pbip.events import Finished
from napari_pbip.slides import SlideFacts, open_slide
from tests.hub import TOKEN, Hub

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorials" / "command-line.md"
FOLLOWED_ELSEWHERE = {
    *("add-a-method", "add-an-encoder", "add-a-slide-reader"),  # they install packages: tests/test_plugins.py
    "cluster",  # its script for Slurm: tests/cli/test_cluster.py
    "object-store",  # with a server of S3: tests/cli/test_object_store.py
    "from-a-map-to-a-corrected-cohort",  # in the window: tests/gui/test_corrected_cohort.py
}
HOW_TO = sorted(p for p in (DOCS / "how-to").glob("*.md") if p.stem not in FOLLOWED_ELSEWHERE)
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    where: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    fence = re.compile(r"^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
    return [
        Block(m["language"], textwrap.dedent(m["text"]), f"{page.name}:{text[: m.start()].count(chr(10)) + 1}")
        for m in fence.finditer(text)
    ]


def commands(page: Path) -> list[list[str]]:
    """Return every call of napari-pbip on a page, split as a shell does."""
    lines = [line for block in blocks(page) if block.language == "console" for line in block.text.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("napari-pbip ")]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the whole tutorial was done."""
    folder = tmp_path_factory.mktemp("reader")
    for block in blocks(TUTORIAL):
        follow(block, folder)
    return folder


def follow(block: Block, folder: Path) -> None:
    """Run a block in this process, because importing torch again for each line would take most of the time."""
    with contextlib.chdir(folder):
        match block.language:
            case "python":
                exec(compile(block.text, block.where, "exec"), {"__name__": "__main__"})
            case "yaml":
                Path("job.yaml").write_text(block.text, encoding="utf-8")
            case "console":
                for line in block.text.splitlines():
                    program, *arguments = shlex.split(line)
                    assert program == "napari-pbip", f"{block.where}: {line}"
                    result = CliRunner().invoke(app, arguments)
                    assert result.exit_code == 0, f"{block.where}: {line}\n{result.output}{result.exception!r}"


def test_the_tutorial_leaves_what_it_says(reader: Path):
    for name in ("bank/sheets", "nearest.json", "run/best.safetensors", "run-of-file/run.json", "scores.json"):
        assert (reader / name).exists()
    assert {path.name for path in (reader / "result").iterdir()} == {"slide.ome.zarr", "overlay.png", "areas.csv"}


def test_the_file_formats_page_names_all_files(reader: Path, sample_slide: Path, tmp_path: Path):
    shutil.copytree(reader / "bank", tmp_path / "bank")
    Curation().remove(["a" * 64]).write(tmp_path / "bank")
    labels = SlideLabels()
    with open_slide(sample_slide) as slide:
        shape = {"mpp": slide.require_mpp(), "width": slide.width, "height": slide.height}
        labels.add_slide(SlideFacts(identity=slide.identity, name=slide.name, path=slide.path, **shape))
        labels.label(slide.identity, [(2, 3)], {0})
    *_, last = cut_tiles(labels.snapshot(), tmp_path / "tiles")
    assert isinstance(last, Finished)
    arguments = ["pseudo", str(reader / "run"), str(reader / "tiles"), "--out", str(tmp_path / "pseudo")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    pages = [block.text.splitlines() for block in blocks(DOCS / "reference" / "file-formats.md")]
    folders = {"bank/": tmp_path, "tiles/": tmp_path, "run/": reader, "pseudo/": tmp_path, "result/": reader}
    assert [page[0] for page in pages] == list(folders)
    for folder, *lines in pages:
        named = {name.strip().rstrip("/") for line in lines for name in line[:28].split(",")}
        assert named == {path.name for path in (folders[folder] / folder).iterdir()} - {"sheets"}


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's library, about its own call
def test_how_to_pages_work_after_the_tutorial(page: Path, reader: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    found = blocks(page)
    assert found
    for block in found:
        follow(block, reader)


def test_from_qupath_and_back(tmp_path: Path):
    for block in blocks(DOCS / "tutorials" / "qupath.md"):
        follow(block, tmp_path)
    drawn, mapped = (json.loads((tmp_path / f"{name}.geojson").read_text()) for name in ("skin", "skin-map"))
    classes = [{f["properties"]["classification"]["name"] for f in file["features"]} for file in (drawn, mapped)]
    assert classes[0] == {"epidermis", "dermis", "keratin"}
    assert classes[0] <= classes[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_need_public_names_alone(page: Path):
    code = [block.text for block in blocks(page) if block.language == "python"]
    assert not [text for text in code if re.search(r"^\s*(from|import) napari_pbip\.", text, re.MULTILINE)]


def test_the_readme_has_the_two_commands():
    lines = [line for block in blocks(ROOT / "README.md") for line in block.text.splitlines()]
    assert [line for line in lines if "tox" in line] == [
        "python -m pip install tox && tox run -e demo",
        "python -m pip install tox && tox run",
    ]


def test_commands_of_the_readme_exist_with_these_options():
    """With --help nothing runs, but an unknown command or option is refused; the tutorial runs similar commands."""
    calls = commands(ROOT / "README.md")
    assert len(calls) >= 6
    for arguments in calls:
        result = CliRunner().invoke(app, [*arguments, "--help"])
        assert result.exit_code == 0, (arguments, result.output)
    assert CliRunner().invoke(app, ["segment", "--no-such-option", "--help"]).exit_code == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing
