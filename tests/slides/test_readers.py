"""Every format: its reader, its levels, its microns per pixel, and pixels equal to those that were written."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import PIL.Image
import pytest
import tifffile
import zarr

from napari_pbip.slides import Slide, open_slide, readers


def whole(slide: Slide, level: int = 0) -> np.ndarray:
    return slide.read_level(level, 0, 0, slide.levels[level].width, slide.levels[level].height)


def sizes(slide: Slide) -> list[tuple[int, int]]:
    return [(level.width, level.height) for level in slide.levels]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def test_svs(sample_slide: Path, sample_pixels: np.ndarray) -> None:
    with open_slide(sample_slide) as slide:
        assert slide.reader == "tifffile"
        assert sizes(slide) == [(2220, 2967)]
        assert slide.mpp == pytest.approx(0.499)
        assert slide.size_um == pytest.approx((2220 * 0.499, 2967 * 0.499))
        assert slide.name == "CMU-1-Small-Region"
        assert set(slide.associated) == {"label", "macro", "thumbnail"}
        assert slide.read_associated("macro").shape == (431, 1280, 3)
        assert slide.read_associated("label").shape == (463, 387, 3)
    with openslide.OpenSlide(sample_slide) as other:
        expected = np.asarray(other.read_region((0, 0), 0, other.dimensions))[..., :3]
    # Both decode with libjpeg-turbo; a build with another inverse DCT may differ by a grey level.
    assert np.abs(sample_pixels.astype(int) - expected).max() <= 1


def test_dicom_folder_and_file(dicom_folder: Path, sample_pixels: np.ndarray) -> None:
    with open_slide(dicom_folder) as slide, open_slide(next(dicom_folder.glob("*.dcm"))) as same:
        assert slide.reader == "openslide"
        assert slide.mpp == pytest.approx(0.499)
        assert slide.name == "dicom_CMU-1-Small-Region"
        assert slide.identity == same.identity
        assert set(slide.associated) == {"label", "macro", "thumbnail"}
        assert slide.read_associated("thumbnail").shape == (768, 574, 3)
        assert psnr(whole(slide), sample_pixels) > 30


def test_ome_tiff_with_pyramid_in_subifds(make, pixels: np.ndarray) -> None:
    path = make.ome_tiff(pixels, PhysicalSizeX=0.25, PhysicalSizeXUnit="µm", PhysicalSizeY=0.25, PhysicalSizeYUnit="µm")
    assert openslide.OpenSlide(path).level_count == 1  # why tifffile is asked first
    with open_slide(path) as slide:
        assert slide.reader == "tifffile"
        assert slide.name == "slide"
        assert sizes(slide) == [(703, 901), (351, 450), (175, 225)]
        assert [level.downsample for level in slide.levels] == [1, 2, 4]
        assert slide.mpp == 0.25
        for level, image in enumerate(make.pyramid(pixels, 3)):
            np.testing.assert_array_equal(whole(slide, level), image)


@pytest.mark.parametrize(
    ("unit", "size", "mpp"),
    [
        ("nm", 500, 0.5),
        ("mm", 0.0005, 0.5),
        ("cm", 0.00005, 0.5),
        ("\N{GREEK SMALL LETTER MU}m", 0.5, 0.5),
        ("pixel", 1, None),
    ],
)
def test_ome_units(make, pixels: np.ndarray, unit: str, size: float, mpp: float | None) -> None:
    path = make.ome_tiff(
        pixels, 1, PhysicalSizeX=size, PhysicalSizeXUnit=unit, PhysicalSizeY=size, PhysicalSizeYUnit=unit
    )
    with open_slide(path) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))


def test_ome_tiff_with_a_smaller_image_beside_the_slide(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(
            pixels[:100, :200],
            photometric="rgb",
            metadata={"axes": "YXS", "Name": "Macro", "PhysicalSizeX": 40.0, "PhysicalSizeY": 40.0},
        )
        tiff.write(
            pixels,
            tile=(256, 256),
            photometric="rgb",
            metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
        )
    with open_slide(path) as slide:
        assert sizes(slide) == [(703, 901)]
        assert slide.mpp == 0.5
        assert slide.associated == ("macro",)
        np.testing.assert_array_equal(slide.read_associated("macro"), pixels[:100, :200])


@pytest.mark.parametrize("compression", [None, "lzw", "zstd", "jpeg", "jpeg2000", "webp"])
def test_tiff_pyramid_in_the_chain_of_pages(make, pixels: np.ndarray, compression: str | None) -> None:
    path = make.tiff(pixels, 3, compression=compression)
    with open_slide(path) as slide:
        assert slide.reader == "tifffile"
        assert [level.downsample for level in slide.levels] == [1, 2, 4]
        assert slide.mpp is None
        for level, image in enumerate(make.pyramid(pixels, 3)):
            assert psnr(whole(slide, level), image.astype(float) + 1e-9) > (
                30 if compression in ("jpeg", "webp") else 100
            )


@pytest.mark.parametrize("bigtiff", [False, True])
def test_tiff_in_planes(tmp_path: Path, pixels: np.ndarray, bigtiff: bool) -> None:
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    tifffile.imwrite(
        tmp_path / "planar.tif", planes, tile=(128, 128), photometric="rgb", planarconfig="separate", bigtiff=bigtiff
    )
    tifffile.imwrite(
        tmp_path / "pages.ome.tif",
        planes,
        tile=(128, 128),
        photometric="minisblack",
        metadata={"axes": "CYX"},
        bigtiff=bigtiff,
    )
    for name in ("planar.tif", "pages.ome.tif"):
        with open_slide(tmp_path / name) as slide:
            np.testing.assert_array_equal(whole(slide), pixels)
            np.testing.assert_array_equal(slide.read_level(0, 100, 200, 300, 50), pixels[200:250, 100:400])


def test_tiff_with_transparency_lies_on_white(make, pixels: np.ndarray) -> None:
    alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    alpha[:300] = 0
    alpha[300:400] = 128
    path = make.tiff(np.concatenate([pixels, alpha], 2), extrasamples=["unassalpha"])
    with open_slide(path) as slide:
        seen = whole(slide)
    assert (seen[:300] == 255).all()
    np.testing.assert_allclose(seen[300:400], 255 - (255 - pixels[300:400].astype(float)) * 128 / 255, atol=1)
    np.testing.assert_array_equal(seen[400:], pixels[400:])


def test_tiff_tiles_never_written_are_white(tmp_path: Path, pixels: np.ndarray) -> None:
    tiles = (pixels[:256, :256] if i == 0 else None for i in range(9))
    tifffile.imwrite(
        tmp_path / "sparse.tif",
        tiles,
        shape=(768, 768, 3),
        dtype=np.uint8,
        tile=(256, 256),
        photometric="rgb",
        compression="zlib",
    )
    with open_slide(tmp_path / "sparse.tif") as slide:
        seen = whole(slide)
    np.testing.assert_array_equal(seen[:256, :256], pixels[:256, :256])
    assert (seen[256:] == 255).all()


@pytest.mark.parametrize("rows", [1, 50, 901])
def test_tiff_without_tiles(tmp_path: Path, pixels: np.ndarray, rows: int) -> None:
    tifffile.imwrite(tmp_path / "strips.tif", pixels, photometric="rgb", rowsperstrip=rows, compression="lzw")
    with open_slide(tmp_path / "strips.tif") as slide:
        assert slide.reader == "tifffile"
        np.testing.assert_array_equal(whole(slide), pixels)


@pytest.mark.parametrize(
    ("unit", "pixels_per_unit", "mpp"),
    [
        ("CENTIMETER", 20_000, 0.5),
        ("INCH", 50_800, 0.5),
        ("INCH", 72, None),
        ("INCH", 9600, None),
        ("NONE", 20_000, None),
    ],
)
def test_resolution_tags_are_believed_where_a_microscope_could_have_made_them(
    make, pixels: np.ndarray, unit: str, pixels_per_unit: float, mpp: float | None
) -> None:
    path = make.tiff(pixels, resolution=(pixels_per_unit, pixels_per_unit), resolutionunit=unit)
    with open_slide(path) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))


@pytest.mark.parametrize(("axes", "version"), [("cyx", "0.4"), ("tczyx", "0.4"), ("yxc", "0.5"), ("tczyx", "0.5")])
def test_ome_zarr(make, pixels: np.ndarray, axes: str, version: str) -> None:
    with open_slide(make.ome_zarr(pixels, axes, version)) as slide:
        assert slide.reader == "ome-zarr"
        assert slide.name == "slide"
        assert sizes(slide) == [(703, 901), (351, 450)]
        assert slide.mpp == 0.5
        for level, image in enumerate(make.pyramid(pixels, 2)):
            np.testing.assert_array_equal(whole(slide, level), image)


def test_ome_zarr_units(make, pixels: np.ndarray) -> None:
    with open_slide(make.ome_zarr(pixels, unit=None)) as slide:
        assert slide.mpp is None
    path = make.ome_zarr(pixels, unit="nanometer")
    group = zarr.open_group(path)
    ome = dict(group.attrs["ome"])
    ome["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [1.0, 1000.0, 1000.0]}]
    group.attrs["ome"] = ome
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.5)  # 0.5 nm of the level, times 1000 of the image


def test_ome_zarr_of_bioformats2raw(make, pixels: np.ndarray) -> None:
    image = make.ome_zarr(pixels, version="0.4")
    folder = image.with_name("converted.zarr")
    folder.mkdir()
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    image.rename(folder / "0")
    with open_slide(folder) as slide:
        np.testing.assert_array_equal(whole(slide), pixels)


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.bmp"])
def test_plain_images(tmp_path: Path, pixels: np.ndarray, name: str) -> None:
    PIL.Image.fromarray(pixels).save(tmp_path / name, dpi=(72, 72), quality=95)
    with open_slide(tmp_path / name) as slide:
        assert slide.reader == "image"
        assert slide.mpp is None
        assert psnr(whole(slide), pixels + 1e-9) > (100 if name != "image.jpg" else 30)


def test_png_with_palette_and_transparency(tmp_path: Path, pixels: np.ndarray) -> None:
    few = PIL.Image.fromarray(pixels).quantize(64)
    few.save(tmp_path / "palette.png")
    rgba = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])
    PIL.Image.fromarray(rgba).save(tmp_path / "clear.png")
    with open_slide(tmp_path / "palette.png") as slide:
        np.testing.assert_array_equal(whole(slide), np.asarray(few.convert("RGB")))
    with open_slide(tmp_path / "clear.png") as slide:
        assert (whole(slide) == 255).all()


def test_ndpi_is_left_to_openslide(tmp_path: Path, pixels: np.ndarray) -> None:
    """The file is a single-level NDPI by its tags: maker, lens, focal plane, and one JPEG strip for the image."""
    height, width = 512, 512
    path = tmp_path / "slide.ndpi"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            pixels[:height, :width],
            photometric="rgb",
            compression="jpeg",
            rowsperstrip=height,
            resolution=(40_000, 40_000),
            resolutionunit="CENTIMETER",
            metadata=None,
            extratags=[
                (271, 2, 0, "Hamamatsu", True),
                (65420, 4, 1, 1, True),
                (65421, 11, 1, 40.0, True),
                (65424, 9, 1, 0, True),
            ],
        )
    assert openslide.OpenSlide.detect_format(path) == "hamamatsu"
    with open_slide(path) as slide:
        assert slide.reader == "openslide"
        assert sizes(slide)[0] == (width, height)
        assert slide.mpp == pytest.approx(0.25)
        assert psnr(whole(slide), pixels[:height, :width]) > 30


def _svs(path: Path, tiles: list[bytes], compression: int) -> Path:
    """Write an Aperio file of 512 x 512 pixels from four tiles that are already encoded."""
    description = b"Aperio Image Library v1\n512x512 (256x256) test|AppMag = 20|MPP = 0.4990\0"
    entries = [
        (254, 4, 1, 0), (256, 4, 1, 512), (257, 4, 1, 512), (258, 3, 3, None), (259, 3, 1, compression),
        (262, 3, 1, 2), (270, 2, len(description), None), (277, 3, 1, 3), (284, 3, 1, 1),
        (322, 4, 1, 256), (323, 4, 1, 256), (324, 4, 4, None), (325, 4, 4, None),
    ]  # fmt: skip
    after = 8 + 2 + 12 * len(entries) + 4
    data = {258: struct.pack("<3H", 8, 8, 8) + b"\0\0", 270: description}
    offsets, position = [], after + sum(map(len, data.values())) + 32
    for tile in tiles:
        offsets.append(position)
        position += len(tile)
    data[324], data[325] = struct.pack("<4I", *offsets), struct.pack("<4I", *map(len, tiles))
    out = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    place = after
    for tag, kind, count, value in entries:
        if value is None:
            value, place = place, place + len(data[tag])
        out += struct.pack("<HHII", tag, kind, count, value)
    path.write_bytes(out + bytes(4) + b"".join(data[tag] for tag in (258, 270, 324, 325)) + b"".join(tiles))
    return path


def _quarters(pixels: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(pixels[y : y + 256, x : x + 256]) for y in (0, 256) for x in (0, 256)]


def test_svs_of_jpeg_2000_in_rgb_and_ycbcr(tmp_path: Path, pixels: np.ndarray) -> None:
    """33005 contains RGB, 33003 YCbCr, which only OpenSlide converts to RGB; both must have the same colours."""
    piece = pixels[:512, :512]
    ycbcr = np.asarray(PIL.Image.fromarray(piece).convert("YCbCr"))
    rgb = _svs(
        tmp_path / "rgb.svs",
        [imagecodecs.jpeg2k_encode(q, level=0, codecformat="j2k", mct=False) for q in _quarters(piece)],
        33005,
    )
    ycc = _svs(
        tmp_path / "ycc.svs",
        [imagecodecs.jpeg2k_encode(q, level=0, codecformat="j2k", mct=False) for q in _quarters(ycbcr)],
        33003,
    )
    with open_slide(rgb) as slide, open_slide(ycc) as other:
        assert (slide.reader, other.reader) == ("tifffile", "openslide")
        assert slide.mpp == other.mpp == pytest.approx(0.499)
        np.testing.assert_array_equal(whole(slide), piece)
        assert np.abs(whole(other).astype(int) - piece).max() <= 3


def test_svs_with_a_lost_tile_is_left_to_openslide(tmp_path: Path, pixels: np.ndarray) -> None:
    tiles = [imagecodecs.jpeg2k_encode(q, level=0, codecformat="j2k", mct=False) for q in _quarters(pixels)]
    tiles[3] = b""
    with open_slide(_svs(tmp_path / "lost.svs", tiles, 33005)) as slide:
        assert slide.reader == "openslide"
        seen = whole(slide)
    np.testing.assert_array_equal(seen[:256], pixels[:256, :512])
    assert (seen[256:, 256:] == 255).all()


def test_catalogue_imports_no_library() -> None:
    assert [entry.name for entry in readers()] == ["ome-zarr", "tifffile", "openslide", "image"]
    code = (
        "import sys; from napari_pbip.slides import readers; readers();"
        "print(sorted({'zarr', 'tifffile', 'openslide', 'torch', 'qtpy', 'napari'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
