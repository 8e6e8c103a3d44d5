"""Reading at any resolution: exact positions, no seams, the right level; microns per pixel; identity; threads."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_pbip.errors import OutputError, SlideError
from napari_pbip.slides import open_slide, save_mpp
from napari_pbip.slides.cache import BlockCache


def test_read_at_the_slides_own_resolution_is_its_pixels(sample_slide: Path, sample_pixels: np.ndarray) -> None:
    with open_slide(sample_slide) as slide:
        seen = slide.read(1000, 700, 300, 200, slide.require_mpp())
    np.testing.assert_array_equal(seen, sample_pixels[700:900, 1000:1300])


def test_outside_the_slide_is_white(sample_slide: Path, sample_pixels: np.ndarray) -> None:
    with open_slide(sample_slide) as slide:
        mpp = slide.require_mpp()
        seen = slide.read(-100, 2900, 200, 100, mpp)
        np.testing.assert_array_equal(seen[:67, 100:], sample_pixels[2900:, :100])
        assert (seen[:, :100] == 255).all()
        assert (seen[67:] == 255).all()
        assert (slide.read(-5000, -5000, 64, 64, 3.3 * mpp) == 255).all()
        assert (slide.read(9000, 100, 64, 64, mpp) == 255).all()
        seen = slide.read_level(0, 2200, -10, 40, 20)
        np.testing.assert_array_equal(seen[10:, :20], sample_pixels[:10, 2200:])
        assert (seen[:10] == 255).all()
        assert (seen[:, 20:] == 255).all()


@pytest.fixture(scope="module")
def ramps(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Red is the column and green the row (one grey level a pixel), with and without a pyramid."""
    rows, columns = np.mgrid[:240, :250]
    image = np.dstack([columns, rows, np.full_like(rows, 7)]).astype(np.uint8)
    folder = tmp_path_factory.mktemp("ramps")
    with tifffile.TiffWriter(folder / "pyramid.tif") as tiff:
        for step in (1, 2, 4, 8):
            cells = image[: 240 // step * step, : 250 // step * step].reshape(240 // step, step, -1, step, 3)
            level = cells.mean((1, 3)).round().astype(np.uint8)
            tiff.write(level, tile=(16, 16), photometric="rgb", subfiletype=int(step > 1), metadata=None)
    PIL.Image.fromarray(image).save(folder / "flat.png")
    return [folder / "pyramid.tif", folder / "flat.png"]


@given(
    x=st.floats(40, 90),
    y=st.floats(40, 90),
    scale=st.floats(0.3, 15),
    which=st.integers(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_every_output_pixel_shows_its_place(ramps: list[Path], x: float, y: float, scale: float, which: int) -> None:
    with open_slide(ramps[which], mpp=0.5) as slide:
        count = max(1, min(40, int(100 / scale)))
        seen = slide.read(x, y, count, count, 0.5 * scale).astype(float)
    # The middle of output pixel j lies at x + (j + 1/2) scale; the middle of level-0 pixel i at i + 1/2.
    expected = (np.arange(count) + 0.5) * scale - 0.5
    # Half a grey level is rounding; the level below, its average and the result are rounded each.
    tolerance = 0.55 if scale < 1.9 else 1.55
    assert np.abs(seen[..., 0] - (x + expected)).max() <= tolerance
    assert np.abs(seen[..., 1] - (y + expected)[:, None]).max() <= tolerance


@given(
    x=st.floats(-50, 1500),
    y=st.floats(-50, 2000),
    column=st.integers(0, 150),
    row=st.integers(0, 150),
    mpp=st.sampled_from([0.25, 0.499, 0.5, 0.73, 1.0, 1.996, 3.7]),
)
@settings(max_examples=30, deadline=None)
def test_a_read_is_the_same_part_of_a_larger_read(
    sample_slide: Path, x: float, y: float, column: int, row: int, mpp: float
) -> None:
    with open_slide(sample_slide) as slide:
        scale = mpp / slide.require_mpp()
        large = slide.read(x, y, 200, 180, mpp)
        small = slide.read(x + column * scale, y + row * scale, 50, 30, mpp)
    assert np.abs(large[row : row + 30, column : column + 50].astype(int) - small).max() <= 1


def test_a_read_larger_than_what_is_resampled_at_once_has_no_seams(sample_slide: Path) -> None:
    with open_slide(sample_slide) as slide:
        mpp = 0.499 / 2.3  # 5106 x 6824 output pixels, put together from four
        large = slide.read(0, 0, 5106, 4500, mpp)
        for y in (4096 - 32, 1000):
            small = slide.read((4096 - 32) / 2.3, y / 2.3, 64, 64, mpp)
            part = large[y : y + 64, 4096 - 32 : 4096 + 32]
            assert np.abs(part.astype(int) - small).max() <= 1


def test_downsampling_does_not_alias(tmp_path: Path) -> None:
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    PIL.Image.fromarray(np.dstack([board] * 3)).save(tmp_path / "board.png")
    with open_slide(tmp_path / "board.png", mpp=0.25) as slide:
        for mpp in (0.5, 0.61, 1.0, 2.3, 8.0):
            count = int(400 * 0.25 / mpp)
            seen = slide.read(50, 50, count, count, mpp).astype(int)
            assert np.abs(seen - 128).max() <= 6, mpp


def test_the_nearest_finer_level_is_read(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    with tifffile.TiffWriter(tmp_path / "colours.tif") as tiff:
        for number, colour in enumerate(colours):
            image = np.full((1024 // 4**number, 1024 // 4**number, 3), colour, np.uint8)
            tiff.write(image, tile=(64, 64), photometric="rgb", subfiletype=int(number > 0), metadata=None)
    with open_slide(tmp_path / "colours.tif", mpp=0.25) as slide:
        seen = {mpp: tuple(slide.read(300, 300, 8, 8, mpp)[4, 4]) for mpp in (0.1, 0.25, 0.9, 1.0, 3.9, 4.0, 20.0)}
    red, green, blue = colours
    assert seen == {0.1: red, 0.25: red, 0.9: red, 1.0: green, 3.9: green, 4.0: blue, 20.0: blue}


def test_thumbnail_needs_no_microns(make, pixels: np.ndarray) -> None:
    with open_slide(make.tiff(pixels, 3)) as slide:
        assert slide.mpp is None
        thumbnail = slide.thumbnail(300)
    expected = np.asarray(PIL.Image.fromarray(pixels).resize((234, 300), PIL.Image.Resampling.BOX))
    assert thumbnail.shape == (300, 234, 3)
    assert np.abs(thumbnail.astype(float) - expected).mean() < 6


@pytest.mark.parametrize("kind", ["svs", "dicom", "ome-zarr", "ome-tiff"])
def test_threads_read_the_same_pixels(kind: str, sample_slide: Path, dicom_folder: Path, make, sample_pixels) -> None:
    paths = {"svs": lambda: sample_slide, "dicom": lambda: dicom_folder}
    if kind == "ome-zarr":
        paths[kind] = lambda: make.ome_zarr(sample_pixels, "yxc")
    if kind == "ome-tiff":
        paths[kind] = lambda: make.ome_tiff(sample_pixels, 2)
    path = paths[kind]()
    places = [(float(x), float(y)) for y in range(0, 2967, 331) for x in range(0, 2220, 223)]
    with open_slide(path, mpp=0.499) as slide:
        alone = [slide.read(x, y, 120, 120, 0.6) for x, y in places]
    with open_slide(path, mpp=0.499) as slide, ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda place: slide.read(*place, 120, 120, 0.6), places * 2))
    for expected, seen in zip(alone * 2, together, strict=True):
        np.testing.assert_array_equal(seen, expected)


def test_cache_is_bounded_and_decodes_once() -> None:
    cache = BlockCache(1000)
    block = np.zeros((10, 10, 3), np.uint8)
    for key in range(20):
        cache.get(key, lambda: block.copy())
        assert cache.bytes <= 1000
    assert cache.bytes == 900
    large = np.zeros((100, 100, 3), np.uint8)
    assert cache.get("large", lambda: large) is large
    assert cache.bytes == 900

    decoded = []
    barrier = threading.Barrier(8)

    def slow() -> np.ndarray:
        decoded.append(threading.get_ident())
        return block

    def ask() -> None:
        barrier.wait()
        cache.get("new", slow)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == 1


def test_identity_follows_the_content_not_the_name(
    sample_slide: Path, tmp_path: Path, make, pixels: np.ndarray
) -> None:
    with open_slide(sample_slide) as slide:
        first = slide.identity
    moved = tmp_path / "elsewhere" / "renamed.svs"
    moved.parent.mkdir()
    shutil.copyfile(sample_slide, moved)
    with open_slide(moved, mpp=0.7) as slide:
        assert slide.identity == first
    content = bytearray(moved.read_bytes())
    content[len(content) // 2] ^= 1
    moved.write_bytes(content)
    with open_slide(moved) as slide:
        assert slide.identity != first


def test_identity_of_ome_zarr(make, pixels: np.ndarray, tmp_path: Path) -> None:
    path = make.ome_zarr(pixels, "yxc")
    with open_slide(path) as slide:
        first = slide.identity
    (path / "labels").mkdir()
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["note"] = "labels were added"
    (path / "zarr.json").write_text(json.dumps(metadata))
    moved = path.rename(tmp_path / "moved.zarr")
    with open_slide(moved) as slide:
        assert slide.identity == first
        assert slide.name == "moved"
    with open_slide(make.ome_zarr(pixels[:, ::-1], "yxc")) as slide:
        assert slide.identity != first


def test_argument_over_sidecar_over_header(sample_slide: Path, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    shutil.copyfile(sample_slide, path)
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.499)
    sidecar = save_mpp(path, 0.25)
    assert sidecar == tmp_path / "slide.svs.mpp.json"
    assert json.loads(sidecar.read_text()) == {"mpp": 0.25}
    with open_slide(path) as slide:
        assert slide.mpp == 0.25
        assert slide.require_mpp() == 0.25
    with open_slide(path, mpp=1.0) as slide:
        assert slide.mpp == 1.0


def test_sidecar_of_a_folder_lies_beside_it(make, pixels: np.ndarray) -> None:
    path = make.ome_zarr(pixels, unit=None)
    save_mpp(f"{path}/", 0.3)
    assert path.with_name("slide.ome.zarr.mpp.json").exists()
    with open_slide(path) as slide:
        assert slide.mpp == 0.3


@pytest.mark.parametrize("text", ["", "{}", '{"mpp": "coarse"}', '{"mpp": 0}', "[0.5]", '{"mpp": null}'])
def test_unusable_sidecar(make, pixels: np.ndarray, text: str) -> None:
    path = make.tiff(pixels)
    path.with_name("slide.tif.mpp.json").write_text(text)
    with pytest.raises(SlideError, match=r"slide\.tif\.mpp\.json"):
        open_slide(path)


def test_no_microns_anywhere(make, pixels: np.ndarray) -> None:
    with open_slide(make.tiff(pixels)) as slide:
        assert slide.mpp is None
        assert slide.mpp_xy is None
        assert slide.size_um is None
        for need in (slide.require_mpp, lambda: slide.read(0, 0, 8, 8, 0.5)):
            with pytest.raises(SlideError, match=r"slide\.tif does not say.*`mpp=0\.5`.*slide\.tif\.mpp\.json"):
                need()


def test_pixels_that_are_not_square(make, pixels: np.ndarray) -> None:
    path = make.ome_tiff(pixels, 1, PhysicalSizeX=0.5, PhysicalSizeY=0.52)
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx((0.5 * 0.52) ** 0.5)
    path = make.ome_tiff(pixels, 1, PhysicalSizeX=0.5, PhysicalSizeY=1.0)
    with open_slide(path) as slide, pytest.raises(SlideError, match="not square"):
        slide.require_mpp()
    with open_slide(path, mpp=0.5) as slide:
        assert slide.require_mpp() == 0.5


@pytest.mark.parametrize("mpp", [0, -0.5, float("nan"), float("inf"), 1e-4, 2000])
def test_impossible_microns(sample_slide: Path, mpp: float) -> None:
    with pytest.raises(SlideError, match="microns per pixel"):
        open_slide(sample_slide, mpp=mpp)
    with pytest.raises(SlideError, match="microns per pixel"):
        save_mpp(sample_slide, mpp)
    with open_slide(sample_slide) as slide, pytest.raises(SlideError, match="microns per pixel"):
        slide.read(0, 0, 8, 8, mpp)


def test_sidecar_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"with `mpp=0\.5` instead"):
        save_mpp(tmp_path / "file" / "slide.svs", 0.5)


@pytest.mark.parametrize("size", [0.0, 1e9])
def test_unbelievable_header_counts_as_none(make, pixels: np.ndarray, size: float) -> None:
    with open_slide(make.ome_tiff(pixels, 1, PhysicalSizeX=size, PhysicalSizeY=size)) as slide:
        assert slide.mpp is None
