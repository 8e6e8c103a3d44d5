"""The score store: the raw scores of a slide as an OME-Zarr 0.5 (zarr v3) that grows while the slide is segmented.

::

    <slide>.ome.zarr/
      zarr.json         "ome": multiscales;  "pbip": StoreFacts (classes, slide, model, settings, grid, version)
      0, 1, 2, ...      float16 (c, y, x): blended RAW class scores and their pyramid; NaN = not analysed
      labels/tissue     written by napari_pbip.results.label_files.write_labels
      corrections/      made by hand: napari_pbip.results.corrections
      pbip/
        planned         bool (rows, columns): tiles to be analysed, the others hold too little tissue
        presence        float16 (N, rows, columns): probability that a class is present in a tile; NaN = not yet
        peak            float16 (N, rows, columns): largest raw score of a class in a tile, before blending
        written         bool (block rows, block columns): blocks of level 0 that are finished
        tissue          bool (h, w): the tissue mask, at its own resolution, over the whole slide
        begun.safetensors   tiles of unfinished blocks, unblended: what a stopped run goes on with; not always there

Unfinished blocks contain the tiles that are known, for display; unknown values are NaN in all arrays.

Nothing that a slider can change is stored. Chunks without tissue do not exist. One thread of one process writes; any
number of other processes may read meanwhile, because chunks are replaced whole. ``written`` is the only record of
progress. It is updated last, so that all blocks in it are complete: a store whose writer was killed, or whose disk was
full, is valid and can be resumed.

All classes of a cell lie in one chunk, because labels need all of them. ``benchmarks/score_store.py`` measures the
chunk sizes and codecs that were compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from napari_pbip.errors import OutputError
from napari_pbip.files import prepare_folder, writing, writing_folder
from napari_pbip.folders import STORE_MARKER
from napari_pbip.provenance import Made
from napari_pbip.results import corrections
from napari_pbip.results.blend import Blender, Region, Tiles
from napari_pbip.results.lattice import BLOCK
from napari_pbip.results.store_facts import GridFacts, ModelFacts, StoreFacts
from napari_pbip.results.store_files import get_array, remove_begun, writing_to
from napari_pbip.results.store_reader import StoredScores
from napari_pbip.results.store_writer import StoreWriter, create_arrays
from napari_pbip.slides import SlideFacts
from napari_pbip.taxonomy import Taxonomy

_BEGUN = "pbip/begun.safetensors"


class ScoreStore(StoredScores):
    """An open score store, made by :meth:`create` or :meth:`open`.

    It is read as :class:`StoredScores` says. For writing, use it as a context manager: leaving it commits what is still
    in memory.
    """

    def __init__(self, path: Path, mode: Literal["r", "r+"]) -> None:
        super().__init__(path, mode)
        if mode == "r+":  # others may be writing labels and corrections
            remove_begun(path, inside=False)
            for folder in (*(level.basename for level in self.scores), "pbip"):
                remove_begun(path / folder)
        self._writer = StoreWriter(path, self._group, self.scores) if mode == "r+" else None

    @classmethod
    def open(cls, path: Path | str, mode: Literal["r", "r+"] = "r") -> Self:
        """Open a store, finished or not.

        Parameters
        ----------
        path
            Folder of the store.
        mode
            ``r`` to read, also while another process writes; ``r+`` to go on writing.

        Raises
        ------
        OutputError
            If the folder is not a score store, or the store is damaged or of a newer version.
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
        regions: str = "",
        overwrite: bool = False,
    ) -> Self:
        """Create an empty store and open it for writing.

        Parameters
        ----------
        path
            Folder to create, by convention ``<slide>.ome.zarr``.
        taxonomy
            The classes, in the order of the scores.
        slide, model, grid
            The values of :class:`SlideFacts`, :class:`ModelFacts` and :class:`GridFacts`.
        settings
            JSON values of the settings that change the scores; a resumed run must have the same.
        score_shape
            Number of cells, (height, width): the slide's model pixels / ``grid.cell``, rounded up.
        tissue
            Tissue mask over the whole slide, at any resolution.
        planned
            Tiles to be analysed, bool (rows, columns).
        regions
            Identity of the regions by which they were planned.
        overwrite
            Whether an earlier store is replaced. Its corrections by hand are kept.

        Raises
        ------
        OutputError
            If the folder exists and ``overwrite`` is False or it contains other files, if it cannot be written, the
            disk is full, or the corrections of the earlier store are of other cells or classes.
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
            regions=regions,
            made=Made.now(),
        )
        g = facts.grid
        if g.tile % g.cell or g.stride % g.cell or g.tile - g.overlap != g.stride:
            raise ValueError(f"tiles of {g.tile} every {g.stride} model pixels do not lie on cells of {g.cell}")
        lattice = facts.lattice
        if planned.shape != (lattice.rows, lattice.columns):
            raise ValueError(f"the plan is for {planned.shape} tiles, the grid has {(g.rows, g.columns)}")
        ways = "`resume=True` to continue it, `overwrite=True` to replace it"
        corrected = path / corrections.FOLDER
        if overwrite and corrected.exists() and (path / STORE_MARKER).exists():
            _check_corrections_fit(path, facts)
        prepare_folder(path, STORE_MARKER, overwrite=overwrite, ways=ways, keep=(corrections.FOLDER,))
        with writing_folder(path) as begun:
            create_arrays(begun, facts, tissue, planned)
            if corrected.exists():
                shutil.copytree(corrected, begun / corrections.FOLDER, ignore=shutil.ignore_patterns(".*"))
        return cls(path, "r+")

    def relocate(self, slide: Path) -> None:
        """Record the present path of the slide, which may have been moved or renamed.

        Raises
        ------
        OutputError
            If the store cannot be written.
        """
        self._record(slide=self.facts.slide.model_copy(update={"path": slide}))

    def record_computation(self, computed: Mapping[str, str]) -> None:
        """Record what computes the scores from now on: runtime, version, precision and device.

        Raises
        ------
        OutputError
            If the store cannot be written.
        """
        self._record(computed=dict(computed))

    def plan(self, needed: npt.NDArray[np.bool_]) -> None:
        """Plan the tiles that the present regions need, too; blocks with new tiles are no longer finished.

        Raises
        ------
        OutputError
            If the store cannot be written.
        """
        added = needed & ~self.planned
        blocks = self.written
        for y, x in np.argwhere(blocks):
            rows, columns = self.lattice.touching_block(int(y), int(x), BLOCK)
            blocks[y, x] = added[rows.start : rows.stop, columns.start : columns.stop].any()
        self._open_writer().reopen(blocks)  # first, so that a plan has no new tile in a finished block
        self.planned |= added
        with writing_to(self.path):
            get_array(self._group, "pbip/planned")[:] = self.planned
        self._record(regions=self.regions.identity)

    def _record(self, **changes: object) -> None:
        """Change facts."""
        self._open_writer()
        facts = self.facts.model_copy(update=changes)
        if facts != self.facts:
            with writing_to(self.path):
                self._group.attrs.update({"pbip": facts.model_dump(mode="json")})
            self.facts = facts

    # writing -------------------------------------------------------------------------------------------------

    def blender(self) -> Blender:
        """Return a blender for the tiles that are still to be analysed."""
        return Blender(self.lattice, self.planned, self.written)

    def write_region(self, region: Region) -> None:
        """Write a block with the presence and peaks of its tiles.

        The block is on disk when this returns. The coarser levels and the record that a complete block is finished
        follow with the next :meth:`commit`, at most half a second of writing later. An incomplete block can be read and
        is replaced later; a resumed run ignores it.

        Raises
        ------
        OutputError
            If the disk is full or the store cannot be written; what was committed stays valid.
        """
        self._open_writer().write(region)

    def keep(self, tiles: Tiles | None) -> None:
        """Commit, and write the tiles of unfinished blocks in place of earlier ones; None if there are none.

        Raises
        ------
        OutputError
            If they cannot be written; the earlier ones are kept.
        """
        self.commit()  # first the finished blocks, whose tiles are not among these
        path = self.path / _BEGUN
        if tiles is None:
            with writing_to(path):
                path.unlink(missing_ok=True)
            return
        arrays = {"places": tiles.places, "scores": tiles.scores, "presence": tiles.presence}
        with writing(path) as temporary:
            temporary.write_bytes(save(arrays))

    def kept(self) -> Tiles | None:
        """Return the tiles that :meth:`keep` wrote, or None if there are none or they are damaged."""
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
        """Write everything to disk that is still in memory.

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
        if self._writer is not None and not isinstance(error, OutputError):  # after which writing would fail again
            self._writer.commit()

    def _open_writer(self) -> StoreWriter:
        if self._writer is None:
            raise ValueError("the store was opened for reading")
        return self._writer


def _check_corrections_fit(path: Path, facts: StoreFacts) -> None:
    """Raise OutputError if the corrections of an earlier store would not fit one with these facts."""
    earlier = ScoreStore.open(path).facts
    names = [[one.name for one in some.classes] for some in (earlier, facts)]
    cells = [(some.score_shape, some.grid.cell * some.grid.model_mpp) for some in (earlier, facts)]
    if names[0] != names[1] or cells[0] != cells[1]:
        what = "classes" if names[0] != names[1] else "cells"
        raise OutputError(
            f"{path} was corrected by hand, and the new result would have other {what}; write it into another folder, "
            "or take the corrections back first."
        )
