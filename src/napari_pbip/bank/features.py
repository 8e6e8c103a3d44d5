"""Features and colours of tiles by the hash of their file, so that an update computes only those of new tiles."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from napari_pbip.errors import BankError
from napari_pbip.files import writing

FEATURES = "features.safetensors"
_NEAR_WHITE = 220


@dataclass(frozen=True, slots=True, eq=False)
class TileMeasures:
    """The feature, colour and whiteness of a tile."""

    feature: npt.NDArray[np.float32]
    """Shape (D,)."""
    colour: npt.NDArray[np.float32]
    """Mean of R, G, B and of their squares in [0, 1], shape (6,)."""
    white: float
    """Share of near-white pixels."""


class FeatureFile:
    """The measures of tiles by their hash, for one encoder.

    Parameters
    ----------
    encoder
        Name and weights hash of the encoder.
    """

    def __init__(self, encoder: str) -> None:
        self.encoder = encoder
        self._rows: dict[str, TileMeasures] = {}

    def __contains__(self, tile_hash: str) -> bool:
        return tile_hash in self._rows

    def __getitem__(self, tile_hash: str) -> TileMeasures:
        return self._rows[tile_hash]

    def __setitem__(self, tile_hash: str, measures: TileMeasures) -> None:
        self._rows[tile_hash] = measures

    def __len__(self) -> int:
        return len(self._rows)

    def keep(self, hashes: Collection[str]) -> None:
        """Drop the measures of all other tiles."""
        self._rows = {h: row for h, row in self._rows.items() if h in hashes}

    def features(self, hashes: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the features of these tiles, shape (T, D).

        Raises
        ------
        KeyError
            If a tile is not known.
        """
        return np.stack([self._rows[h].feature for h in hashes])

    def colours(self, hashes: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return means of R, G, B in [0, 1] and of their squares, shape (T, 6); raises as :meth:`features` does."""
        return np.stack([self._rows[h].colour for h in hashes])

    def statistics(self, hashes: Sequence[str]) -> dict[str, list[float]]:
        """Return mean and standard deviation of R, G, B in [0, 1] over these tiles, which have equal weight."""
        moments = self.colours(hashes).astype(np.float64).mean(axis=0)
        spread = np.sqrt(np.maximum(moments[3:] - moments[:3] ** 2, 0))
        return {"mean": [round(float(v), 6) for v in moments[:3]], "std": [round(float(v), 6) for v in spread]}

    @staticmethod
    def exists(folder: Path) -> bool:
        """Return whether a folder contains such a file."""
        return (folder / FEATURES).is_file()

    def write(self, folder: Path) -> None:
        """Write the file, which appears only when complete.

        Raises
        ------
        OutputError
            If it cannot be written or the disk is full.
        """
        rows = list(self._rows.values())
        arrays: dict[str, npt.NDArray[Any]] = {
            "hash": np.array([list(bytes.fromhex(h)) for h in self._rows], np.uint8).reshape(len(rows), 32),
            "features": np.array([r.feature for r in rows], np.float32).reshape(len(rows), -1),
            "colour": np.array([r.colour for r in rows], np.float32).reshape(len(rows), 6),
            "white": np.array([r.white for r in rows], np.float32),
        }
        with writing(folder / FEATURES) as temporary:
            temporary.write_bytes(save(arrays, {"encoder": self.encoder}))

    @classmethod
    def read(cls, folder: Path) -> FeatureFile:
        """Read the file.

        Raises
        ------
        BankError
            If the file is missing or damaged, or contains NaN or infinity.
        """
        path = folder / FEATURES
        try:
            with safe_open(path, framework="np") as file:
                measures = cls((file.metadata() or {})["encoder"])
                arrays = {name: file.get_tensor(name) for name in ("hash", "features", "colour", "white")}
        except (SafetensorError, OSError, KeyError) as error:
            raise BankError(
                f"{path} is missing or damaged; restore it or build the bank again with `build_bank(overwrite=True)`."
            ) from error
        if len({len(a) for a in arrays.values()}) != 1 or not np.isfinite(arrays["features"]).all():
            raise BankError(f"{path} is damaged; restore it or build the bank again with `build_bank(overwrite=True)`.")
        for digest, feature, colour, white in zip(*arrays.values(), strict=True):
            measures[digest.tobytes().hex()] = TileMeasures(feature, colour, float(white))
        return measures


def white_fraction(image: npt.NDArray[np.uint8]) -> float:
    """Return the share of pixels of an image (H, W, 3), uint8, whose R, G and B all reach 220: glass, fat, lumen."""
    return float((image.min(axis=2) >= _NEAR_WHITE).mean())


def colour_moments(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the means of R, G, B in [0, 1] and of their squares, shape (6,), of an image (H, W, 3), uint8."""
    values = image.reshape(-1, 3) / 255
    return np.concatenate([values.mean(0), (values**2).mean(0)]).astype(np.float32)
