"""Pictures in common forms are read upright, on white, in 8 bits, or refused in one sentence."""

from __future__ import annotations

import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_pbip.errors import DataError
from napari_pbip.pictures import SUFFIXES, is_picture, read_rgb, read_values, upright_size

COLOURS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
"""Every pixel another one, so that a turn or a flip shows."""


@pytest.mark.parametrize("ending", sorted(SUFFIXES))
def test_every_format_is_read_as_it_was_written(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending.upper()}"
    even = np.full((16, 16, 3), (200, 120, 168), np.uint8)  # what even lossy formats and palettes keep
    formats = {".jfif": "JPEG", ".jpe": "JPEG", ".j2k": "JPEG2000"}
    Image.fromarray(even).save(path, format=formats.get(ending))
    assert is_picture(path)
    read = read_rgb(path)
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - even).max() <= 3
    assert upright_size(path) == (16, 16)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str) -> None:
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[4:] = 0
    if mode in ("P", "L"):  # one value stands for nothing
        values = np.where(alpha, 1, 0).astype(np.uint8)
        image = Image.fromarray(values)
        if mode == "P":
            image = Image.frombytes("P", (8, 8), values.tobytes())
            image.putpalette([0, 0, 0, 1, 1, 1])
        image.save(tmp_path / "a.png", transparency=0)
        drawn = 1
    else:
        image = Image.fromarray(np.where(alpha, 90, 0).astype(np.uint8)).convert(mode.removesuffix("A"))
        image.putalpha(Image.fromarray(alpha))
        image.save(tmp_path / "a.png")
        drawn = 90
    read = read_rgb(tmp_path / "a.png")
    assert np.unique(read[:4]).tolist() == [drawn]
    assert np.unique(read[4:]).tolist() == [255]


def test_half_transparent_is_half_white(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2, 4), (200, 0, 100, 51), np.uint8)).save(tmp_path / "a.png")
    assert np.abs(read_rgb(tmp_path / "a.png")[0, 0].astype(int) - (244, 204, 224)).max() <= 1


# what a viewer shows of a picture stored as COLOURS with each orientation (Exif 2.3, 4.6.4 A)
_UPRIGHT = {
    1: COLOURS,
    2: COLOURS[:, ::-1],
    3: COLOURS[::-1, ::-1],
    4: COLOURS[::-1],
    5: COLOURS.swapaxes(0, 1),
    6: np.rot90(COLOURS, -1),
    7: COLOURS[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(COLOURS),
}


@pytest.mark.parametrize("orientation", _UPRIGHT)
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_orientation_is_that_of_a_viewer(tmp_path: Path, orientation: int, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "tif":
        tifffile.imwrite(path, COLOURS, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(COLOURS).save(path, exif=exif)
    expected = _UPRIGHT[orientation]
    assert np.array_equal(read_rgb(path), expected)
    assert upright_size(path) == (expected.shape[1], expected.shape[0])


def test_a_mask_is_upright_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(COLOURS[..., 0]).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_values(tmp_path / "a.png"), _UPRIGHT[6][..., 0])


def test_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    """12 bits in 16, as from cameras, would be shown as black."""
    deep = np.full((8, 8, 3), (2600, 1500, 2100), np.uint16)
    imagecodecs.imwrite(str(tmp_path / "rgb.png"), deep)
    imagecodecs.imwrite(str(tmp_path / "grey_alpha.png"), np.ascontiguousarray(deep[..., :2]))
    imagecodecs.imwrite(str(tmp_path / "grey.png"), np.ascontiguousarray(deep[..., 0]))
    tifffile.imwrite(tmp_path / "rgb.tif", deep, photometric="rgb")
    tifffile.imwrite(tmp_path / "deflated.tif", deep, photometric="rgb", compression="zlib")
    tifffile.imwrite(tmp_path / "float.tif", deep.astype(np.float32), photometric="rgb")
    tifffile.imwrite(tmp_path / "grey_float.tif", deep[..., 0].astype(np.float32))
    for kind in ("jp2", "j2k"):
        data = imagecodecs.jpeg2k_encode(deep, codecformat=kind, bitspersample=12)
        (tmp_path / f"rgb.{kind}").write_bytes(data)
    for path in tmp_path.iterdir():
        with pytest.raises(DataError, match=r"no 8-bit picture|a TIFF of float32") as caught:
            read_rgb(path)
        assert "\n" not in str(caught.value)


def test_a_file_of_several_pictures_is_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((8, 8, 3), v, np.uint8)) for v in (10, 200)]
    for ending in ("tif", "webp", "png", "gif"):
        pages[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=pages[1:])
    for path in tmp_path.iterdir():
        with pytest.raises(DataError, match="holds 2 pictures"):
            read_rgb(path)


def test_a_pyramid_is_one_picture(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.full((32, 32, 3), 80, np.uint8), photometric="rgb")
        file.write(np.full((16, 16, 3), 90, np.uint8), photometric="rgb", subfiletype=1)
    assert read_rgb(tmp_path / "a.tif").shape == (32, 32, 3)
    assert read_rgb(tmp_path / "a.tif")[0, 0, 0] == 80


def test_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    files = {
        "JPEG XL": imagecodecs.jpegxl_encode(COLOURS),
        "HEIF or AVIF": struct.pack(">I", 24) + b"ftypheic" + bytes(12),
        "numpy": b"\x93NUMPY\x01\x00",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
        "damaged, or no picture": b"some text",
    }
    for what, data in files.items():
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(DataError, match=what):
            read_rgb(tmp_path / "a.png")


def test_the_ending_does_not_decide(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", format="PNG")
    assert np.array_equal(read_rgb(tmp_path / "a.jpg"), COLOURS)


def test_values_of_masks(tmp_path: Path) -> None:
    values = np.arange(12).reshape(3, 4) % 3
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "L.png")
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "I16.png")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "I.tif")
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "F.tif")
    palette = Image.frombytes("P", (4, 3), values.astype(np.uint8).tobytes())
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "P.png")
    for path in tmp_path.iterdir():
        assert np.array_equal(read_values(path), values), path.name


def test_masks_whose_values_are_lost(tmp_path: Path) -> None:
    chequered = Image.fromarray((np.indices((16, 16)).sum(0) % 2).astype(np.uint8))
    chequered.save(tmp_path / "a.jpg")
    chequered.save(tmp_path / "a.png", format="JPEG")
    chequered.convert("RGB").save(tmp_path / "a.webp")
    tifffile.imwrite(tmp_path / "a.tif", np.asarray(chequered), compression="jpeg")
    for path in tmp_path.iterdir():
        with pytest.raises(DataError, match="changes its values"):
            read_values(path)
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "half.tif")
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tif")
    for name, value in (("half.tif", "0.5"), ("nan.tif", "nan")):
        with pytest.raises(DataError, match=f"holds the value {value}"):
            read_values(tmp_path / name)
    Image.fromarray(np.zeros((4, 4, 2), np.uint8), "LA").save(tmp_path / "la.png")
    with pytest.raises(DataError, match="has an alpha channel"):
        read_values(tmp_path / "la.png")
