"""Real data sets: what is recognised is reported, everything else is left out and reported, nothing is guessed."""

from __future__ import annotations

import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_pbip.bank import find_splits, has_labels, load_single_tiles, load_tiles, load_unlabelled
from napari_pbip.bank.layouts.splits import split_of
from napari_pbip.config import DataSettings
from napari_pbip.errors import DataError
from napari_pbip.taxonomy import BCSS, Taxonomy

AUTO = DataSettings()


def picture(path: Path) -> Path:
    """Write a file that stands for a picture; recognition decodes none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def told(folder: Path, split: str = "train", data: DataSettings = AUTO) -> str:
    tiles = load_tiles(folder, split, data)
    return " ".join((tiles.description, *tiles.notes, *tiles.warnings))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Train", "TRAINING", "train_set", "Training-Data", "trainset")),
        *((name, "val") for name in ("Val", "VALID", "validation", "Validation_Set", "val images")),
        *((name, "test") for name in ("Test", "TESTING", "test_set", "TestData", "test.tiles")),
        ("Train-Single", "train_single"),
    ],
)
def test_splits_in_any_spelling(tmp_path: Path, name: str, split: str) -> None:
    picture(tmp_path / name / "TUM" / "a.png")
    picture(tmp_path / name / "STR" / "a.png")
    assert find_splits(tmp_path, AUTO) == (split,)
    assert load_tiles(tmp_path, split).taxonomy.names == ("STR", "TUM")


@pytest.mark.parametrize("name", ["TUM", "trained", "tester", "valve", "contest", "train_station", "images"])
def test_what_is_no_split(name: str) -> None:
    assert split_of(name) is None


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("training", "train_data"):
        picture(tmp_path / name / "A" / "a.png")
    with pytest.raises(DataError, match="two folders for the split train, train_data and training"):
        load_tiles(tmp_path)


def test_splits_below_classes_are_refused(tmp_path: Path) -> None:
    for name in ("A", "B"):
        for split in ("Train", "Test"):
            picture(tmp_path / name / split / "a.png")
    with pytest.raises(DataError, match="called like a split"):
        load_tiles(tmp_path)


def test_what_lies_beside_the_splits_is_told(tmp_path: Path) -> None:
    for name in ("A", "B"):
        picture(tmp_path / "train" / name / "a.png")
    picture(tmp_path / "Other" / "a.png")
    picture(tmp_path / "overview.png")
    picture(tmp_path / "@eaDir" / "a.png")
    picture(tmp_path / "bank" / "features.safetensors")
    said = told(tmp_path)
    assert "Found 2 tiles for training: a folder for each class (A 1, B 1)" in said
    for name in ("Other", "overview.png", "@eaDir", "bank"):
        assert name in said


def test_folders_of_the_system_and_results_are_no_classes(tmp_path: Path) -> None:
    for name in ("A", "B", "@eaDir", "$RECYCLE.BIN", "__MACOSX", ".ipynb_checkpoints", "lost+found"):
        picture(tmp_path / name / "a.png")
    picture(tmp_path / "A" / ".ipynb_checkpoints" / "a-checkpoint.png")
    picture(tmp_path / "B" / "@eaDir" / "a.png" / "SYNOPHOTO_THUMB_M.jpg")
    picture(tmp_path / "model" / "run.json")
    picture(tmp_path / "model" / "a.png")
    tiles = load_tiles(tmp_path)
    assert tiles.taxonomy.names == ("A", "B")
    assert [str(t.path.relative_to(tmp_path)) for t in tiles] == [str(Path("A", "a.png")), str(Path("B", "a.png"))]
    assert any("model (results of napari-pbip)" in note for note in tiles.notes)
    assert any("@eaDir" in note and "lost+found" in note for note in tiles.notes)


def test_files_that_are_no_tiles_are_told_by_kind(tmp_path: Path) -> None:
    for name in ("a.png", "b.webp", "c.JFIF", "d.npy", "e.npy", "f.svs", "Thumbs.db", ".hidden.png"):
        picture(tmp_path / "A" / name)
    picture(tmp_path / "B" / "a.png")
    tiles = load_tiles(tmp_path)
    assert tiles.counts == (3, 1)
    (note,) = tiles.notes
    assert "2 .npy, 1 .svs" in note
    picture(tmp_path / "C" / "only.npy")
    with pytest.raises(DataError, match=r"holds no pictures .* but only.npy"):
        load_tiles(tmp_path)


def test_names_with_labels_in_a_folder_for_each_patient(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "p1" / "a[1010].png")
    picture(tmp_path / "train" / "p2" / "deep" / "b[0110].png")
    tiles = load_tiles(tmp_path)
    assert (tiles.layout, tiles.taxonomy) == ("bcss", BCSS)
    assert [set(t.labels) for t in tiles] == [{0, 2}, {1, 2}]
    picture(tmp_path / "train" / "p1" / "c.png")
    with pytest.raises(DataError, match=r"data\.layout"):
        load_tiles(tmp_path)
    assert load_tiles(tmp_path, settings=DataSettings(layout="folders")).taxonomy.names == ("p1", "p2")


def test_class_folders_of_tiles_whose_names_carry_labels(tmp_path: Path) -> None:
    """BCSS-WSSS sorted into class folders; names that contradict their folder are reported."""
    picture(tmp_path / "train" / "a[1100].png")
    picture(tmp_path / "train_single" / "TUM" / "a[1000].png")
    picture(tmp_path / "train_single" / "STR" / "b[0100].png")
    picture(tmp_path / "train_single" / "STR" / "c[0010].png")
    tiles = load_single_tiles(tmp_path)
    assert (tiles.layout, tiles.taxonomy) == ("folders", BCSS)
    assert {t.path.name[0]: t.class_index for t in tiles} == {"a": 0, "b": 1, "c": 1}
    (warning,) = tiles.warnings
    assert "1 tiles" in warning
    assert "c[0010].png" in warning


def test_a_second_download_is_no_label(tmp_path: Path) -> None:
    for name in ("A", "B"):
        picture(tmp_path / name / "a.jpg")
        picture(tmp_path / name / "a[1].jpg")
    assert load_tiles(tmp_path).taxonomy.names == ("A", "B")


@pytest.mark.parametrize("spelt", [unicodedata.normalize("NFD", "Stróma"), "Stróma ", " Stróma"])
def test_equal_names_are_one_class(tmp_path: Path, spelt: str) -> None:
    picture(tmp_path / spelt / "a.png")
    picture(tmp_path / "TUM" / "a.png")
    (tmp_path / "classes.txt").write_text("TUM\nStróma\n", encoding="utf-8")
    assert load_tiles(tmp_path).counts == (1, 1)
    assert load_tiles(tmp_path, settings=DataSettings(classes=("TUM", unicodedata.normalize("NFD", "Stróma")))).counts
    (tmp_path / "classes.txt").unlink()
    picture(tmp_path / "Stróma" / "b.png")
    tiles = load_tiles(tmp_path)
    assert tiles.taxonomy.names == ("Stróma", "TUM")
    assert tiles.counts == (2, 1)


def test_classes_one_level_down_are_suspected(tmp_path: Path) -> None:
    for data_set in ("NCT-CRC-HE-100K", "CRC-VAL-HE-7K"):
        for name in ("ADI", "TUM"):
            picture(tmp_path / data_set / name / "a.png")
    (warning,) = load_tiles(tmp_path).warnings
    assert "ADI, TUM" in warning


def test_a_folder_and_pictures_without_labels(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.txt", "@eaDir/d.png"):
        picture(tmp_path / name)
    assert not has_labels(tmp_path)
    tiles = load_unlabelled(tmp_path, Taxonomy.from_names(("A", "B")))
    assert tiles.description == "Found 2 tiles for training: pictures without labels."
    assert len(tiles.notes) == 2


def test_many_files_are_listed_quickly(tmp_path: Path) -> None:
    """No picture is opened, and each folder is listed only a few times."""
    for name in ("A", "B"):
        for i in range(1500):
            picture(tmp_path / name / f"{i}.png")
    assert len(load_tiles(tmp_path)) == 3000  # empty files: opening one would raise


SPLITS = ("Train", "TESTING", "val")
SYSTEM = ("@eaDir", "__MACOSX", ".git", "$RECYCLE.BIN")
CLASSES = ("TUM", "STR ", "Fat")
LEAVES = ("a.png", "b[1000].png", "c[0101].png", "d.npy", "e[1].tif")
NAMES = st.sampled_from((*SPLITS, *SYSTEM, *CLASSES, "images", "bank"))
PATHS = st.lists(
    st.builds(lambda folders, leaf: Path(*folders, leaf), st.lists(NAMES, max_size=3), st.sampled_from(LEAVES)),
    min_size=1,
    max_size=8,
    unique=True,
)


@given(PATHS, st.sampled_from(("auto", "folders")))
@settings(max_examples=150, deadline=None)
def test_whatever_the_tree_no_class_is_wrong_and_no_tile_is_lost_silently(paths: list[Path], layout: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for path in paths:
            picture(root / path)
        data = DataSettings(layout=layout)
        found: set[Path] = set()
        sentences: list[str] = []
        for split in find_splits_or_none(root, data):
            try:
                tiles = load_tiles(root, split, data)
            except DataError:
                return  # refused as a whole: nothing wrong was taken
            sentences += [*tiles.notes, *tiles.warnings]
            found |= {tile.path.relative_to(root) for tile in tiles}
            for tile in tiles:
                inside = tile.path.relative_to(root).parts
                assert not any(part in SYSTEM for part in inside)
                if tiles.layout == "folders":
                    of_class = [part.strip() for part in inside if layout == "folders" or split_of(part) is None]
                    assert tiles.taxonomy.names[tile.class_index or 0] in of_class
                else:
                    digits = tile.path.stem.rpartition("[")[2].rstrip("]")
                    assert tile.labels == {n for n, digit in enumerate(digits) if digit == "1"}
            if layout == "auto":
                assert not any(split_of(name) or name in SYSTEM for name in tiles.taxonomy.names)
        for lost in set(paths) - found:  # it, or a folder that it lies in, is named, or its kind is counted
            told_of = [lost.suffix, *lost.parts, "more (beside the folders of the splits)"]
            if all(map(split_of, lost.parts[:-1])):  # in no class folder
                if lost.suffix == ".npy":
                    continue  # no tile could be there
                told_of.append("in no class folder")
            assert any(part in sentence for part in told_of for sentence in sentences), lost


def find_splits_or_none(root: Path, data: DataSettings) -> tuple[str, ...]:
    try:
        return find_splits(root, data)
    except DataError:
        return ()


# masks ---------------------------------------------------------------------------------------------------------


def masked(folder: Path, values: np.ndarray, *, name: str = "a", suffix: str = ".png") -> None:
    for part, array in (("img", np.full((*values.shape, 3), 9, np.uint8)), ("mask", values)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / part / f"{name}{suffix if part == 'mask' else '.png'}")


HALVES = np.repeat([[0, 1]], 8, axis=1).repeat(16, axis=0).astype(np.uint8)
AB = DataSettings(classes=("A", "B"))


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        (
            (0, 255),
            "shows B, so that is not evaluated: the masks contain 0, 255",
        ),
        ((1, 2), "count the classes from 1, subtract 1"),
        ((0, 0), "No mask of the split test shows B"),
        ((0, 1), ""),
    ],
)
def test_masks_in_another_numbering_are_told(tmp_path: Path, numbers: tuple[int, int], says: str) -> None:
    masked(tmp_path / "test", np.array(numbers, np.uint8)[HALVES])
    (warnings,) = load_tiles(tmp_path, "test", AB).warnings or ("",)
    assert says in warnings
    assert bool(warnings) == bool(says)


def test_a_class_may_be_in_another_mask(tmp_path: Path) -> None:
    masked(tmp_path / "test", HALVES * 0)
    masked(tmp_path / "test", HALVES * 0 + 1, name="b")
    assert load_tiles(tmp_path, "test", AB).warnings == ()


def test_masks_in_folders_below_and_in_other_spellings(tmp_path: Path) -> None:
    masked(tmp_path / "Testing", HALVES)
    (tmp_path / "Testing" / "img").rename(tmp_path / "Testing" / "Images")
    (tmp_path / "Testing" / "mask").rename(tmp_path / "Testing" / "Ground Truth")
    for part in ("Images", "Ground Truth"):
        below = tmp_path / "Testing" / part / "p1"
        below.mkdir()
        (below.parent / "a.png").rename(below / "a.png")
    tiles = load_tiles(tmp_path, "test", AB)
    assert tiles.layout == "masks"
    assert [t.labels for t in tiles] == [{0, 1}]


def test_masks_without_tile_and_tiles_of_one_name(tmp_path: Path) -> None:
    masked(tmp_path / "test", HALVES)
    Image.fromarray(HALVES).save(tmp_path / "test" / "mask" / "extra.png")
    assert any("extra.png" in note for note in load_tiles(tmp_path, "test", AB).notes)
    Image.fromarray(HALVES).save(tmp_path / "test" / "mask" / "a.tif")
    with pytest.raises(DataError, match=r"a\.png and a\.tif have the same name"):
        load_tiles(tmp_path, "test", AB)
    (tmp_path / "test" / "mask" / "a.tif").rename(tmp_path / "test" / "img" / "a.jpg")
    with pytest.raises(DataError, match="have the same name"):
        load_tiles(tmp_path, "test", AB)


def test_a_jpeg_is_no_mask(tmp_path: Path) -> None:
    masked(tmp_path / "test", HALVES, suffix=".jpg")
    with pytest.raises(DataError, match="compressed as JPEG"):
        load_tiles(tmp_path, "test", AB)


def test_a_tile_turned_by_exif_fits_a_mask_drawn_in_a_viewer(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # stored lying, shown upright
    (tmp_path / "test" / "img").mkdir(parents=True)
    (tmp_path / "test" / "mask").mkdir()
    stored = np.zeros((8, 16, 3), np.uint8)
    stored[:, :4] = 250  # on the left of what is stored, at the top of what is shown
    Image.fromarray(stored).save(tmp_path / "test" / "img" / "a.png", exif=exif)
    drawn = np.zeros((16, 8), np.uint8)
    drawn[:4] = 1
    Image.fromarray(drawn).save(tmp_path / "test" / "mask" / "a.png")
    (tile,) = load_tiles(tmp_path, "test", AB)
    assert np.array_equal(tile.read()[..., 0] == 250, tile.read_mask(2) == 1)
