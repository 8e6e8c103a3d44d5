"""A project that the jobs of the window made, made again by the command line, and compared file by file."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from napari_pbip import samples
from napari_pbip.bank import Curation, ImageBank, load_single_tiles
from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.cli import app
from napari_pbip.config import (
    BankSettings,
    DataSettings,
    JobSettings,
    SegmentSettings,
    ThresholdSettings,
    TissueSettings,
)
from napari_pbip.engine.banks.build_bank import build_bank
from napari_pbip.engine.banks.cut_tiles import cut_tiles
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.outputs.write_results import write_results
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.engine.sample_project import sample_labels
from napari_pbip.engine.training.train import train
from napari_pbip.project import Project, ProjectSlide
from napari_pbip.replay import SCRIPT, begin_replay, find_commands
from napari_pbip.results import ScoreStore
from napari_pbip.results.corrections import CorrectionEditor
from napari_pbip.results.places import FURTHER_MAPS, TISSUE, result_folder, stores_in
from napari_pbip.slides import find_tissue, open_slide, save_mpp
from tests.cli.conftest import Called
from tests.same_project import assert_same

THRESHOLDS = ThresholdSettings(delta=0.4, percentile=98.0)


def _labelled(slide: Path, most: int) -> LabelledSlides:
    """Return labels of a copy of the bundled slide, with at most so many tiles of each class."""
    labelled = sample_labels()
    kept = {}
    for place, given in labelled.tiles[0].items():
        if sum(given == other for other in kept.values()) < most:
            kept[place] = given
    facts = labelled.slides[0].model_copy(update={"path": slide})
    return replace(labelled, slides=(facts,), tiles=(kept,))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project in which everything was changed after it had been used."""
    work = tmp_path_factory.mktemp("it's here")
    slide, folder = work / "a slide's $copy.svs", work / "Anna's project"
    shutil.copy(samples.slide(), slide)
    tiles, bank, run = folder / "tiles", folder / "bank", folder / "models" / "model 1"
    list(cut_tiles(_labelled(slide, 5), tiles))
    data = DataSettings(folder=tiles, mpp=sample_labels().size.mpp, white_fraction=0.8)
    texture = BankSettings(encoder="texture", k=2, nearest=2)
    list(build_bank(load_single_tiles(tiles, data), bank, texture, data, update=True))
    first, second = ImageBank.read(bank).tiles[0], ImageBank.read(bank).tiles[-1]
    curation = Curation().remove([first.hash]).move([second.hash], sample_labels().taxonomy.names[0])
    list(build_bank(load_single_tiles(tiles, data), bank, texture, data, update=True, curation=curation))
    values = {
        "data": data,
        "bank": texture,
        "bank_folder": bank,
        "backbone": {"name": "mit-b0"},
        "train": {"steps": 2, "batch_size": 2},
    }
    settings = JobSettings.parse(values)
    list(train(settings, run))
    longer = settings.model_copy(update={"train": settings.train.model_copy(update={"steps": 3})})
    list(train(longer, run, resume=True))
    with open_slide(slide) as opened:
        out = result_folder(folder / "results", opened.name, opened.identity)
        mask = find_tissue(opened, TissueSettings())
        corrected = mask.array.copy()
        corrected[: len(corrected) // 2] = False
        replace(mask, array=corrected).write(out / TISSUE)
        used = SegmentSettings(mpp=0.6, tissue_mask=out / TISSUE)
        slides = (ProjectSlide.of(opened),)
    list(segment(slide, run, out, used, ThresholdSettings()))
    (store,) = stores_in(out)
    corrections = ScoreStore.open(store).corrections
    editor = CorrectionEditor(corrections, "A. Person")
    corrections.cells[40:60, 30:70] = 2
    editor.save()
    editor.close()
    list(write_results(store, THRESHOLDS))
    # and now everything changes
    mask.write(out / TISSUE)
    worse = Curation().remove([ImageBank.read(bank).tiles[1].hash])
    once = texture.model_copy(update={"k": 1})
    list(build_bank(load_single_tiles(tiles, data), bank, once, data, update=True, curation=worse))
    list(cut_tiles(_labelled(slide, 3), tiles))
    Project(slides=slides, model=run, settings=settings, titles={"dermis": "corium"}).write(folder)
    return folder


@pytest.fixture(scope="module")
def again(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the project was made again."""
    folder = tmp_path_factory.mktemp("again") / "every thing"
    with chdir(project.parent):
        done = CliRunner().invoke(app, ["replay", project.name, "--out", str(folder)])
        assert done.exit_code == 0, (done.output, done.exception)
        assert done.output.startswith("napari-pbip bank build "), done.output  # there is nothing to note
    return folder


def test_bank_model_scores_and_labels_are_those_of_the_project(project: Path, again: Path) -> None:
    assert_same(project, again)
    for folder in (project, again):
        (store,) = folder.glob("results/*/*.ome.zarr")
        assert (ScoreStore.open(store).corrections.cells[40:60, 30:70] == 2).all()
    before, after = (ImageBank.read(folder / "bank") for folder in (project, again))
    assert after.identity == before.identity
    assert [tile.hash for tile in after.removed] == [tile.hash for tile in before.removed]
    assert after.white_fraction == 0.8
    runs = [RunFacts.read(folder / "models" / "model 1") for folder in (project, again)]
    assert all(facts.earlier == [[2, 2]] for facts in runs)
    banks = [(facts.prototypes or {})["bank"] for facts in runs]
    assert banks[0] == banks[1] != before.identity


def test_each_map_of_a_slide_is_made_again_in_its_folder(project: Path, tmp_path: Path) -> None:
    several, copy = project.parent / "several", tmp_path / "copy"
    shutil.copytree(project, several)
    [first] = several.glob("results/*/*.ome.zarr")
    second = first.parent / FURTHER_MAPS / "2" / first.name
    shutil.copytree(first, second)
    script = begin_replay(several, copy)
    assert not script.missing
    outs = [command.out for command in script.commands if command.arguments[0] == "segment"]
    assert sorted(outs) == sorted(store.parent.relative_to(several) for store in (first, second))
    for store in (first, second):
        assert (copy / store.relative_to(several) / "corrections").is_dir()
        assert (copy / "steps" / store.parent.relative_to(several) / TISSUE).exists()


def test_the_copy_is_a_project_of_its_own(project: Path, again: Path) -> None:
    known = Project.open(again)
    assert known.settings.data.folder == again / "tiles"
    assert known.model == again / "models" / "model 1"
    assert known.slides == Project.open(project).slides
    assert known.titles == {"dermis": "corium"}
    for made in again.rglob("*.json"):
        if made.name != "project.json" and "tiles" not in made.parts:
            assert str(project) not in made.read_text(encoding="utf-8"), made


def test_the_copy_can_be_made_again_itself(again: Path, tmp_path: Path) -> None:
    script = find_commands(again, tmp_path)
    assert not script.notes
    assert [command.arguments for command in script.commands] == [
        command.arguments for command in find_commands(again, again).commands
    ]


def test_what_is_done_is_not_done_again(project: Path, again: Path, call: Called) -> None:
    (overlay,) = again.glob("results/*/overlay.png")
    weights = again / "models" / "model 1" / "best.safetensors"
    before = weights.stat().st_mtime_ns
    overlay.unlink()
    assert call("replay", project, "--out", again) == 0, call.error
    assert overlay.exists()
    assert weights.stat().st_mtime_ns == before
    assert call.error.count("Done: ") == 3


def test_a_training_that_was_stopped_is_resumed(project: Path, again: Path, tmp_path: Path) -> None:
    _, first, longer, _ = find_commands(project, tmp_path).commands
    run = tmp_path / first.out
    assert first.left(tmp_path) == first.arguments
    assert "--resume" not in first.arguments
    for done, expected in ((1, (*first.arguments, "--resume")), (2, None)):
        facts = RunFacts.read(again / first.out)
        facts.step = done
        facts.write(run)
        assert first.left(tmp_path) == expected
        assert longer.left(tmp_path) == longer.arguments


@pytest.mark.skipif(os.name == "nt", reason="the script is one of a POSIX shell")
def test_a_shell_reads_the_script_as_the_commands(project: Path, tmp_path: Path) -> None:
    script = find_commands(project, tmp_path / "o'clock")
    script.write(tmp_path / "o'clock")
    program = tmp_path / "napari-pbip"
    program.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word"; done\necho\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    file = tmp_path / "o'clock" / SCRIPT
    ran = subprocess.run(["sh", str(file)], env=environment, capture_output=True, text=True, check=True)
    words = [tuple(line.split("\0")[:-1]) for line in ran.stdout.splitlines()]
    assert words == [command.arguments for command in script.commands]
    assert [line[0] for line in words] == ["bank", "train", "train", "segment"]
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [tuple(shlex.split(line)[1:]) for line in lines if line.startswith("napari-pbip")] == words


def test_a_project_that_was_moved_has_the_same_commands(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project.parent, tmp_path / "moved")  # with the slide beside it
    moved = tmp_path / "moved" / project.name
    run = moved / "models" / "model 1"
    facts = RunFacts.read(run)
    assert facts.prototypes is not None
    facts.prototypes["bank"] = ImageBank.read(moved / "bank").identity  # as if the bank had not changed
    facts.settings = facts.settings.model_copy(update={"bank_folder": tmp_path / "earlier" / "bank"})
    facts.write(run)
    script = find_commands(moved, moved)
    assert not script.notes
    assert not script.missing
    *made, segmented = script.commands
    assert made == [*find_commands(project, tmp_path / "other").commands[:-1]]
    assert Path(segmented.arguments[1]).parent == tmp_path / "moved"
    records = moved / "steps" / "models" / "model 1"
    assert yaml.safe_load((records / "settings.yaml").read_text(encoding="utf-8"))["bank_folder"] == "../../../bank"
    with (records / "tiles.csv").open(encoding="utf-8", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert paths
    assert all(path.startswith("../../../tiles/pictures/") for path in paths)


def test_only_microns_per_pixel_that_somebody_gave_are_given_again(project: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(project.parent, tmp_path / "changed") / project.name
    (store,) = changed.glob("results/*/*.ome.zarr")

    def given() -> float | None:
        find_commands(changed, changed)
        (file,) = changed.glob("steps/results/*/settings.yaml")
        return yaml.safe_load(file.read_text(encoding="utf-8"))["segment"]["mpp"]

    assert given() == 0.6
    file = Project.open(changed).slides[0].path
    with open_slide(file) as slide:
        says = slide.mpp
    facts = json.loads((store / "zarr.json").read_text(encoding="utf-8"))
    facts["attributes"]["pbip"]["slide"] |= {"mpp": says, "mpp_from": "slide"}
    (store / "zarr.json").write_text(json.dumps(facts), encoding="utf-8")
    assert given() is None
    save_mpp(file, 0.3)  # what is beside the slide counts when it is opened again, and the map was made without
    assert given() == says


def test_what_differs_is_said_in_a_sentence(project: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(project, changed)
    run = changed / "models" / "model 1"
    facts = RunFacts.read(run)
    assert facts.prototypes is not None
    del facts.prototypes["bank_settings"]  # as an earlier version made it
    facts.step = 1
    facts.write(run)
    (run / "tiles.csv").unlink()
    shutil.copy(samples.project() / "model" / "best.safetensors", run)
    notes = find_commands(changed, changed).notes
    assert len(notes) == 4
    for part in ("does not record its tiles", "bank was changed", "after 1 of 3 steps", "trained again"):
        assert sum(part in note for note in notes) == 1, notes
    shutil.rmtree(run)
    script = find_commands(changed, changed)
    assert [command.arguments[0] for command in script.commands] == ["bank", "segment"]  # with the model where it was
    (changed / "bank" / "bank.json").write_text("{")
    (note,) = [note for note in find_commands(changed, changed).notes if "bank" in note]
    assert "cannot be made again: " in note
    assert "\n" not in note


def test_a_missing_slide_and_wrong_folders_are_sentences(project: Path, call: Called, tmp_path: Path) -> None:
    alone = tmp_path / "project"
    shutil.copytree(project, alone)
    slide = tmp_path / "gone.svs"
    known = Project.open(alone)
    moved = known.slides[0].model_copy(update={"path": slide})
    known.model_copy(update={"slides": (moved,)}).write(alone)
    assert call("replay", alone, "--out", tmp_path / "new") == 2
    assert f"{slide} does not exist" in " ".join(call.error.split("\n"))
    assert not (tmp_path / "new" / "bank").exists()
    shutil.copy(samples.slide(), slide)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    assert call("replay", alone, "--out", tmp_path / "other") == 2
    assert "holds other files" in call.error
    assert call("replay", alone, "--out", alone) == 2
    assert "choose another folder" in call.error
    assert call("replay", tmp_path / "nothing", "--out", tmp_path / "new") == 2
    assert "it holds no image bank" in call.error
