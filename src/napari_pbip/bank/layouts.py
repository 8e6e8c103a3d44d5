"""Labelled tiles as people have them on disk: the layouts of the published data sets, folders, CSV files.

```text
train/<name>[101].png               one digit a class (BCSS-WSSS; LUAD-HistoSeg: [1 0 1]), in any folder below
train/<class>/<name>.png            a folder a class; without train/, too
{train,val,test}/{img,mask}/<name>  masks; classes present are read off them
train_single/<class>/<name>.png     beside train/: single-class tiles, which the image bank then comes from
tiles.csv                           path, one 0/1 column a class; mask, split and slide, x, y if known
classes.txt                         class names, one a line, in label order; a colour #RRGGBB may follow a tab
```

Whatever is recognised is told, by :attr:`TileSet.description`, and so is what was left out. Where two layouts fit, none
is guessed: the error names ``data.layout``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path

from napari_pbip.bank.given_classes import given_classes, taxonomy_of
from napari_pbip.bank.label_checks import (
    classes_one_level_down,
    in_two_splits,
    listed_twice,
    other_label_in_name,
    shown_everywhere,
)
from napari_pbip.bank.left_out import LeftOut
from napari_pbip.bank.masks import labelled_by_masks, numbering_warning, read_masks
from napari_pbip.bank.names import LABEL_IN_NAME, SPLITS, classes_of, image_and_mask_folders, split_of
from napari_pbip.bank.table import OTHER_TABLES, TABLE_SUFFIXES, Table
from napari_pbip.bank.tiles import LabelledTile, Origin, TileSet
from napari_pbip.config import DataSettings
from napari_pbip.errors import DataError
from napari_pbip.folders import Listing, listing, walk
from napari_pbip.pictures import SUFFIXES, is_picture
from napari_pbip.taxonomy import BCSS, LUAD, Taxonomy, class_name

_LABEL_NAMES = {
    "bcss": re.compile(r".*\[(?P<digits>[01]+)\]"),
    "luad": re.compile(r".*\[(?P<digits>[01](?: [01])+)\]"),
}
_KNOWN = {"bcss": BCSS, "luad": LUAD}
_FORMATS = ", ".join(sorted(SUFFIXES))


def find_splits(folder: Path, settings: DataSettings) -> tuple[str, ...]:
    """The splits that a folder or CSV file holds, among ``train``, ``train_single``, ``val``, ``test``.

    Raises
    ------
    DataError
        If there is nothing of that name, or a CSV file cannot be read.
    """
    return _DataSet(folder, settings).splits


def load_tiles(folder: Path | str, split: str = "train", settings: DataSettings | None = None) -> TileSet:
    """The tiles of a split, with their labels.

    Masks, where there are any, are read once, so that a wrong one is reported before a long job rather than
    in it, and since the classes present are read off them.

    Parameters
    ----------
    folder
        Folder of the data set, or a CSV file.
    split
        ``train``, ``train_single``, ``val`` or ``test``. A folder without split folders is all ``train``.
    settings
        Layout and class names; ``auto`` recognises the layout by what is there.

    Raises
    ------
    DataError
        In one sentence, if the folder, split or its pictures are missing, a name, label, mask or row is not
        what it has to be, or the layout or the class names are not known.
    """
    return _DataSet(Path(folder), settings or DataSettings()).load(split)


def load_single_tiles(folder: Path | str, settings: DataSettings | None = None) -> TileSet:
    """The tiles an image bank is made of: those of ``train_single`` where that split exists, else of ``train``.

    Raises
    ------
    DataError
        As :func:`load_tiles`.
    """
    data = _DataSet(Path(folder), settings or DataSettings())
    return data.load("train_single" if "train_single" in data.splits else "train")


def load_unlabelled(folder: Path, taxonomy: Taxonomy) -> TileSet:
    """All pictures below a folder, without labels.

    Raises
    ------
    DataError
        If the folder is missing or holds no pictures.
    """
    _check_exists(folder)
    left_out = LeftOut()
    pictures = left_out.but_pictures(walk([folder]))
    if not pictures:
        raise DataError(f"{folder} holds no pictures ({_FORMATS}); name another folder.")
    tiles = tuple(LabelledTile(p, frozenset(), origin=Origin.from_name(p.name)) for p in pictures)
    return TileSet(taxonomy, tiles, "unlabelled", folder, "train", notes=left_out.sentences())


def has_labels(folder: Path, settings: DataSettings | None = None) -> bool:
    """Whether a folder or CSV file says what its tiles show; a plain folder of pictures does not.

    Raises
    ------
    DataError
        If there is nothing of that name.
    """
    settings = settings or DataSettings()
    data = _DataSet(folder, settings)
    if settings.layout != "auto" or data.table is not None or data.here.folders:
        return True
    return any(LABEL_IN_NAME.fullmatch(path.stem) for path in data.here.files if is_picture(path))


class _DataSet:
    """A folder or table as it was recognised.

    Attributes
    ----------
    table
        The table of the tiles, if there is one.
    here
        What lies in the folder (for a named table, nothing).
    parts
        The folder of each split; none in a table.
    """

    def __init__(self, folder: Path, settings: DataSettings) -> None:
        _check_exists(folder)
        self.folder, self.settings = folder, settings
        self._listing = cache(listing)  # for this moment: folders change
        self._layouts: dict[Path, str] = {}
        self._notes: list[str] = []
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
        self.table = self._find_table()
        if self.table is not None or not self.parts:
            self.parts = {} if self.table is not None else {"train": folder}

    @cached_property
    def splits(self) -> tuple[str, ...]:
        if self.table is None:
            return tuple(s for s in SPLITS if s in self.parts)
        present = {self.table.split(row) for row in range(len(self.table.rows))}
        return tuple(s for s in SPLITS if s in present)

    def load(self, split: str) -> TileSet:
        if self.table is not None:
            return self._from_table(self.table, split)
        if split not in self.parts:
            names = " or ".join(SPLITS.get(split, (split,)))
            raise DataError(
                f"{self.folder} has no split {split!r} (a folder {names}); it holds {', '.join(self.splits)}."
            )
        part, left_out = self.parts[split], LeftOut(others=list(self._notes))
        layout = self._layout(part)
        if part != self.folder:
            self._note_beside(left_out)
        if layout == "masks":
            return self._with_masks(part, split, left_out)
        warnings: list[str] = []
        if layout == "folders":
            taxonomy = self._taxonomy()
            tiles = self._in_folders(part, taxonomy, left_out, warnings)
        else:
            pictures = left_out.but_pictures(self._all_below(part))
            if not pictures:
                raise DataError(
                    f"{part} holds no pictures ({_FORMATS}) and no class folders with pictures; name the folder that "
                    "holds the tiles."
                )
            digits = [_digits(path, layout) for path in pictures]  # malformed names are told before missing classes
            taxonomy = self._taxonomy()
            tiles = _by_name(pictures, digits, taxonomy)
        return self._tile_set(taxonomy, tiles, layout, split, left_out, warnings)

    def _tile_set(
        self,
        taxonomy: Taxonomy,
        tiles: tuple[LabelledTile, ...],
        layout: str,
        split: str,
        left_out: LeftOut,
        warnings: Sequence[str],
    ) -> TileSet:
        return TileSet(
            taxonomy,
            tiles,
            layout,
            self.folder,
            split,
            self.splits,
            left_out.sentences(),
            tuple(warnings),
        )

    # folders ---------------------------------------------------------------------------------------------------

    def _all_below(self, *folders: Path) -> Listing:
        return walk(folders, self._listing)

    def _note_beside(self, left_out: LeftOut) -> None:
        """Note what lies beside the folders of splits."""
        left_out.beside(self.here)
        beside = [path for path in self.here.folders if path not in self.parts.values()]
        beside += [path for path in self.here.files if is_picture(path)]
        if beside:
            names = ", ".join(path.name for path in beside[:5]) + (", …" if len(beside) > 5 else "")
            left_out.others.append(f"Left out: {names} (beside the folders of the splits).")

    def _layout(self, part: Path) -> str:
        """Layout of the folder of one split: ``masks``, ``folders``, ``bcss`` or ``luad``."""
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
                f"{part} holds pictures and folders ({pictures[0].name}, {here.folders[0].name}); say with data.layout "
                "whether labels are in the file names (bcss, luad) or in the folders (folders)."
            )
        if not here.folders:
            return _naming(pictures)
        below = self._all_below(part)
        if splits := [path for path in (*here.folders, *below.folders) if path != part and split_of(path.name)]:
            raise DataError(
                f"{splits[0]} is called like a split and lies where a class was looked for; name the folder that holds "
                "the folders of the splits, put them above those of the classes, or set data.layout."
            )
        pictures = [path for path in below.files if is_picture(path)]
        carry = sum(LABEL_IN_NAME.fullmatch(path.stem) is not None for path in pictures)
        if not carry:
            return "folders"
        if carry < len(pictures):
            raise DataError(
                f"{carry:,} of {len(pictures):,} pictures in {part} carry labels in their names; say with data.layout "
                "whether labels are in the file names (bcss, luad) or in the folders (folders)."
            )
        naming = _naming(pictures)
        digits = len(_digits(pictures[0], naming))
        given = given_classes(self.folder, self.settings) or (_KNOWN[naming] if digits == len(_KNOWN[naming]) else None)
        of_classes = given is not None and set(classes_of(here.folders)) <= set(given.names)
        return "folders" if of_classes else naming

    def _in_folders(
        self, part: Path, taxonomy: Taxonomy, left_out: LeftOut, warnings: list[str]
    ) -> tuple[LabelledTile, ...]:
        here = self._listing(part)
        left_out.beside(here)
        classes = classes_of(here.folders)
        if not classes:
            raise DataError(f"{part} holds no class folders; make one folder a class with its tiles in it.")
        if loose := [path for path in here.files if is_picture(path)]:
            left_out.others.append(f"Left out: {len(loose):,} pictures, such as {loose[0].name} (in no class folder).")
        tiles = []
        for name, folders in classes.items():
            if name not in taxonomy.names:
                raise DataError(
                    f"The folder {folders[0]} is none of the classes {', '.join(taxonomy.names)}; "
                    "rename it, or correct classes.txt or data.classes."
                )
            found = self._all_below(*folders)
            pictures = left_out.but_pictures(found)
            if not pictures:
                holds = f" but {found.files[0].name}" if found.files else ""
                raise DataError(
                    f"The class folder {folders[0]} holds no pictures ({_FORMATS}){holds}; add tiles or remove it."
                )
            if len(folders) > 1:
                left_out.others.append(f"{len(folders)} folders whose names read {name} are one class.")
            labels = frozenset({taxonomy.index(name)})
            tiles += [LabelledTile(p, labels, origin=Origin.from_name(p.name)) for p in pictures]
        warnings += filter(None, [classes_one_level_down(here.folders), other_label_in_name(tiles, len(taxonomy))])
        return tuple(tiles)

    def _with_masks(self, part: Path, split: str, left_out: LeftOut) -> TileSet:
        taxonomy = self._taxonomy()
        here = self._listing(part)
        left_out.beside(here)
        image_folder, mask_folder = image_and_mask_folders(here.folders) or (None, None)
        if image_folder is None or mask_folder is None:
            raise DataError(f"{part} needs both folders, img with the tiles and mask with their masks.")
        others = [path.name for path in here.folders if path not in (image_folder, mask_folder)]
        if others:
            left_out.others.append(
                f"Left out: {', '.join(others)} (beside {image_folder.name} and {mask_folder.name})."
            )
        images = _by_stem(image_folder, left_out.but_pictures(self._all_below(image_folder)))
        masks = _by_stem(mask_folder, left_out.but_pictures(self._all_below(mask_folder)))
        if not images:
            raise DataError(f"{image_folder} holds no pictures ({_FORMATS}); add the tiles.")
        for stem, path in images.items():
            if stem not in masks:
                raise DataError(
                    f"{path} has no mask of the same name in {mask_folder}; add the mask or remove the tile."
                )
        if extra := [path.name for stem, path in masks.items() if stem not in images]:
            left_out.others.append(f"Left out: {len(extra):,} masks, such as {extra[0]} (without a tile).")
        tiles = [
            LabelledTile(path, frozenset(), masks[stem], Origin.from_name(path.name)) for stem, path in images.items()
        ]
        present, values = read_masks(tiles, len(taxonomy))
        warning = numbering_warning(values, taxonomy.names, where=f" of the split {split}")
        return self._tile_set(
            taxonomy, labelled_by_masks(tiles, present), "masks", split, left_out, [warning] if warning else []
        )

    # classes ---------------------------------------------------------------------------------------------------

    def _taxonomy(self) -> Taxonomy:
        """From the settings, classes.txt, the class folders, or the data set that the names tell."""
        if given := given_classes(self.folder, self.settings):
            return given
        for split in self.splits:
            part = self.parts[split]
            layout = self._layout(part)
            if layout == "folders":
                here = self._listing(part)
                return taxonomy_of(list(classes_of(here.folders)))
            pictures = [path for path in self._all_below(part).files if is_picture(path)]
            if layout in _KNOWN and pictures:
                digits = _digits(pictures[0], layout)
                if len(digits) == len(_KNOWN[layout]):
                    return _KNOWN[layout]
                raise DataError(
                    f"{pictures[0]} carries {len(digits)} labels and their class names are not known; "
                    "write them into classes.txt, one a line, or set data.classes."
                )
        if self.settings.layout in _KNOWN:
            return _KNOWN[self.settings.layout]
        raise DataError(
            f"The class names of {self.folder} are not known; write them into classes.txt or set data.classes."
        )

    # tables ----------------------------------------------------------------------------------------------------

    def _find_table(self) -> Table | None:
        """The table of the folder that lists labelled tiles, if one is meant; other tables are noted."""
        layout = self.settings.layout
        if layout not in ("auto", "csv"):
            return None
        paths = [path for path in self.here.files if path.suffix.lower() in TABLE_SUFFIXES]
        if layout == "csv":
            if len(paths) != 1:
                raise DataError(f"{self.folder} holds {len(paths)} CSV files; name the one with the labelled tiles.")
            return Table(paths[0])
        pictures = [path for path in self.here.files if is_picture(path)]
        if len(paths) == 1 and not pictures and not self.here.folders:
            return Table(paths[0])  # nothing else can be meant
        tables = {path: table for path in paths if (table := _stray_table(path)) is not None}
        telling = [path for path, table in tables.items() if table.tells_labels()]
        if len(telling) > 1:
            names = ", ".join(path.name for path in telling)
            raise DataError(f"{self.folder} holds several tables of labelled tiles ({names}); name the one to use.")
        if telling and any(LABEL_IN_NAME.fullmatch(path.stem) for path in pictures):
            raise DataError(
                f"{self.folder} holds a table of labelled tiles ({telling[0].name}) and pictures with labels in their "
                f"names ({pictures[0].name}); say with data.layout which counts (csv, or bcss or luad)."
            )
        self._notes += [f"{path.name} is not read: it does not list labelled tiles." for path in paths if not telling]
        self._notes += [
            f"{path.name} is not read; save it as CSV if it lists the tiles."
            for path in self.here.files
            if path.suffix.lower() in OTHER_TABLES
        ]
        return tables[telling[0]] if telling else None

    def _from_table(self, table: Table, split: str) -> TileSet:
        if "path" not in table.columns:
            raise DataError(f"{table.path} has no column 'path'; it needs one, and a 0/1 column for each class.")
        if not table.rows:
            raise DataError(f"{table.path} lists no tiles; add a row for each.")
        given = given_classes(self.folder, self.settings)
        names = given.names if given else table.class_columns
        if missing := [name for name in names if name not in table.columns]:
            raise DataError(f"{table.path} has no column {missing[0]!r}; it needs a 0/1 column for each class.")
        if not names:
            raise DataError(f"{table.path} has no class columns; add a 0/1 column for each class.")
        taxonomy = given or taxonomy_of(names)
        left_out = LeftOut(others=list(self._notes))
        tiles, rows, unknown = [], [], Counter[str]()
        elsewhere = set[str]()
        for row, values in enumerate(table.rows):
            if (of := table.split(row)) != split:
                elsewhere.add(values["path"])
                if of is None:
                    unknown[values["split"]] += 1
                continue
            path = table.file(row, "path")
            if path is None:
                raise DataError(f"Row {table.lines[row]} of {table.path} names no file in the column 'path'.")
            labels, mask = table.labels(row, names), table.file(row, "mask")
            tiles.append(LabelledTile(path, labels, mask, table.origin(row, path)))
            rows.append(row)
        if not tiles:
            raise DataError(f"{table.path} lists no tiles of the split {split!r}; splits stand in a column 'split'.")
        for name, count in unknown.items():
            left_out.others.append(f"Left out: {count:,} rows of {table.path.name} (their split is {name!r}).")
        if "" in table.columns:
            left_out.others.append(f"Left out: a column of {table.path.name} (without a name).")
        if unused := [c for c in table.class_columns if c not in names]:
            left_out.others.append(f"Left out: {', '.join(unused)} (columns of {table.path.name} that are no class).")
        masked = [tile for tile in tiles if tile.mask is not None]
        _, values_of_masks = read_masks(masked, len(names))  # a wrong mask is told now
        warnings = [
            numbering_warning(values_of_masks, names, where=f" of the split {split}") if masked else None,
            in_two_splits([table.rows[row]["path"] for row in rows], elsewhere, table, split),
            listed_twice(table, tiles, rows, names),
            shown_everywhere(tiles, names),
        ]
        return self._tile_set(taxonomy, tuple(tiles), "csv", split, left_out, [w for w in warnings if w])


def _check_exists(folder: Path) -> None:
    if not folder.exists():
        raise DataError(f"{folder} does not exist; name the folder (or CSV file) that holds the labelled tiles.")
    if folder.is_file() and folder.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(f"{folder} is neither a folder nor a CSV file; name what holds the labelled tiles.")


def _stray_table(path: Path) -> Table | None:
    """A table that lies in a folder; None if it cannot be read and does not list tiles.

    Raises
    ------
    DataError
        If it cannot be read and seems to list tiles.
    """
    try:
        return Table(path)
    except DataError as error:
        with path.open("rb") as file:
            header = file.read(4096).replace(b"\0", b"").partition(b"\n")[0]
        if b"path" not in header.lower():
            return None
        raise DataError(f"{str(error).removesuffix('.')}, or leave it out with data.layout=folders.") from error


def _naming(pictures: Sequence[Path]) -> str:
    """Which of the two ways labels are written in file names."""
    return "luad" if pictures and _LABEL_NAMES["luad"].fullmatch(pictures[0].stem) else "bcss"


def _by_stem(folder: Path, pictures: Sequence[Path]) -> Mapping[str, Path]:
    """Pictures by their place below a folder, without ending.

    Raises
    ------
    DataError
        If two have one name.
    """
    found: dict[str, Path] = {}
    for path in pictures:
        stem = class_name(path.relative_to(folder).with_suffix("").as_posix())
        if stem in found:
            raise DataError(f"{found[stem]} and {path.name} have one name, so which mask is whose? Rename one of them.")
        found[stem] = path
    return found


def _digits(path: Path, layout: str) -> str:
    """The label digits of a file name, without spaces."""
    found = _LABEL_NAMES[layout].fullmatch(path.stem)
    if found is None:
        example = "name[101].png" if layout == "bcss" else "name-[1 0 1].png"
        raise DataError(
            f"The file name {path} carries no label; it has to end like {example}, a 0 or 1 for each class."
        )
    return found["digits"].replace(" ", "")


def _by_name(pictures: Sequence[Path], digits: Sequence[str], taxonomy: Taxonomy) -> tuple[LabelledTile, ...]:
    tiles = []
    for path, bits in zip(pictures, digits, strict=True):
        if len(bits) != len(taxonomy):
            raise DataError(
                f"{path} carries {len(bits)} labels but there are {len(taxonomy)} classes "
                f"({', '.join(taxonomy.names)}); correct the file name, classes.txt or data.classes."
            )
        labels = frozenset(n for n, bit in enumerate(bits) if bit == "1")
        tiles.append(LabelledTile(path, labels, origin=Origin.from_name(path.name)))
    return tuple(tiles)
