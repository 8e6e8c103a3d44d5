"""Which of the two usual methods suits the labelled tiles at hand, a linear probe or PBIP, and how long PBIP takes.

The figures behind it are in docs/benchmarks.md: with ten tiles of each class, PBIP's maps of glands and of lung were
about as good as those of a probe, and the means of both were as good or better; with many tiles PBIP's were better, and
on glands best without the probe; and how well the probe recognises tiles in cross-validation said nothing about the
maps of either. The recommendation is therefore about time, and depends on the number of tiles alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal

from napari_pbip.bank import TileSet
from napari_pbip.config import BackboneSettings, BankSettings, JobSettings, PbipSettings
from napari_pbip.engine.run_facts import RunFacts

ENOUGH = 10
"""Smallest number of single-class tiles of each class with which PBIP was compared with the probe. With so few, another
choice of tiles changes a map as much as the other method does."""
FEW = 30
"""Number of single-class tiles of a class below which a linear probe gets a share in the scores of PBIP."""
_SECONDS_OF_STEP, _SECONDS_OF_MEGAPIXEL = 0.27, 0.79
"""Seconds of a training of PBIP on two cores of an AMD EPYC (AVX-512, bfloat16): of a step of any size, and of a
million pixels of tiles and mosaics. From trainings with ten tiles of 112 pixels, 0.42 s a step, and of 224 pixels,
0.86 s."""


@dataclass(frozen=True, slots=True)
class Advice:
    """The recommended method, and why."""

    method: Literal["pbip", "probe"]
    """Its name in the settings."""
    sentences: str
    """The recommendation with its reason, and what it costs, for users."""


def probe_has_share(method: PbipSettings, encoder: str, tiles: TileSet) -> bool:
    """Return whether a linear probe has a share in the scores of PBIP.

    Parameters
    ----------
    method
        Settings of PBIP.
    encoder
        Name of the encoder. Unless the settings ask for a share, there is one with the default encoder only: maps would
        take many times as long to compute with a large one.
    tiles
        The labelled tiles.
    """
    if method.probe_share != "auto":
        return method.probe_share > 0
    return bool(method.synthesis) and 0 < min(tiles.alone) < FEW and encoder == BankSettings().encoder


def advise(
    settings: JobSettings,
    tiles: TileSet,
    steps: int,
    side: int,
    earlier: Iterable[RunFacts] = (),
    titles: Mapping[str, str] | None = None,
) -> Advice | None:
    """Return which of the two methods suits some labelled tiles; None if a class has no tile that shows it alone.

    Parameters
    ----------
    settings
        Settings of the training, whatever their method.
    tiles
        The labelled tiles.
    steps
        Number of optimiser steps of a training with them.
    side
        Side of the tiles in pixels.
    earlier
        Earlier trainings on this computer. The time of PBIP is estimated from those of PBIP with the same networks, or
        else is that of two processor cores with the default networks, or is not told.
    titles
        What the user calls classes, by their names, where that is not the name.
    """
    fewest = min(tiles.alone)
    if not fewest:
        return None  # neither method can learn that class
    method = settings.method if isinstance(settings.method, PbipSettings) else PbipSettings()
    share = probe_has_share(method, settings.bank.encoder, tiles)
    if fewest < ENOUGH:
        name, shown = tiles.taxonomy.names[tiles.alone.index(fewest)], "tile shows" if fewest == 1 else "tiles show"
        name = (titles or {}).get(name, name)
        averaged = ", whose map is averaged with that of a probe," if share else ""
        return Advice(
            "probe",
            "Recommended for now: a linear probe. It takes seconds, so that you can see what every further label does. "
            f"Only {fewest} {shown} {name} alone; PBIP{averaged} is worth its minutes from {ENOUGH} of each class on.",
        )
    averaged = (
        f"Its map is averaged with that of a linear probe of the same tiles: with {ENOUGH} of each class, maps of "
        "glands and of lung were as good so as those of either alone, or better."
    )
    alone = (
        "With many tiles, its maps of glands and of lung were better than those of a linear probe; with "
        f"{ENOUGH} that show each class alone, they were about as good."
    )
    return Advice(
        "pbip",
        f"Recommended: PBIP, which takes {_time(settings, steps, side, earlier)}. {averaged if share else alone} "
        "A probe alone gives a first map in seconds, and shows which labels may be wrong.",
    )


def _time(settings: JobSettings, steps: int, side: int, earlier: Iterable[RunFacts]) -> str:
    """Return how long a training of PBIP takes, in words."""
    usual = _seconds(settings, steps, side)
    networks = settings.backbone.name, settings.bank.encoder
    alike = [one for one in earlier if (one.settings.backbone.name, one.settings.bank.encoder) == networks]
    masked = settings.method.masked if isinstance(settings.method, PbipSettings) else PbipSettings().masked
    speeds = [
        one.seconds / _seconds(one.settings, one.step, one.tile_size)
        for one in alike
        if one.finished
        and one.seconds
        and isinstance(one.settings.method, PbipSettings)
        and one.settings.method.masked == masked
    ]
    if speeds:
        return f"{_minutes(median(speeds) * usual)}, judged by an earlier training"
    if networks == (BackboneSettings().name, BankSettings().encoder):
        return f"{_minutes(usual)} on two processor cores, less with a graphics card"
    return "minutes, or longer with a large network"


def _seconds(settings: JobSettings, steps: int, side: int) -> float:
    """Return how long a training of PBIP takes with the default networks, on the processor that was measured."""
    method = settings.method
    mosaics = not isinstance(method, PbipSettings) or method.synthesis != 0  # a mosaic for two tiles counts as a half
    pixels = steps * settings.train.batch_size * (1.5 if mosaics else 1) * side**2
    return steps * _SECONDS_OF_STEP + pixels / 1e6 * _SECONDS_OF_MEGAPIXEL


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return (
        "about a minute"
        if minutes <= 1
        else f"about {minutes} minutes"
        if minutes < 90
        else f"about {round(minutes / 60)} hours"
    )
