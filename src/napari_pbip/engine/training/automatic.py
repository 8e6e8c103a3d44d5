"""The values of settings that are left to a training (``auto``), and the defaults of one that is resumed."""

from __future__ import annotations

from collections.abc import Sequence

from napari_pbip.bank import TileSet
from napari_pbip.config import JobSettings, PbipSettings, PyramidSettings
from napari_pbip.config.methods import ImgMatchSettings
from napari_pbip.engine.run_facts import as_begun
from napari_pbip.engine.training.advice import probe_has_share
from napari_pbip.engine.training.requirements import missing_requirements
from napari_pbip.engine.training.synthesis import missing_alone
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
    ConfigError, ModelError
        If a linear probe is to have a share in scores that are no probabilities, or its encoder has no dense features.
    """
    notes = list[Noted]()
    method, begun = settings.method, None if earlier is None else earlier.method
    if isinstance(method, PyramidSettings) and method.synthesis == "auto":
        # a run of a version without mosaics has none, and is built without them
        weight = begun.synthesis if isinstance(begun, PyramidSettings) else _mosaic_weight(tiles, notes)
        method = method.model_copy(update={"synthesis": weight})
    if isinstance(method, ImgMatchSettings) and method.masked == "auto" and isinstance(begun, ImgMatchSettings):
        method = method.model_copy(update={"masked": begun.masked})
    if isinstance(method, PbipSettings) and method.probe_share == "auto":
        usual = _SHARE if probe_has_share(method, settings.bank.encoder, tiles) else 0.0
        share = begun.probe_share if isinstance(begun, PbipSettings) else usual
        method = method.model_copy(update={"probe_share": share})
    settings = settings.model_copy(update={"method": method})
    if isinstance(method, PbipSettings) and method.probe_share:
        for name, error in missing_requirements(settings, encoders.lookup(settings.bank.encoder)).items():
            if name == "method.probe_share":
                raise error
    return as_begun(settings, earlier), notes


def _mosaic_weight(tiles: TileSet, notes: list[Noted]) -> float:
    if missing := missing_alone(tiles):
        notes.append(
            Noted(
                f"No tile shows {missing[0]} alone, so that no mosaics are composed for training; maps are usually "
                "more exact with some such tiles of each class."
            )
        )
    return 0.0 if missing else 1.0
