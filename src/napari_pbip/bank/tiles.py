"""Labelled tiles: small pictures of tissue that carry the classes seen in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_pbip.errors import DataError
from napari_pbip.taxonomy import Taxonomy

LEFT_OUT = 255
"""Value of a mask read by :meth:`LabelledTile.read_mask` where a pixel does not count."""

# 8-bit pictures, with or without colour and transparency. What Pillow opens in another mode has more than
# 8 bits a channel and would lose them without a word.
_PICTURE_MODES = frozenset({"RGB", "RGBA", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr"})
_MASK_MODES = frozenset({"L", "P", "1", "I", "I;16", "I;16B"})


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a tile was cut from."""

    slide: str
    """Name of the slide (of the patient, in LUAD-HistoSeg)."""
    x: int
    """Left edge in level-0 pixels: of the tile, or of the annotated region it lies in (BCSS-WSSS)."""
    y: int
    """Top edge."""

    @classmethod
    def from_name(cls, name: str) -> Origin | None:
        """The origin that a file name of BCSS-WSSS or LUAD-HistoSeg tells, or None."""
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
    """One tile and the classes in it."""

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
        """The class of a tile that shows one class only, else None."""
        return next(iter(self.labels)) if len(self.labels) == 1 else None

    def read(self) -> npt.NDArray[np.uint8]:
        """RGB, shape (H, W, 3), uint8.

        Raises
        ------
        DataError
            If the file is missing, damaged, no picture, or has more than 8 bits a channel.
        """
        return read_rgb(self.path)

    def file_hash(self) -> str:
        """SHA-256 of the picture file, hexadecimal: the same file gives it wherever it lies.

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
        """Class index of every pixel, shape (H, W), uint8; :data:`LEFT_OUT` where it does not count.

        Grey and palette pictures are read by value. Values ``classes`` (the background of the published
        data sets) and 255 are left out.

        Parameters
        ----------
        classes
            How many classes there are.

        Raises
        ------
        DataError
            If there is no mask, it cannot be read, is a colour picture, differs in size from the tile, or
            holds other values.
        """
        if self.mask is None:
            raise DataError(f"{self.path} has no mask, which scoring per pixel needs; give a split with masks.")
        image, picture = _open(self.path), _open(self.mask)
        if picture.mode not in _MASK_MODES:
            raise DataError(
                f"The mask {self.mask} is a colour picture ({picture.mode}); save it with grey or palette values "
                "that number the classes from 0."
            )
        if picture.size != image.size:
            raise DataError(
                f"The mask {self.mask} is {_size(picture)} pixels but its tile {_size(image)}; they must be equal."
            )
        mask = np.asarray(picture).astype(np.int64)
        mask[mask == classes] = LEFT_OUT
        unknown = np.setdiff1d(mask, [*range(classes), LEFT_OUT])
        if unknown.size:
            raise DataError(
                f"The mask {self.mask} holds the value {unknown[0]}; with {classes} classes it may hold "
                f"0 to {classes - 1}, and {classes} or 255 for what is left out."
            )
        return mask.astype(np.uint8)


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """RGB of a picture file, shape (H, W, 3), uint8.

    Raises
    ------
    DataError
        If the file is missing, damaged, no picture, or has more than 8 bits a channel.
    """
    image = _open(path)
    if image.mode not in _PICTURE_MODES:
        raise DataError(f"The tile {path} is no 8-bit picture (mode {image.mode}); save it as 8-bit RGB.")
    return np.asarray(image.convert("RGB"))


def _open(path: Path) -> Image.Image:
    """A decoded picture; what Pillow raises on damaged files becomes one sentence."""
    try:
        with Image.open(path) as image:
            image.load()  # the file is closed after this; the pixels stay
            return image
    except FileNotFoundError:
        raise DataError(f"The picture {path} does not exist; correct the path or restore the file.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"The picture {path} cannot be read (damaged, or no picture); replace or remove it.") from error


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"


@dataclass(frozen=True, slots=True)
class TileSet:
    """The tiles of one split of a data set."""

    taxonomy: Taxonomy
    tiles: tuple[LabelledTile, ...]
    """In the order of their paths (of the rows, in a CSV file)."""
    layout: str
    """How labels were found: ``bcss``, ``luad``, ``folders``, ``csv``, ``masks`` or ``unlabelled``."""
    folder: Path
    """What the user named: a folder or a CSV file."""
    split: str
    """``train``, ``train_single``, ``val`` or ``test``."""

    def __len__(self) -> int:
        return len(self.tiles)

    def __iter__(self) -> Iterator[LabelledTile]:
        return iter(self.tiles)

    @property
    def single_class(self) -> tuple[LabelledTile, ...]:
        """The tiles that show one class only: what an image bank is made of."""
        return tuple(t for t in self.tiles if t.class_index is not None)

    @property
    def counts(self) -> tuple[int, ...]:
        """Tiles that show each class, one number a class."""
        return tuple(sum(n in t.labels for t in self.tiles) for n in range(len(self.taxonomy)))

    def require_two_classes(self) -> None:
        """Stop what has to tell classes apart where there is nothing to tell apart.

        Raises
        ------
        DataError
            If the tiles show fewer than two classes.
        """
        seen = [name for name, count in zip(self.taxonomy.names, self.counts, strict=True) if count]
        if len(seen) < 2:
            raise DataError(
                f"All tiles in {self.folder} show {'the class ' + seen[0] if seen else 'no class'}; "
                "add tiles of at least one other class."
            )
