"""Immutable snapshots of labelled tiles on slides, which may be handed to a thread or written to disk.

A tile is a square of a grid that begins at the slide's top left corner; only whole tiles count. The folder of labelled
tiles contains

```text
labels.json                  the classes of each tile of each slide, from which the files below are made
tiles.csv                    the table that ``load_tiles`` reads: path, slide, x, y, and one 0/1 column per class
classes.txt                  names and colours, in label order
pictures/<slide>/<size>/     the tiles, named by their position
```

The path of a picture contains everything that determines it, so that an existing picture need not be cut again.
Pictures are never deleted, because a running training may read them, and a tile may get its label back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_pbip.bank.layouts.csv_table import CSV_COLUMNS
from napari_pbip.bank.layouts.tile_table import write_tables
from napari_pbip.errors import DataError
from napari_pbip.files import safe_name, writing
from napari_pbip.slides import Position, SlideFacts, SquareGrid, TileSize
from napari_pbip.taxonomy import Taxonomy, TissueClass, class_name

LABELS, PICTURES = "labels.json", "pictures"
_UNFIT = frozenset(',;"\t\r\n')
"""Characters that a class name must not contain: separators, quotes and line ends of the table."""

Labels = frozenset[int]
"""Indices of the classes in a tile."""


class Origin(StrEnum):
    """Where the labels of a tile come from."""

    DRAWN = "drawn"
    """Given by hand in the window, tile by tile or in a region."""
    IMPORTED = "imported"
    """From annotations of another program."""
    CORRECTED = "corrected"
    """From a tissue map that was corrected by hand."""


@dataclass(frozen=True, slots=True)
class LabelledSlides:
    """All labelled tiles at one moment. It is immutable and may be used in any thread."""

    taxonomy: Taxonomy
    size: TileSize
    slides: tuple[SlideFacts, ...]
    tiles: tuple[Mapping[Position, Labels], ...]
    """Labelled tiles of each slide."""
    origins: tuple[Mapping[Position, Origin], ...] = ()
    """Origins of tiles of each slide that were not drawn; empty if all were."""

    def __len__(self) -> int:
        return sum(map(len, self.tiles))

    def write(self, folder: Path) -> None:
        """Write ``labels.json``, which is replaced only when complete.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        document = {
            "format": 1,
            "classes": self.taxonomy.to_json(),
            "size": self.size.model_dump(),
            "slides": [
                {
                    **slide.model_dump(mode="json"),
                    "tiles": [(*place, sorted(labels)) for place, labels in tiles.items()],
                    **({"origins": [(*place, origin) for place, origin in origins.items()]} if origins else {}),
                }
                for slide, tiles, origins in zip_longest(self.slides, self.tiles, self.origins)
            ],
        }
        with writing(folder / LABELS) as temporary:
            temporary.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read ``labels.json``; return None if it does not exist.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        path = folder / LABELS
        try:
            document = _Document.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise DataError(
                f"The labels in {path} cannot be read; restore the file from a backup, or move it away to start again."
            ) from error
        return cls(
            Taxonomy(classes=document.classes),
            document.size,
            tuple(SlideFacts(**slide.model_dump(exclude={"tiles", "origins"})) for slide in document.slides),
            tuple({(column, row): labels for column, row, labels in slide.tiles} for slide in document.slides),
            tuple({(column, row): origin for column, row, origin in slide.origins} for slide in document.slides),
        )

    def picture(self, slide: SlideFacts, position: Position) -> Path:
        """Return the path of a tile's picture relative to the folder; it contains all that determines the picture."""
        x, y = corner(slide.grid(self.size), position)
        size = f"{self.size.pixels}px_{self.size.mpp:.6g}um_of_{slide.mpp:.6g}um"
        return Path(PICTURES, f"{safe_name(slide.name)}-{slide.identity[:8]}", size, f"x{x}_y{y}.png")

    def write_tables(self, folder: Path, missing: Iterable[Path] = ()) -> None:
        """Write ``classes.txt``, and ``tiles.csv`` with all tiles but those in ``missing``.

        If there are no tiles, ``tiles.csv`` is removed.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        left_out = frozenset(missing)
        rows = [
            ((path.as_posix(), slide.name, *corner(grid, place)), labels)
            for slide, tiles in zip(self.slides, self.tiles, strict=True)
            for grid in [slide.grid(self.size)]
            for place, labels in sorted(tiles.items(), key=lambda item: item[0][::-1])
            if (path := self.picture(slide, place)) not in left_out
        ]
        write_tables(folder, self.taxonomy, ("path", "slide", "x", "y"), rows)


class _Slide(SlideFacts):
    model_config = ConfigDict(extra="forbid")

    tiles: list[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Labels]]
    origins: tuple[tuple[int, int, Origin], ...] = ()


class _Document(BaseModel):
    """``labels.json``."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    classes: tuple[TissueClass, ...]
    size: TileSize
    slides: list[_Slide]

    @model_validator(mode="after")
    def _check(self) -> Self:
        Taxonomy(classes=self.classes)
        known = range(len(self.classes))
        for slide in self.slides:
            if any(not labels or any(n not in known for n in labels) for _, _, labels in slide.tiles):
                raise ValueError("a tile has a class that does not exist")
        return self


def corner(grid: SquareGrid, position: Position) -> tuple[int, int]:
    """Return the left and top edge of a tile in whole level-0 pixels, at which its picture is cut."""
    x, y = grid.corner(position)
    return round(x), round(y)


def check_class_name(name: str) -> str:
    """Strip a class name and check it.

    Raises
    ------
    DataError
        If the name cannot be the header of a column in a table of tiles.
    """
    name = class_name(name)
    if not name:
        raise DataError("A class needs a name; type one, such as tumour.")
    if name.casefold() in CSV_COLUMNS:
        raise DataError(
            f"A class cannot be called {name!r}, which means something else in tables; choose another name."
        )
    if _UNFIT & set(name):
        raise DataError("A class name cannot hold commas, semicolons, quotation marks or line breaks; leave them out.")
    return name
