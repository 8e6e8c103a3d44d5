"""The fit of a linear probe to labelled tiles, which takes the place of the training by steps of the other methods.

1. Dense features of the tiles are computed or taken from the cache, and some cells of each tile are sampled.
2. Cross-validation over single-class tiles chooses the strength of the penalty, and measures how well the classes are
   distinguished and which tiles do not look like their label.
3. Mosaics are composed of single-class tiles, so that cells near borders are known, too
   (:mod:`napari_pbip.engine.training.probe_mosaics`).
4. The probe is fitted to the cells of single-class tiles and of mosaics.
5. Cells of tiles with several classes are added if the probe is sure which of these classes they have, and it is fitted
   again (multiple-instance learning by self-training). This gains one to three points of mIoU on the validation images
   of GlaS with 100 tiles per class, little with ten, and is harmful with three.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, recall_score

from napari_pbip.bank import LabelledTile, TileSet
from napari_pbip.config import JobSettings, ProbeSettings, SegmentSettings
from napari_pbip.engine import runs
from napari_pbip.engine.dense import DenseFeatures
from napari_pbip.engine.encoding import chunks, encoder_facts
from napari_pbip.engine.inference.evaluate import Report, score_tiles
from napari_pbip.engine.inference.nearest_cells import Exemplars
from napari_pbip.engine.inference.predict import Predictor
from napari_pbip.engine.inference.windows import Windows
from napari_pbip.engine.jobs import cancellable
from napari_pbip.engine.loading import TileReader, ahead
from napari_pbip.engine.training.linear_probe import (
    DEFAULT_STRENGTH,
    STRENGTHS,
    CrossValidation,
    Floats,
    Ints,
    LinearProbe,
    cross_validate,
    fit,
    groups_of_classes,
)
from napari_pbip.engine.training.probe_mosaics import Mosaic, compose, plan_mosaics, sampled_cells
from napari_pbip.engine.training.synthesis import missing_alone
from napari_pbip.errors import DataError
from napari_pbip.events import Epoch, Event, Finished, Noted, Started, Step
from napari_pbip.models import encoders
from napari_pbip.models.methods.probe import Probe
from napari_pbip.signals import held_back

MOST_TILES = 500
"""Largest number of tiles per class, and of tiles with several classes; more hardly improve the fit."""
_CELLS = 60_000
"""Largest number of cells of tiles in a fit, so that it takes seconds; a sixth of them are used in cross-validation."""
_MOSAIC_CELLS = 30_000
"""Largest number of cells of mosaics in a fit."""
_BATCH = 16
ENOUGH = 10
"""Smallest number of tiles per class for using tiles with several classes: a probe of three tiles errs too often."""
_SURE = 0.8
"""Probability from which a cell of a tile with several classes is added to one of them."""
_ROUNDS = 3
_WORST = 24
"""Number of tiles with the largest loss that ``run.json`` lists."""
_EXEMPLARS = 4_000
"""Largest number of cells that are saved with the run."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Features of sampled cells of some tiles."""

    tiles: Sequence[LabelledTile]
    features: Floats
    """Dense features, (T, cells, D)."""


def load_probe(settings: JobSettings, tiles: TileSet) -> tuple[Probe, dict[str, Any]]:
    """Return a probe with the encoder of the settings, not fitted yet, and the facts about the encoder for the run.

    Raises
    ------
    ConfigError, WeightsUnavailable
        If the encoder cannot be loaded (:func:`napari_pbip.models.encoders.load`), or has no dense features.
    DataError
        If a class has no single-class tile.
    """
    if lacking := missing_alone(tiles):
        raise DataError(
            f"No tile shows {' or '.join(lacking)} alone, and a linear probe learns from such tiles; label one, or "
            "choose another method."
        )
    encoder = encoders.load(settings.bank.encoder, settings.bank.weights)
    method = runs.build_method(settings, len(tiles.taxonomy), None, encoder)
    assert isinstance(method, Probe)
    return method, {"encoder": dict(encoder_facts(encoder, settings.bank.weights))}


@dataclass(frozen=True, slots=True)
class Fit:
    """What is known of a fit besides the weights."""

    facts: dict[str, Any]
    """The fit and its cross-validation, as in :attr:`~napari_pbip.engine.run_facts.RunFacts.fit`."""
    single: Cells
    """Cells of the single-class tiles."""
    pictures: int
    """Number of tiles and mosaics that it was fitted to."""


def train_probe(
    facts: runs.RunFacts,
    settings: ProbeSettings,
    method: Probe,
    tiles: TileSet,
    validation: TileSet | None,
    out: Path,
    read: TileReader,
) -> Generator[Event, None, None]:
    """Fit ``method`` (on its device) to the tiles, validate it, and write the run.

    Parameters
    ----------
    facts
        Facts about the run, which are completed and written.
    settings
        Settings of the fit.
    method
        The probe that gets the fitted weights.
    tiles, validation
        Tiles for fitting, and tiles with masks for scoring or None.
    out
        The run folder.
    read
        The reader of tiles.
    """
    began = time.monotonic()
    fitted = yield from fit_probe(facts, settings, method, tiles, read)
    facts.steps = facts.step = fitted.pictures
    report = None if validation is None else (yield from _validate(facts, method, validation, read))
    facts.fit = {**facts.fit, **fitted.facts}
    with held_back():
        for name in (runs.BEST, runs.LAST):
            runs.write_weights(out / name, method.state_dict())
        _exemplars(fitted.single).write(out)
        _finish(facts, report, time.monotonic() - began)
        facts.write(out)
    scores = {f"{p}/{m}": report[p][m] for p in report for m in ("miou", "fwiou", "biou", "dice")} if report else {}
    yield Epoch(1, 1, scores, True)
    yield Finished(
        out,
        {
            "tiles": facts.fit["tiles"] + facts.fit["mixed_tiles"],
            "seconds": facts.seconds,
            "epoch": 1,
            "miou": facts.best_score,
            "balanced_accuracy": facts.fit["balanced_accuracy"],
        },
    )


def fit_probe(
    facts: runs.RunFacts, settings: ProbeSettings, method: Probe, tiles: TileSet, read: TileReader
) -> Generator[Event, None, Fit]:
    """Fit ``method`` (on its device) to the tiles; yields ``Started``, and a ``Step`` for each batch of pictures.

    Parameters
    ----------
    facts
        Facts about the training, which are not changed: its seed, classes, device and the size of its tiles.
    settings, method, tiles, read
        As for :func:`train_probe`.
    """
    rng = np.random.default_rng(facts.settings.train.seed)
    single, mixed = _chosen(tiles, rng)
    classes = np.array([tile.class_index for tile in single])
    mosaics = plan_mosaics([f"{tile.class_index} {tile.path.name}" for tile in single], classes)
    seen_tiles = len(single) + len(mixed)
    pictures = seen_tiles + len(mosaics)
    yield Started(f"Fitting a probe on {facts.device}", total=pictures, unit="pictures")
    yield from _left_out(tiles, len(single), len(mixed))
    cells = max(1, min(settings.cells, _CELLS // seen_tiles))
    dense = DenseFeatures(method.encoder.network)
    of_single = yield from _cells(single, dense, cells, read, rng, done=0)
    of_mixed = yield from _cells(mixed, dense, cells, read, rng, done=len(single))
    side = Windows.plan(facts.tile_size, SegmentSettings(), settings.window).side
    of_mosaics = yield from _cells_of_mosaics(mosaics, single, dense, side, settings.cells, read, done=seen_tiles)
    names = tiles.taxonomy.names
    seen = yield from _validate_across(names, of_single, classes, settings, pictures)
    strength = settings.strength
    if strength == "auto":
        strength = DEFAULT_STRENGTH if seen is None else seen.strength
    method.load_state_dict(fit_with_mixed(of_single, classes, of_mixed, of_mosaics, strength).tensors)
    method.eval()
    known = {"strength": strength, "tiles": len(single), "mixed_tiles": len(mixed)}
    return Fit({**known, **cross_validation_summary(names, single, classes, seen)}, of_single, pictures)


def _chosen(tiles: TileSet, rng: np.random.Generator) -> tuple[list[LabelledTile], list[LabelledTile]]:
    """Return the single-class tiles, by class, and the tiles with several classes to which the probe is fitted."""
    of_classes = [[tile for tile in tiles.single_class if tile.class_index == n] for n in range(len(tiles.taxonomy))]
    single = [_some(own, rng) for own in of_classes]
    several = [tile for tile in tiles if len(tile.labels) > 1]
    enough = min(map(len, single)) >= ENOUGH
    return [tile for own in single for tile in own], _some(several, rng) if enough else []


def _left_out(tiles: TileSet, single: int, mixed: int) -> Iterator[Noted]:
    """Yield which tiles are left out, and why."""
    several = sum(len(tile.labels) > 1 for tile in tiles)
    if several and not mixed:
        yield Noted(
            f"The probe leaves out {several:,} tiles with several classes: they only help it if each class has "
            f"{ENOUGH} tiles that show it alone."
        )
    if (others := len(tiles.single_class) - single + (several - mixed if mixed else 0)) > 0:
        yield Noted(f"The probe leaves out {others:,} of {len(tiles):,} tiles: {MOST_TILES} of each class are enough.")


def _some(tiles: Sequence[LabelledTile], rng: np.random.Generator) -> list[LabelledTile]:
    return [tiles[i] for i in sorted(rng.permutation(len(tiles))[:MOST_TILES])]


def _cells(
    tiles: Sequence[LabelledTile],
    dense: DenseFeatures,
    count: int,
    read: TileReader,
    rng: np.random.Generator,
    done: int,
) -> Generator[Event, None, Cells]:
    """Return the features of ``count`` random cells of each tile, which may repeat; yield a ``Step`` per batch."""
    found = np.empty((len(tiles), count, dense.encoder.dense_dimension), np.float32)
    filled = 0
    for images in chunks(ahead(read, tiles, depth=2 * _BATCH), _BATCH):
        for features in dense(images):
            of_cells = features.reshape(len(features), -1).T
            chosen = np.resize(rng.permutation(len(of_cells)), count)
            found[filled] = of_cells[chosen]
            filled += 1
        yield Step(done + filled)
    return Cells(tiles, found)


def _cells_of_mosaics(
    mosaics: Sequence[Mosaic],
    tiles: Sequence[LabelledTile],
    dense: DenseFeatures,
    side: int,
    most: int,
    read: TileReader,
    done: int,
) -> Generator[Event, None, tuple[Floats, Ints]]:
    """Return features, (n, D), and classes, (n,), of up to ``most`` cells of each mosaic of tiles."""
    each = max(1, min(most, _MOSAIC_CELLS // len(mosaics)))
    features, classes = list[Floats](), list[Ints]()
    composed = ahead(lambda one: compose(one, [read(tiles[n]) for n in one.tiles], side), mosaics, depth=2 * _BATCH)
    for batch in chunks(zip(mosaics, composed, strict=True), _BATCH):
        found = dense([image for _, (image, _) in batch])
        for (mosaic, (_, pieces)), of_picture in zip(batch, found, strict=True):
            of_cells, piece = sampled_cells(of_picture, pieces, each)
            features.append(of_cells)
            classes.append(np.array([tiles[n].class_index for n in mosaic.tiles])[piece])
        done += len(batch)
        yield Step(done)
    return np.concatenate(features), np.concatenate(classes)


def _validate_across(
    names: Sequence[str], cells: Cells, classes: Ints, settings: ProbeSettings, done: int
) -> Generator[Event, None, CrossValidation | None]:
    """Cross-validate over slides or tiles (:func:`groups_of`); return None if every class has a single one."""
    groups = groups_of(cells.tiles, classes)
    count = groups_of_classes(classes, groups)
    if lonely := [name for name, one in zip(names, count == 1, strict=True) if one]:
        yield Noted(f"How well {', '.join(lonely)} can be recognised is not known from one tile; label another.")
    if (count == 1).all():
        return None
    few = cells.features[:, : max(1, _CELLS // 6 // len(classes))]
    strengths = STRENGTHS if settings.strength == "auto" else (settings.strength,)
    return (yield from cancellable(cross_validate(few, classes, groups, strengths), done))


def groups_of(tiles: Sequence[LabelledTile], classes: Ints) -> Ints:
    """Return the group of each tile, (T,): its slide if every class occurs on two slides, otherwise the tile itself."""
    if all(tile.origin is not None for tile in tiles):
        slides: Ints = np.unique([tile.origin.slide for tile in tiles if tile.origin], return_inverse=True)[1]
        if groups_of_classes(classes, slides).min() > 1:
            return slides
    return np.arange(len(tiles))


def fit_with_mixed(
    single: Cells,
    classes: Ints,
    mixed: Cells,
    mosaics: tuple[Floats, Ints],
    strength: float,
    start: LinearProbe | None = None,
) -> LinearProbe:
    """Fit a probe to single-class tiles and mosaics of them, and then to the cells of other tiles whose class is sure.

    Parameters
    ----------
    single
        Cells of T single-class tiles.
    classes
        Class of each of them, (T,).
    mixed
        Cells of tiles with several classes; there may be none.
    mosaics
        Features, (n, D), and classes, (n,), of cells of mosaics.
    strength
        Strength of the penalty.
    start
        A probe from which the fit starts (:func:`~napari_pbip.engine.training.linear_probe.fit`).
    """
    dimension = single.features.shape[2]
    features = np.concatenate([single.features.reshape(-1, dimension), mosaics[0]])
    labels = np.concatenate([classes.repeat(single.features.shape[1]), mosaics[1]])
    probe = fit(features, labels, strength, start)
    if not mixed.tiles:
        return probe
    others = mixed.features.reshape(-1, dimension)
    absent = np.ones((len(mixed.tiles), len(probe.bias)), bool)
    for row, tile in zip(absent, mixed.tiles, strict=True):
        row[list(tile.labels)] = False
    absent = absent.repeat(mixed.features.shape[1], axis=0)
    for _ in range(_ROUNDS):
        probability = np.exp(probe.log_probability(others))
        probability[absent] = 0
        sure = probability.max(1) > _SURE * probability.sum(1)
        probe = fit(
            np.concatenate([features, others[sure]]),
            np.concatenate([labels, probability.argmax(1)[sure]]),
            strength,
            probe,
        )
    return probe


def _exemplars(cells: Cells) -> Exemplars:
    """Return some cells of each tile, to be saved with the run."""
    few = cells.features[:, : max(1, _EXEMPLARS // len(cells.tiles))].astype(np.float16)
    return Exemplars(
        few.reshape(-1, few.shape[2]),
        np.arange(len(few), dtype=np.int32).repeat(few.shape[1]),
        tuple(tile.path.absolute() for tile in cells.tiles),
        tuple(next(iter(tile.labels)) for tile in cells.tiles),
    )


def _validate(
    facts: runs.RunFacts, method: Probe, validation: TileSet, read: TileReader
) -> Generator[Event, None, Report]:
    precision = facts.settings.train.precision
    predictor = Predictor.of_run(method, facts, method.weight.device, precision=precision)
    return (yield from cancellable(score_tiles(predictor, validation, read), facts.steps))


def cross_validation_summary(
    names: Sequence[str], single: Sequence[LabelledTile], classes: Ints, seen: CrossValidation | None
) -> dict[str, Any]:
    """Return the result of cross-validation for :attr:`~napari_pbip.engine.run_facts.RunFacts.fit`, ready for JSON.

    Parameters
    ----------
    names
        Names of the classes, (N,).
    single
        The single-class tiles, (T,).
    classes
        Class of each of them, (T,).
    seen
        The cross-validation, or None if it was not possible.
    """
    if seen is None:
        return {"balanced_accuracy": None, "confusion": None, "slides": {}, "worst": []}
    asked = ~np.isnan(seen.log_probability[:, 0])
    single, classes = [tile for tile, one in zip(single, asked, strict=True) if one], classes[asked]
    of_classes = seen.log_probability[asked]
    predicted = of_classes.argmax(1)
    loss = -of_classes[np.arange(len(classes)), classes]
    slides: dict[str, list[bool]] = {}
    for tile, right in zip(single, predicted == classes, strict=True):
        if tile.origin is not None:
            slides.setdefault(tile.origin.slide, []).append(bool(right))
    worst = [
        {
            "path": str(single[i].path.absolute()),
            "label": names[classes[i]],
            "predicted": names[predicted[i]],
            "loss": round(float(loss[i]), 4),
        }
        for i in np.argsort(-loss, kind="stable")[:_WORST]
    ]
    return {
        "balanced_accuracy": 100 * float(recall_score(classes, predicted, labels=np.unique(classes), average="macro")),
        "confusion": confusion_matrix(classes, predicted, labels=range(len(names))).tolist(),
        "slides": {slide: [sum(right), len(right)] for slide, right in slides.items()},
        "worst": worst,
    }


def _finish(facts: runs.RunFacts, report: Report | None, seconds: float) -> None:
    facts.step, facts.epoch, facts.best_epoch, facts.seconds = facts.steps, 1, 1, seconds
    facts.validations = [{"epoch": 1, "step": facts.step, **report}] if report else []
    facts.best_score = report[facts.settings.train.select_by]["miou"] if report else None
