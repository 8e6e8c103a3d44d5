"""The same pixels get the same scores, whoever asks: a slide, an evaluation, the validation of a training, exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.filters import gaussian

from napari_pbip import samples
from napari_pbip.config import DataSettings, SegmentSettings, ThresholdSettings
from napari_pbip.engine.inference.evaluate import evaluate
from napari_pbip.engine.inference.predict import Predictor
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.inference.windows import Windows, mirrored
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.engine.runs import load_model
from napari_pbip.engine.training.train import train
from napari_pbip.events import Finished
from napari_pbip.models.score_maps import fuse
from napari_pbip.results import LargestScores, ScoreStore, label_region, lazy_scores
from napari_pbip.slides import Slide
from tests.engine.conftest import settings_for

ALL = slice(None)
CPU = torch.device("cpu")
MPP = 0.5


@pytest.fixture(
    scope="module",
    params=[{"name": "cam", "synthesis": 0}, {"name": "cam"}, {"name": "pbip"}],
    ids=["maps", "cam", "pbip"],
)
def run(request: pytest.FixtureRequest, weak_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of tiles of 64 pixels."""
    out = tmp_path_factory.mktemp("model") / "run"
    list(train(settings_for(weak_data, method=request.param, train={"steps": 4}), out))
    return out


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """Real tissue whose sides are no multiple of a window nor of a cell, (H, W, 3)."""
    path = min((samples.tiles() / "MUS").iterdir())
    return np.asarray(Image.open(path).convert("RGB"))[:150, :203]


def segmented(run: Path, image: np.ndarray, out: Path) -> ScoreStore:
    with Slide.from_array(image, mpp=MPP) as slide:
        settings = SegmentSettings(precision="float32", device="cpu", min_tissue=0)
        *_, end = segment(slide, run, out, settings, ThresholdSettings(delta=0, presence=0))
    assert isinstance(end, Finished)
    return ScoreStore.open(Path(end.summary["store"]))


def test_a_slide_and_an_image_have_the_same_scores_and_presence(run: Path, tissue: np.ndarray, tmp_path: Path) -> None:
    store = segmented(run, tissue, tmp_path / "slide")
    model = load_model(run)
    predictor = Predictor.of_run(model.method, model.facts, CPU)
    (maps,) = predictor.maps([tissue])
    weights = maps.weights or (1.0,)
    weighted = [(w, m) for w, m in zip(weights, maps.stages, strict=True) if w]
    of_image = fuse(weighted, maps.stages[0].shape[-2:])[0].numpy()
    of_slide = store.read_scores(0, ALL, ALL).astype(np.float32)
    assert of_slide.shape == of_image.shape
    np.testing.assert_allclose(of_slide, of_image, atol=0.002 * np.abs(of_image).max())
    grid = predictor.windows.grid(tissue.shape[1], tissue.shape[0])
    expected = (224, 32, 1, 1) if model.facts.settings.method.name == "pbip" else (64, 32, 4, 6)
    assert (grid.tile, grid.overlap, grid.rows, grid.columns) == expected
    assert (store.facts.grid.tile, store.facts.grid.overlap) == (grid.tile, grid.overlap)
    rows, columns, _ = store.tiles_and_tissue(0, ALL, ALL)
    at_centres = maps.presence[0].numpy()[:, (rows % 1 == 0)][:, :, columns % 1 == 0]
    of_tiles = store.presence()[:, rows[rows % 1 == 0].astype(int)][:, :, columns[columns % 1 == 0].astype(int)]
    np.testing.assert_allclose(of_tiles, at_centres, atol=2e-3)


def test_labels_and_exports_come_from_these_scores(run: Path, tissue: np.ndarray, tmp_path: Path) -> None:
    """The class of a cell is that of the smoothed scores that an evaluation smooths too, at the same width."""
    store = segmented(run, tissue, tmp_path / "slide")
    model = load_model(run)
    sigma = Predictor.of_run(model.method, model.facts, CPU).smoothing  # pixels
    thresholds = ThresholdSettings(delta=0, presence=0, percentile=100)
    assert sigma * MPP == pytest.approx(thresholds.smoothing_um / np.sqrt(12))
    scores = np.asarray(lazy_scores(store).data).astype(np.float64)
    tissue_cells = store.tiles_and_tissue(0, ALL, ALL)[2]
    weight = gaussian(tissue_cells.astype(np.float64), sigma / 8, mode="constant", truncate=3)
    smoothed = [gaussian(one * tissue_cells, sigma / 8, mode="constant", truncate=3) / weight for one in scores]
    largest = LargestScores(store).percentile(100)
    shares = np.stack(smoothed) / np.where(largest > 0, largest, np.inf)[:, None, None]
    labels = label_region(store, thresholds, largest, 0, ALL, ALL)
    clear = tissue_cells & (np.abs(shares[0] - shares[1]) > 1e-4) & (shares.max(0) > 1e-4)
    np.testing.assert_array_equal(labels[clear], shares.argmax(0)[clear] + 1)


def test_the_last_validation_of_a_training_and_an_evaluation_agree(run: Path, weak_data: Path) -> None:
    *_, end = evaluate(run, DataSettings(folder=weak_data), "val", which="last", device="cpu")
    assert isinstance(end, Finished)
    validated = RunFacts.read(run).validations[-1]
    for protocol in ("oracle", "predicted"):
        assert end.summary["protocols"][protocol]["miou"] == pytest.approx(validated[protocol]["miou"], abs=1e-4)


def test_images_up_to_a_training_tile_are_looked_at_in_one_piece(run: Path, weak_data: Path) -> None:
    model = load_model(run)
    predictor = Predictor.of_run(model.method, model.facts, CPU)
    path = next((weak_data / "test" / "img").iterdir())
    image = np.array(Image.open(path).convert("RGB"))
    (maps,) = predictor.maps([image])
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        direct = (model.method.scores(pixels).maps,) if maps.weights is None else model.method(pixels).class_maps
    for mine, theirs in zip(maps.stages, direct, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("tile", "least", "side", "overlap"),
    [(224, 0, 224, 32), (112, 0, 112, 32), (50, 0, 48, 24), (20, 0, 32, 16), (112, 224, 224, 32), (336, 224, 336, 32)],
)
def test_windows_are_as_large_as_the_training_tiles_or_the_least(
    tile: int, least: int, side: int, overlap: int
) -> None:
    windows = Windows.plan(tile, SegmentSettings(), least)
    assert (windows.side, windows.overlap) == (side, overlap)
    assert Windows.plan(tile, SegmentSettings(tile=64), least).side == 64


def test_windows_beyond_the_edge_are_filled_with_mirrored_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 3, 3), np.uint8)
    window = mirrored(image, 8)
    assert window.shape == (8, 8, 3)
    np.testing.assert_array_equal(window[:5, :3], image)
    np.testing.assert_array_equal(window[5:8, :3], image[4:1:-1])
    np.testing.assert_array_equal(window[:5, 3:6], image[:, ::-1])
