"""Why the map says what it says at one place: which prototype is nearest, how near, and the tiles that made it."""

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
from napari_pbip.models.methods.probe import Probe
from napari_pbip.models.methods.prototype_method import PrototypeMethod
from napari_pbip.models.score_maps import fuse
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import Slide, open_slide

_LEARNED = "The prototypes have learned since they left the image bank; the tiles show where they began."
_NEAREST = "The prototypes were learned; the tiles are the labelled ones that are nearest to each."
_ASK = "The prototypes were learned; look at them once with Prototypes in Train, and tiles are shown here too."


@dataclass(frozen=True, slots=True)
class Match:
    """A prototype and how near a place is to it."""

    class_name: str
    cluster: int
    """Number of the cluster within its class, from 1; 0 where the class as a whole is meant, as of a linear probe."""
    subclass: int
    """Index of the prototype among those of all classes."""
    similarity: float
    """Mean cosine over the stages by their fusion weights, -1 to 1; of a probe, cosine to the nearest cell that it
    learned from."""
    tiles: tuple[Path, ...]
    """Pictures of the tiles behind it, nearest first: of the bank, or for a learned prototype those that
    :func:`~napari_pbip.engine.banks.nearest_tiles.nearest_tiles` found; none without either."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a model sees at one place."""

    x: float
    """Level-0 pixels."""
    y: float
    matches: tuple[Match, ...]
    """Every prototype, the most similar first; none for a model without prototypes."""
    note: str = ""
    """A sentence about what is missing, if anything."""


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains places of one result; holds the model that made it, and the bank behind the model."""

    store: ScoreStore
    model: TrainedModel
    bank: tuple[ImageBank, Path] | None
    note: str
    """A sentence about the bank, for every explanation."""

    @classmethod
    def from_store(cls, path: Path, runs: tuple[Path, ...], banks: tuple[Path, ...]) -> Explainer:
        """Open a result, and find its model and its bank.

        Parameters
        ----------
        path
            Folder of the score store.
        runs
            Folders of trained models, among which the one that made the store is looked for by its hash, if it no
            longer lies where it lay.
        banks
            Folders in which the image bank of the model is looked for; that of the run itself comes first.

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
                continue  # the next may do
            if bank.identity == identity:
                return cls(store, model, (bank, folder), _LEARNED if learned else "")
        if learned and identity is None:
            return cls(store, model, None, _ASK)
        note = "" if identity is None else "The image bank has changed since the training: its tiles cannot be shown."
        return cls(store, model, None, note)

    def explain(self, x: float, y: float) -> Explanation:
        """What the model sees at (x, y), level-0 pixels.

        Raises
        ------
        SlideError
            If the slide cannot be read.
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
        return Explanation(x, y, matches, self.note)

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
    """The model that made a store, by its hash; likely folders first, since reading weights takes time."""
    wanted = store.facts.model
    where = [*([Path(wanted.folder)] if wanted.folder else []), *sorted(runs, key=lambda run: run.name != wanted.run)]
    for folder in where:
        with suppress(ModelError):  # a folder that holds no model is not the one that is looked for
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
    """Similarity of a place to every prototype, (P,)."""
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
    """Dense features of a place, (D,)."""
    image, row, column = _tile_around(result, slide, x, y)
    dense = method.encoder.network.dense(to_tensor(image[None]).to(method.mean.device))
    cells = result.store.lattice.tile
    return fuse([(1.0, dense)], (cells, cells))[0, :, row, column]


def _tile_around(result: Explainer, slide: Slide, x: float, y: float) -> tuple[Image, int, int]:
    """The tile of the store's grid that a place is most central in, and the row and column of its cell there."""
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
