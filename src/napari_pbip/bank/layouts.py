"""Labelled tiles as people have them on disk: the layouts of the published data sets, folders, CSV files.

```text
train/<name>[101].png               one digit a class (BCSS-WSSS; LUAD-HistoSeg writes [1 0 1])
train/<class>/<name>.png            a folder a class; without train/, too
{train,val,test}/{img,mask}/<name>  masks; classes present are read off them
train_single/<class>/<name>.png     beside train/: single-class tiles, which the image bank then comes from
tiles.csv                           path, one 0/1 column a class; mask, split and slide, x, y if known
classes.txt                         class names, one a line, in label order; a colour #RRGGBB may follow a tab
```
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from napari_pbip.bank.tiles import LEFT_OUT, LabelledTile, Origin, TileSet
from napari_pbip.config import DataSettings
from napari_pbip.errors import DataError
from napari_pbip.taxonomy import BCSS, LUAD, Taxonomy

Split = Literal["train", "train_single", "val", "test"]
_SPLIT_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "train_single": ("train_single",),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
_IMAGE_FOLDERS, _MASK_FOLDERS = ("img", "images"), ("mask", "masks")
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
_LABEL_NAMES = {
    "bcss": re.compile(r".*\[(?P<digits>[01]+)\]"),
    "luad": re.compile(r".*\[(?P<digits>[01](?: [01])+)\]"),
}
_KNOWN = {"bcss": BCSS, "luad": LUAD}
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")
CSV_COLUMNS = frozenset({"path", "mask", "split", "slide", "x", "y"})
"""Columns of a table of tiles that are no class."""


def find_splits(folder: Path, settings: DataSettings | None = None) -> tuple[str, ...]:
    """The splits that a folder or CSV file holds, among ``train``, ``train_single``, ``val``, ``test``.

    Raises
    ------
    DataError
        If there is nothing of that name, or a CSV file cannot be read.
    """
    settings = settings or DataSettings()
    _check_exists(folder)
    if table := _find_csv(folder, settings):
        present = {row.get("split") or "train" for row in _Csv(table).rows}
        return tuple(s for s in _SPLIT_FOLDERS if s in present)
    return tuple(s for s in _SPLIT_FOLDERS if _split_folder(folder, s)) or ("train",)


def load_tiles(folder: Path, split: str = "train", settings: DataSettings | None = None) -> TileSet:
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
        what it has to be, or the class names are not known.
    """
    settings = settings or DataSettings()
    _check_exists(folder)
    if table := _find_csv(folder, settings):
        return _load_csv(table, folder, split, settings)
    part = _split_folder(folder, split)
    if part is None:
        splits = find_splits(folder, settings)
        if split != "train" or splits != ("train",):
            raise DataError(
                f"{folder} has no split {split!r} (a folder {' or '.join(_SPLIT_FOLDERS.get(split, (split,)))}); "
                f"it holds {', '.join(splits)}."
            )
        part = folder
    layout = _layout_of(part, settings)
    if layout == "masks":
        taxonomy = _taxonomy(folder, settings)
        return TileSet(taxonomy, _with_masks(part, len(taxonomy)), layout, folder, split)
    if layout == "folders":
        taxonomy = _taxonomy(folder, settings)
        return TileSet(taxonomy, _in_folders(part, taxonomy), layout, folder, split)
    pictures = _pictures(part)
    if not pictures:
        raise DataError(
            f"{part} holds no pictures ({', '.join(sorted(_PICTURES))}) and no class folders with pictures; "
            "name the folder that holds the tiles."
        )
    digits = [_digits(path, layout) for path in pictures]  # malformed names are told before missing class names
    taxonomy = _taxonomy(folder, settings)
    return TileSet(taxonomy, _by_name(pictures, digits, taxonomy), layout, folder, split)


def load_single_tiles(folder: Path, settings: DataSettings | None = None) -> TileSet:
    """The tiles an image bank is made of: those of ``train_single`` where that folder exists, else of ``train``.

    Raises
    ------
    DataError
        As :func:`load_tiles`.
    """
    single = folder.is_dir() and _split_folder(folder, "train_single") is not None
    return load_tiles(folder, "train_single" if single else "train", settings)


def load_unlabelled(folder: Path, taxonomy: Taxonomy) -> TileSet:
    """All pictures below a folder, without labels.

    Raises
    ------
    DataError
        If the folder is missing or holds no pictures.
    """
    _check_exists(folder)
    pictures = sorted(p for p in folder.rglob("*") if _is_picture(p))
    if not pictures:
        raise DataError(f"{folder} holds no pictures ({', '.join(sorted(_PICTURES))}); name another folder.")
    tiles = tuple(LabelledTile(p, frozenset(), origin=Origin.from_name(p.name)) for p in pictures)
    return TileSet(taxonomy, tiles, "unlabelled", folder, "train")


def has_labels(folder: Path, settings: DataSettings | None = None) -> bool:
    """Whether a folder or CSV file says what its tiles show; a plain folder of pictures does not.

    Raises
    ------
    DataError
        If there is nothing of that name.
    """
    settings = settings or DataSettings()
    _check_exists(folder)
    if settings.layout != "auto" or _find_csv(folder, settings) or _class_folders(folder):
        return True
    return any("[" in path.stem for path in _pictures(folder))


def _check_exists(folder: Path) -> None:
    if not folder.exists():
        raise DataError(f"{folder} does not exist; name the folder (or CSV file) that holds the labelled tiles.")
    if folder.is_file() and folder.suffix.lower() != ".csv":
        raise DataError(f"{folder} is neither a folder nor a CSV file; name what holds the labelled tiles.")


def _split_folder(folder: Path, split: str) -> Path | None:
    return _first_folder(folder, _SPLIT_FOLDERS.get(split, ()))


def _first_folder(folder: Path, names: Iterable[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _PICTURES and not path.name.startswith(".")


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if _is_picture(p))


def _class_folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def _layout_of(part: Path, settings: DataSettings) -> str:
    """Layout of the folder of one split: ``masks``, ``folders``, ``bcss`` or ``luad``."""
    if _first_folder(part, _IMAGE_FOLDERS) or _first_folder(part, _MASK_FOLDERS):
        return "masks"
    if settings.layout in ("folders", "bcss", "luad"):
        return settings.layout
    pictures, folders = _pictures(part), _class_folders(part)
    if pictures and folders:
        raise DataError(
            f"{part} holds pictures and folders ({pictures[0].name}, {folders[0].name}); say with data.layout whether "
            "labels are in the file names (bcss, luad) or in the folders (folders)."
        )
    if folders:
        return "folders"
    return "luad" if pictures and _LABEL_NAMES["luad"].fullmatch(pictures[0].stem) else "bcss"


def _taxonomy(folder: Path, settings: DataSettings) -> Taxonomy:
    """Classes of a data set: from the settings, classes.txt, its class folders, or the data set its names tell."""
    if given := _given(folder, settings):
        return given
    for split in _SPLIT_FOLDERS:
        part = _split_folder(folder, split)
        if part is None and split == "train":
            part = folder if find_splits(folder, settings) == ("train",) else None
        if part is None:
            continue
        layout = _layout_of(part, settings)
        if layout == "folders":
            return _from_names([p.name for p in _class_folders(part)])
        if layout in _KNOWN and (pictures := _pictures(part)):
            digits = _digits(pictures[0], layout)
            if len(digits) == len(_KNOWN[layout]):
                return _KNOWN[layout]
            raise DataError(
                f"{pictures[0]} carries {len(digits)} labels and their class names are not known; "
                "write them into classes.txt, one a line, or set data.classes."
            )
    if settings.layout in _KNOWN:
        return _KNOWN[settings.layout]
    raise DataError(f"The class names of {folder} are not known; write them into classes.txt or set data.classes.")


def _given(folder: Path, settings: DataSettings) -> Taxonomy | None:
    """Classes from the settings or from classes.txt."""
    if settings.classes:
        return _from_names(settings.classes)
    path = (folder if folder.is_dir() else folder.parent) / "classes.txt"
    if not path.exists():
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read; it holds one class name a line, as UTF-8 text.") from error
    entries = [[part.strip() for part in line.split("\t")] for line in lines if line.strip()]
    if not entries:
        return None
    names = [name for name, *_ in entries]
    colours = [colour for _, *rest in entries for colour in rest[:1] if _COLOUR.fullmatch(colour)]
    if len(colours) == len(names):
        return _from_names(names, colours)
    return _from_names(names)


def _from_names(names: Sequence[str], colours: Sequence[str] | None = None) -> Taxonomy:
    for known in _KNOWN.values():
        if known.names == tuple(names) and colours is None:
            return known
    try:
        return Taxonomy.from_names(names, colours)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise DataError(f"The class names cannot be used: {reason}.") from error


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


def _in_folders(part: Path, taxonomy: Taxonomy) -> tuple[LabelledTile, ...]:
    folders = _class_folders(part)
    if not folders:
        raise DataError(f"{part} holds no class folders; make one folder a class with its tiles in it.")
    tiles = []
    for folder in folders:
        if folder.name not in taxonomy.names:
            raise DataError(
                f"The folder {folder} is none of the classes {', '.join(taxonomy.names)}; "
                "rename it, or correct classes.txt or data.classes."
            )
        pictures = sorted(p for p in folder.rglob("*") if _is_picture(p))
        if not pictures:
            raise DataError(f"The class folder {folder} holds no pictures; add tiles or remove it.")
        labels = frozenset({taxonomy.index(folder.name)})
        tiles += [LabelledTile(p, labels, origin=Origin.from_name(p.name)) for p in pictures]
    return tuple(tiles)


def _with_masks(part: Path, classes: int) -> tuple[LabelledTile, ...]:
    image_folder, mask_folder = _first_folder(part, _IMAGE_FOLDERS), _first_folder(part, _MASK_FOLDERS)
    if image_folder is None or mask_folder is None:
        raise DataError(f"{part} needs both folders, img with the tiles and mask with their masks.")
    pictures = _pictures(image_folder)
    if not pictures:
        raise DataError(f"{image_folder} holds no pictures ({', '.join(sorted(_PICTURES))}); add the tiles.")
    masks = {p.stem: p for p in _pictures(mask_folder)}
    for path in pictures:
        if path.stem not in masks:
            raise DataError(f"{path} has no mask of the same name in {mask_folder}; add the mask or remove the tile.")
    return _label_from_masks(
        [LabelledTile(p, frozenset(), masks[p.stem], Origin.from_name(p.name)) for p in pictures], classes
    )


def _label_from_masks(tiles: Sequence[LabelledTile], classes: int) -> tuple[LabelledTile, ...]:
    """Tiles labelled with the classes that their masks hold."""

    def label(tile: LabelledTile) -> LabelledTile:
        present = frozenset(int(v) for v in set(tile.read_mask(classes).ravel().tolist()) - {LEFT_OUT})
        return LabelledTile(tile.path, present, tile.mask, tile.origin)

    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(label, tiles))


def _find_csv(folder: Path, settings: DataSettings) -> Path | None:
    """The CSV file meant: the one named, or the only one of a folder that has nothing else to offer."""
    if folder.is_file():
        return folder
    if settings.layout not in ("auto", "csv"):
        return None
    tables = sorted(folder.glob("*.csv"))
    if settings.layout == "auto" and (len(tables) != 1 or _pictures(folder) or not _names_tiles(tables[0])):
        return None
    if len(tables) != 1:
        raise DataError(f"{folder} holds {len(tables)} CSV files; name the one with the labelled tiles.")
    return tables[0]


def _names_tiles(table: Path) -> bool:
    """Whether a CSV file lists tiles; others lie about in data folders."""
    with table.open(encoding="utf-8-sig", errors="replace") as file:
        return "path" in re.split(r"[,;\t]", file.readline().strip())


class _Csv:
    """A table of tiles: header and rows, separated by comma, semicolon or tab."""

    def __init__(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read; save it as CSV in UTF-8.") from error
        header, _, _ = text.partition("\n")
        reader = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=header.count), strict=True)
        try:
            self.rows = [{(k or "").strip(): (v or "").strip() for k, v in row.items()} for row in reader]
        except (csv.Error, AttributeError) as error:
            raise DataError(f"Row {reader.line_num} of {path} has other columns than its header; mend it.") from error
        self.path = path
        self.columns = [c.strip() for c in reader.fieldnames or ()]
        if "path" not in self.columns:
            raise DataError(f"{path} has no column 'path'; it needs one, and a 0/1 column for each class.")
        if not self.rows:
            raise DataError(f"{path} lists no tiles; add a row for each.")

    @property
    def class_columns(self) -> tuple[str, ...]:
        return tuple(c for c in self.columns if c not in CSV_COLUMNS)

    def file(self, row: int, column: str) -> Path | None:
        """An existing file that a row names, relative to the table."""
        if not (name := self.rows[row].get(column)):
            return None
        path = self.path.parent / Path(name)
        if not path.is_file():
            raise DataError(f"Row {row + 2} of {self.path} names the file {path}, which does not exist.")
        return path

    def labels(self, row: int, names: Sequence[str]) -> frozenset[int]:
        labels = set()
        for n, name in enumerate(names):
            value = self.rows[row][name]
            if value not in ("0", "1"):
                raise DataError(f"Row {row + 2} of {self.path} holds {value!r} in the column {name}; it may be 0 or 1.")
            if value == "1":
                labels.add(n)
        return frozenset(labels)

    def origin(self, row: int, path: Path) -> Origin | None:
        slide, x, y = (self.rows[row].get(c, "") for c in ("slide", "x", "y"))
        if not slide:
            return Origin.from_name(path.name)
        try:
            return Origin(slide, int(x), int(y))
        except ValueError:
            raise DataError(f"Row {row + 2} of {self.path} names a slide but x and y are no whole numbers.") from None


def _load_csv(table: Path, folder: Path, split: str, settings: DataSettings) -> TileSet:
    sheet = _Csv(table)
    given = _given(folder, settings)
    names = given.names if given else sheet.class_columns
    if missing := [name for name in names if name not in sheet.columns]:
        raise DataError(f"{table} has no column {missing[0]!r}; it needs a 0/1 column for each class.")
    if not names:
        raise DataError(f"{table} has no class columns; add a 0/1 column for each class.")
    tiles = []
    for row, values in enumerate(sheet.rows):
        if (values.get("split") or "train") != split:
            continue
        path = sheet.file(row, "path")
        if path is None:
            raise DataError(f"Row {row + 2} of {table} names no file in the column 'path'.")
        tile = LabelledTile(path, sheet.labels(row, names), sheet.file(row, "mask"), sheet.origin(row, path))
        if tile.mask:
            tile.read_mask(len(names))  # a wrong mask is told now
        tiles.append(tile)
    if not tiles:
        raise DataError(f"{table} lists no tiles of the split {split!r}; splits stand in a column 'split'.")
    return TileSet(given or _from_names(names), tuple(tiles), "csv", folder, split)
