"""A data set on disk: the contents of its folder, its layout, its splits and its classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

from napari_pbip.bank.layouts import class_folders, file_names, mask_folders, tile_table
from napari_pbip.bank.layouts.class_folders import classes_of
from napari_pbip.bank.layouts.csv_table import TABLE_SUFFIXES, Table
from napari_pbip.bank.layouts.file_names import KNOWN, LABEL_IN_NAME, digits_of, naming_of
from napari_pbip.bank.layouts.given_classes import given_classes, taxonomy_of
from napari_pbip.bank.layouts.mask_folders import image_and_mask_folders
from napari_pbip.bank.layouts.splits import SPLITS, split_of
from napari_pbip.bank.left_out import LeftOut
from napari_pbip.bank.tiles import LabelledTile, TileSet
from napari_pbip.config import DataSettings
from napari_pbip.errors import DataError
from napari_pbip.folders import Listing, listing, walk
from napari_pbip.pictures import FORMATS, is_picture
from napari_pbip.taxonomy import Taxonomy

_SAY_WHERE = (
    "use `data.layout=folders` if the labels are in the folders, and `data.layout=bcss` or `data.layout=luad` if they "
    "are in the file names."
)


class DataSet:
    """A folder or table of tiles whose layout was recognised.

    Attributes
    ----------
    table
        The table of the tiles, or None.
    here
        Contents of the folder (empty if the user named a table).
    parts
        The folder of each split (empty for a table).
    """

    def __init__(self, folder: Path, settings: DataSettings) -> None:
        check_exists(folder)
        self.folder, self.settings = folder, settings
        self._listing = cache(listing)  # for this moment: folders change
        self._layouts: dict[Path, str] = {}
        self._notes: Sequence[str] = ()
        self.parts: dict[str, Path] = {}
        self.here = Listing()
        self.table: Table | None = None
        if folder.is_file():
            self.table = Table(folder)
            return
        self.here = self._listing(folder)
        for path in self.here.folders:
            if (split := split_of(path.name)) is None:
                continue
            if split in self.parts:
                raise DataError(
                    f"{folder} has two folders for the split {split}, {self.parts[split].name} and {path.name}; rename "
                    "or remove one."
                )
            self.parts[split] = path
        self.table, self._notes = tile_table.find(folder, self.here, settings.layout)
        if self.table is not None or not self.parts:
            self.parts = {} if self.table is not None else {"train": folder}

    @cached_property
    def splits(self) -> tuple[str, ...]:
        if self.table is None:
            return tuple(s for s in SPLITS if s in self.parts)
        present = {self.table.split(row) for row in range(len(self.table.rows))}
        return tuple(s for s in SPLITS if s in present)

    def load(self, split: str) -> TileSet:
        """Load the tiles of a split; raises as :func:`napari_pbip.bank.load_tiles` does."""
        left_out = LeftOut(others=list(self._notes))
        if self.table is not None:
            layout, given = "csv", given_classes(self.folder, self.settings)
            taxonomy, tiles, warnings = tile_table.read(self.table, split, given, left_out)
        else:
            layout, taxonomy, tiles, warnings = self._load_folder(split, left_out)
        notes = left_out.sentences()
        return TileSet(taxonomy, tiles, layout, self.folder, split, self.splits, notes, tuple(warnings))

    def _load_folder(self, split: str, left_out: LeftOut) -> tuple[str, Taxonomy, tuple[LabelledTile, ...], list[str]]:
        if split not in self.parts:
            names = " or ".join(SPLITS.get(split, (split,)))
            raise DataError(
                f"{self.folder} has no split {split!r} (a folder {names}); it holds {', '.join(self.splits)}."
            )
        part = self.parts[split]
        layout = self._layout(part)
        if part != self.folder:
            self._note_beside(left_out)
        if layout == "masks":
            taxonomy = self._taxonomy()
            return layout, taxonomy, *mask_folders.read(part, split, taxonomy, left_out, self._listing)
        if layout == "folders":
            taxonomy = self._taxonomy()
            return layout, taxonomy, *class_folders.read(part, taxonomy, left_out, self._listing)
        pictures = left_out.but_pictures(walk([part], self._listing))
        if not pictures:
            raise DataError(
                f"{part} holds no pictures ({FORMATS}) and no class folders with pictures; name the folder that "
                "holds the tiles."
            )
        digits = [digits_of(path, layout) for path in pictures]  # reports malformed names before missing classes
        taxonomy = self._taxonomy()
        return layout, taxonomy, file_names.read(pictures, digits, taxonomy), []

    # folders ---------------------------------------------------------------------------------------------------

    def _note_beside(self, left_out: LeftOut) -> None:
        """Record what lies beside the folders of splits as left out."""
        left_out.beside(self.here)
        beside = [path for path in self.here.folders if path not in self.parts.values()]
        beside += [path for path in self.here.files if is_picture(path)]
        if beside:
            names = ", ".join(path.name for path in beside[:5])
            names += f" and {len(beside) - 5:,} more" if len(beside) > 5 else ""
            left_out.others.append(f"Left out: {names} (beside the folders of the splits).")

    def _layout(self, part: Path) -> str:
        """Return the layout of the folder of a split: ``masks``, ``folders``, ``bcss`` or ``luad``."""
        if part not in self._layouts:
            self._layouts[part] = self._recognise(part)
        return self._layouts[part]

    def _recognise(self, part: Path) -> str:
        here = self._listing(part)
        if image_and_mask_folders(here.folders) is not None:
            return "masks"
        if self.settings.layout in ("folders", "bcss", "luad"):
            return self.settings.layout
        pictures = [path for path in here.files if is_picture(path)]
        if pictures and here.folders:
            raise DataError(
                f"{part} holds pictures and folders ({pictures[0].name}, {here.folders[0].name}); {_SAY_WHERE}"
            )
        if not here.folders:
            return naming_of(pictures)
        below = walk([part], self._listing)
        if splits := [path for path in (*here.folders, *below.folders) if path != part and split_of(path.name)]:
            raise DataError(
                f"{splits[0]} is called like a split and lies where a class was looked for; name the folder that holds "
                "the folders of the splits, put them above those of the classes, or set `data.layout`."
            )
        pictures = [path for path in below.files if is_picture(path)]
        carry = sum(LABEL_IN_NAME.fullmatch(path.stem) is not None for path in pictures)
        if not carry:
            return "folders"
        if carry < len(pictures):
            raise DataError(
                f"{carry:,} of {len(pictures):,} pictures in {part} carry labels in their names; {_SAY_WHERE}"
            )
        naming = naming_of(pictures)
        digits = len(digits_of(pictures[0], naming))
        given = given_classes(self.folder, self.settings) or (KNOWN[naming] if digits == len(KNOWN[naming]) else None)
        of_classes = given is not None and set(classes_of(here.folders)) <= set(given.names)
        return "folders" if of_classes else naming

    # classes ---------------------------------------------------------------------------------------------------

    def _taxonomy(self) -> Taxonomy:
        """Return the classes from the settings, classes.txt, the class folders, or the file names of a data set."""
        if given := given_classes(self.folder, self.settings):
            return given
        for split in self.splits:
            part = self.parts[split]
            layout = self._layout(part)
            if layout == "folders":
                here = self._listing(part)
                return taxonomy_of(list(classes_of(here.folders)))
            pictures = [path for path in walk([part], self._listing).files if is_picture(path)]
            if layout in KNOWN and pictures:
                digits = digits_of(pictures[0], layout)
                if len(digits) == len(KNOWN[layout]):
                    return KNOWN[layout]
                raise DataError(
                    f"{pictures[0]} carries {len(digits)} labels and their class names are not known; "
                    "write them into classes.txt, one a line, or set `data.classes`."
                )
        if self.settings.layout in KNOWN:
            return KNOWN[self.settings.layout]
        raise DataError(
            f"The class names of {self.folder} are not known; write them into classes.txt or set `data.classes`."
        )


def check_exists(folder: Path) -> None:
    """Raise ``DataError`` if the path is neither a folder nor a table."""
    if not folder.exists():
        raise DataError(f"{folder} does not exist; name the folder (or CSV file) that holds the labelled tiles.")
    if folder.is_file() and folder.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(f"{folder} is neither a folder nor a CSV file; name what holds the labelled tiles.")
