"""The folder of an image bank, and the records in it.

```text
BANK/
  bank.json               facts: classes, encoder, settings, tiles with their provenance, clusters, statistics
  features.safetensors    feature of each tile by the hash of its file
  prototypes.safetensors  one vector per subclass
  thumbnails/<hash>.jpg   the tiles whose mean features are the prototypes
  tiles.csv, classes.txt  the labelled tiles it was built from, as a data set
  curation.json           the user's corrections, if there are any (:mod:`napari_pbip.bank.curation`)
```
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from PIL import Image

from napari_pbip.bank.features import FeatureFile
from napari_pbip.bank.tiles import Origin
from napari_pbip.errors import BankError
from napari_pbip.files import write_picture
from napari_pbip.pictures import read_rgb

FORMAT = 1
FACTS = "bank.json"
PROTOTYPES = "prototypes.safetensors"
THUMBNAILS = "thumbnails"
_THUMBNAIL_SIDE = 112


class EncoderFacts(TypedDict):
    """The encoder that a bank belongs to."""

    name: str
    """Name of the encoder in the catalogue."""
    weights_hash: str
    """SHA-256 of the weights; features of encoders with different weights cannot be compared."""
    dimension: int
    """Length D of the features."""
    weights: str | None
    """Path of the weights when the bank was built."""


@dataclass(frozen=True, slots=True)
class BankTile:
    """A tile of the bank, and where it was cut from."""

    path: str
    """Picture file of the tile."""
    class_index: int
    """Class index of the tile."""
    hash: str
    """SHA-256 of the picture file."""
    white: float
    """Share of near-white pixels, 0 to 1."""
    origin: Origin | None = None
    """Position on a slide, if known."""
    subclass: int = -1
    """Index of the tile's cluster among those of all classes; -1 for a tile that was left out."""
    similarity: float = 0.0
    """Cosine of the feature with the centre of its cluster, -1 to 1."""


def thumbnail_path(folder: Path, tile: BankTile) -> Path:
    """Return the path of a tile's thumbnail in the folder of a bank."""
    return folder / THUMBNAILS / f"{tile.hash[:16]}.jpg"


def write_thumbnail(folder: Path, tile: BankTile) -> None:
    """Write the thumbnail of a tile, if there is none yet."""
    path = thumbnail_path(folder, tile)
    if path.exists():
        return
    picture = Image.fromarray(read_rgb(Path(tile.path)))
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    write_picture(path, picture, "JPEG", quality=88)


def damaged(folder: Path) -> BankError:
    """Return the error of a bank that is damaged."""
    return BankError(
        f"The image bank {folder} is damaged; restore it or build it again with `build_bank(update=True)`."
    )


def read_facts(folder: Path) -> Any:
    """Return what ``bank.json`` holds; raises BankError if the folder is not a bank, or the bank is unfinished."""
    try:
        return json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if FeatureFile.exists(folder):
            raise BankError(
                f"{folder} is an unfinished image bank; build it again with `build_bank(update=True)`."
            ) from None
        if folder.is_file():
            raise BankError(
                f"{folder} is a file; give the folder that holds the image bank, such as {folder.parent}."
            ) from None
        raise BankError(f"{folder} is no image bank (it holds no {FACTS}); make one with `build_bank()`.") from None
    except (OSError, ValueError) as error:
        raise damaged(folder) from error
