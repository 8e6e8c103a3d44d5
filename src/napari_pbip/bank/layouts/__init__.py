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
    """The splits that a folder or CSV file holds, among ``train``, ``train_single``, ``val``, ``test``.

    Raises
    ------
    DataError
        If there is nothing of that name, or a CSV file cannot be read.
    """
    return DataSet(folder, settings).splits


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
    return DataSet(Path(folder), settings or DataSettings()).load(split)


def load_single_tiles(folder: Path | str, settings: DataSettings | None = None) -> TileSet:
    """The tiles an image bank is made of: those of ``train_single`` where that split exists, else of ``train``.

    Raises
    ------
    DataError
        As :func:`load_tiles`.
    """
    data = DataSet(Path(folder), settings or DataSettings())
    return data.load("train_single" if "train_single" in data.splits else "train")


def load_unlabelled(folder: Path, taxonomy: Taxonomy) -> TileSet:
    """All pictures below a folder, without labels.

    Raises
    ------
    DataError
        If the folder is missing or holds no pictures.
    """
    check_exists(folder)
    left_out = LeftOut()
    pictures = left_out.but_pictures(walk([folder]))
    if not pictures:
        raise DataError(f"{folder} holds no pictures ({FORMATS}); name another folder.")
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
    data = DataSet(folder, settings)
    if settings.layout != "auto" or data.table is not None or data.here.folders:
        return True
    return any(LABEL_IN_NAME.fullmatch(path.stem) for path in data.here.files if is_picture(path))
