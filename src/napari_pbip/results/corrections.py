"""Corrections of a result by hand: the label that a person gave a cell, which takes precedence over the model's.

::

    <slide>.ome.zarr/corrections/
      0, 1, 2, ...      uint8 (y, x), level-0 cells, one array for each sitting, the newest last

Values are 0 where the sitting changed nothing, class + 1, 255 for not assigned, and 254 for the label of the model
again, which an earlier sitting had changed. The attributes of an array say who corrected, and when.

The scores of the store, and its labels on disk, are those of the model alone: corrections are laid over labels whenever
they are read or computed, and without this folder the result is as the model made it. Cells that were not analysed have
no label that could be corrected.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore

from napari_pbip.claims import claim
from napari_pbip.files import writing_folder
from napari_pbip.results.label_image import CHUNK, OURS
from napari_pbip.results.store_files import get_array, reading, remove_begun, writing_to
from napari_pbip.taxonomy import NOT_ANALYSED

FOLDER = "corrections"
"""Folder in the store."""
UNTOUCHED = 0
"""Value of cells that have the model's label."""
_AS_MODEL = 254
_MEND = "remove this folder, and the result is as the model made it"

Cells = npt.NDArray[np.uint8]
Rectangle = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Sitting:
    """The corrections that somebody made in one sitting."""

    who: str
    """The name that was given; empty if none was."""
    changes: tuple[tuple[datetime, int], ...]
    """When cells were changed, and how many at a time."""


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A sitting that was taken back."""

    files: Mapping[str, bytes]
    """Content of its files, which are compressed, by their paths within its folder."""


class Corrections:
    """The corrections in a store, in memory.

    Parameters
    ----------
    store
        Folder of the store.
    shape
        Number of level-0 cells, (height, width).

    Attributes
    ----------
    cells
        Label of each level-0 cell, uint8 (h, w): 0 where it is the model's, class n as n + 1, 255 not assigned; None if
        nothing was corrected.
    sittings
        Who corrected and when, the newest last.

    Raises
    ------
    UnreadableResult
        If the corrections are damaged, or of another grid.
    """

    def __init__(self, store: Path, shape: tuple[int, int]) -> None:
        self.folder, self.shape = store / FOLDER, shape
        self.cells: Cells | None = None
        self.sittings: tuple[Sitting, ...] = ()
        self.read()

    def read(self) -> None:
        """Read the corrections again, which another process may have changed."""
        with reading(self.folder, _MEND):
            arrays = self.arrays()
            self.sittings = tuple(map(_sitting, arrays))
            self.cells = _laid_over(arrays, np.zeros(self.shape, np.uint8)) if arrays else None

    def over(self, labels: Cells, level: int, y: slice, x: slice) -> Cells:
        """Return the labels of a rectangle of one level with the corrections laid over them."""
        given = self._given(labels, level, y, x)
        return labels if given is None else np.where(given, given, labels)

    def counts(self, labels: Cells, level: int, y: slice, x: slice) -> npt.NDArray[np.int64]:
        """Return how many of these labels, of a rectangle of one level, were given by hand, by their value, (256,)."""
        given = self._given(labels, level, y, x)
        counts = np.zeros(256, np.int64) if given is None else np.bincount(given.ravel(), minlength=256)
        counts[UNTOUCHED] = 0
        return counts

    def blocks(self) -> list[Rectangle]:
        """Return the blocks of level-0 cells in which something was corrected, row by row."""
        if self.cells is None:
            return []
        blocks = [_block(y, x) for y in range(0, self.shape[0], CHUNK) for x in range(0, self.shape[1], CHUNK)]
        return [block for block in blocks if self.cells[block].any()]

    def _given(self, labels: Cells, level: int, y: slice, x: slice) -> Cells | None:
        """Return the corrections of analysed cells, 0 elsewhere; None if there are none."""
        if self.cells is None:
            return None
        given = self.cells[:: 2**level, :: 2**level][y, x]
        return given * (labels != NOT_ANALYSED) if given.any() else None

    def arrays(self, mode: Literal["r", "r+"] = "r") -> list[zarr.Array[Any]]:
        """Return the array of each sitting on disk, the newest last."""
        arrays = _arrays(self.folder, mode)
        for array in arrays:
            if array.shape != self.shape:
                raise ValueError(f"{array.path} is of {array.shape} cells, and the result of {self.shape}")
        return arrays


class CorrectionEditor:
    """Changes the corrections of a store; nobody else can meanwhile.

    Parameters
    ----------
    corrections
        The corrections. Their ``cells`` are to be changed in place, and are on disk after :meth:`save`.
    who
        Name of the person who corrects, as given; empty if none was.
    number
        Number of the sitting, from 1, that is gone on with if it is the newest one, as to undo a part of it. By default
        the first change begins a sitting.

    Raises
    ------
    FolderInUse
        If another window corrects this result.
    OutputError
        If the store cannot be written.
    """

    def __init__(self, corrections: Corrections, who: str, number: int = 0) -> None:
        self._corrections, self._who = corrections, who
        with ExitStack() as claimed:
            claimed.enter_context(claim(corrections.folder, "correcting"))
            corrections.read()
            self._claim = claimed.pop_all()
        if corrections.cells is None:
            corrections.cells = np.zeros(corrections.shape, np.uint8)
        self._saved = corrections.cells.copy()
        self._begun = 0 < number == len(corrections.sittings)  # else a sitting begins with its first change

    def save(self) -> tuple[Rectangle, Cells] | None:
        """Write the cells that were changed; return where they lie, and what was there before, or None if none were.

        Raises
        ------
        OutputError
            If they cannot be written; the next call tries again.
        """
        cells, saved = self._cells, self._saved
        changed = _changed(saved, cells)
        if changed is None:
            return None
        with self._writing():
            *earlier, array = self._arrays()
            y, x = (range(span.start // CHUNK * CHUNK, span.stop, CHUNK) for span in changed)
            for block in (_block(row, column) for row in y for column in x):
                below = _lay_block(earlier, np.zeros_like(cells[block]), block)
                own = np.where(cells[block] == UNTOUCHED, np.uint8(_AS_MODEL), cells[block])
                array[block] = np.where(cells[block] == below, np.uint8(UNTOUCHED), own)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            facts: Any = array.attrs[OURS]
            count = int(np.count_nonzero(cells[changed] != saved[changed]))
            array.attrs[OURS] = {**facts, "changes": [*facts["changes"], [now, count]]}
            self._note_sittings()
        before = saved[changed].copy()
        saved[changed] = cells[changed]
        return changed, before

    def take_back(self) -> TakenBack:
        """Take back the newest sitting, as a whole, from ``cells`` too; return it for :meth:`put_back`.

        Raises
        ------
        OutputError
            If it cannot be removed.
        """
        with self._writing():
            last = self._corrections.arrays()[-1]
            folder = self._corrections.folder / last.basename
            taken = TakenBack(
                {one.relative_to(folder).as_posix(): one.read_bytes() for one in folder.rglob("*") if one.is_file()}
            )
            self._remove(last)
            self._begun = False
            self._lay_again()
        return taken

    def put_back(self, taken: TakenBack) -> None:
        """Put a sitting that was taken back over those that are there, as it was.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        self._forget_if_empty()
        with self._writing():
            arrays = self._corrections.arrays()
            folder = self._corrections.folder / str(int(arrays[-1].basename) + 1 if arrays else 0)
            with writing_folder(folder) as begun:
                for place, content in taken.files.items():
                    (begun / place).parent.mkdir(parents=True, exist_ok=True)
                    (begun / place).write_bytes(content)
            self._begun = False  # what follows is another sitting
            self._lay_again()

    def close(self) -> None:
        """Let others correct; a sitting of which nothing is left is forgotten.

        Raises
        ------
        OutputError
            If it cannot be removed; others can correct nevertheless.
        """
        try:
            self._forget_if_empty()
        finally:
            self._claim.close()

    def _forget_if_empty(self) -> None:
        """Forget this sitting if nothing is left of it."""
        with self._writing():
            if self._begun and not (last := self._corrections.arrays()[-1]).nchunks_initialized:
                self._remove(last)
                self._begun = False
                self._note_sittings()

    def _lay_again(self) -> None:
        """Change the cells to what the sittings on disk say."""
        self._cells[:] = UNTOUCHED
        _laid_over(self._corrections.arrays(), self._cells)
        self._saved[:] = self._cells
        self._note_sittings()

    @property
    def _cells(self) -> Cells:
        assert self._corrections.cells is not None
        return self._corrections.cells

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise OutputError with a clear message whatever goes wrong on disk."""
        folder = self._corrections.folder
        with reading(folder, _MEND), writing_to(folder):
            yield

    def _remove(self, sitting: zarr.Array[Any]) -> None:
        """Remove a sitting, which is renamed first, so that no part of it counts if a process is killed."""
        folder = self._corrections.folder / sitting.basename
        aside = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _arrays(self) -> list[zarr.Array[Any]]:
        """Return the array of each sitting; that of this one is made if there is none yet."""
        corrections = self._corrections
        arrays = corrections.arrays("r+")
        if not self._begun:
            remove_begun(corrections.folder)
            group = zarr.open_group(corrections.folder, mode="a", zarr_format=3)
            array = group.create_array(
                str(int(arrays[-1].basename) + 1 if arrays else 0),
                shape=corrections.shape,
                chunks=(CHUNK, CHUNK),
                dtype="uint8",
                fill_value=UNTOUCHED,
                compressors=BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle", typesize=1),
                attributes={OURS: {"who": self._who, "changes": []}},
            )
            arrays.append(array)
            self._begun = True
        return arrays

    def _note_sittings(self) -> None:
        self._corrections.sittings = tuple(map(_sitting, self._corrections.arrays()))


def sittings_in(store: Path) -> tuple[Sitting, ...]:
    """Return who corrected a result and when, the newest last, without reading what was corrected.

    Parameters
    ----------
    store
        Folder of the score store.

    Raises
    ------
    UnreadableResult
        If the corrections are damaged.
    """
    folder = store / FOLDER
    with reading(folder, _MEND):
        return tuple(map(_sitting, _arrays(folder)))


def _arrays(folder: Path, mode: Literal["r", "r+"] = "r") -> list[zarr.Array[Any]]:
    """Return the array of each sitting in a folder of corrections, the newest last."""
    numbers = sorted(int(place.name) for place in folder.glob("[0-9]*"))
    if not numbers:
        return []
    group = zarr.open_group(folder, mode=mode, zarr_format=3)
    return [get_array(group, str(number)) for number in numbers]


def _laid_over(sittings: Sequence[zarr.Array[Any]], cells: Cells) -> Cells:
    """Lay sittings over cells, which are changed and returned.

    Only the blocks that a sitting has written are read: of a large slide nearly all are untouched.
    """
    for y, x in sorted({place for array in sittings for place in _blocks_on_disk(array)}):
        block = _block(y * CHUNK, x * CHUNK)
        _lay_block(sittings, cells[block], block)
    return cells


def _lay_block(sittings: Sequence[zarr.Array[Any]], cells: Cells, block: Rectangle) -> Cells:
    """Lay one block of sittings over its cells, which are changed and returned."""
    for array in sittings:
        given = np.asarray(array[block])
        np.copyto(cells, given, where=given != UNTOUCHED)
    cells[cells == _AS_MODEL] = UNTOUCHED
    return cells


def _blocks_on_disk(array: zarr.Array[Any]) -> list[tuple[int, int]]:
    """Return row and column of the blocks of a sitting that were written."""
    store = array.store
    assert isinstance(store, LocalStore)  # as a folder is opened
    files = Path(store.root, array.path, "c").glob("*/*")
    places = [(file.parent.name, file.name) for file in files]
    return [(int(row), int(column)) for row, column in places if row.isdecimal() and column.isdecimal()]


def _sitting(array: zarr.Array[Any]) -> Sitting:
    facts: Any = array.attrs[OURS]
    changes = tuple((datetime.fromisoformat(when), int(count)) for when, count in facts["changes"])
    return Sitting(str(facts["who"]), changes)


def _changed(before: Cells, after: Cells) -> Rectangle | None:
    """Return the smallest rectangle with all cells that differ, or None if none do."""
    strips = [slice(top, top + CHUNK) for top in range(0, len(after), CHUNK)]
    apart = [strip for strip in strips if not np.array_equal(before[strip], after[strip])]
    if not apart:
        return None
    top = apart[0].start
    part = slice(top, apart[-1].stop)
    differs = before[part] != after[part]
    rows, columns = (np.flatnonzero(differs.any(axis)) for axis in (1, 0))
    return slice(int(top + rows[0]), int(top + rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _block(y: int, x: int) -> Rectangle:
    return slice(y, y + CHUNK), slice(x, x + CHUNK)
