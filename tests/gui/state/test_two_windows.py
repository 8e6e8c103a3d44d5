"""Two windows with the same project: no labels are overwritten, and both users are informed."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import napari
import pytest

from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.gui.sessions import session_of
from tests.gui.docks.test_label_tiles import Bench
from tests.gui.qt_helpers import click

_OTHER = """
import sys
from pathlib import Path
from napari_pbip.bank.labelled_slides import LabelledSlides, TileSize
from napari_pbip.claims import claim
from napari_pbip.taxonomy import Taxonomy
folder = Path(sys.argv[1])
with claim(folder, "labelling"):
    print("have it", flush=True)
    sys.stdin.readline()
    LabelledSlides(Taxonomy.from_names(["mine", "theirs"]), TileSize(), (), ()).write(folder)
"""


@pytest.fixture
def second(viewer, settle):
    """Return another viewer with the same project."""
    other = napari.Viewer()
    session = session_of(other)
    session.folder = session_of(viewer).folder
    settle()
    yield other
    session.close()
    other.close()
    settle()
    del other, session
    gc.collect()


def names(folder):
    labelled = LabelledSlides.read(folder)
    return None if labelled is None else labelled.taxonomy.names


def rename(bench, name):
    bench.part.table.renamed.emit(0, name)


def test_the_second_window_waits_for_the_first(viewer, second, settle, sample_slide):
    first = Bench(viewer, settle, sample_slide)
    folder = first.session.tiles_folder
    rename(first, "AAA")
    settle(lambda: names(folder) == ("AAA", "stroma"))
    other = Bench(second, settle, sample_slide)
    assert f"another window (process {os.getpid()} on" in other.part.slide_notice.text()
    assert not other.part.tool_button.isEnabled()
    assert not other.part.add_button.isEnabled()
    assert other.labels.taxonomy.names == ("tumour", "stroma")
    assert names(folder) == ("AAA", "stroma")
    first.session.close()
    settle(lambda: other.labels.taxonomy.names == ("AAA", "stroma"))  # by itself, once the first is gone
    settle(lambda: other.part.tool_button.isEnabled())
    rename(other, "BBB")
    settle(lambda: names(folder) == ("BBB", "stroma"))


def test_of_two_windows_at_a_new_project_the_first_to_label_has_it(viewer, second, settle, sample_slide):
    first, other = Bench(viewer, settle, sample_slide), Bench(second, settle, sample_slide)
    folder = first.session.tiles_folder
    assert not folder.exists()
    first.switch_on()
    first.click(1, 2)
    assert len(first.labels) == 1
    other.switch_on()
    other.click(3, 3)
    settle(lambda: "another window" in other.part.slide_notice.text())
    assert len(other.labels) == 0  # not taken, and said so
    settle(lambda: names(folder) is not None and not first.session.jobs)
    labelled = LabelledSlides.read(folder)
    assert labelled is not None
    assert [dict(tiles) for tiles in labelled.tiles] == [{(1, 2): frozenset({0})}]


def test_another_process_has_the_labels(viewer, settle, sample_slide):
    folder = session_of(viewer).tiles_folder
    command = [sys.executable, "-c", _OTHER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().strip() == "have it"
        bench = Bench(viewer, settle, sample_slide)
        assert f"process {process.pid} on" in bench.part.slide_notice.text()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait() == 0
    settle(lambda: bench.labels.taxonomy.names == ("mine", "theirs"))
    settle(lambda: bench.part.add_button.isEnabled())
    click(bench.part.add_button)
    settle(lambda: names(folder) == ("mine", "theirs", "class 3"))


def test_a_window_that_only_looks_makes_no_folder(viewer, settle, sample_slide):
    bench = Bench(viewer, settle, sample_slide)
    bench.session.labelling.close()
    assert not bench.session.folder.exists()


def test_who_comes_back_to_a_project_while_its_tiles_are_cut_finds_the_last_labels(
    viewer, settle, sample_slide, tmp_path
):
    bench = Bench(viewer, settle, sample_slide)
    project, labelling = bench.session.folder, bench.session.labelling
    bench.switch_on()
    bench.click(1, 2)
    cutting = []
    labelling.cutting.connect(cutting.append)
    settle(lambda: cutting)
    bench.labels.clear()
    rename(bench, "AAA")
    bench.session.folder = tmp_path / "elsewhere"
    bench.session.folder = project
    assert labelling.labels.taxonomy.names == ("AAA", "stroma")
    assert len(labelling.labels) == 0
    settle(lambda: names(project / "tiles") == ("AAA", "stroma") and not bench.session.jobs)


def test_labels_that_could_not_be_saved_are_saved_when_the_project_is_left(viewer, settle, sample_slide, tmp_path):
    bench = Bench(viewer, settle, sample_slide)
    folder = bench.session.tiles_folder
    cutting = []
    bench.session.labelling.cutting.connect(cutting.append)
    bench.switch_on()
    bench.click(1, 2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pictures").write_text("in the way of the pictures")
    settle(lambda: cutting and not bench.session.jobs)
    (folder / "labels.json").unlink(missing_ok=True)
    (folder / "pictures").unlink()
    bench.session.folder = tmp_path / "elsewhere"
    settle(lambda: LabelledSlides.read(folder) is not None)
