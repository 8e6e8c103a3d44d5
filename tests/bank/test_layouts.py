"""Every layout is written to disk and read back; every fault is reported in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_pbip import samples
from napari_pbip.bank import find_splits, has_labels, load_single_tiles, load_tiles, load_unlabelled
from napari_pbip.config import DataSettings
from napari_pbip.errors import DataError
from napari_pbip.taxonomy import BCSS, LUAD, Taxonomy

SIDE = 16


def picture(path: Path, side: int = SIDE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(path)
    return path


def mask(path: Path, values: list[int], mode: str = "L", side: int = SIDE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.resize(np.array(values, np.uint8), (side, side))
    image = Image.fromarray(array, "L")
    if mode == "P":
        image = Image.fromarray(array)
        image = image.convert("L").convert("P")
        image = Image.frombytes("P", (side, side), array.tobytes())
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 153, 0, 255, 255, 255, 255])
    image.save(path)
    return path


def test_bcss_names(tmp_path: Path) -> None:
    stem = "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500"
    for i, bits in enumerate(("1000", "0110", "0001")):
        picture(tmp_path / "train" / f"{stem}+{i}[{bits}].png")
    tiles = load_tiles(tmp_path)
    assert tiles.layout == "bcss"
    assert tiles.taxonomy == BCSS
    assert [set(t.labels) for t in tiles] == [{0}, {1, 2}, {3}]
    assert tiles.counts == (1, 1, 1, 1)
    assert [t.class_index for t in tiles.single_class] == [0, 3]
    origin = tiles.tiles[0].origin
    assert origin is not None
    assert (origin.slide, origin.x, origin.y) == ("TCGA-A1-A0SK-DX1", 45749, 25055)
    assert tiles.tiles[0].read().shape == (SIDE, SIDE, 3)


def test_luad_names(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "436246-7989-45784-[1 0 0 1].png")
    tiles = load_tiles(tmp_path)
    assert tiles.layout == "luad"
    assert tiles.taxonomy == LUAD
    assert tiles.tiles[0].labels == {0, 3}
    origin = tiles.tiles[0].origin
    assert origin is not None
    assert (origin.slide, origin.x, origin.y) == ("436246", 7989, 45784)


def test_any_number_of_classes_with_a_classes_file(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("gland\nrest\nfat\n")
    picture(tmp_path / "train" / "a[101].png")
    picture(tmp_path / "train_single" / "fat" / "b.png")
    tiles = load_tiles(tmp_path)
    assert tiles.taxonomy.names == ("gland", "rest", "fat")
    assert tiles.tiles[0].labels == {0, 2}
    single = load_single_tiles(tmp_path)
    assert single.split == "train_single"
    assert single.tiles[0].class_index == 2
    assert find_splits(tmp_path, DataSettings()) == ("train", "train_single")


def test_settings_come_before_the_classes_file(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    picture(tmp_path / "x[10].png")
    assert load_tiles(tmp_path, settings=DataSettings(classes=("p", "q"))).taxonomy.names == ("p", "q")


def test_a_folder_a_class_of_real_tiles() -> None:
    tiles = load_tiles(samples.tiles())
    assert tiles.layout == "folders"
    assert tiles.taxonomy.names == ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
    assert sum(tiles.counts) == len(tiles) == 41
    assert tiles.tiles[0].read().shape == (224, 224, 3)


def test_folders_below_split_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("A", "B"):
            picture(tmp_path / split / name / "deep" / f"{split}.jpg")
    assert find_splits(tmp_path, DataSettings()) == ("train", "test")
    assert [t.class_index for t in load_tiles(tmp_path, "test")] == [0, 1]


@pytest.mark.parametrize(("mode", "suffix"), [("L", "png"), ("P", "png"), ("L", "tif"), ("P", "tif")])
def test_masks_grey_or_palette(tmp_path: Path, mode: str, suffix: str) -> None:
    picture(tmp_path / "train" / "a[1000].png")
    picture(tmp_path / "valid" / "img" / "v.png")
    mask(tmp_path / "valid" / "mask" / f"v.{suffix}", [0, 2, 4, 2], mode)
    assert find_splits(tmp_path, DataSettings()) == ("train", "val")
    tiles = load_tiles(tmp_path, "val")
    assert tiles.layout == "masks"
    assert tiles.taxonomy == BCSS
    assert tiles.tiles[0].labels == {0, 2}
    assert tiles.tiles[0].read_mask(4)[0].tolist() == [0, 2, 255, 2] * 4


def test_bilevel_masks_are_values_0_and_1(tmp_path: Path) -> None:
    picture(tmp_path / "test" / "images" / "a.jpg")
    array = np.zeros((SIDE, SIDE), bool)
    array[:4] = True
    (tmp_path / "test" / "masks").mkdir()
    Image.fromarray(array).save(tmp_path / "test" / "masks" / "a.png")
    tile = load_tiles(tmp_path, "test", DataSettings(classes=("rest", "gland"))).tiles[0]
    assert tile.labels == {0, 1}
    assert tile.read_mask(2).sum() == 4 * SIDE


def write_csv(folder: Path, text: str) -> Path:
    (folder / "tiles.csv").write_text(text, encoding="utf-8-sig")
    return folder / "tiles.csv"


def test_csv(tmp_path: Path) -> None:
    picture(tmp_path / "p" / "a.png")
    picture(tmp_path / "p" / "b.png")
    mask(tmp_path / "p" / "b_mask.png", [0, 1])
    table = write_csv(
        tmp_path,
        "path;tumour;stroma;mask;split;slide;x;y\np/a.png;1;0;;train;S1;100;200\np/b.png;1;1;p/b_mask.png;test;;;\n",
    )
    for named in (table, tmp_path):
        assert find_splits(named, DataSettings()) == ("train", "test")
        train, test = load_tiles(named, "train"), load_tiles(named, "test")
        assert train.layout == "csv"
        assert train.taxonomy.names == ("tumour", "stroma")
        assert train.tiles[0].labels == {0}
        origin = train.tiles[0].origin
        assert origin is not None
        assert (origin.slide, origin.x, origin.y) == ("S1", 100, 200)
        assert test.tiles[0].labels == {0, 1}
        assert set(np.unique(test.tiles[0].read_mask(2))) == {0, 1}


def test_pictures_without_labels(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    assert not has_labels(tmp_path)
    assert has_labels(samples.tiles())
    tiles = load_unlabelled(tmp_path, Taxonomy.from_names(("A", "B")))
    assert [t.labels for t in tiles] == [frozenset(), frozenset()]


def _faults(folder: Path) -> dict[str, tuple[str, str]]:
    """Write a data set with each fault; return by name the split to load and the words of the sentence."""
    (folder / "empty").mkdir()
    picture(folder / "no label" / "train" / "a.png")
    picture(folder / "bad label" / "train" / "a[10].png")
    picture(folder / "bad label" / "train" / "b[1x].png")
    (folder / "bad label" / "classes.txt").write_text("A\nB\n")
    picture(folder / "label count" / "train" / "a[101].png")
    (folder / "label count" / "classes.txt").write_text("A\nB\n")
    picture(folder / "no names" / "train" / "a[101].png")
    picture(folder / "unknown folder" / "C" / "a.png")
    (folder / "unknown folder" / "classes.txt").write_text("A\nB\n")
    picture(folder / "empty class" / "A" / "a.png")
    (folder / "empty class" / "B").mkdir()
    picture(folder / "both" / "a[10].png")
    picture(folder / "both" / "A" / "a.png")
    for name, values, side in (("mask value", [0, 7], SIDE), ("mask size", [0, 1], SIDE // 2)):
        picture(folder / name / "test" / "img" / "a.png")
        mask(folder / name / "test" / "mask" / "a.png", values, side=side)
        (folder / name / "classes.txt").write_text("A\nB\n")
    picture(folder / "colour mask" / "test" / "img" / "a.png")
    picture(folder / "colour mask" / "test" / "mask" / "a.png")
    (folder / "colour mask" / "classes.txt").write_text("A\nB\n")
    picture(folder / "mask missing" / "test" / "img" / "a.png")
    (folder / "mask missing" / "test" / "mask").mkdir()
    (folder / "mask missing" / "classes.txt").write_text("A\nB\n")
    picture(folder / "no split" / "train" / "a[1000].png")
    for name, text in (
        ("csv no path", "file,A,B\na.png,1,0\n"),
        ("csv missing file", "path,A,B\nnone.png,1,0\n"),
        ("csv value", "path,A,B\na.png,1,maybe\n"),
        ("csv no classes", "path\na.png\n"),
        ("csv no rows", "path,A,B\n"),
        ("csv columns", "path,A,B\na.png,1\n"),
    ):
        picture(folder / name / "sub" / "a.png").rename(folder / name / "a.png")
        (folder / name / "sub").rmdir()
        (folder / name / "tiles.csv").write_text(text)
    return {
        "absent": ("train", "does not exist"),
        "empty": ("train", "holds no pictures"),
        "no label": ("train", "a.png carries no label"),
        "bad label": ("train", "b[1x].png carries no label"),
        "label count": ("train", "carries 3 labels but there are 2 classes (A, B)"),
        "no names": ("train", "write them into classes.txt"),
        "unknown folder": ("train", "none of the classes A, B"),
        "empty class": ("train", "holds no pictures"),
        "both": ("train", "data.layout"),
        "mask value": ("test", "holds the value 7"),
        "mask size": ("test", "is 8x8 pixels but its tile 16x16"),
        "colour mask": ("test", "is a colour picture"),
        "mask missing": ("test", "has no mask of the same name"),
        "no split": ("test", "it holds train"),
        "csv no path/tiles.csv": ("train", "no column 'path'"),
        "csv missing file/tiles.csv": ("train", "Row 2"),
        "csv value/tiles.csv": ("train", "'maybe' in the column B"),
        "csv no classes/tiles.csv": ("train", "no class columns"),
        "csv no rows/tiles.csv": ("train", "lists no tiles"),
        "csv columns/tiles.csv": ("train", "Row 2"),
    }


def test_every_fault_is_one_sentence(tmp_path: Path) -> None:
    for name, (split, says) in _faults(tmp_path).items():
        with pytest.raises(DataError) as caught:
            load_tiles(tmp_path / name, split)
        message = str(caught.value)
        assert says in message, (name, message)
        assert message.endswith("."), (name, message)
        assert "\n" not in message


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    picture(tmp_path / "A" / "cut.png", 64)
    data = (tmp_path / "A" / "cut.png").read_bytes()
    (tmp_path / "A" / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "A" / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "A" / "deep.png")
    for tile in load_tiles(tmp_path):
        with pytest.raises(DataError, match=r"cannot be read|no 8-bit picture"):
            tile.read()


def test_tiles_of_one_class_only(tmp_path: Path) -> None:
    picture(tmp_path / "A" / "a.png")
    with pytest.raises(DataError, match="show the class A"):
        load_tiles(tmp_path).require_two_classes()
