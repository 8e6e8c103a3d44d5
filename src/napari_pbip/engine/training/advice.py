"""Which of the two usual methods suits the labelled tiles at hand, a linear probe or PBIP, and how long PBIP takes.

The figures behind it are in docs/benchmarks.md: with ten tiles of each class and with thirty, PBIP's maps were better
than those of a probe, and how well the probe recognises tiles in cross-validation said nothing about the maps of
either. The recommendation is therefore about time, and depends on the number of tiles alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Literal

from napari_pbip.bank import TileSet
from napari_pbip.config import BackboneSettings, BankSettings, JobSettings, PbipSettings
from napari_pbip.engine.run_facts import RunFacts

ENOUGH = 10
"""Smallest number of single-class tiles of each class with which PBIP was compared with the probe. With so few, another
choice of tiles changes a map as much as the other method does."""
_SECONDS = 1.7
"""Seconds in which a core of an AMD EPYC (AVX-512, bfloat16) trains PBIP on a million pixels of tiles and mosaics."""
_CORES = 2


@dataclass(frozen=True, slots=True)
class Advice:
    """The recommended method, and why."""

    method: Literal["pbip", "probe"]
    """Its name in the settings."""
    sentences: str
    """The recommendation with its reason, and what it costs, for users."""


def advise(
    settings: JobSettings, tiles: TileSet, steps: int, side: int, earlier: Iterable[RunFacts] = ()
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
    """
    alone = [sum(tile.class_index == n for tile in tiles) for n in range(len(tiles.taxonomy))]
    fewest = min(alone)
    if not fewest:
        return None  # neither method can learn that class
    if fewest < ENOUGH:
        name, shown = tiles.taxonomy.names[alone.index(fewest)], "tile shows" if fewest == 1 else "tiles show"
        return Advice(
            "probe",
            "Recommended for now: a linear probe. It takes seconds, so that you can see what every further label does. "
            f"Only {fewest} {shown} {name} alone; PBIP is worth its minutes from {ENOUGH} of each class on.",
        )
    return Advice(
        "pbip",
        f"Recommended: PBIP, which takes {_time(settings, steps, side, earlier)}. With {ENOUGH} or more tiles that "
        "show each class alone, its maps are usually better than those of a linear probe. A probe gives a first map in "
        "seconds, and shows which labels may be wrong.",
    )


def _time(settings: JobSettings, steps: int, side: int, earlier: Iterable[RunFacts]) -> str:
    """Return how long a training of PBIP takes, in words."""
    pixels = _megapixels(settings, steps, side)
    networks = settings.backbone.name, settings.bank.encoder
    alike = [one for one in earlier if (one.settings.backbone.name, one.settings.bank.encoder) == networks]
    masked = settings.method.masked if isinstance(settings.method, PbipSettings) else PbipSettings().masked
    rates = [
        one.seconds / _megapixels(one.settings, one.step, one.tile_size)
        for one in alike
        if one.finished and isinstance(one.settings.method, PbipSettings) and one.settings.method.masked == masked
    ]
    if rates:
        return f"{_minutes(median(rates) * pixels)}, judged by an earlier training"
    if networks == (BackboneSettings().name, BankSettings().encoder):
        return f"{_minutes(_SECONDS / _CORES * pixels)} on two processor cores, less with a graphics card"
    return "minutes, or longer with a large network"


def _megapixels(settings: JobSettings, steps: int, side: int) -> float:
    """Return the millions of pixels of tiles that a training of PBIP sees; a mosaic for two tiles counts as a half."""
    method = settings.method
    mosaics = not isinstance(method, PbipSettings) or method.synthesis != 0
    return steps * settings.train.batch_size * (1.5 if mosaics else 1) * side**2 / 1e6


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return (
        "about a minute"
        if minutes <= 1
        else f"about {minutes} minutes"
        if minutes < 90
        else f"about {round(minutes / 60)} hours"
    )
