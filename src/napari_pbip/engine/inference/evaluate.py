"""The job that scores a model on tiles with masks, under two protocols, whose figures are never mixed.

Under ``oracle`` the true image-level labels decide which classes a pixel may have, as in the published code. Under
``predicted`` the class presence that the network predicts decides it, as on a slide.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_pbip.bank import LabelledTile, TileSet, load_tiles
from napari_pbip.config import DataSettings, RefineSettings, ThresholdSettings
from napari_pbip.engine.device import Precision, choose_device
from napari_pbip.engine.inference.predict import (
    ImageMaps,
    Label,
    Predictor,
    predicted_presence,
    refined_image,
    segment_image,
)
from napari_pbip.engine.jobs import job
from napari_pbip.engine.loading import Image, TileReader, ahead, batches_of_one_kind
from napari_pbip.engine.runs import Which, load_model
from napari_pbip.engine.tile_notes import tile_notes
from napari_pbip.errors import ConfigError
from napari_pbip.events import Finished, Job, Started, Step, Warned
from napari_pbip.results.metrics import PROTOCOLS, SegmentationScores

BATCH = 16
"""Number of images that the network gets at once."""
Report = dict[str, dict[str, Any]]


@job
def evaluate(
    run: Path | str,
    data: DataSettings,
    split: str = "test",
    *,
    which: Which = "best",
    device: str = "auto",
    precision: Precision = "float32",
    refine: RefineSettings | None = None,
    thresholds: ThresholdSettings | None = None,
) -> Job:
    """Score a trained model; the summary of ``Finished`` contains the figures in percent and the confusion matrices.

    Parameters
    ----------
    run
        Folder of the training.
    data
        The data set, with the folder of the tiles and their masks.
    split
        ``test`` or ``val``.
    which
        The best or the last model of the training.
    device, precision
        Device and number format of the computation.
    refine
        Test-time augmentation and dense CRF; by default neither.
    thresholds
        Only the smoothing is used, if the microns per pixel of the tiles are known; by default that of the training.

    Raises
    ------
    ConfigError
        If ``data`` names no folder, or the device does not exist.
    ModelError
        If the run cannot be read, or its classes differ from those of the data.
    DataError
        If tiles or masks are missing or wrong.
    """
    began = time.monotonic()
    if data.folder is None:
        raise ConfigError("There is nothing to score on; name the folder of tiles with masks with `data.folder`.")
    chosen = choose_device(device)
    model = load_model(Path(run), which, chosen)
    names = model.facts.taxonomy.names
    tiles = load_tiles(data.folder, split, data)
    model.require_classes(tiles.taxonomy.names)
    tiles.require_masks("scores need masks")
    yield Started(f"Scoring {split}", total=len(tiles.tiles), unit="tiles")
    yield from tile_notes(tiles)
    if model.note:
        yield Warned(model.note)
    refine = refine or RefineSettings()
    scores = _new_scores(tiles)
    predictor = Predictor.of_run(
        model.method,
        model.facts,
        chosen,
        precision=precision,
        thresholds=thresholds,
        tta=refine.tta,
        mpp=data.mpp,
    )
    yield from _add(scores, predictor, tiles, TileReader(), crf=refine.crf)
    summary = {
        "protocols": {protocol: score.report() for protocol, score in scores.items()},
        "confusion": {protocol: score.confusion.matrix[:-1].tolist() for protocol, score in scores.items()},
        "refine": refine.model_dump(mode="json"),
        "smoothing_pixels": predictor.smoothing,
        "run": str(run),
        "model": {"which": model.which, "identity": model.identity, "method": model.facts.settings.method.name},
        "data": str(data.folder),
        "split": split,
        "tiles": len(tiles.tiles),
        "classes": list(names),
        "seconds": time.monotonic() - began,
    }
    yield Finished(None, summary)


def score_tiles(predictor: Predictor, tiles: TileSet, read: TileReader) -> Generator[Step, None, Report]:
    """Score a network on tiles with masks; yield a ``Step`` for each batch, return the report.

    Returns
    -------
    dict
        ``{"oracle": {"miou", "fwiou", "biou", "dice", "per_class"}, "predicted": {...}}`` in percent.
    """
    scores = _new_scores(tiles)
    yield from _add(scores, predictor, tiles, read)
    return {protocol: score.report() for protocol, score in scores.items()}


def predict_labels(image: Image, truth: Image, maps: ImageMaps, *, crf: bool = False) -> dict[str, Label]:
    """Return the class of each pixel of an image under each protocol.

    Parameters
    ----------
    image
        RGB uint8 (H, W, 3).
    truth
        Its mask, from which the ``oracle`` protocol takes the classes in the image; uint8 (H, W).
    maps
        The network's output for it.
    crf
        Whether to refine the labels with a dense CRF.

    Returns
    -------
    dict
        Class indices, uint8 (H, W), by protocol.
    """
    classes = maps.stages[0].shape[1]
    shown = torch.zeros(1, classes, 1, 1, dtype=torch.bool, device=maps.presence.device)
    shown[0, [int(v) for v in np.unique(truth) if v < classes]] = True
    presences = (shown, predicted_presence(maps.presence))
    if crf:
        labels = refined_image(image, maps, presences)
    else:
        labels = [segment_image(maps, present, image.shape[:2]) for present in presences]
    return dict(zip(PROTOCOLS, labels, strict=True))


Scores = dict[str, SegmentationScores]


def _new_scores(tiles: TileSet) -> Scores:
    return {protocol: SegmentationScores(tiles.taxonomy.names) for protocol in PROTOCOLS}


def _add(
    scores: Scores, predictor: Predictor, tiles: TileSet, read: TileReader, *, crf: bool = False
) -> Iterator[Step]:
    """Add all tiles to the scores of each protocol; yield a ``Step`` for each batch."""
    done, classes = 0, len(tiles.taxonomy)

    def load(tile: LabelledTile) -> tuple[Image, Image]:
        return read(tile), tile.read_mask(classes)

    pairs = ahead(load, tiles.tiles, depth=2 * BATCH)
    for batch in batches_of_one_kind(pairs, lambda pair: pair[0].shape, BATCH):
        seen = predictor.maps([image for image, _ in batch])
        for maps, (image, truth) in zip(seen, batch, strict=True):
            labels = predict_labels(image, truth, maps, crf=crf)
            for protocol, predicted in labels.items():
                scores[protocol].add(truth, predicted)
        done += len(batch)
        yield Step(done)
