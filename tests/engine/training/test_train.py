from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from napari_pbip.bank import load_tiles
from napari_pbip.config import JobSettings
from napari_pbip.engine import runs
from napari_pbip.engine.loading import steps_per_epoch
from napari_pbip.engine.training.schedule import planned_steps
from napari_pbip.engine.training.train import train
from napari_pbip.errors import BankError, ConfigError, DataError, ModelError, OutputError
from napari_pbip.events import Epoch, Event, Finished, Job, Noted, Started, Step, Warned
from tests.engine.conftest import settings_for

PBIP = {"name": "pbip"}
LPD = {"name": "lpd", "k": 2}


def run(job: Job) -> list[Event]:
    return list(job)


def stop_after(job: Job, steps: int) -> None:
    """Cancel a job after a number of steps."""
    for event in job:
        if isinstance(event, Step) and "loss" in event.values and event.done >= steps:
            break
    job.close()


def same(a: Path, b: Path) -> bool:
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def finished(weak_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """Return a finished PBIP run."""
    out = tmp_path_factory.mktemp("runs") / "pbip"
    return out, run(train(settings_for(weak_data, method=PBIP), out))


def test_a_run_announces_every_step_and_epoch_and_one_end(finished: tuple[Path, list[Event]]) -> None:
    _, events = finished
    assert [e for e in events if isinstance(e, Finished)] == [events[-1]]  # the bank's end is not the end
    training = events[next(i for i, e in enumerate(events) if isinstance(e, Started) and "pbip" in e.job) :]
    assert training[0].total == 6
    losses = [e for e in training if isinstance(e, Step) and "loss" in e.values]
    assert [e.done for e in losses] == [1, 2, 3, 4, 5, 6]
    epochs = [e for e in training if isinstance(e, Epoch)]
    assert [e.epoch for e in epochs] == [1, 2]
    assert all(0 <= e.scores["predicted/miou"] <= 100 for e in epochs)
    assert isinstance(training[-1], Finished)


def test_a_run_on_few_tiles_takes_as_many_epochs_as_make_some_hundred_steps(weak_data: Path, tmp_path: Path) -> None:
    settings = settings_for(weak_data, method={"name": "cam"}, train={"epochs": "auto"})
    for event in (job := train(settings, tmp_path / "run")):
        assert not (isinstance(event, Warned) and "steps" in event.message)
        if isinstance(event, Step):
            break
    job.close()
    per_epoch = steps_per_epoch(len(load_tiles(weak_data, "train", settings.data).tiles), settings.train.batch_size)
    assert per_epoch * 8 < 200
    steps = runs.RunFacts.read(tmp_path / "run").steps
    assert steps % per_epoch == 0
    assert 200 <= steps < 200 + per_epoch
    many = 5000
    assert planned_steps(settings.train, many) == 8 * steps_per_epoch(many, settings.train.batch_size)


def test_a_run_leaves_what_is_needed_to_trust_it(finished: tuple[Path, list[Event]]) -> None:
    out, _ = finished
    facts = json.loads((out / "run.json").read_text())
    assert facts["step"] == facts["steps"] == 6
    assert facts["prototypes"]["encoder"]["name"] == "tiny"
    assert [c["name"] for c in facts["classes"]] == ["LYM", "MUS"]
    assert len(facts["validations"]) == 2
    assert facts["versions"]["torch"] == torch.__version__
    weights, facts_file = ((out / name).stat().st_mode for name in ("best.safetensors", "run.json"))
    assert weights == facts_file  # others in the lab can read both or neither
    with (out / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(float(r["step"])) for r in rows] == [1, 2, 3, 4, 5, 6]
    same = runs.load_model(out).identity == runs.load_model(out, "last").identity
    assert same == (facts["best_epoch"] == facts["epoch"])


@pytest.mark.parametrize("method", [PBIP, LPD, {"name": "cam"}], ids=["pbip", "lpd", "cam"])
def test_a_resumed_run_is_bit_for_bit_an_uninterrupted_one(
    weak_data: Path, tmp_path: Path, method: dict[str, str]
) -> None:
    settings = settings_for(weak_data, method=method, train={"stain_augmentation": 0.3, "warmup": 2})
    run(train(settings, tmp_path / "whole"))
    stop_after(train(settings, tmp_path / "parts"), 2)
    stop_after(train(settings, tmp_path / "parts", resume=True), 3)  # at the end of the epoch, before validation
    events = run(train(settings, tmp_path / "parts", resume=True))
    started = next(e for e in events if isinstance(e, Started) and e.unit == "steps")
    assert started.done == 3
    for file in ("last.safetensors", "best.safetensors", "state.safetensors"):
        assert same(tmp_path / "whole" / file, tmp_path / "parts" / file), file
    assert (tmp_path / "whole/curves.csv").read_text() == (tmp_path / "parts/curves.csv").read_text()
    before, after = (runs.RunFacts.read(tmp_path / name) for name in ("whole", "parts"))
    assert before.validations == after.validations


def test_lpd_needs_no_bank_and_reads_without_its_encoder(weak_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(train(settings_for(weak_data, method=LPD, train={"steps": 4}), out))
    assert not (out / "bank").exists()
    facts = json.loads((out / "run.json").read_text())["prototypes"]
    assert (facts["bank"], facts["k"], facts["dimension"], facts["encoder"]["name"]) == (None, [2, 2], 32, "tiny")
    model = runs.load_model(out, "last")
    assert torch.equal(model.method.prototypes, load_file(out / "last.safetensors")["prototypes"])


def test_seeds_make_the_difference(weak_data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(train(settings_for(weak_data, train={"steps": 2, "seed": seed}), tmp_path / name))
    assert same(tmp_path / "a/last.safetensors", tmp_path / "b/last.safetensors")
    assert not same(tmp_path / "a/last.safetensors", tmp_path / "c/last.safetensors")


def test_training_learns_two_plain_classes(weak_data: Path, tmp_path: Path) -> None:
    settings = settings_for(weak_data, train={"epochs": 12, "validate_every": 12})
    events = run(train(settings, tmp_path / "run"))
    losses = [e.values["loss"] for e in events if isinstance(e, Step) and "loss" in e.values]
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])


def test_divergence_stops_with_the_last_good_model(weak_data: Path, tmp_path: Path) -> None:
    good = settings_for(weak_data, train={"epochs": 1})
    run(train(good, tmp_path / "run"))
    weights = load_file(tmp_path / "run/last.safetensors")
    state = load_file(tmp_path / "run/state.safetensors")
    poisoned = {n: torch.full_like(t, torch.nan) if "exp_avg/" in n else t for n, t in state.items()}
    runs.write_weights(tmp_path / "run/state.safetensors", poisoned)
    with pytest.raises(ModelError, match="diverged at step 4") as caught:
        run(train(settings_for(weak_data, train={"epochs": 3}), tmp_path / "run", resume=True))
    assert "learning rate" in str(caught.value)
    kept = load_file(tmp_path / "run/last.safetensors")
    assert all(torch.equal(weights[name], kept[name]) for name in weights)


def test_without_masks_the_last_model_counts_as_the_best(weak_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "train").symlink_to(weak_data / "train")
    (data / "classes.txt").write_text("LYM\nMUS\n")
    events = run(train(settings_for(data, train={"steps": 4}), tmp_path / "run"))
    assert any(isinstance(e, Noted) and "no validation masks" in e.message for e in events)
    assert not any(isinstance(e, Warned) and "validation" in e.message for e in events)
    assert same(tmp_path / "run/best.safetensors", tmp_path / "run/last.safetensors")
    stop_after(train(settings_for(data, train={"steps": 4}), tmp_path / "stopped"), 2)
    assert same(tmp_path / "stopped/best.safetensors", tmp_path / "stopped/last.safetensors")
    assert not same(tmp_path / "stopped/best.safetensors", tmp_path / "run/best.safetensors")


def test_a_training_does_not_spend_its_time_on_saving(weak_data: Path, tmp_path: Path) -> None:
    settings = settings_for(weak_data, train={"epochs": 4, "validate_every": 2})
    state = tmp_path / "run" / runs.STATE
    saves = [
        state.stat().st_mtime_ns
        for event in train(settings, tmp_path / "run")
        if isinstance(event, Step) and "loss" in event.values and state.exists()
    ]
    per_epoch = len(saves) // 2  # nothing was saved before the first validation
    assert len(saves) == 2 * per_epoch
    assert len(set(saves)) == 1
    assert runs.RunFacts.read(tmp_path / "run").step == 4 * per_epoch


def test_many_short_epochs_are_not_all_validated(weak_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(weak_data, data)
    for path in sorted((data / "train").iterdir())[4:]:
        path.unlink()
    run(train(settings_for(data, train={"epochs": 24, "batch_size": 4}), tmp_path / "run"))
    assert [one["epoch"] for one in runs.RunFacts.read(tmp_path / "run").validations] == list(range(3, 25, 3))


def test_a_stop_within_the_last_validation_loses_only_that(weak_data: Path, tmp_path: Path) -> None:
    settings = settings_for(weak_data, train={"epochs": 1})
    learned = 0
    job = train(settings, tmp_path / "run")
    for event in job:
        if isinstance(event, Step) and "loss" in event.values:
            learned = event.done
        elif isinstance(event, Step) and learned == runs.RunFacts.read(tmp_path / "run").steps:
            break
    job.close()
    assert runs.RunFacts.read(tmp_path / "run").validations == []
    run(train(settings, tmp_path / "run", resume=True))
    facts = runs.RunFacts.read(tmp_path / "run")
    assert [one["step"] for one in facts.validations] == [learned]
    assert facts.best_score is not None
    assert runs.load_model(tmp_path / "run").facts.best_epoch == 1


def sentence(job: Iterable[Event], error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        list(job)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_trained_is_said_before_anything_is_written(weak_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert "`data.folder`" in sentence(train(JobSettings(), out), ConfigError)
    one = tmp_path / "one"
    one.mkdir()
    (one / "train").mkdir()
    for path in weak_data.glob("train/*10].png"):
        (one / "train" / path.name).symlink_to(path)
    (one / "classes.txt").write_text("LYM\nMUS\n")
    assert "one other class" in sentence(train(settings_for(one), out), DataError)
    assert "tpu" in sentence(train(settings_for(weak_data, train={"device": "tpu9"}), out), ConfigError)
    small = tmp_path / "small"
    for name in ("A", "B"):
        (small / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 31), (200, 120 + i, 170)).save(small / name / f"{i}.png")
    assert "40 x 31 pixels, and a network needs 32 x 32" in sentence(train(settings_for(small), out), DataError)
    assert not out.exists()


def test_a_run_goes_on_with_the_encoder_of_its_bank(
    weak_data: Path, finished: tuple[Path, list[Event]], tmp_path: Path
) -> None:
    """The command line leaves the encoder to the bank; the window resumes with that of the run."""
    bank = finished[0] / "bank"
    values = settings_for(weak_data, method=PBIP, bank_folder=bank).model_dump(mode="json", exclude={"bank"})
    settings = JobSettings.parse(values)
    stop_after(train(settings, tmp_path / "run"), 2)
    recorded = runs.RunFacts.read(tmp_path / "run").settings
    assert recorded.bank.encoder == "tiny"
    stop_after(train(recorded, tmp_path / "run", resume=True), 3)
    run(train(settings, tmp_path / "run", resume=True))
    assert runs.RunFacts.read(tmp_path / "run").finished


def test_a_run_of_a_version_that_masked_images_goes_on_with_them(weak_data: Path, tmp_path: Path) -> None:
    settings = settings_for(weak_data, method=PBIP)
    stop_after(train(settings, tmp_path / "run"), 2)
    facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert facts["settings"]["method"].pop("masked") == "auto"
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    stop_after(train(settings, tmp_path / "run", resume=True), 3)
    assert runs.RunFacts.read(tmp_path / "run").settings.method.masked == "images"


def test_a_run_of_an_earlier_version_goes_on_with_its_rate_and_colours(weak_data: Path, tmp_path: Path) -> None:
    backbone = {"name": "efficientnet-lite0", "weights": "builtin"}
    settings = settings_for(weak_data, backbone=backbone, train={"learning_rate": "auto"})
    stop_after(train(settings, tmp_path / "run"), 2)
    facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert (facts.pop("learning_rate"), facts["settings"]["train"]["stain_augmentation"]) == (1e-3, 0.2)
    facts["settings"]["train"]["stain_augmentation"] = 0.0
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    run(train(settings, tmp_path / "run", resume=True))
    resumed = runs.RunFacts.read(tmp_path / "run")
    assert (resumed.learning_rate, resumed.settings.train.stain_augmentation) == (5e-4, 0.0)
    with (tmp_path / "run" / "curves.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert rates[0] == 1e-3
    assert max(rates[2:]) < 5e-4
    given = settings_for(weak_data, backbone=backbone, train={"learning_rate": "auto", "stain_augmentation": 0.2})
    assert "train.stain_augmentation" in sentence(train(given, tmp_path / "run", resume=True), ConfigError)


def test_an_earlier_run_is_resumed_or_replaced_only_on_request(
    weak_data: Path, finished: tuple[Path, list[Event]]
) -> None:
    out, _ = finished
    settings = settings_for(weak_data, method=PBIP)
    before = (out / "last.safetensors").read_bytes()
    assert "`resume=True`" in sentence(train(settings, out), OutputError)
    other = settings_for(weak_data, method=PBIP, train={"learning_rate": 1e-3})
    assert "train.learning_rate" in sentence(train(other, out, resume=True), ConfigError)
    assert (out / "last.safetensors").read_bytes() == before


def test_a_bank_of_another_encoder_or_other_classes_is_refused(
    weak_data: Path, finished: tuple[Path, list[Event]], tmp_path: Path
) -> None:
    bank = finished[0] / "bank"
    other = settings_for(weak_data, method=PBIP, bank={"encoder": "texture"}, bank_folder=bank)
    assert "'tiny'" in sentence(train(other, tmp_path / "run"), BankError)
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    (renamed / "train").symlink_to(weak_data / "train")
    (renamed / "classes.txt").write_text("TUM\nSTR\n")
    wrong = settings_for(renamed, method=PBIP, bank_folder=bank)
    assert "LYM, MUS" in sentence(train(wrong, tmp_path / "run2"), BankError)


def test_a_run_that_was_stopped_before_its_first_save_can_be_resumed(weak_data: Path, tmp_path: Path) -> None:
    settings = settings_for(weak_data, train={"steps": 2})
    job = train(settings, tmp_path / "run")
    while not isinstance(next(job), Started):
        pass
    job.close()
    assert isinstance(run(train(settings, tmp_path / "run", resume=True))[-1], Finished)


@pytest.mark.parametrize("damage", ["cut", "missing", "other"])
def test_a_damaged_model_is_one_sentence(finished: tuple[Path, list[Event]], tmp_path: Path, damage: str) -> None:
    source = finished[0]
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_bytes((source / "run.json").read_bytes())
    weights = folder / "best.safetensors"
    if damage == "cut":
        weights.write_bytes((source / "best.safetensors").read_bytes()[:5000])
    elif damage == "other":
        runs.write_weights(weights, {"a": torch.zeros(3)})
    with pytest.raises(ModelError, match=r"best\.safetensors"):
        runs.load_model(folder)


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no trained model"):
        runs.load_model(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        runs.load_model(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 99}')
    with pytest.raises(ModelError, match="another format"):
        runs.load_model(tmp_path)
