"""The linear probe that has a share in the scores of PBIP, if few tiles show a class alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_pbip.bank import load_tiles
from napari_pbip.config import JobSettings, PbipSettings
from napari_pbip.engine import runs
from napari_pbip.engine.inference.explain import Explainer
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.training.advice import FEW
from napari_pbip.engine.training.automatic import settled
from napari_pbip.engine.training.train import train
from napari_pbip.errors import PbipError
from napari_pbip.events import Event, Noted, Started
from napari_pbip.models.methods.pbip import Pbip
from napari_pbip.results.store_facts import ModelFacts
from napari_pbip.sharing.methods import methods_text
from napari_pbip.sharing.model import ReportedModel
from tests.engine.conftest import settings_for
from tests.engine.training.test_train import same, stop_after

LITE0 = {"encoder": "efficientnet-lite0"}
NOTE = "whose map is averaged with that of a probe"


def settings(data: Path, **method: object) -> JobSettings:
    return settings_for(data, method={"name": "pbip", **method}, bank=LITE0, train={"validate_every": 2})


@pytest.fixture(scope="module")
def finished(weak_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    out = tmp_path_factory.mktemp("runs") / "pbip"
    return out, list(train(settings(weak_data), out))


def share(method: object) -> float:
    assert isinstance(method, PbipSettings)
    assert method.probe_share != "auto"
    return method.probe_share


def test_it_is_that_of_the_same_tiles_and_has_half_of_the_scores(
    finished: tuple[Path, list[Event]], weak_data: Path, tmp_path: Path
) -> None:
    out, events = finished
    assert share(runs.RunFacts.read(out).settings.method) == 0.5
    assert sum(isinstance(event, Noted) and NOTE in event.message for event in events) == 1
    list(train(settings_for(weak_data, method={"name": "probe"}, bank=LITE0), tmp_path / "probe"))
    both, alone = runs.load_model(out), runs.load_model(tmp_path / "probe")
    assert both.facts.fit == {name: value for name, value in alone.facts.fit.items() if name != "encoder"}
    assert isinstance(both.method, Pbip)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        mean, probe = both.method.scores(images), alone.method.scores(images)
        both.method.probe = None
        own = both.method.scores(images)
    assert not torch.allclose(own.maps, probe.maps, atol=0.01)
    torch.testing.assert_close(mean.maps, (own.maps + probe.maps) / 2)
    torch.testing.assert_close(mean.presence, (own.presence + probe.presence) / 2)


def test_steps_do_not_change_it_and_a_resumed_run_has_the_same(
    finished: tuple[Path, list[Event]], weak_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    stop_after(train(settings(weak_data), out), 1)
    early, late = (runs.read_weights(run / "last.safetensors") for run in (out, finished[0]))
    changed = {name.partition(".")[0] for name in late if not torch.equal(early[name], late[name])}
    assert "backbone" in changed
    assert "probe" not in changed
    list(train(settings(weak_data), out, resume=True))
    assert same(out / "last.safetensors", finished[0] / "last.safetensors")
    assert runs.RunFacts.read(out).fit == runs.RunFacts.read(finished[0]).fit


def test_it_is_known_before_the_first_save_and_fitted_again_to_other_labels(weak_data: Path, tmp_path: Path) -> None:
    data, out = shutil.copytree(weak_data, tmp_path / "data"), tmp_path / "run"
    for event in (job := train(settings(data), out)):
        if isinstance(event, Started) and "pbip" in event.job:
            break
    job.close()
    assert not (out / runs.STATE).exists()
    before = runs.RunFacts.read(out).fit["tiles"]
    stop_after(train(settings(data), out, resume=True), 1)
    early = runs.read_weights(out / "last.safetensors")
    gone = sorted((data / "train").glob("*[[]10[]]*"))[:2]
    for path in gone:
        path.unlink()
    for event in (job := train(settings(data), out, resume=True)):
        if "Fitting a probe" in getattr(event, "job", ""):
            break
    job.close()
    assert not runs.RunFacts.read(out).fit  # it is still to be fitted
    list(train(settings(data), out, resume=True))
    late = runs.read_weights(out / "last.safetensors")
    assert not torch.equal(early["probe.weight"], late["probe.weight"])
    assert runs.RunFacts.read(out).fit["tiles"] == before - len(gone)


def test_a_run_of_an_earlier_version_goes_on_without_it(weak_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stop_after(train(settings(weak_data, probe_share=0), out), 1)
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert facts["settings"]["method"].pop("probe_share") == 0
    (out / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    list(train(settings(weak_data), out, resume=True))
    resumed = runs.load_model(out)
    assert share(resumed.facts.settings.method) == 0
    assert isinstance(resumed.method, Pbip)
    assert resumed.method.probe is None


def test_it_depends_on_the_class_with_the_fewest_tiles_alone(weak_data: Path) -> None:
    data = load_tiles(weak_data, "train")
    alone = [next(tile for tile in data if tile.class_index == n) for n in range(2)]

    def chosen(counts: tuple[int, int], encoder: str = "efficientnet-lite0", **method: object) -> float:
        tiles = replace(
            data, tiles=tuple(tile for tile, count in zip(alone, counts, strict=True) for _ in range(count))
        )
        given = settings_for(weak_data, method={"name": "pbip", **method}, bank={"encoder": encoder})
        return share(settled(given, tiles, None)[0].method)

    few, enough = FEW - 1, FEW
    assert chosen((few, 500)) == chosen((500, few)) == 0.5
    assert chosen((enough, enough)) == 0
    assert chosen((0, few)) == 0  # no mosaics
    assert chosen((few, few), "uni") == 0  # which would make a map take many times as long
    assert chosen((few, few), preset="paper") == chosen((few, few), preset="released") == 0
    assert chosen((few, few), probe_share=0) == 0
    assert chosen((enough, enough), probe_share=0.25) == 0.25


@pytest.mark.parametrize(
    ("encoder", "method", "said"),
    [
        ("efficientnet-lite0", {"synthesis": 0}, "scores that are probabilities"),
        ("texture", {}, "the encoder 'texture' is neither"),
    ],
)
def test_where_it_cannot_have_a_share_is_one_sentence(
    weak_data: Path, tmp_path: Path, encoder: str, method: dict[str, object], said: str
) -> None:
    given = settings_for(weak_data, method={"name": "pbip", "probe_share": 0.5, **method}, bank={"encoder": encoder})
    with pytest.raises(PbipError, match=said) as error:
        list(train(given, tmp_path / "run"))
    assert "`method.probe_share` to 0" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_who_reads_about_the_model_or_the_map_is_told(
    finished: tuple[Path, list[Event]], sample_slide: Path, tmp_path: Path
) -> None:
    out, _ = finished
    model = ReportedModel(ModelFacts(hash=runs.run_identity(out), run=out.name), out, "")
    tiles = runs.RunFacts.read(out).fit["tiles"]
    assert dict(model.card())["linear probe"] == f"0.5 of the scores, from {tiles} single-class tiles"
    assert "logistic regression on the features of the frozen encoder efficientnet-lite0 (weight 0.5)" in methods_text(
        [], model
    )
    list(segment(sample_slide, out, tmp_path / "slide"))
    (path,) = (tmp_path / "slide").glob("*.ome.zarr")
    explained = Explainer.from_store(path, (out,), ()).explain(1000, 1000)
    assert len(explained.matches) == 4
    assert "averaged with that of a linear probe" in explained.note
