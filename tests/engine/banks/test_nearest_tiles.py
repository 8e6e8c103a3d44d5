"""The real tiles that are nearest to learned prototypes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from napari_pbip.bank import load_single_tiles
from napari_pbip.engine.banks.nearest_tiles import FOLDER, nearest_tiles, read_nearest
from napari_pbip.engine.encoding import TileEncoder
from napari_pbip.engine.training.train import train
from napari_pbip.errors import ModelError
from napari_pbip.events import Finished, Loading, Step
from napari_pbip.models import encoders
from tests.engine.conftest import settings_for
from tests.engine.training.test_train import run, sentence


@pytest.fixture(scope="module")
def lpd(weak_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "lpd"
    run(train(settings_for(weak_data, method={"name": "lpd", "k": 3}, train={"steps": 2}), out))
    return out


def test_each_prototype_has_the_tiles_with_the_largest_cosine(lpd: Path, weak_data: Path) -> None:
    assert read_nearest(lpd) is None
    events = run(nearest_tiles(lpd))
    assert events[0] == Loading("the encoder tiny")
    single = load_single_tiles(weak_data).single_class
    assert [e.done for e in events if isinstance(e, Step)][-1] == len(single)
    assert events[-1].output == lpd / FOLDER
    found = read_nearest(lpd)
    assert found is not None
    assert found.k == (3, 3)
    prototypes = load_file(lpd / "best.safetensors")["prototypes"].numpy()
    features = TileEncoder(encoders.load("tiny"))([tile.read() for tile in single])
    for subclass, prototype in enumerate(prototypes):
        cosine = features @ prototype / np.linalg.norm(features, axis=1) / np.linalg.norm(prototype)
        nearest = found.nearest(subclass)
        np.testing.assert_allclose([t.similarity for t in nearest], np.sort(cosine)[::-1][: len(nearest)], atol=1e-4)
        best = single[int(cosine.argmax())]
        assert Path(nearest[0].path) == best.path.resolve()
        assert nearest[0].class_index == best.class_index
    assert [c.subclass for c in found.clusters()] == list(range(6))
    assert len(list((lpd / FOLDER / "thumbnails").iterdir())) == len({t.hash for t in found.tiles})


def test_it_is_computed_once_for_the_same_prototypes(lpd: Path) -> None:
    run(nearest_tiles(lpd))
    assert [type(event).__name__ for event in run(nearest_tiles(lpd))] == ["Started", "Finished"]
    weights = load_file(lpd / "best.safetensors")
    weights["prototypes"] = weights["prototypes"].flip(1).contiguous()  # it was trained further
    save_file(weights, lpd / "best.safetensors")
    assert read_nearest(lpd) is None
    assert any(isinstance(event, Step) for event in run(nearest_tiles(lpd)))
    assert isinstance(run(nearest_tiles(lpd))[-1], Finished)


def test_a_model_without_prototypes_is_told(weak_data: Path, tmp_path: Path) -> None:
    run(train(settings_for(weak_data, train={"steps": 1}), tmp_path / "cam"))
    assert "CAM, which has no prototypes" in sentence(nearest_tiles(tmp_path / "cam"), ModelError)
