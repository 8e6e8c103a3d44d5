"""Files of other programs, converters and scanners are read correctly, or refused with the true reason."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import struct
import zipfile
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest
import tifffile
import zarr

from napari_pbip.errors import DamagedPlace, SlideError
from napari_pbip.slides import Slide, is_slide, open_slide
from napari_pbip.slides.mpp import number
from napari_pbip.slides.openslide import OpenSlideReader
from napari_pbip.slides.reader import pyramid
from napari_pbip.slides.tiff import TiffReader

TILED = {"tile": (128, 128), "metadata": None}


def whole(slide: Slide, level: int = 0) -> np.ndarray:
    return slide.read_level(level, 0, 0, slide.levels[level].width, slide.levels[level].height)


def seen(path: Path) -> np.ndarray:
    with open_slide(path) as slide:
        return whole(slide)


def refusal(path: Path) -> str:
    with pytest.raises(SlideError) as caught:
        open_slide(path)
    assert path.name in str(caught.value)
    assert str(caught.value).endswith(".")
    return str(caught.value)


# --- pyramids


@pytest.mark.parametrize(
    ("size", "downsample"),
    [
        ((800, 600), 2),
        ((801, 601), 2),
        ((799, 599), 2),
        ((533, 400), 3),
        ((320, 240), 5),
        ((100, 75), 16),
        ((1067, 800), 1.5),
        ((800, 400), None),  # other steps in x and y
        ((800, 512), None),  # padded in y
        ((1024, 768), None),  # padded to whole tiles, which keeps these proportions
        ((1600, 600), None),
        ((0, 0), None),
    ],
)
def test_levels_are_used_where_one_ratio_explains_them(size: tuple[int, int], downsample: float | None) -> None:
    levels = pyramid("slide", [(1600, 1200), size], [(256, 256), (256, 256)])
    assert [level.downsample for level in levels] == (
        [1] if downsample is None else [1, pytest.approx(downsample, 1e-3)]
    )


def test_levels_in_any_order() -> None:
    levels = pyramid("slide", [(400, 300), (1600, 1200), (800, 600), (800, 600)], [(256, 256)] * 4)
    assert [(level.width, level.downsample, level.stored) for level in levels] == [
        (1600, 1, 1),
        (800, 2, 2),
        (400, 4, 0),
    ]


def test_level_of_other_proportions_is_left_out(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "slide.ome.tif"
    squeezed = np.asarray(PIL.Image.fromarray(pixels).resize((351, 300)))
    small = np.ascontiguousarray(pixels[::4, ::4][:225, :175])
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(pixels, subifds=2, tile=(128, 128), photometric="rgb", metadata={"axes": "YXS"})
        for image in (squeezed, small):
            tiff.write(image, subfiletype=1, tile=(128, 128), photometric="rgb")
    with open_slide(path) as slide:
        assert [(level.width, level.downsample) for level in slide.levels] == [(703, 1), (175, 4)]
        np.testing.assert_array_equal(whole(slide, 1), small)


@pytest.mark.parametrize("steps", [(5,), (8,), (2, 8), (2, 4, 16), (5, 10, 20)])
def test_pyramids_of_any_step_in_plain_tiff(tmp_path: Path, steps: tuple[int, ...]) -> None:
    rows, columns = np.mgrid[:960, :1280]
    image = np.dstack([columns // 5, rows // 4, rows * 0]).astype(np.uint8)
    other = np.full((100, 310, 3), 9, np.uint8)  # a label, which is no level
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tiff:
        tiff.write(image, photometric="rgb", **TILED)
        for step in steps:
            tiff.write(np.ascontiguousarray(image[::step, ::step]), photometric="rgb", subfiletype=1, **TILED)
        tiff.write(other, photometric="rgb", subfiletype=1, metadata=None)
    with open_slide(tmp_path / "slide.tif") as slide:
        assert [level.downsample for level in slide.levels] == [1, *steps]
        for level, step in enumerate(steps, 1):
            np.testing.assert_array_equal(whole(slide, level), image[::step, ::step])
        assert [slide.read_associated(name).shape for name in slide.associated] == [other.shape]


# --- what samples mean


@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha", "unspecified"])
@pytest.mark.parametrize("tile", [(128, 128), None])
def test_fourth_sample_is_alpha_only_where_the_file_says_so(
    tmp_path: Path, pixels: np.ndarray, extra: str, tile: tuple[int, int] | None
) -> None:
    image = pixels[:256, :256]
    alpha = np.tile(np.arange(256, dtype=np.uint8), (256, 1))[..., None]
    weight = alpha / 255
    stored = (image * weight).round().astype(np.uint8) if extra == "assocalpha" else image
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.dstack([stored, alpha]),
        photometric="rgb",
        extrasamples=[extra],
        tile=tile,
        metadata=None,
    )
    expected = image if extra == "unspecified" else image * weight + 255 * (1 - weight)
    np.testing.assert_allclose(seen(tmp_path / "a.tif"), expected, atol=1)


@pytest.mark.parametrize("tile", [(128, 128), None])
def test_samples_that_are_not_red_green_and_blue(
    tmp_path: Path, pixels: np.ndarray, tile: tuple[int, int] | None
) -> None:
    grey = np.ascontiguousarray(pixels[..., 0])
    table = np.linspace(0, 65535, 256).astype(np.uint16)
    options = {"tile": tile, "metadata": None}
    cases = {
        "three without a meaning": (pixels, {"photometric": "minisblack", "planarconfig": "contig"}),
        "palette": (grey, {"photometric": "palette", "colormap": np.stack([table] * 3)}),
        "CMYK": (np.dstack([pixels, grey]), {"photometric": "separated", "planarconfig": "contig"}),
        "YCbCr": (pixels, {"photometric": "ycbcr", "compression": "zlib", "subsampling": (1, 1)}),
        "L*a*b*": (pixels, {"photometric": "cielab", "planarconfig": "contig"}),
        "16 bits uint16": (pixels.astype(np.uint16) * 16, {"photometric": "rgb"}),
        "32 bits float32": (pixels.astype(np.float32) / 255, {"photometric": "rgb"}),
    }
    for said, (image, more) in cases.items():
        tifffile.imwrite(tmp_path / "s.tif", image, **options, **more)
        assert said in refusal(tmp_path / "s.tif")
    tifffile.imwrite(tmp_path / "jpeg.tif", pixels, photometric="rgb", compression="jpeg", **options)
    with tifffile.TiffFile(tmp_path / "jpeg.tif") as tiff:
        assert tiff.pages[0].photometric == tifffile.PHOTOMETRIC.YCBCR
    assert np.abs(seen(tmp_path / "jpeg.tif").astype(int) - pixels).mean() < 5


def test_png_of_16_bits(tmp_path: Path) -> None:
    for bits in (np.uint8, np.uint16):
        for channels in (3, 4):
            imagecodecs.imwrite(str(tmp_path / "a.png"), np.full((64, 64, channels), 200, bits))
            if bits is np.uint8:
                assert seen(tmp_path / "a.png").shape == (64, 64, 3)
            else:
                assert "16 bits" in refusal(tmp_path / "a.png")


FLUORESCENCE = [
    {"Channel": {"Name": ["DAPI", "FITC", "TRITC"]}},
    {"Channel": {"Name": ["red", "green", "far red"]}},
    {"Channel": {"Name": ["blue", "green", "red"]}},
    {"Channel": {"Color": [65535, 16711935, -16776961]}},  # blue, green, red
    {"Channel": {"Fluor": ["a", "b", "c"]}},
    {"Channel": {"EmissionWavelength": [461.0, 519.0, 665.0]}},
    {"Channel": {"ContrastMethod": ["Fluorescence"] * 3}},
    {"Channel": {"Name": ["Cy5", "FITC", "DAPI"], "Color": [-16776961, 16711935, 65535]}},
]
PLANES = [
    {},
    {"Channel": {"Name": ["Red", "Green", "Blue"]}},
    {"Channel": {"Name": ["R", "G", "B"]}},
    {"Channel": {"Name": ["Channel:0:0", "Channel:0:1", "Channel:0:2"], "Color": [-16776961, 16711935, 65535]}},
]


@pytest.mark.parametrize(("said", "rgb"), [(said, False) for said in FLUORESCENCE] + [(said, True) for said in PLANES])
def test_three_channels_of_ome_tiff(tmp_path: Path, pixels: np.ndarray, said: dict, rgb: bool) -> None:
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    path = tmp_path / "slide.ome.tif"
    tifffile.imwrite(
        path, planes, ome=True, tile=(128, 128), photometric="minisblack", metadata={"axes": "CYX", **said}
    )
    if rgb:
        np.testing.assert_array_equal(seen(path), pixels)
    else:
        assert "RGB" in refusal(path)
        assert not is_slide(path)


def test_three_channels_of_imagej_and_of_nobody(tmp_path: Path) -> None:
    planes = np.zeros((3, 300, 300), np.uint8)
    for mode in ("composite", "color", "grayscale"):
        tifffile.imwrite(tmp_path / "ij.tif", planes, imagej=True, metadata={"axes": "CYX", "mode": mode})
        assert "does not say that they are red, green and blue" in refusal(tmp_path / "ij.tif")
    tifffile.imwrite(tmp_path / "shaped.tif", planes, photometric="minisblack", metadata={"axes": "CYX"})
    assert "RGB" in refusal(tmp_path / "shaped.tif")
    tifffile.imwrite(tmp_path / "ijrgb.tif", planes.transpose(1, 2, 0), imagej=True, photometric="rgb")
    assert seen(tmp_path / "ijrgb.tif").shape == (300, 300, 3)


@pytest.mark.parametrize(
    ("channels", "count", "rgb"),
    [
        (None, 3, True),
        ([("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF")], 3, True),
        ([("Channel 0", "FF0000"), ("Channel 1", "00FF00"), ("Channel 2", "0000FF")], 3, True),
        ([("DAPI", "0000FF"), ("FITC", "00FF00"), ("Cy5", "FF00FF")], 3, False),
        ([("", "0000FF"), ("", "00FF00"), ("", "FF0000")], 3, False),
        ([("a", "FF0000"), ("b", "00FF00"), ("c", "0000FF")], 3, False),
        (None, 4, False),
        ([("r", "FF0000"), ("g", "00FF00"), ("b", "0000FF"), ("alpha", "FFFFFF")], 4, True),
    ],
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_channels_of_ome_zarr(make, pixels: np.ndarray, channels, count: int, rgb: bool, version: str) -> None:
    path = make.ome_zarr(pixels, "cyx", version, levels=1)
    group = zarr.open_group(path)
    if count == 4:
        del group["0"]
        data = np.concatenate([pixels.transpose(2, 0, 1), np.full((1, *pixels.shape[:2]), 255, np.uint8)])
        group.create_array("0", shape=data.shape, chunks=(1, 300, 300), dtype="uint8")[:] = data
    if channels:
        omero = {"channels": [{"label": label, "color": colour} for label, colour in channels]}
        if version == "0.4":
            group.attrs["omero"] = omero
        else:
            group.attrs["ome"] = {**group.attrs["ome"], "omero": omero}
    if rgb:
        np.testing.assert_array_equal(seen(path), pixels)
    else:
        assert "is not RGB" in refusal(path)


def test_ome_tiff_in_several_files(tmp_path: Path, pixels: np.ndarray) -> None:
    ids = [f"urn:uuid:0000000{i}-2222-3333-4444-555555555555" for i in range(3)]
    height, width = pixels.shape[:2]
    data = "".join(
        f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="c{c}.ome.tif">{ids[c]}</UUID></TiffData>'
        for c in range(3)
    )
    for c, tile in itertools.product(range(3), [(128, 128), None]):
        xml = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{ids[c]}"><Image ID="Image:0">'
            f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{width}" SizeY="{height}" SizeC="3" '
            f'SizeZ="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
        )
        path = tmp_path / f"c{c}.ome.tif"
        tifffile.imwrite(path, pixels[..., c], description=xml, metadata=None, ome=None, tile=tile)
        assert "one of several files" in refusal(path)


# --- microns per pixel


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.499", 0.499), ("4.99e-1", 0.499), ("4.99E-01", 0.499), (".499", 0.499), ("0,499", 0.499), (" 0.5 ", 0.5),
        ("1", 1.0), ("-1", -1.0), ("", None), ("1.234,5", None), ("0.5 um", None), ("nan", None), ("inf", None),
        ("0x10", None), ("1_000", None), (None, None),
    ],
)  # fmt: skip
def test_numbers_in_headers(text: str | None, value: float | None) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    ("said", "mpp"),
    [("MPP = 4.99e-1", 0.499), ("MPP=0,499", 0.499), ("MPP = .499", 0.499), ("MPP = 1.234,5", None), ("MPP = ?", None)],
)
def test_microns_in_svs(tmp_path: Path, said: str, mpp: float | None) -> None:
    text = f"Aperio Image Library v11.2.1 \r\n300x300 (128x128) JPEG/RGB Q=70|AppMag = 20|{said}|Left = 1"
    tifffile.imwrite(
        tmp_path / "s.svs", np.full((300, 300, 3), 200, np.uint8), photometric="rgb", description=text, **TILED
    )
    with open_slide(tmp_path / "s.svs") as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))
    with open_slide(tmp_path / "s.svs", mpp=0.25) as slide:
        assert slide.mpp == 0.25


@pytest.mark.parametrize(("text", "mpp"), [("0,5", 0.5), ("", None), ("half", None), ("5e-1", 0.5), ("NaN", None)])
def test_microns_in_ome_tiff(make, pixels: np.ndarray, text: str, mpp: float | None) -> None:
    path = make.ome_tiff(pixels, 1, PhysicalSizeX=text, PhysicalSizeY=text)
    with open_slide(path) as slide:
        assert slide.mpp == mpp
    with open_slide(path, mpp=0.25) as slide:
        assert slide.mpp == 0.25


def test_resolution_tags_that_are_no_fractions(tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    tifffile.imwrite(
        path, np.full((300, 300, 3), 200, np.uint8), photometric="rgb", resolution=(20000, 20000),
        resolutionunit="CENTIMETER", **TILED,
    )  # fmt: skip
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags[282].valueoffset
    for fraction in ((20000, 0), (0, 0), (0, 1)):
        content[place : place + 8] = struct.pack("<II", *fraction)
        path.write_bytes(content)
        with open_slide(path) as slide:
            assert slide.mpp is None


IDENTITY = [{"type": "identity"}]
MOVED = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}, {"type": "translation", "translation": [0.0, 9.0, 9.0]}]


@pytest.mark.parametrize(
    ("level", "image", "mpp"),
    [
        (None, None, None),
        (IDENTITY, None, None),
        ([], IDENTITY, None),
        (MOVED, None, 0.5),
        (MOVED, IDENTITY, 0.5),
        (MOVED, [{"type": "scale", "scale": [2.0]}], None),
        ([{"type": "scale", "path": "scales/0"}], None, None),
        ([{"type": "scale", "scale": ["a", "b", "c"]}], None, None),
        ([{"scale": [1.0, 0.5, 0.5]}], None, None),
        (MOVED, [{"type": "scale", "scale": [1.0, 2.0, 2.0]}], 1.0),
    ],
)
def test_scales_of_ome_zarr(make, pixels: np.ndarray, level, image, mpp: float | None) -> None:
    path = make.ome_zarr(pixels, "cyx", "0.4", levels=1)
    group = zarr.open_group(path)
    multiscale = dict(group.attrs["multiscales"][0])
    multiscale["datasets"] = [{"path": "0"} if level is None else {"path": "0", "coordinateTransformations": level}]
    if image is not None:
        multiscale["coordinateTransformations"] = image
    group.attrs["multiscales"] = [multiscale]
    with open_slide(path) as slide:
        assert slide.mpp == mpp
    with open_slide(path, mpp=0.25) as slide:
        assert slide.mpp == 0.25


def _ome_zarr(folder: Path, axes: object, shapes: list[tuple[int, ...]], version: str) -> Path:
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    for i, shape in enumerate(shapes):
        array = group.create_array(str(i), shape=shape, chunks=tuple(min(n, 128) for n in shape), dtype="uint8")
        array[:] = 100 + i
    multiscale = {"version": version, "datasets": [{"path": str(i)} for i in range(len(shapes))]}
    group.attrs["multiscales"] = [multiscale if axes is None else {**multiscale, "axes": axes}]
    return folder


def test_older_ome_zarr_and_other_axes(tmp_path: Path) -> None:
    five = [(1, 3, 1, 300, 400), (1, 3, 1, 150, 200)]
    flat = [shape[1:2] + shape[3:] for shape in five]
    spaces = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    for number_, (axes, shapes, version) in enumerate(
        [
            (None, five, "0.1"),
            (None, five, "0.2"),
            (list("tczyx"), five, "0.3"),
            ([{"name": "channel", "type": "channel"}, *spaces], flat, "0.4"),
            ([{"name": "C"}, {"name": "Y"}, {"name": "X"}], flat, "0.4"),
            ([{"name": "c", "type": "channel"}, *spaces], flat[::-1], "0.4"),
        ]
    ):
        path = _ome_zarr(tmp_path / f"{number_}.zarr", axes, shapes, version)
        finest = max(range(2), key=lambda i: shapes[i][-1])
        with open_slide(path) as slide:
            assert [(level.width, level.height, level.downsample) for level in slide.levels] == [
                (400, 300, 1), (200, 150, 2)
            ]  # fmt: skip
            assert slide.mpp is None
            assert (whole(slide) == 100 + finest).all()
    assert "do not fit its axes" in refusal(_ome_zarr(tmp_path / "bad.zarr", list("cyx"), five, "0.3"))
    with pytest.raises(SlideError, match="give the OME-Zarr folder above it"):
        open_slide(tmp_path / "0.zarr" / "0")


def test_notes_on_a_size_that_cannot_be(tmp_path: Path) -> None:
    for per_cm, noted in ((20_000, False), (200_000, True), (4_100, True), (100_000, False)):
        tifffile.imwrite(
            tmp_path / "s.tif", np.full((300, 300, 3), 200, np.uint8), photometric="rgb",
            resolution=(per_cm, per_cm), resolutionunit="CENTIMETER", **TILED,
        )  # fmt: skip
        with open_slide(tmp_path / "s.tif") as slide:
            assert slide.mpp == pytest.approx(1e4 / per_cm)
            assert bool(slide.notes) == noted
            assert all("mm large" in note and "`mpp=0.5`" in note for note in slide.notes)
        with open_slide(tmp_path / "s.tif", mpp=5) as slide:
            assert not slide.notes


# --- files


def test_long_file_name(tmp_path: Path) -> None:
    for name in ("n" * 245 + ".tif", "n" * 251 + ".tif", "组" * 83 + ".tif"):
        tifffile.imwrite(tmp_path / name, np.full((300, 300, 3), 200, np.uint8), photometric="rgb", **TILED)
        for mpp in (None, 0.5):
            with open_slide(tmp_path / name, mpp=mpp) as slide:
                assert slide.mpp == mpp
        (tmp_path / name).unlink()


def test_picture_of_another_name(tmp_path: Path, pixels: np.ndarray) -> None:
    image = PIL.Image.fromarray(pixels)
    for written, name in [("PNG", "a.tif"), ("BMP", "a.tiff"), ("JPEG", "a.png"), ("PNG", "a.jpg")]:
        image.save(tmp_path / name, format=written, quality=95)
        with open_slide(tmp_path / name) as slide:
            assert slide.reader == "image"
            assert np.abs(whole(slide).astype(int) - pixels).mean() < 3
    image.save(tmp_path / "b.jpg", format="TIFF")
    np.testing.assert_array_equal(seen(tmp_path / "b.jpg"), pixels)


@pytest.mark.parametrize(
    "text",
    [
        '<?xml version="1.0"?><OME xmlns="x"><Image><Pixels SizeX="a"/></Image></OME>',
        '<OME xmlns="x"><Image><Pixels DimensionOrder="XYCZT" SizeC="3" SizeT="one" SizeX="7" SizeY="6" SizeZ="1"/>'
        "</Image></OME>",
        "<OME broken",
        "ImageJ=1.11a\nimages=x\nchannels=3\n",
        '{"shape": [1, "x"]}',
        "Aperio Image Library v1\n|MPP",
    ],
)
@pytest.mark.parametrize("tile", [(128, 128), None])
def test_descriptions_that_nobody_understands(
    tmp_path: Path, pixels: np.ndarray, text: str, tile: tuple[int, int] | None
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=tile, metadata=None, description=text)
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.mpp is None
        np.testing.assert_array_equal(whole(slide), pixels)


def test_png_with_long_texts(tmp_path: Path, pixels: np.ndarray) -> None:
    """The texts are longer than Pillow accepts: before the pixels, as a colour profile, and after them."""
    info = PIL.PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "x" * 5_000_000, zip=True)
    info.add_text("a", "y" * 5_000_000, zip=True)
    image = PIL.Image.fromarray(pixels)
    image.save(tmp_path / "text.png", pnginfo=info)
    image.save(tmp_path / "profile.png", icc_profile=bytes(3_000_000))
    image.save(tmp_path / "end.png")
    content = (tmp_path / "end.png").read_bytes()
    (tmp_path / "text.png").rename(tmp_path / "before.png")
    with_text = (tmp_path / "before.png").read_bytes()
    start = with_text.index(b"iTXt") - 4
    chunk = with_text[start : start + 12 + int.from_bytes(with_text[start : start + 4], "big")]
    (tmp_path / "end.png").write_bytes(content[:-12] + chunk + content[-12:])
    for name in ("before.png", "profile.png", "end.png"):
        np.testing.assert_array_equal(seen(tmp_path / name), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_pictures(tmp_path: Path, pixels: np.ndarray, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="rgb", metadata=None, extratags=[(274, 3, 1, orientation, True)]
    )
    # Turned by hand: 2 mirrors left and right, 3 turns by 180 degrees, 6 is to be turned clockwise, and so on.
    expected = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(pixels),
    }[orientation]  # fmt: skip
    np.testing.assert_array_equal(seen(tmp_path / "a.tif"), expected)
    assert np.abs(seen(tmp_path / "a.jpg").astype(int) - expected).mean() < 3


def test_orientation_of_a_tiled_slide_is_told(tmp_path: Path, pixels: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[(274, 3, 1, 6, True)], **TILED)
    with open_slide(tmp_path / "a.tif") as slide:
        assert "turned" in " ".join(slide.notes)


@pytest.mark.parametrize("shape", [(1, 300, 3), (300, 1, 3), (1, 1, 3)])
@pytest.mark.parametrize("tile", [(128, 128), None])
def test_one_pixel_wide(tmp_path: Path, shape: tuple[int, ...], tile: tuple[int, int] | None) -> None:
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", metadata=None, tile=tile)
    np.testing.assert_array_equal(seen(tmp_path / "a.tif"), image)


def test_zip_archives(make, pixels: np.ndarray, tmp_path: Path) -> None:
    folder = make.ome_zarr(pixels, "cyx")
    for name in ("c.ozx", "c.zarr.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in folder.rglob("*"):
                archive.write(file, file.relative_to(folder))
        assert "unzip it" in refusal(tmp_path / name)


def test_slides_that_openslide_has_no_hash_of_are_told_apart(tmp_path: Path) -> None:
    """The smallest level is large: two pictures have the same size."""
    rng = np.random.default_rng(0)
    identities = []
    for name in "ab":
        pixels = rng.integers(0, 256, (2048, 2048, 3), np.uint8)
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="rgb", **TILED)
        reader = OpenSlideReader(tmp_path / f"{name}.tif")
        identities.append(reader.identity())
        reader.close()
    assert identities[0] != identities[1]


def test_dicom_without_its_slide(dicom_folder: Path, tmp_path: Path) -> None:
    """Only label, overview and thumbnail remain, without the largest file, which contains the slide."""
    folder = Path(shutil.copytree(dicom_folder, tmp_path / "dicom"))
    max(folder.iterdir(), key=lambda file: file.stat().st_size).unlink()
    for path in (folder, *folder.glob("*.dcm")):
        with pytest.raises(SlideError, match="only label and overview"):
            open_slide(path)


@pytest.mark.parametrize("pages", [1, 2])
def test_pages_that_lead_back(tmp_path: Path, pixels: np.ndarray, pages: int) -> None:
    path = tmp_path / "loop.tif"
    with tifffile.TiffWriter(path) as writer:
        for page in range(pages):  # a smaller page behind the slide, which leads back to it
            writer.write(pixels[:: page + 1, :: page + 1], photometric="rgb", subfiletype=page, **TILED)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        place, start = tiff.pages.next_page_offset, tiff.pages[0].offset
    content[place : place + 4] = struct.pack("<I", start)
    path.write_bytes(content)
    assert "leads back to itself" in refusal(path)


def test_sizes_that_nothing_has(make, pixels: np.ndarray) -> None:
    path = make.ome_zarr(pixels, "yxc", "0.5", levels=1)
    array = path / "0" / "zarr.json"
    for shape, chunk, said in [
        ([10**7, 10**7, 3], [300, 300, 1], "more than any slide"),
        ([10**5, 10**5, 3], [10**5, 10**5, 1], "too large"),
        ([300, 300, 3], [300, 300, 10**6], "too large"),
        ([0, 300, 3], [300, 300, 3], "no pixels"),
    ]:
        facts = json.loads(array.read_text())
        facts["shape"], facts["chunk_grid"]["configuration"]["chunk_shape"] = shape, chunk
        array.write_text(json.dumps(facts))
        assert said in refusal(path)


# --- damage


def test_pictures_are_not_decoded_to_be_recognised(tmp_path: Path, pixels: np.ndarray) -> None:
    """The files contain only the header of a picture, which suffices for recognising it and showing its size."""
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:100])
    assert not is_slide(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png") as slide:
        assert (slide.width, slide.height) == (703, 901)
        for _ in range(2):
            with pytest.raises(SlideError, match="is damaged"):
                slide.read_level(0, 0, 0, 10, 10)


def _damage_svs(source: Path, target: Path, index: int) -> Path:
    content = bytearray(source.read_bytes())
    with tifffile.TiffFile(source) as tiff:
        page = tiff.pages[0]
        start, length = page.dataoffsets[index], page.databytecounts[index]
    content[start : start + length] = bytes(length)
    target.write_bytes(content)
    return target


def test_damaged_tile_is_named_and_the_others_can_be_read(
    sample_slide: Path, sample_pixels: np.ndarray, tmp_path: Path
) -> None:
    """Tiles are 240 wide and high; there are 10 in a row, so number 25 is the sixth of the third row."""
    path = _damage_svs(sample_slide, tmp_path / "slide.svs", 25)
    with open_slide(path) as slide:
        with pytest.raises(DamagedPlace, match=r"x 1200 to 1440, y 480 to 720 .*copy or export it again"):
            slide.read_level(0, 1210, 490, 10, 10)
        for box in ((960, 480, 240, 240), (1440, 480, 240, 240), (1200, 240, 240, 240), (1200, 720, 240, 240)):
            x, y, width, height = box
            np.testing.assert_array_equal(slide.read_level(0, *box), sample_pixels[y : y + height, x : x + width])
        image = slide.read(0, 0, slide.width, slide.height, slide.require_mpp(), damage_is_white=True)
        assert slide.damage == ("x 1200 to 1440, y 480 to 720",)
        slide.thumbnail()
    expected = sample_pixels.copy()
    expected[480:720, 1200:1440] = 255
    np.testing.assert_array_equal(image, expected)


def test_jpeg_that_says_it_is_larger_than_its_tile(make, pixels: np.ndarray) -> None:
    """The decoder would allocate 12 GB."""
    path = make.tiff(pixels, compression="jpeg")
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        frame = content.index(b"\xff\xc0", tiff.pages[0].dataoffsets[0])
    content[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    path.write_bytes(content)
    with open_slide(path) as slide:
        with pytest.raises(DamagedPlace, match="65000 x 65000"):
            slide.read_level(0, 0, 0, 10, 10)
        others = slide.read_level(0, 0, 256, 703, 645)
        assert np.abs(others.astype(int) - pixels[256:]).mean() < 5


def test_damage_of_dicom_does_not_spread(dicom_folder: Path, sample_pixels: np.ndarray, tmp_path: Path) -> None:
    """After OpenSlide has found damage, it reads nothing until the slide is opened again."""
    folder = Path(shutil.copytree(dicom_folder, tmp_path / "dicom"))
    largest = max(folder.iterdir(), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    starts = [i for i in range(len(content) // 2) if content[i : i + 3] == b"\xff\xd8\xff"]
    content[starts[0] : starts[0] + 400] = bytes(400)
    largest.write_bytes(content)
    with open_slide(folder) as slide:
        with pytest.raises(DamagedPlace):
            slide.read_level(0, 0, 0, 10, 10)
        seen = slide.read_level(0, 1000, 1000, 500, 500)
        assert np.abs(seen.astype(int) - sample_pixels[1000:1500, 1000:1500]).mean() < 10  # two JPEGs
        assert len(slide.damage) == 1


def test_drive_that_does_not_answer_is_no_damage(make, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the error of Linux for a missing network share; if it were treated as damage, the place would stay white."""

    def read(*args: object) -> np.ndarray:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with open_slide(make.tiff(pixels)) as slide:
        monkeypatch.setattr(TiffReader, "read", read)
        with pytest.raises(SlideError, match="check its drive"):
            slide.thumbnail()
        assert not slide.damage
        monkeypatch.undo()
        np.testing.assert_array_equal(whole(slide), pixels)


@pytest.mark.parametrize("name", ["A" * 3000, "two\nlines"])
def test_long_names_in_a_file_make_no_long_sentence(make, pixels: np.ndarray, name: str) -> None:
    """The names are those of channels and of axes."""
    path = make.ome_zarr(pixels, "cyx")
    header = json.loads((path / "zarr.json").read_text())
    ome = header["attributes"]["ome"]
    ome["omero"] = {"channels": [{"label": name}] * 3}
    (path / "zarr.json").write_text(json.dumps(header))
    with pytest.raises(SlideError, match=r"channels are [^\n]{3,220}\); export it as RGB") as caught:
        open_slide(path)
    assert len(str(caught.value)) < 400
    ome["multiscales"][0]["axes"][0] = {"name": name}
    (path / "zarr.json").write_text(json.dumps(header))
    with pytest.raises(SlideError, match="is not RGB of 8 bits") as caught:
        open_slide(path)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def _elements(*values: tuple[int, bytes, bytes]) -> list[tuple[tuple[int, int], bytes]]:
    """Return the elements of DICOM's group 0x20 by their tags."""
    return [((0x20, tag), struct.pack("<HH2sH", 0x20, tag, kind, len(value)) + value) for tag, kind, value in values]


def _with_elements(content: bytes, elements: list[tuple[tuple[int, int], bytes]]) -> bytes:
    """Return a DICOM file (explicit VR, little endian) with additional elements in order."""
    place, out = 132, bytearray(content[:132])
    while elements:
        tag, kind = struct.unpack_from("<HH", content, place), content[place + 4 : place + 6]
        if elements[0][0] < tag:
            out += elements.pop(0)[1]
            continue
        long = kind in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        (length,) = struct.unpack_from("<I" if long else "<H", content, place + (8 if long else 6))
        end = place + (12 if long else 8) + length
        out += content[place:end]
        place = end
    return bytes(out + content[place:])


def test_a_part_of_a_picture_in_several_dicom_files_lacks_the_others(dicom_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dicom_folder, tmp_path / "scan"))
    part = max(folder.iterdir(), key=lambda file: file.stat().st_size)
    one, two = struct.pack("<H", 1), struct.pack("<H", 2)
    first_of_two = _elements(
        (0x9161, b"UI", b"1.2.3\0"), (0x9162, b"US", one), (0x9163, b"US", two), (0x9228, b"UL", bytes(4))
    )
    part.write_bytes(_with_elements(part.read_bytes(), first_of_two))
    for path in (part, folder):
        with pytest.raises(SlideError, match=f"^{path.name} is only a part of a slide .*; put the others beside it"):
            open_slide(path)
