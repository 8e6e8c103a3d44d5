"""Readers of labelled tiles: the layouts of the published data sets, class folders, masks and CSV tables.

```text
train/<name>[101].png               one digit per class (BCSS-WSSS; LUAD-HistoSeg: [1 0 1]), also in folders below
train/<class>/<name>.png            one folder per class, also without train/
{train,val,test}/{img,mask}/<name>  masks, from which the classes of a tile are read
train_single/<class>/<name>.png     beside train/: single-class tiles, from which the image bank is then built
tiles.csv                           path, one 0/1 column per class; mask, split, slide, x, y if known
classes.txt                         class names, one per line, in label order; a colour #RRGGBB may follow a tab
```

:attr:`TileSet.description` says what was recognised, and :attr:`TileSet.notes` what was left out. If two layouts fit,
neither is guessed, and the error names the setting ``data.layout``.
"""

from __future__ import annotations

from pathlib import Path

from napari_pbip.bank.layouts.data_set import DataSet, check_exists
from napari_pbip.bank.layouts.file_names import LABEL_IN_NAME
from napari_pbip.bank.left_out import LeftOut
from napari_pbip.bank.tiles import LabelledTile, Origin, TileSet
from napari_pbip.config import DataSettings
from napari_pbip.errors import DataError
from napari_pbip.folders import walk
from napari_pbip.pictures import FORMATS, is_picture
from napari_pbip.taxonomy import Taxonomy


def find_splits(folder: Path, settings: DataSettings) -> tuple[str, ...]:
    """Return the splits in a folder or CSV file, of ``train``, ``train_single``, ``val`` and ``test``.

    Raises
    ------
    DataError
        If the folder or file does not exist, or a CSV file cannot be read.
    """
    return DataSet(folder, settings).splits


def load_tiles(folder: Path | str, split: str = "train", settings: DataSettings | None = None) -> TileSet:
    """Load the tiles of a split with their labels.

    All masks are read once, to find the classes in them and to report a wrong mask before a long job begins.

    Parameters
    ----------
    folder
        Folder of the data set, or a CSV file.
    split
        ``train``, ``train_single``, ``val`` or ``test``. A folder without folders of splits is ``train``.
    settings
        Layout and class names; the layout ``auto`` is recognised from the files.

    Raises
    ------
    DataError
        If the folder, the split or its pictures are missing, a name, label, mask or row is invalid, or the layout or
        the class names cannot be determined.
    """
    return DataSet(Path(folder), settings or DataSettings()).load(split)


def load_single_tiles(folder: Path | str, settings: DataSettings | None = None) -> TileSet:
    """Load the tiles for an image bank: the split ``train_single`` if it exists, else ``train``.

    Raises
    ------
    DataError
        As :func:`load_tiles` does.
    """
    data = DataSet(Path(folder), settings or DataSettings())
    return data.load("train_single" if "train_single" in data.splits else "train")


def load_unlabelled(folder: Path, taxonomy: Taxonomy) -> TileSet:
    """Load all pictures below a folder, without labels.

    Raises
    ------
    DataError
        If the folder does not exist or contains no pictures.
    """
    check_exists(folder)
    left_out = LeftOut()
    pictures = left_out.but_pictures(walk([folder]))
    if not pictures:
        raise DataError(f"{folder} holds no pictures ({FORMATS}); name another folder.")
    tiles = tuple(LabelledTile(p, frozenset(), origin=Origin.from_name(p.name)) for p in pictures)
    return TileSet(taxonomy, tiles, "unlabelled", folder, "train", notes=left_out.sentences())


def has_labels(folder: Path, settings: DataSettings | None = None) -> bool:
    """Return whether a folder or CSV file has labels, unlike a plain folder of pictures.

    Raises
    ------
    DataError
        If the folder or file does not exist.
    """
    settings = settings or DataSettings()
    data = DataSet(folder, settings)
    if settings.layout != "auto" or data.table is not None or data.here.folders:
        return True
    return any(LABEL_IN_NAME.fullmatch(path.stem) for path in data.here.files if is_picture(path))
