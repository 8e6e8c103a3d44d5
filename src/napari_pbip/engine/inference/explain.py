"""The explanation of a map at one place: how similar the place is to each prototype, and the tiles behind them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from napari_pbip.bank import ImageBank
from napari_pbip.bank.bank_folder import thumbnail_path
from napari_pbip.engine.banks.nearest_tiles import FOLDER, read_nearest
from napari_pbip.engine.device import choose_device
from napari_pbip.engine.inference.nearest_cells import Exemplars
from napari_pbip.engine.loading import Image, to_tensor
from napari_pbip.engine.runs import RunFacts, TrainedModel, load_model
from napari_pbip.errors import BankError, ModelError
from napari_pbip.models.methods.pbip import Pbip
from napari_pbip.models.methods.probe import Probe
from napari_pbip.models.methods.prototype_method import PrototypeMethod
from napari_pbip.models.score_maps import fuse
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import Slide, open_slide

_LEARNED = "Training has changed the prototypes of the image bank; the tiles are those they started from."
_NEAREST = "The prototypes were learned; the tiles shown are the labelled tiles that are nearest to them."
_PROBE = "The map is averaged with that of a linear probe, which has no part in this comparison with prototypes."
_ASK = "The prototypes were learned; open Prototypes in Train once, and their nearest tiles are shown here too."


@dataclass(frozen=True, slots=True)
class Match:
    """A prototype and its similarity to a place."""

    class_name: str
    cluster: int
    """Number of the cluster within its class, from 1; 0 if it stands for the whole class, as with a linear probe."""
    subclass: int
    """Index of the prototype among those of all classes."""
    similarity: float
    """Mean cosine over the stages, weighted by their fusion weights, -1 to 1; for a linear probe, the cosine to the
    nearest cell of its training tiles."""
    tiles: tuple[Path, ...]
    """Pictures of the tiles behind the prototype, nearest first: those of the bank, or for a learned prototype those
    that :func:`~napari_pbip.engine.banks.nearest_tiles.nearest_tiles` found; empty if there are neither."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The prototypes of a model, compared with one place of a slide."""

    x: float
    """Level-0 pixels."""
    y: float
    matches: tuple[Match, ...]
    """All prototypes, the most similar first; empty for a model without prototypes."""
    note: str = ""
    """A sentence for the user about what is missing, or an empty string."""


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains places of one result, with the model that made it and the image bank of the model."""

    store: ScoreStore
    model: TrainedModel
    bank: tuple[ImageBank, Path] | None
    """The bank that shows the tiles behind the prototypes, and its folder."""
    note: str
    """A sentence about the bank, which becomes part of every explanation."""

    @classmethod
    def from_store(cls, path: Path, runs: tuple[Path, ...], banks: tuple[Path, ...]) -> Explainer:
        """Open a result, and find its model and its bank.

        Parameters
        ----------
        path
            Folder of the score store.
        runs
            Folders of trained models, which are searched for the one that made the store, by its hash, if it is no
            longer in its folder.
        banks
            Folders of image banks, which are searched for that of the model; the bank in the run itself comes first.

        Raises
        ------
        ModelError
            If the model that made the result is not among the runs.
        OutputError
            If the store is damaged.
        """
        store = ScoreStore.open(path)
        model = _find_model(store, runs)
        learned = isinstance(model.method, PrototypeMethod) and model.method.learns_prototypes
        if learned and (nearest := read_nearest(model.run)) is not None:
            return cls(store, model, (nearest, model.run / FOLDER), _NEAREST)
        identity = (model.facts.prototypes or {}).get("bank")
        for folder in (model.run / "bank", *banks):
            try:
                bank = ImageBank.read(folder)
            except BankError:
                continue  # there is no readable bank here, but there may be one in the next folder
            if bank.identity == identity:
                return cls(store, model, (bank, folder), _LEARNED if learned else "")
        if learned and identity is None:
            return cls(store, model, None, _ASK)
        note = "" if identity is None else "The image bank has changed since the training: its tiles cannot be shown."
        return cls(store, model, None, note)

    def explain(self, x: float, y: float) -> Explanation:
        """Explain the map at (x, y), in level-0 pixels.

        Raises
        ------
        SlideError
            If the slide cannot be read.
        ModelError
            If the cells that a linear probe was fitted to are missing or damaged.
        """
        method, facts = self.model.method, self.store.facts.slide
        if isinstance(method, Probe):
            exemplars = Exemplars.read(self.model.run)
            with open_slide(facts.path, facts.mpp) as slide:
                nearest = exemplars.nearest(method, _feature(self, method, slide, x, y))
            names = self.model.facts.taxonomy.names
            return Explanation(x, y, tuple(Match(names[n], 0, n, near, tiles) for n, near, tiles in nearest))
        if not isinstance(method, PrototypeMethod) or not method.similarity_maps:
            note = f"This map was made by {_name(self.model)}, which has no prototypes to show."
            return Explanation(x, y, (), note)
        with open_slide(facts.path, facts.mpp) as slide:
            similarity = _similarity(self, method, slide, x, y)
        order = np.argsort(-similarity, kind="stable")
        matches = tuple(self._match(int(subclass), float(similarity[subclass])) for subclass in order)
        probe = _PROBE if isinstance(method, Pbip) and method.probe is not None else ""
        return Explanation(x, y, matches, " ".join(filter(None, (self.note, probe))))

    def _match(self, subclass: int, similarity: float) -> Match:
        k = (self.model.facts.prototypes or {})["k"]
        of_class = np.repeat(np.arange(len(k)), k)
        n = int(of_class[subclass])
        tiles: tuple[Path, ...] = ()
        if self.bank is not None:
            bank, folder = self.bank
            tiles = tuple(thumbnail_path(folder, t) for t in bank.nearest(subclass)[: bank.settings.nearest])
        name = self.model.facts.taxonomy.names[n]
        return Match(name, subclass - int(sum(k[:n])) + 1, subclass, similarity, tiles)


def _find_model(store: ScoreStore, runs: tuple[Path, ...]) -> TrainedModel:
    """Return the model that made a store, recognised by its hash; reading weights is slow, so likely folders go first.

    Raises
    ------
    ModelError
        If none of the folders contains it.
    """
    wanted = store.facts.model
    where = [*([Path(wanted.folder)] if wanted.folder else []), *sorted(runs, key=lambda run: run.name != wanted.run)]
    for folder in where:
        with suppress(ModelError):  # a folder without a readable model is skipped
            if RunFacts.read(folder).taxonomy.names == store.taxonomy.names:
                model = load_model(folder, "best", choose_device("auto"))
                if model.identity == wanted.hash:
                    return model
    raise ModelError(
        f"The model {wanted.run!r} that made this map is not in the project folder, or was trained again since; "
        "put it back to see its prototypes."
    )


@torch.inference_mode()
def _similarity(
    result: Explainer, method: PrototypeMethod, slide: Slide, x: float, y: float
) -> npt.NDArray[np.float32]:
    """Return the similarity of a place to every prototype, (P,)."""
    image, row, column = _tile_around(result, slide, x, y)
    device = next(method.parameters()).device
    subclass_maps = method(to_tensor(image[None]).to(device)).subclass_maps
    stages = [
        (weight, maps / head.scale)
        for weight, maps, head in zip(method.fusion_weights, subclass_maps, method.heads, strict=True)
        if weight
    ]
    cells = result.store.lattice.tile
    similarity: npt.NDArray[np.float32] = fuse(stages, (cells, cells))[0, :, row, column].float().cpu().numpy()
    return similarity


@torch.inference_mode()
def _feature(result: Explainer, method: Probe, slide: Slide, x: float, y: float) -> torch.Tensor:
    """Return the dense features of a place, (D,)."""
    image, row, column = _tile_around(result, slide, x, y)
    dense = method.encoder.network.dense(to_tensor(image[None]).to(method.mean.device))
    cells = result.store.lattice.tile
    return fuse([(1.0, dense)], (cells, cells))[0, :, row, column]


def _tile_around(result: Explainer, slide: Slide, x: float, y: float) -> tuple[Image, int, int]:
    """Return the tile of the store's grid in which a place is most central, and the row and column of its cell."""
    grid, lattice = result.store.facts.grid, result.store.lattice
    side = grid.cell * grid.model_mpp / slide.require_mpp()  # of a cell, in level-0 pixels
    cells = np.array([y, x]) / side
    corner = [
        round(float(lattice.positions(np.array(cell - 0.5), count))) * lattice.stride
        for cell, count in zip(cells, (lattice.rows, lattice.columns), strict=True)
    ]
    image = slide.read(corner[1] * side, corner[0] * side, grid.tile, grid.tile, grid.model_mpp)
    row, column = (min(max(int(c) - first, 0), lattice.tile - 1) for c, first in zip(cells, corner, strict=True))
    return image, row, column


def _name(model: TrainedModel) -> str:
    return model.facts.settings.method.name.upper()
