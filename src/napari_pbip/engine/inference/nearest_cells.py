"""The labelled tiles that a place of a slide resembles, by the cells that a linear probe was fitted to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional as F

from napari_pbip.engine.runs import write_weights
from napari_pbip.errors import ModelError
from napari_pbip.models.methods.probe import Probe

FILE = "exemplars.safetensors"
_TILES = 8
"""Number of tiles that are named for each class."""


class Nearest(NamedTuple):
    """The cells of one class that are nearest to a place."""

    class_index: int
    similarity: float
    """Cosine of the standardised features of the place and of the nearest cell, -1 to 1."""
    tiles: tuple[Path, ...]
    """Pictures of the tiles with the nearest cells, nearest first."""


@dataclass(frozen=True, slots=True)
class Exemplars:
    """Some cells of the tiles that a probe was fitted to."""

    features: npt.NDArray[np.float16]
    """Dense features of the cells, (M, D)."""
    tile: npt.NDArray[np.int32]
    """Index of the tile of each cell in :attr:`tiles`, (M,)."""
    tiles: tuple[Path, ...]
    """Pictures of the tiles."""
    labels: tuple[int, ...]
    """Class of each tile."""

    def write(self, run: Path) -> None:
        """Write the cells into the folder of a run."""
        arrays = {"features": torch.from_numpy(self.features), "tile": torch.from_numpy(self.tile)}
        write_weights(
            run / FILE, arrays, {"tiles": json.dumps([str(p) for p in self.tiles]), "labels": json.dumps(self.labels)}
        )

    @classmethod
    def read(cls, run: Path) -> Exemplars:
        """Read the cells of a run.

        Raises
        ------
        ModelError
            If they are missing or damaged.
        """
        try:
            with safe_open(run / FILE, "np") as file:
                facts = file.metadata() or {}
                tiles, labels = json.loads(facts["tiles"]), json.loads(facts["labels"])
                return cls(file.get_tensor("features"), file.get_tensor("tile"), tuple(map(Path, tiles)), tuple(labels))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ModelError(
                f"{run / FILE} is missing or damaged, so the tiles behind the map cannot be shown; fit the model again."
            ) from error

    def nearest(self, method: Probe, feature: torch.Tensor) -> list[Nearest]:
        """Return the nearest cells of each class to a place with dense features (D,), the nearest class first."""
        known = self.features.shape[1]  # a model of an earlier version knew fewer features, which are the first ones
        mean, scale = method.mean[:known], method.scale[:known]
        cells = (torch.from_numpy(self.features).to(mean) - mean) / scale
        place = (feature[:known] - mean) / scale
        similarity = F.cosine_similarity(cells, place[None]).cpu().numpy()
        of_class = np.array(self.labels)[self.tile]
        found = []
        for n in range(method.classes):
            own = np.flatnonzero(of_class == n)
            order = own[np.argsort(-similarity[own], kind="stable")]
            tiles = list(dict.fromkeys(self.tile[order].tolist()))[:_TILES]
            found.append(Nearest(n, float(similarity[order[0]]), tuple(self.tiles[i] for i in tiles)))
        return sorted(found, key=lambda one: -one.similarity)
