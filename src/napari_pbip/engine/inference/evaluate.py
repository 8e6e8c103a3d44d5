"""The job that scores a model on tiles with masks, under several protocols, whose figures are never mixed.

They are :data:`~napari_pbip.results.metrics.PROTOCOLS`. Tiles have no tissue mask, and a network gives each of their
pixels a class, so that under ``predicted`` all background of the masks counts as error.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_pbip.bank import LabelledTile, TileSet, load_tiles
from napari_pbip.config import DataSettings, RefineSettings, ThresholdSettings
from napari_pbip.engine.device import Precision, choose_device
from napari_pbip.engine.inference.predict import (
    ImageMaps,
    Label,
    Predictor,
    predicted_presence,
    probabilities,
    refined_image,
    segment_image,
)
from napari_pbip.engine.jobs import job
from napari_pbip.engine.loading import Image, TileReader, ahead, batches_of_one_kind
from napari_pbip.engine.runs import Which, load_model
from napari_pbip.engine.tile_notes import tile_notes
from napari_pbip.errors import ConfigError
from napari_pbip.events import Finished, Job, Loading, Started, Step, Warned
from napari_pbip.results.calibration import Calibration
from napari_pbip.results.comparison import write_counts
from napari_pbip.results.metrics import PROTOCOLS, SegmentationScores
from napari_pbip.results.resampling import intervals

BATCH = 16
"""Number of images that the network gets at once."""
_VALIDATED = ("oracle", "predicted")
"""Protocols of a validation during training, of which one may choose the best model."""
Report = dict[str, dict[str, Any]]
Mask = npt.NDArray[np.integer[Any]]


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
    counts: Path | None = None,
) -> Job:
    """Score a trained model.

    The summary of ``Finished`` contains by protocol the figures in percent, their ``intervals``
    (:func:`~napari_pbip.results.resampling.intervals`), their ``mean_of_images`` and the confusion matrices;
    and the ``calibration`` (:class:`~napari_pbip.results.calibration.Calibration`) of the predicted ``presence`` of
    classes in images and, if they are probabilities, of the ``scores`` at pixels.

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
    counts
        File to write the counts of each image into (:func:`~napari_pbip.results.comparison.write_counts`).

    Raises
    ------
    ConfigError
        If ``data`` names no folder, or the device does not exist.
    ModelError
        If the run cannot be read, or its classes differ from those of the data.
    DataError
        If tiles or masks are missing or wrong.
    OutputError
        If ``counts`` cannot be written.
    """
    began = time.monotonic()
    if data.folder is None:
        raise ConfigError("There is nothing to score on; name the folder of tiles with masks with `data.folder`.")
    chosen = choose_device(device)
    yield Loading(f"the model {Path(run).name}")
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
    scores = {protocol: SegmentationScores(names) for protocol in PROTOCOLS}
    predictor = Predictor.of_run(
        model.method,
        model.facts,
        chosen,
        precision=precision,
        thresholds=thresholds,
        tta=refine.tta,
        mpp=data.mpp,
        expected=len(tiles) * model.facts.tile_size**2,
    )
    calibration = {"presence": Calibration(), "scores": Calibration()}
    yield from _add(scores, predictor, tiles, TileReader(), crf=refine.crf, calibration=calibration)
    if counts is not None:
        write_counts(counts, scores)
    summary = {
        "protocols": {protocol: _with_intervals(score) for protocol, score in scores.items()},
        "confusion": {protocol: score.confusion.tolist() for protocol, score in scores.items()},
        "calibration": {name: found for name, one in calibration.items() if (found := one.report())},
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
        ``{"oracle": ..., "predicted": ...}``, each as :meth:`SegmentationScores.report` returns it.
    """
    scores = {protocol: SegmentationScores(tiles.taxonomy.names) for protocol in _VALIDATED}
    yield from _add(scores, predictor, tiles, read)
    return {protocol: score.report() for protocol, score in scores.items()}


def predict_labels(image: Image, truth: Mask, maps: ImageMaps, *, crf: bool = False) -> dict[str, Label]:
    """Return the class of each pixel of an image under each protocol.

    Parameters
    ----------
    image
        RGB uint8 (H, W, 3).
    truth
        Its mask, (H, W), from which some protocols take the classes in the image.
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
    shown = torch.from_numpy(np.isin(np.arange(classes), truth))[None, :, None, None].to(maps.presence.device)
    presences = (shown, predicted_presence(maps.presence))
    if crf:
        labels = refined_image(image, maps, presences)
    else:
        labels = [segment_image(maps, present, image.shape[:2]) for present in presences]
    given, not_given = labels
    return {name: given if protocol.classes_given else not_given for name, protocol in PROTOCOLS.items()}


def _with_intervals(scores: SegmentationScores) -> dict[str, Any]:
    units = {"images": scores.counts, "slides": scores.slide_counts}
    of_images = {"mean_of_images": scores.mean_of_images(), "intervals": intervals(units, scores.names)}
    return {**scores.report(), **of_images}


def _add(
    scores: Mapping[str, SegmentationScores],
    predictor: Predictor,
    tiles: TileSet,
    read: TileReader,
    *,
    crf: bool = False,
    calibration: Mapping[str, Calibration] | None = None,
) -> Iterator[Step]:
    """Add all tiles to the scores of each protocol, and to the calibration; yield a ``Step`` for each batch."""
    done, classes = 0, len(tiles.taxonomy)

    def load(tile: LabelledTile) -> tuple[Image, Mask, str | None]:
        return read(tile), tile.mask_values(classes), tile.origin.slide if tile.origin else None

    loaded = ahead(load, tiles.tiles, depth=2 * BATCH)
    for batch in batches_of_one_kind(loaded, lambda one: one[0].shape, BATCH):
        seen = predictor.maps([image for image, *_ in batch])
        for maps, (image, truth, slide) in zip(seen, batch, strict=True):
            labels = predict_labels(image, truth, maps, crf=crf)
            for protocol, of_protocol in scores.items():
                of_protocol.add(PROTOCOLS[protocol].truth(truth, classes), labels[protocol], slide)
            if calibration is not None:
                _calibrate(calibration, truth, maps)
        done += len(batch)
        yield Step(done)


def _calibrate(calibration: Mapping[str, Calibration], truth: Mask, maps: ImageMaps) -> None:
    """Add the probabilities of an image; its presence only if one is predicted for all of it and all of it is known."""
    classes = maps.presence.shape[1]
    known = truth <= classes
    if known.all() and maps.presence.shape[-1] == 1:
        calibration["presence"].add(maps.presence.flatten().cpu().numpy(), np.isin(np.arange(classes), truth))
    if (found := probabilities(maps, truth.shape)) is not None:
        calibration["scores"].add(found[:, known], truth[known] == np.arange(classes)[:, None])
