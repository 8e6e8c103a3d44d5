"""The score store: what a model saw in a slide, as an OME-Zarr 0.5 (zarr v3) that grows while it is segmented.

::

    <slide>.ome.zarr/
      zarr.json         "ome": multiscales;  "pbip": StoreFacts (classes, slide, model, settings, grid, version)
      0, 1, 2, ...      float16 (c, y, x): blended RAW class scores and their pyramid; NaN = not analysed
      labels/tissue     written by napari_pbip.results.label_files.write_labels
      pbip/
        planned         bool (rows, columns): tiles to be analysed, the others hold too little tissue
        presence        float16 (N, rows, columns): probability that a class is present in a tile; NaN = not yet
        peak            float16 (N, rows, columns): largest raw score of a class in a tile, before blending
        written         bool (block rows, block columns): blocks of level 0 that are finished
        tissue          bool (h, w): the tissue mask, at its own resolution, over the whole slide
        begun.safetensors   tiles of unfinished blocks, unblended: what a stopped run goes on with; not always there

Blocks that are not finished hold the tiles that are known, to be looked at; what is not known is NaN in all arrays.

Nothing that a slider can change is stored. Chunks without tissue do not exist. One process (and one thread of
it) writes; any number of others may read meanwhile, since a chunk is replaced whole. ``written`` is the only
record of progress and is updated last, so whatever it names is complete: a store whose writer was killed, or
whose disk was full, is valid and can be resumed.

All classes of a cell lie in one chunk, because labels need all of them; ``benchmarks/score_store.py`` has the
figures that the chunk size and the codec were chosen by.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import zarr
import zarr.errors
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from napari_pbip.errors import OtherResult, OutputError, PbipError
from napari_pbip.files import output_error, prepare_folder, writing, writing_folder
from napari_pbip.folders import STORE_MARKER
from napari_pbip.results.blend import Blender, Region, Tiles
from napari_pbip.results.lattice import BLOCK, Lattice
from napari_pbip.results.pyramid import PyramidWriter, create_levels, mean_of_analysed, multiscales
from napari_pbip.slides import SlideFacts, TileGrid
from napari_pbip.taxonomy import Taxonomy, TissueClass

_BEGUN = "pbip/begun.safetensors"
_TILES = 64  # tiles in a chunk of the per-tile arrays, along each axis
_COMMIT_SECONDS = 0.5
_AXES = ("c", "y", "x")


class ModelFacts(BaseModel):
    """By which model; more facts may be added."""

    model_config = ConfigDict(frozen=True, extra="allow")

    hash: str
    """Hash of the weights."""
    run: str = ""
    """Name of the run."""
    folder: str = ""
    """Where the run lay."""
    ceiling: float | None = None
    """The score of a class that is certain, the same for all classes, if the model has such a score: then no largest
    score is looked for on the slide, and scores of classes are compared as they are."""


class GridFacts(BaseModel):
    """The tiles, in model pixels."""

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
        """Of the tiles that a slide is cut into."""
        return cls(
            tile=tiles.tile,
            overlap=tiles.overlap,
            stride=tiles.stride,
            rows=tiles.rows,
            columns=tiles.columns,
            model_mpp=model_mpp,
            cell=cell,
        )


class StoreFacts(BaseModel):
    """Everything a store says about itself, in the attributes of its root under ``pbip``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    classes: tuple[TissueClass, ...]
    slide: SlideFacts
    model: ModelFacts
    settings: dict[str, Any]
    """The settings that change the scores."""
    grid: GridFacts
    score_shape: tuple[int, int]
    """Cells (height, width)."""

    @property
    def lattice(self) -> Lattice:
        """The tiles on the grid of score cells; ValueError if they do not fit."""
        g = self.grid
        return Lattice(*self.score_shape, g.tile // g.cell, g.stride // g.cell, g.rows, g.columns)


class ScoreStore:
    """An open score store; made by :meth:`create` or :meth:`open`.

    Use it as a context manager when writing: leaving it commits what is still in memory.

    Attributes
    ----------
    path
        Its folder.
    facts
        What it says about itself.
    taxonomy
        Its classes.
    lattice
        Its tiles on the grid of score cells.
    scores
        The levels, finest first: zarr arrays (N, h, w), float16, NaN where not analysed.
    planned
        Tiles to be analysed, bool (rows, columns).
    tissue
        The tissue mask, bool, over the whole slide at its own resolution.
    """

    def __init__(self, path: Path, mode: Literal["r", "r+"]) -> None:
        self.path = path
        with reading(path):
            self._group = zarr.open_group(path, mode=mode, zarr_format=3)
            attributes = dict(self._group.attrs)
            if "pbip" not in attributes:
                raise OutputError(f"{path} is not a score store; name the <slide>.ome.zarr that 'segment' wrote.")
            self.facts = _parse(path, attributes["pbip"])
            self.taxonomy = Taxonomy(classes=self.facts.classes)
            ome: Any = attributes["ome"]
            self.scores = [get_array(self._group, dataset["path"]) for dataset in ome["multiscales"][0]["datasets"]]
            self.planned = np.asarray(get_array(self._group, "pbip/planned")[:], bool)
            self.tissue = np.asarray(get_array(self._group, "pbip/tissue")[:], bool)
        self.lattice = self.facts.lattice
        if mode == "r+":
            self._remove_unfinished()
        self._writer = _Writer(self) if mode == "r+" else None

    def _remove_unfinished(self) -> None:
        """Remove what zarr had begun to write when a process was killed: it is never read, and takes room."""
        for folder in (*(level.basename for level in self.scores), "pbip"):
            for begun in (self.path / folder).rglob("*.partial"):
                begun.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: Path | str, mode: Literal["r", "r+"] = "r") -> Self:
        """Open a store, finished or not.

        Parameters
        ----------
        path
            Its folder.
        mode
            ``r`` to look, also while another process writes; ``r+`` to go on writing.

        Raises
        ------
        OutputError
            If there is no score store, or it is damaged or of a newer version.
        """
        return cls(Path(path), mode)

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        taxonomy: Taxonomy,
        slide: Mapping[str, Any],
        model: Mapping[str, Any],
        settings: Mapping[str, Any],
        grid: Mapping[str, Any],
        score_shape: tuple[int, int],
        tissue: npt.NDArray[np.bool_],
        planned: npt.NDArray[np.bool_],
        overwrite: bool = False,
    ) -> Self:
        """Make an empty store and open it for writing.

        Parameters
        ----------
        path
            Folder to make, by convention ``<slide>.ome.zarr``.
        taxonomy
            The classes, in the order of the scores.
        slide, model, grid
            The values of :class:`SlideFacts`, :class:`ModelFacts` and :class:`GridFacts`.
        settings
            JSON values of the settings that change the scores; a resumed run has to have the same.
        score_shape
            Cells (height, width): the slide's model pixels / ``grid.cell``, rounded up.
        tissue
            Tissue mask over the whole slide, at any resolution.
        planned
            Tiles to be analysed, (rows, columns).
        overwrite
            Replace an earlier store.

        Raises
        ------
        OutputError
            If the folder exists already (and is not to be or, holding other files, must not be replaced),
            cannot be written, or the disk is full.
        ValueError
            If grid, shape and planned tiles do not fit together.
        """
        path = Path(path)
        facts = StoreFacts(
            classes=taxonomy.classes,
            slide=SlideFacts.model_validate(dict(slide)),
            model=ModelFacts.model_validate(dict(model)),
            settings=dict(settings),
            grid=GridFacts.model_validate(dict(grid)),
            score_shape=score_shape,
        )
        g = facts.grid
        if g.tile % g.cell or g.stride % g.cell or g.tile - g.overlap != g.stride:
            raise ValueError(f"tiles of {g.tile} every {g.stride} model pixels do not lie on cells of {g.cell}")
        lattice = facts.lattice
        if planned.shape != (lattice.rows, lattice.columns):
            raise ValueError(f"the plan is for {planned.shape} tiles, the grid has {(g.rows, g.columns)}")
        ways = "--resume to go on with it, --overwrite to replace it"
        prepare_folder(path, STORE_MARKER, overwrite=overwrite, ways=ways)
        with writing_folder(path) as begun:
            root = zarr.create_group(begun, zarr_format=3)
            own = root.create_group("pbip")
            tiles = (g.rows, g.columns)
            for name, values in (("planned", planned), ("tissue", tissue)):
                array = own.create_array(name, shape=values.shape, chunks=values.shape, dtype="bool")
                array[:] = values
            for name in ("presence", "peak"):
                own.create_array(
                    name,
                    shape=(len(taxonomy), *tiles),
                    chunks=(len(taxonomy), *(min(_TILES, n) for n in tiles)),
                    dtype="float16",
                    fill_value=np.nan,
                )
            blocks = (-(-score_shape[0] // BLOCK), -(-score_shape[1] // BLOCK))
            own.create_array("written", shape=blocks, chunks=blocks, dtype="bool", fill_value=False)
            levels = create_levels(
                root, (len(taxonomy), *score_shape), chunk=BLOCK, dtype="float16", fill_value=np.nan, axes=_AXES
            )
            cell_um, pixel_um = g.cell * g.model_mpp, facts.slide.mpp
            first = (cell_um - pixel_um) / 2  # a cell lies over the pixels that it covers
            entry = multiscales(facts.slide.name, len(levels), _AXES, (cell_um,) * 2, (first,) * 2)
            root.attrs.update({"ome": {"version": "0.5", "multiscales": entry}, "pbip": facts.model_dump(mode="json")})
        return cls(path, "r+")

    def check_resume(
        self,
        *,
        slide: Mapping[str, Any],
        model: Mapping[str, Any],
        settings: Mapping[str, Any],
        grid: Mapping[str, Any],
    ) -> None:
        """Check that a run would go on with the same work.

        Raises
        ------
        OtherResult
            If the slide's identity, the model's hash, a setting or the grid differs; the first one is named.
        """
        facts = self.facts
        for what, before, now in (
            ("slide", {"identity": facts.slide.identity}, {"identity": slide["identity"]}),
            ("model", {"hash": facts.model.hash}, {"hash": model["hash"]}),
            ("setting", facts.settings, dict(settings)),
            ("grid", facts.grid.model_dump(), GridFacts.model_validate(dict(grid)).model_dump()),
        ):
            if (found := _first_difference(before, now)) is not None:
                key, old, new = found
                raise OtherResult(
                    f"{self.path} was begun with another {what} ({key} was {old}, now {new}); "
                    f"resume with what it was begun with, or use --overwrite to start again.",
                    what,
                )

    def relocate(self, slide: Path) -> None:
        """Record where the slide lies now, if it was moved or renamed; its result shows and paints it from there.

        Raises
        ------
        OutputError
            If the store cannot be written.
        """
        self._open_writer()
        if slide != self.facts.slide.path:
            moved = self.facts.slide.model_copy(update={"path": slide})
            facts = self.facts.model_copy(update={"slide": moved})
            with writing_to(self.path):
                self._group.attrs.update({"pbip": facts.model_dump(mode="json")})
            self.facts = facts

    # what there is -------------------------------------------------------------------------------------------

    @property
    def cell_um(self) -> float:
        """Side of a level-0 score cell in micrometres."""
        return self.facts.grid.cell * self.facts.grid.model_mpp

    @property
    def written(self) -> npt.NDArray[np.bool_]:
        """Finished blocks of level 0 (squares of ``blend.BLOCK`` cells), read anew."""
        return self._read("written")

    @property
    def done(self) -> npt.NDArray[np.bool_]:
        """Planned tiles that are wholly in finished blocks, bool (rows, columns), read anew."""
        lattice, done = self.lattice, self.planned.copy()
        for y, x in np.argwhere(~self.written) * BLOCK:
            rows = lattice.touching(y, min(y + BLOCK, lattice.height), lattice.rows)
            columns = lattice.touching(x, min(x + BLOCK, lattice.width), lattice.columns)
            done[rows.start : rows.stop, columns.start : columns.stop] = False
        return done

    @property
    def analysed(self) -> int:
        """Tiles in finished blocks that the network looked at: not those that the slide's damage left out."""
        return int((self.done & np.isfinite(self.presence()[0])).sum())

    @property
    def progress(self) -> tuple[int, int]:
        """Tiles (done, planned); what damage left out is done with."""
        return int(self.done.sum()), int(self.planned.sum())

    def presence(self, rows: slice = slice(None), columns: slice = slice(None)) -> npt.NDArray[np.float16]:
        """Probability that each class is present in these tiles, (N, rows, columns); NaN = not analysed (yet)."""
        return self._read("presence", np.s_[:, rows, columns])

    @property
    def ceiling(self) -> npt.NDArray[np.float32] | None:
        """:attr:`ModelFacts.ceiling` as the largest score of each class, (N,)."""
        ceiling = self.facts.model.ceiling
        return None if ceiling is None else np.full(len(self.taxonomy), ceiling, np.float32)

    def peak(self, rows: slice = slice(None), columns: slice = slice(None)) -> npt.NDArray[np.float16]:
        """Largest raw score of each class in these tiles, before blending; NaN = not analysed (yet)."""
        return self._read("peak", np.s_[:, rows, columns])

    def read_scores(self, level: int, y: slice, x: slice) -> npt.NDArray[np.float16]:
        """Raw scores (N, h, w) of a rectangle of one level; NaN = not analysed (yet)."""
        with reading(self.path):
            return np.asarray(self.scores[level][:, y, x])

    def tiles_and_tissue(
        self, level: int, y: slice, x: slice
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Where the cells of a rectangle of one level lie.

        Returns
        -------
        rows, columns, tissue
            Each row of cells (h,) and each column (w,) as a position among the tile centres (see
            :meth:`Lattice.positions`), and whether each cell is tissue, bool (h, w).
        """
        rows, tissue_rows = self._tiles_and_mask(level, y, axis=0)
        columns, tissue_columns = self._tiles_and_mask(level, x, axis=1)
        return rows, columns, self.tissue[tissue_rows][:, tissue_columns]

    @property
    def tissue_cells(self) -> int:
        """Level-0 cells that are tissue."""
        height, width = self.tissue.shape
        rows = np.bincount(self._tiles_and_mask(0, slice(None), axis=0)[1], minlength=height)
        columns = np.bincount(self._tiles_and_mask(0, slice(None), axis=1)[1], minlength=width)
        return int(rows @ self.tissue.astype(np.int64) @ columns)

    def _tiles_and_mask(
        self, level: int, span: slice, axis: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        """Position among the tiles and pixel of the tissue mask for the cells along one axis, by their centres."""
        slide = self.facts.slide
        centres = (np.arange(*span.indices(self.scores[level].shape[1 + axis])) + 0.5) * 2**level
        tiles = self.lattice.positions(centres - 0.5, (self.lattice.rows, self.lattice.columns)[axis])
        length = self.tissue.shape[axis]
        mask = centres * (self.cell_um / slide.mpp / (slide.height, slide.width)[axis] * length)
        return tiles, np.minimum(mask.astype(np.intp), length - 1)

    # writing -------------------------------------------------------------------------------------------------

    def blender(self) -> Blender:
        """A blender for the tiles that are still to be analysed."""
        return Blender(self.lattice, self.planned, self.written)

    def write_region(self, region: Region) -> None:
        """Write a block with what belongs to it.

        The block itself is on disk afterwards; coarser levels and, of a complete block, the record that it is
        finished follow with the next :meth:`commit`, at most half a second of writing later. An incomplete block
        can be read and is replaced later; a resumed run does not know of it.

        Raises
        ------
        OutputError
            If the disk is full or the store cannot be written; what was committed stays valid.
        """
        self._open_writer().write(region)

    def keep(self, tiles: Tiles | None) -> None:
        """Commit, and put the tiles of unfinished blocks on disk too, in place of earlier ones; None: there are none.

        Raises
        ------
        OutputError
            If they cannot be written; the earlier ones are still there.
        """
        self.commit()  # what is finished goes first: it is not among these tiles
        path = self.path / _BEGUN
        if tiles is None:
            with writing_to(path):
                path.unlink(missing_ok=True)
            return
        arrays = {"places": tiles.places, "scores": tiles.scores, "presence": tiles.presence}
        with writing(path) as temporary:
            temporary.write_bytes(save(arrays))

    def kept(self) -> Tiles | None:
        """What :meth:`keep` put there; None if there is nothing that can be used, so that it is computed again."""
        grid, path = self.facts.grid, self.path / _BEGUN
        side, classes = grid.tile // grid.cell, len(self.taxonomy)
        try:
            arrays = load_file(path)
            tiles = Tiles(arrays["places"], arrays["scores"], arrays["presence"])
        except (OSError, SafetensorError, KeyError):
            return None
        whole = (
            tiles.places.shape == (len(tiles), 2)
            and tiles.scores.shape == (len(tiles), classes, side, side)
            and tiles.presence.shape == (len(tiles), classes)
            and bool(np.isfinite(tiles.scores).all())
        )
        return tiles if whole else None

    def commit(self) -> None:
        """Put everything on disk that is still in memory.

        Raises
        ------
        OutputError
            If the disk is full or the store cannot be written; what was committed before stays valid.
        """
        self._open_writer().commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None and not isinstance(error, OutputError):  # which would only come again
            self._writer.commit()

    def _open_writer(self) -> _Writer:
        if self._writer is None:
            raise ValueError("the store was opened for reading")
        return self._writer

    def _read(self, name: str, selection: Any = ...) -> npt.NDArray[Any]:
        with reading(self.path):
            return np.asarray(get_array(self._group, f"pbip/{name}")[selection])


class _Writer:
    """The writing half of a store; holds the small arrays in memory and commits them."""

    def __init__(self, store: ScoreStore) -> None:
        self._path = store.path
        self._pyramid = PyramidWriter(store.scores, mean_of_analysed)
        self._arrays = {name: get_array(store._group, f"pbip/{name}") for name in ("presence", "peak", "written")}
        self._values = {name: store._read(name).copy() for name in self._arrays}
        self._dirty: set[tuple[int, int]] = set()  # chunks of the per-tile arrays
        self._committed = time.monotonic()

    def write(self, region: Region) -> None:
        with writing_to(self._path):
            self._pyramid.write(region.y, region.x, region.scores)
        rows, columns = region.tiles.T
        self._values["presence"][:, rows, columns] = region.presence.T
        self._values["peak"][:, rows, columns] = region.peak.T
        self._values["written"][region.y // BLOCK, region.x // BLOCK] = region.complete
        self._dirty |= {(row // _TILES, column // _TILES) for row, column in region.tiles.tolist()}
        if time.monotonic() - self._committed > _COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        if not self._dirty:
            return
        with writing_to(self._path):
            self._pyramid.flush()
            for row, column in self._dirty:
                chunk = np.s_[:, row * _TILES : (row + 1) * _TILES, column * _TILES : (column + 1) * _TILES]
                for name in ("presence", "peak"):
                    self._arrays[name][chunk] = self._values[name][chunk]
            self._arrays["written"][:] = self._values["written"]
        self._dirty.clear()
        self._committed = time.monotonic()


def get_array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """The array of that name; KeyError if there is none."""
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise KeyError(name)
    return array


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn a full disk or a folder that may not be written into a sentence (OutputError)."""
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error


@contextmanager
def reading(path: Path, way_out: str = "segment the slide again with --overwrite") -> Iterator[None]:
    """Turn what zarr and its codecs raise on missing or damaged files into a sentence (OutputError)."""
    try:
        yield
    except (FileNotFoundError, zarr.errors.NodeTypeValidationError) as error:
        raise OutputError(f"{path} is not a score store; name the <slide>.ome.zarr that 'segment' wrote.") from error
    except PermissionError as error:
        raise OutputError(f"{path} may not be read; ask its owner for access.") from error
    except PbipError:
        raise
    except Exception as error:  # damaged metadata may raise anything
        reason = " ".join(str(error).split())
        raise OutputError(f"{path} is damaged ({reason}); {way_out}.") from error


def _parse(path: Path, values: Any) -> StoreFacts:
    if isinstance(values, dict) and values.get("version") != 1:
        raise OutputError(
            f"{path} is a score store of version {values.get('version')!r}, and this program reads version 1; "
            "update the program, or segment the slide again."
        )
    try:
        return StoreFacts.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise OutputError(
            f"{path} is damaged ({where}: {fault['msg']}); segment the slide again with --overwrite."
        ) from error


def _first_difference(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> tuple[str, Any, Any] | None:
    """Dotted key and both values of the first entry that differs, or None."""
    for key in [*before, *(key for key in now if key not in before)]:
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if (found := _first_difference(old, new, f"{prefix}{key}.")) is not None:
                return found
        elif old != new:
            return f"{prefix}{key}", old, new
    return None
