"""What a score store says about itself, in the attributes of its root."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_pbip.config import RefineSettings, SegmentSettings, first_difference
from napari_pbip.errors import OtherResult, UnreadableResult
from napari_pbip.provenance import Made
from napari_pbip.results.lattice import Lattice
from napari_pbip.slides import SlideFacts, TileGrid
from napari_pbip.taxonomy import TissueClass


class ModelFacts(BaseModel):
    """The model that computed the scores. A subclass may add more."""

    model_config = ConfigDict(frozen=True, extra="allow")

    hash: str
    """Hash of the weights."""
    run: str = ""
    """Name of the run."""
    folder: str = ""
    """Folder of the run when the slide was segmented."""
    bank: str | None = None
    """Identity of the image bank whose prototypes it has; None if it has none, or in stores of earlier versions."""
    ceiling: float | None = None
    """Score of a class that is certain, the same for all classes, if the model has such a score: then no largest score
    is looked for on the slide, and scores of classes are compared as they are."""


class GridFacts(BaseModel):
    """The grid of tiles, in model pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tile: int
    overlap: int
    stride: int
    rows: int
    columns: int
    model_mpp: float
    """Micrometres per model pixel."""
    cell: int = 8
    """Side of a score cell: the stride of the finest stage that carries fusion weight."""

    @classmethod
    def from_tiles(cls, tiles: TileGrid, model_mpp: float, cell: int) -> Self:
        """Return the facts of a grid of tiles."""
        return cls(
            tile=tiles.tile,
            overlap=tiles.overlap,
            stride=tiles.stride,
            rows=tiles.rows,
            columns=tiles.columns,
            model_mpp=model_mpp,
            cell=cell,
        )

    def lattice(self, height: int, width: int) -> Lattice:
        """Return the lattice of tiles on a grid of score cells; raises ValueError if they do not fit together."""
        cell = self.cell
        return Lattice(height, width, self.tile // cell, self.stride // cell, self.rows, self.columns)


class StoreFacts(BaseModel):
    """The facts about a store, which are in the attributes of its root under ``pbip``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    classes: tuple[TissueClass, ...]
    slide: SlideFacts
    model: ModelFacts
    settings: dict[str, Any]
    """The settings that change the scores."""
    grid: GridFacts
    score_shape: tuple[int, int]
    """Number of cells, (height, width)."""
    regions: str = ""
    """Identity of the regions by which tiles were last planned; empty if the whole slide was to be analysed."""
    computed: dict[str, str] = {}
    """What computed the last scores: ``runtime``, its ``version``, ``precision`` and ``device``; it changes them by
    rounding only. Empty in stores of earlier versions."""
    made: Made | None = None
    """When the store was begun, and by whom; None in stores of earlier versions."""

    @property
    def lattice(self) -> Lattice:
        """The lattice of tiles on the score cells; raises ValueError if they do not fit together."""
        return self.grid.lattice(*self.score_shape)

    def require_same(
        self,
        path: object,
        *,
        slide: Mapping[str, Any],
        model: Mapping[str, Any],
        settings: Mapping[str, Any],
        grid: Mapping[str, Any],
    ) -> None:
        """Check that a run has the slide, model, settings and grid of this store, which is at ``path``.

        Raises
        ------
        OtherResult
            If the slide's identity, the model's hash, a setting or the grid differs; it names the first difference.
        """
        for what, before, now in (
            ("slide", {"identity": self.slide.identity}, {"identity": slide["identity"]}),
            ("model", {"hash": self.model.hash}, {"hash": model["hash"]}),
            ("setting", self.settings, dict(settings)),
            ("grid", self.grid.model_dump(), GridFacts.model_validate(dict(grid)).model_dump()),
        ):
            if (found := first_difference(before, now)) is not None:
                key, old, new = found
                name = key if what != "setting" else "`refine.tta`" if key == "tta" else f"`segment.{key}`"
                difference = f"{name} was {old}, now {new}"
                raise OtherResult(
                    f"{path} was begun with another {what} ({difference}); "
                    "resume with what it was begun with, choose another `out` to keep both, or use `overwrite=True` "
                    "to start again.",
                    what,
                    difference,
                )


def settings_of_scores(settings: SegmentSettings, refine: RefineSettings) -> dict[str, Any]:
    """Return the settings that the scores of a slide depend on, as its store records them."""
    kept = settings.model_dump(mode="json", exclude={"batch_size", "device", "mpp"})
    return kept | ({"tta": True} if refine.tta else {})


def parse_facts(path: object, values: Any) -> StoreFacts:
    """Return the facts of the store at ``path``; raises UnreadableResult if they are damaged or of another version."""
    if isinstance(values, dict) and values.get("version") != 1:
        raise UnreadableResult(
            f"{path} is a score store of version {values.get('version')!r}, and this program reads version 1",
            "update the program, or segment the slide again",
        )
    try:
        return StoreFacts.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise UnreadableResult(
            f"{path} is damaged ({where}: {fault['msg']})", "remove it and segment the slide again"
        ) from error
