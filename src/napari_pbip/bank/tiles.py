"""Labelled tiles: small pictures of tissue with the classes that occur in them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_pbip.errors import DataError
from napari_pbip.pictures import read_rgb, read_values, upright_size
from napari_pbip.taxonomy import Taxonomy

LEFT_OUT = 255
"""Value of ignored pixels in a mask that :meth:`LabelledTile.read_mask` returns."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The slide and position that a tile was cut from."""

    slide: str
    """Name of the slide (of the patient, in LUAD-HistoSeg)."""
    x: int
    """Left edge in level-0 pixels: of the tile, or of the annotated region it lies in (BCSS-WSSS)."""
    y: int
    """Top edge."""

    @classmethod
    def from_name(cls, name: str) -> Origin | None:
        """Return the origin in a file name of BCSS-WSSS or LUAD-HistoSeg, or None."""
        for pattern in _ORIGINS:
            if found := pattern.match(name):
                return cls(found["slide"], int(found["x"]), int(found["y"]))
        return None


_ORIGINS = (
    re.compile(r"(?P<slide>.+)_xmin(?P<x>\d+)_ymin(?P<y>\d+)_"),
    re.compile(r"(?P<slide>.+)-(?P<x>\d+)-(?P<y>\d+)-\["),
)


@dataclass(frozen=True, slots=True)
class LabelledTile:
    """A tile and the classes in it."""

    path: Path
    """Picture file."""
    labels: frozenset[int]
    """Indices of the classes present; empty if there are none or they are not known."""
    mask: Path | None = None
    """Picture file with the class of every pixel, where there is one."""
    origin: Origin | None = None
    """Where the tile was cut from, if that is known."""

    @property
    def class_index(self) -> int | None:
        """Class index of a tile with exactly one class, else None."""
        return next(iter(self.labels)) if len(self.labels) == 1 else None

    def read(self) -> npt.NDArray[np.uint8]:
        """Read the tile as RGB, shape (H, W, 3), uint8; raises as :func:`napari_pbip.pictures.read_rgb` does."""
        return read_rgb(self.path)

    def file_hash(self) -> str:
        """Return the SHA-256 of the picture file, hexadecimal.

        Raises
        ------
        DataError
            If the file cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(
                f"The picture {self.path} cannot be read ({error.strerror}); restore or remove it."
            ) from error

    def read_mask(self, classes: int) -> npt.NDArray[np.uint8]:
        """Read the mask: the class index of every pixel, shape (H, W), uint8, or :data:`LEFT_OUT` if ignored.

        The values of grey pictures and the indices of palette pictures count. Pixels with the values ``classes`` (the
        background of the published data sets) and 255 are ignored.

        Parameters
        ----------
        classes
            Number of classes.

        Raises
        ------
        DataError
            If there is no mask, or it cannot be read, is a colour picture, was compressed with losses, differs in size
            from the tile, or contains other values.
        """
        if self.mask is None:
            raise DataError(f"{self.path} has no mask, which scoring per pixel needs; give a split with masks.")
        mask = self.mask_values(classes)
        mask[mask == classes] = LEFT_OUT
        return mask.astype(np.uint8)

    def mask_values(self, classes: int) -> npt.NDArray[np.int64]:
        """Read the values of the mask as they are in its file, shape (H, W).

        Raises
        ------
        DataError
            As :meth:`read_mask` does.
        """
        if self.mask is None:
            raise DataError(f"{self.path} has no mask, which scoring per pixel needs; give a split with masks.")
        mask, (width, height) = read_values(self.mask).astype(np.int64), upright_size(self.path)
        if mask.shape != (height, width):
            raise DataError(
                f"The mask {self.mask} is {mask.shape[1]}x{mask.shape[0]} pixels but its tile {width}x{height}; they "
                "must be equal."
            )
        unknown = np.setdiff1d(mask, [*range(classes + 1), LEFT_OUT])
        if unknown.size:
            raise DataError(
                f"The mask {self.mask} holds the value {unknown[0]}; with {classes} classes it may hold "
                f"0 to {classes - 1}, and {classes} or 255 for what is left out."
            )
        return mask


_LAYOUTS = {
    "folders": "a folder for each class",
    "bcss": "digits in the file names, as in BCSS-WSSS",
    "luad": "digits in the file names, as in LUAD-HistoSeg",
    "csv": "a table, a column for each class",
    "masks": "masks, which give the classes",
    "unlabelled": "pictures without labels",
}
_SPLITS = {"train": "for training", "train_single": "of one class each", "val": "for validation", "test": "for testing"}


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


@dataclass(frozen=True, slots=True)
class TileSet:
    """The tiles of one split of a data set."""

    taxonomy: Taxonomy
    tiles: tuple[LabelledTile, ...]
    """The tiles in the order of their paths, or of the rows of a CSV file."""
    layout: str
    """Layout of the labels: ``bcss``, ``luad``, ``folders``, ``csv``, ``masks`` or ``unlabelled``."""
    folder: Path
    """Path that the user gave: a folder or a CSV file."""
    split: str
    """The split: ``train``, ``train_single``, ``val`` or ``test``."""
    splits: tuple[str, ...] = ()
    """All splits of the data set."""
    notes: tuple[str, ...] = ()
    """Sentences on what was left out, and why."""
    warnings: tuple[str, ...] = ()
    """Sentences on what is probably wrong."""

    def __len__(self) -> int:
        return len(self.tiles)

    def __iter__(self) -> Iterator[LabelledTile]:
        return iter(self.tiles)

    @property
    def single_class(self) -> tuple[LabelledTile, ...]:
        """The tiles with exactly one class, from which an image bank is built."""
        return tuple(t for t in self.tiles if t.class_index is not None)

    @property
    def alone(self) -> tuple[int, ...]:
        """Number of tiles that show each class alone."""
        shown = Counter(tile.class_index for tile in self.tiles)
        return tuple(shown[n] for n in range(len(self.taxonomy)))

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of tiles of each class."""
        return tuple(sum(n in t.labels for t in self.tiles) for n in range(len(self.taxonomy)))

    @property
    def description(self) -> str:
        """A sentence on what was recognised: the number of tiles, their layout, and the tiles of each class."""
        names = self.taxonomy.names
        found = f"Found {_number(len(self), 'tile')} {_SPLITS[self.split]}: {_LAYOUTS[self.layout]}"
        if self.layout != "unlabelled":
            found += f" ({', '.join(f'{name} {n:,}' for name, n in zip(names, self.counts, strict=True))})"
        if (masks := sum(tile.mask is not None for tile in self.tiles)) and self.layout == "csv":
            found += f", {masks:,} of them with masks"
        return f"{found}."

    def require_masks(self, reason: str) -> None:
        """Stop where a tile has no mask.

        Parameters
        ----------
        reason
            Why masks are needed, and where they come from; the end of the sentence.

        Raises
        ------
        DataError
            If one has none.
        """
        if missing := [tile.path.name for tile in self if tile.mask is None]:
            raise DataError(
                f"{len(missing)} tiles of the split {self.split!r} have no mask (such as {missing[0]}); {reason}."
            )

    def require_two_classes(self) -> None:
        """Check that the tiles have at least two classes, which clustering and training need.

        Raises
        ------
        DataError
            If the tiles have fewer than two classes.
        """
        seen = [name for name, count in zip(self.taxonomy.names, self.counts, strict=True) if count]
        if len(seen) < 2:
            raise DataError(
                f"All tiles in {self.folder} show {'the class ' + seen[0] if seen else 'no class'}; "
                "add tiles of at least one other class."
            )
