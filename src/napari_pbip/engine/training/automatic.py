"""The values of settings that are left to a training (``auto``), and the defaults of one that is resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from napari_pbip.bank import TileSet
from napari_pbip.config import JobSettings, PbipSettings, PyramidSettings
from napari_pbip.config.methods import ImgMatchSettings
from napari_pbip.engine.run_facts import as_begun
from napari_pbip.engine.training.advice import FEW, probe_has_share
from napari_pbip.engine.training.synthesis import missing_alone
from napari_pbip.errors import ConfigError
from napari_pbip.events import Noted
from napari_pbip.models import encoders

_SHARE = 0.5
"""Share of a linear probe in the scores of PBIP, if it has one: the best of a quarter, a half and three quarters with
ten tiles of each class."""


def settled(settings: JobSettings, tiles: TileSet, earlier: JobSettings | None) -> tuple[JobSettings, Sequence[Noted]]:
    """Return settings in which nothing is left to the training any more, and notes about it.

    Parameters
    ----------
    settings
        Settings of a training in steps, with the encoder that it uses.
    tiles
        The training tiles.
    earlier
        Settings of the run that is to be resumed, whose values count, or None.

    Raises
    ------
    ConfigError
        If a linear probe is to have a share in scores that are no probabilities, or its encoder has no dense features.
    """
    notes = list[Noted]()
    changes: dict[str, Any] = {}
    if isinstance(settings.method, PyramidSettings) and settings.method.synthesis == "auto":
        changes |= _kept(earlier, "synthesis") or _mosaic_weight(tiles, notes)
    if isinstance(settings.method, ImgMatchSettings) and settings.method.masked == "auto":
        changes |= _kept(earlier, "masked")
    method = settings.method.model_copy(update=changes)
    if isinstance(method, PbipSettings):
        if method.probe_share == "auto":
            share = _kept(earlier, "probe_share") or _probe_share(settings.bank.encoder, method, tiles, notes)
            method = method.model_copy(update=share)
        if method.probe_share:
            _require_probabilities(settings.bank.encoder, method)
    return as_begun(settings.model_copy(update={"method": method}), earlier), notes


def _kept(earlier: JobSettings | None, name: str) -> Mapping[str, Any]:
    """Return the value of a setting of the method in a run that is to be resumed, by its name."""
    return {name: getattr(earlier.method, name)} if earlier is not None and hasattr(earlier.method, name) else {}


def _mosaic_weight(tiles: TileSet, notes: list[Noted]) -> Mapping[str, Any]:
    if missing := missing_alone(tiles):
        notes.append(
            Noted(
                f"No tile shows {missing[0]} alone, so that no mosaics are composed for training; maps are usually "
                "more exact with some such tiles of each class."
            )
        )
    return {"synthesis": 0.0 if missing else 1.0}


def _require_probabilities(encoder: str, method: PbipSettings) -> None:
    if not method.synthesis:
        raise ConfigError(
            "A linear probe can only have a share in scores that are probabilities, which takes mosaics and a tile of "
            "each class that shows it alone: set `method.probe_share` to 0, or `method.synthesis` to 1."
        )
    if not encoders.lookup(encoder).dense:
        raise ConfigError(
            f"A linear probe needs a vision transformer or a pyramid, and the encoder {encoder!r} is neither: set "
            "`method.probe_share` to 0, or build the image bank with another, such as efficientnet-lite0."
        )


def _probe_share(encoder: str, method: PbipSettings, tiles: TileSet, notes: list[Noted]) -> Mapping[str, Any]:
    if not probe_has_share(method, encoder, tiles):
        return {"probe_share": 0.0}
    count = min(tiles.alone)
    name, shown = (
        tiles.taxonomy.names[tiles.alone.index(count)],
        "1 tile shows" if count == 1 else f"{count} tiles show",
    )
    notes.append(
        Noted(
            f"Only {shown} {name} alone: the map of PBIP is averaged with that of a linear probe, because maps learned "
            f"from fewer than {FEW} such tiles are more exact so."
        )
    )
    return {"probe_share": _SHARE}
