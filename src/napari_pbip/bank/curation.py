"""The user's corrections of a bank: tiles that were removed or given another class, by the hash of their file.

They are saved in the bank's folder as ``curation.json``, kept when the bank is built again, and undone by writing an
earlier state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_pbip.errors import BankError
from napari_pbip.files import writing
from napari_pbip.taxonomy import Taxonomy

CURATION = "curation.json"
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Curation(BaseModel):
    """The corrections of a bank; they apply to every file with the same content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    tiles: dict[Hash, Annotated[str, Field(min_length=1)] | None] = {}
    """Class name by the SHA-256 of the picture file; None if the tile was removed from the bank."""

    def __bool__(self) -> bool:
        return bool(self.tiles)

    def remove(self, hashes: Collection[str]) -> Self:
        """Return corrections in which these tiles are removed as well."""
        return self.model_copy(update={"tiles": {**self.tiles, **dict.fromkeys(hashes)}})

    def move(self, hashes: Collection[str], class_name: str) -> Self:
        """Return corrections in which these tiles have this class."""
        return self.model_copy(update={"tiles": {**self.tiles, **dict.fromkeys(hashes, class_name)}})

    def class_of(self, tile_hash: str, labelled: int, taxonomy: Taxonomy) -> int | None:
        """Return the class index of a tile, or None if it was removed.

        Parameters
        ----------
        tile_hash
            SHA-256 of the tile's file.
        labelled
            Class index of its label, which is returned if the tile was not corrected or its new class is unknown.
        taxonomy
            The classes.
        """
        name = self.tiles.get(tile_hash, taxonomy.names[labelled])
        if name is None:
            return None
        return taxonomy.index(name) if name in taxonomy.names else labelled

    def unknown(self, taxonomy: Taxonomy) -> dict[str, int]:
        """Return the unknown classes that tiles were moved to, each with the number of its tiles."""
        counts = Counter(name for name in self.tiles.values() if name is not None)
        return {name: count for name, count in counts.items() if name not in taxonomy.names}

    def write(self, folder: Path) -> None:
        """Write the corrections into the folder of a bank.

        Raises
        ------
        OutputError
            If the folder cannot be written or the disk is full.
        """
        with writing(folder / CURATION) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the corrections in the folder of a bank; there are none if the file does not exist.

        Raises
        ------
        BankError
            If the file cannot be read, is damaged, or of a newer format.
        """
        path = folder / CURATION
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            raise BankError(
                f"{path}, which holds the tiles that were removed and moved, cannot be read; restore it, or delete "
                "it to start from the labels again."
            ) from error
