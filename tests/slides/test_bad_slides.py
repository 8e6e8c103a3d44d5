"""Files that are not slides, or damaged: always a SlideError of one sentence that names the file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr

from napari_pbip.errors import SlideError
from napari_pbip.slides import open_slide


def refusal(path: Path) -> str:
    """Return the sentence with which a slide is refused, when it is opened or when all of it is read."""
    with pytest.raises(SlideError) as caught, open_slide(path) as slide:
        for number, level in enumerate(slide.levels):
            slide.read_level(number, 0, 0, level.width, level.height)
        for name in slide.associated:
            slide.read_associated(name)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert path.name in sentence
    return sentence


def truncated(source: Path, target: Path, share: float) -> Path:
    content = source.read_bytes()
    target.write_bytes(content[: max(1, min(len(content) - 1, int(len(content) * share)))])
    return target


@pytest.mark.parametrize("share", [0.0, 1e-5, 0.01, 0.3, 0.6, 0.7, 0.9, 0.95, 0.99, 1.0])
def test_truncated_svs(sample_slide: Path, tmp_path: Path, share: float) -> None:
    refusal(truncated(sample_slide, tmp_path / "slide.svs", share))


def test_svs_cut_at_every_page(sample_slide: Path, tmp_path: Path) -> None:
    """Just before and after each page's header, where a cut leaves a file that looks whole but lacks pages."""
    with tifffile.TiffFile(sample_slide) as tiff:
        places = [page.offset + shift for page in tiff.pages for shift in (-1, 0, 1, 2, 60)]
    content = sample_slide.read_bytes()
    for place in places:
        if 0 < place < len(content):
            (tmp_path / "slide.svs").write_bytes(content[:place])
            assert "copy or export it again" in refusal(tmp_path / "slide.svs")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["subifds", "chain", "strips"])
def test_truncated_tiff(make, pixels: np.ndarray, kind: str, share: float) -> None:
    writers: dict[str, Callable[[], Path]] = {
        "subifds": lambda: make.ome_tiff(pixels),
        "chain": lambda: make.tiff(pixels, 3),
        "strips": lambda: make.tiff(pixels, tile=None, rowsperstrip=64),
    }
    path = writers[kind]()
    refusal(truncated(path, path.with_name("cut.tif"), share))


def test_pyramid_in_subifds_cut_at_every_page(make, pixels: np.ndarray) -> None:
    """Without its last levels, a file could still be opened, but would be slow."""
    path = make.ome_tiff(pixels)
    with tifffile.TiffFile(path) as tiff:
        places = [tiff.pages[0].offset, *tiff.pages[0].subifds]
    content = path.read_bytes()
    for place in places:
        for shift in (-1, 0, 1, 2, 30, 100, 200, 250):
            if 0 < place + shift < len(content):
                path.with_name("cut.tif").write_bytes(content[: place + shift])
                refusal(path.with_name("cut.tif"))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.bmp"])
def test_truncated_image(tmp_path: Path, pixels: np.ndarray, name: str, share: float) -> None:
    PIL.Image.fromarray(pixels).save(tmp_path / name)
    refusal(truncated(tmp_path / name, tmp_path / f"cut{name}", share))


@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
def test_truncated_dicom(dicom_folder: Path, tmp_path: Path, share: float) -> None:
    folder = Path(shutil.copytree(dicom_folder, tmp_path / "dicom"))
    largest = max(folder.iterdir(), key=lambda file: file.stat().st_size)
    truncated(largest, largest, share)
    refusal(folder)


def test_overwritten_header_and_pixels(sample_slide: Path, tmp_path: Path) -> None:
    content = bytearray(sample_slide.read_bytes())
    with tifffile.TiffFile(sample_slide) as tiff:
        page, tile = tiff.pages[0].offset, tiff.pages[0].dataoffsets[5]
    for place in (page, tile):
        damaged = content.copy()
        damaged[place : place + 2000] = bytes(2000)
        (tmp_path / "slide.svs").write_bytes(damaged)
        refusal(tmp_path / "slide.svs")


def test_not_a_slide(tmp_path: Path) -> None:
    for name in ("notes.txt", "slide.svs", "slide.tif", "slide.ndpi", "slide.png", "slide.mrxs", "slide.dcm"):
        (tmp_path / name).write_text("these are no pixels\n")
        refusal(tmp_path / name)
    assert "formats are" in refusal(tmp_path / "notes.txt")
    assert "OME-Zarr" in refusal(tmp_path / "notes.txt")


def test_index_file_without_its_folder_is_not_shown_as_an_image(tmp_path: Path, pixels: np.ndarray) -> None:
    """The .mrxs file of a MIRAX slide is a small JPEG."""
    PIL.Image.fromarray(pixels[:100, :100]).save(tmp_path / "slide.mrxs", format="JPEG")
    refusal(tmp_path / "slide.mrxs")


def test_nothing_there(tmp_path: Path) -> None:
    assert "no slide at" in refusal(tmp_path / "missing.svs")
    (tmp_path / "file").write_text("x")
    refusal(tmp_path / "file" / "below.svs")
    (tmp_path / "empty.svs").touch()
    assert "is empty" in refusal(tmp_path / "empty.svs")
    (tmp_path / "empty").mkdir()
    assert "is empty" in refusal(tmp_path / "empty")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("nothing")
    assert "without a DICOM slide or OME-Zarr" in refusal(tmp_path / "folder")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everything is readable for root")
def test_not_allowed_to_read(sample_slide: Path, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    shutil.copyfile(sample_slide, path)
    path.chmod(0)
    assert "Permission denied" in refusal(path)


def test_several_dicom_slides_in_a_folder(dicom_folder: Path, tmp_path: Path) -> None:
    """A second slide: the same files with another series identifier."""
    with_two = tmp_path / "two"
    shutil.copytree(dicom_folder, with_two)
    content = max(dicom_folder.iterdir(), key=lambda file: file.stat().st_size).read_bytes()
    tag = content.index(b"\x20\x00\x0e\x00UI")
    length = int.from_bytes(content[tag + 6 : tag + 8], "little")
    series = content[tag + 8 : tag + 8 + length]
    other = series.rstrip(b"\0")[:-1] + (b"7" if series.rstrip(b"\0")[-1:] != b"7" else b"8")
    (with_two / "other.dcm").write_bytes(content.replace(series.rstrip(b"\0"), other))
    assert "several DICOM slides" in refusal(with_two)
    with open_slide(with_two / "other.dcm") as slide:
        assert slide.width == 2220


def test_not_rgb_of_8_bits(tmp_path: Path, pixels: np.ndarray) -> None:
    grey = np.ascontiguousarray(pixels[..., 0])
    tifffile.imwrite(tmp_path / "grey.tif", grey, tile=(256, 256))
    tifffile.imwrite(tmp_path / "deep.tif", pixels.astype(np.uint16), tile=(256, 256), photometric="rgb")
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([pixels] * 4), tile=(256, 256), photometric="rgb")
    tifffile.imwrite(tmp_path / "five.ome.tif", np.stack([grey] * 5), tile=(256, 256), metadata={"axes": "CYX"})
    tifffile.imwrite(tmp_path / "strips.tif", grey)
    PIL.Image.fromarray(grey).save(tmp_path / "grey.png")
    PIL.Image.fromarray(pixels).convert("CMYK").save(tmp_path / "cmyk.jpg")
    for path in sorted(tmp_path.iterdir()):
        assert "RGB" in refusal(path)


def test_image_too_large_to_be_held(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (20_000, 10_000)).save(tmp_path / "large.png")
    tifffile.imwrite(
        tmp_path / "large.tif", shape=(10_000, 20_000, 3), dtype=np.uint8, photometric="rgb", compression=None
    )
    for name in ("large.png", "large.tif"):
        assert "vips tiffsave" in refusal(tmp_path / name)


def test_zarr_that_is_no_slide(make, pixels: np.ndarray, tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "array.zarr", data=pixels)
    zarr.create_array(tmp_path / "old.zarr", data=pixels, zarr_format=2)
    zarr.open_group(tmp_path / "group.zarr", mode="w")
    for name in ("array.zarr", "old.zarr", "group.zarr"):
        refusal(tmp_path / name)
    path = make.ome_zarr(pixels, "yxc")
    ome = json.loads((path / "zarr.json").read_text())
    ome["attributes"]["ome"]["multiscales"][0]["axes"][2] = {"name": "z", "type": "space"}
    (path / "zarr.json").write_text(json.dumps(ome))
    assert "not RGB" in refusal(path)


def test_scores_are_no_slide(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "scores.ome.zarr", mode="w")
    group.create_array("0", shape=(4, 64, 64), dtype="float32")
    axes = [{"name": axis} for axis in "cyx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    assert "4 c x 64 y x 64 x of float32" in refusal(tmp_path / "scores.ome.zarr")


def test_stack_in_ome_zarr(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "stack.zarr", mode="w")
    group.create_array("0", shape=(5, 3, 64, 64), dtype="uint8")
    axes = [{"name": axis} for axis in "zcyx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    assert "stack" in refusal(tmp_path / "stack.zarr")


@pytest.mark.parametrize("part", ["metadata", "chunk", "level"])
def test_damaged_ome_zarr(make, pixels: np.ndarray, part: str) -> None:
    path = make.ome_zarr(pixels, "yxc")
    chunk = next(file for file in sorted((path / "0").rglob("*")) if file.is_file() and file.name != "zarr.json")
    if part == "metadata":
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type"')
    elif part == "chunk":
        chunk.write_bytes(chunk.read_bytes()[:100])
    else:
        shutil.rmtree(path / "1")
    assert "is damaged" in refusal(path)


def test_unknown_associated_image(sample_slide: Path) -> None:
    with open_slide(sample_slide) as slide, pytest.raises(SlideError, match=r"no associated image 'barcode'.*macro"):
        slide.read_associated("barcode")
