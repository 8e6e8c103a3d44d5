"""Why the map says what it says at one place: which prototype is nearest, how near, and the tiles that made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_pbip.engine.jobs import job
from napari_pbip.events import Finished, Job, Started, Step

if TYPE_CHECKING:
    from napari_pbip.engine.inference.prototypes_at import Loaded


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


class Explainer:
    """Explains places of one result; keeps model and bank between the places.

    Parameters
    ----------
    store
        Folder of the score store.
    runs
        Folders of trained models, among which the one that made the store is looked for by its hash, if it no longer
        lies where it lay.
    banks
        Folders in which the image bank of the model is looked for; that of the run itself comes first.
    """

    def __init__(self, store: Path, runs: tuple[Path, ...], banks: tuple[Path, ...]) -> None:
        self.store, self.runs, self.banks = store, runs, banks
        self._loaded: Loaded | None = None

    @job
    def explain(self, x: float, y: float) -> Job:
        """Look at the place (x, y), level-0 pixels; ``Finished`` carries ``explanation``, an :class:`Explanation`.

        Raises
        ------
        ModelError
            If the model that made the result is not among the runs.
        SlideError
            If the slide cannot be read.
        OutputError
            If the store is damaged.
        """
        from napari_pbip.engine.inference.prototypes_at import Loaded  # torch takes seconds to load: not in the window

        yield Started("Looking", total=1, unit="places")
        if self._loaded is None:
            self._loaded = Loaded.find(self.store, self.runs, self.banks)
        explanation = self._loaded.explain(x, y)
        yield Step(1)
        yield Finished(None, {"explanation": explanation})
