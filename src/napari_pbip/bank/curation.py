"""What the user corrected in a bank: tiles that were removed or given another class, by the hash of their file.

It lies beside the bank as ``curation.json``, survives every rebuild, and is undone by writing an earlier one.
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
    """Corrections of a bank; an equal picture is corrected wherever it lies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    tiles: dict[Hash, Annotated[str, Field(min_length=1)] | None] = {}
    """SHA-256 of the picture file -> name of the class it belongs to, or None: removed from the bank."""

    def __bool__(self) -> bool:
        return bool(self.tiles)

    def remove(self, hashes: Collection[str]) -> Self:
        """These tiles removed as well."""
        return self.model_copy(update={"tiles": {**self.tiles, **dict.fromkeys(hashes)}})

    def move(self, hashes: Collection[str], class_name: str) -> Self:
        """These tiles given this class."""
        return self.model_copy(update={"tiles": {**self.tiles, **dict.fromkeys(hashes, class_name)}})

    def class_of(self, tile_hash: str, labelled: int, taxonomy: Taxonomy) -> int | None:
        """Class of a tile, or None if it was removed.

        Parameters
        ----------
        tile_hash
            SHA-256 of its file.
        labelled
            Its class by its label; holds where nothing was corrected, or to a class that is no more.
        taxonomy
            The classes.
        """
        name = self.tiles.get(tile_hash, taxonomy.names[labelled])
        if name is None:
            return None
        return taxonomy.index(name) if name in taxonomy.names else labelled

    def unknown(self, taxonomy: Taxonomy) -> dict[str, int]:
        """Classes that tiles were moved to and that are no more, with the number of these tiles."""
        counts = Counter(name for name in self.tiles.values() if name is not None)
        return {name: count for name, count in counts.items() if name not in taxonomy.names}

    def write(self, folder: Path) -> None:
        """Write beside a bank.

        Raises
        ------
        OutputError
            If the folder cannot be written or the disk is full.
        """
        with writing(folder / CURATION) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The corrections beside a bank; none where there is no file.

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
