"""Tissue on real and painted slides, masks on disk, and shares of tissue of rectangles."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import tifffile

from napari_pbip import samples
from napari_pbip.config import TissueSettings
from napari_pbip.errors import OutputError, SlideError
from napari_pbip.slides import Slide, TileGrid, TissueMask, find_tissue, open_slide

GLASS = (242, 242, 240)
PINK = (214, 150, 190)


def painted(folder: Path, size: tuple[int, int] = (1600, 1200), **shapes: tuple) -> Slide:
    """A slide at 4 microns per pixel with sensor noise, and ellipses of given box and colour."""
    image = PIL.Image.new("RGB", size, GLASS)
    draw = PIL.ImageDraw.Draw(image)
    for box, colour in shapes.values():
        draw.ellipse(box, fill=colour)
    noise = np.random.default_rng(0).normal(0, 2, (size[1], size[0], 3))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(folder / "painted.png")
    return open_slide(folder / "painted.png", mpp=4)


@pytest.mark.parametrize("measure", ["optical density", "saturation"])
def test_real_slide(sample_slide: Path, sample_pixels: np.ndarray, measure: str) -> None:
    with open_slide(sample_slide) as slide:
        mask = find_tissue(slide, TissueSettings(measure=measure))
        assert mask.mpp == pytest.approx(8, rel=0.01)
        width, height = slide.size_um
        assert mask.array.shape == (round(height / mask.mpp), int(np.ceil(width / mask.mpp)))
        # Outlined by eye on the thumbnail, about two fifths of the region; its left and right thirds are glass.
        assert 0.33 < mask.array.mean() < 0.43
        assert mask.area_mm2 == pytest.approx(mask.array.mean() * width * height / 1e6, rel=0.02)
        assert mask.fraction(1000, 2000, 400, 400) > 0.95
        assert mask.fraction(0, 2000, 400, 400) < 0.02
        # a gap between two layers of the skin, some 150 microns wide
        gap = 1350, 480, 60, 60
        assert slide.read(*gap, slide.require_mpp()).min() > 200
        assert mask.fraction(*gap) == 0


@pytest.mark.parametrize("name", ["TUM", "STR", "MUS", "NORM", "LYM", "MUC", "DEB"])
@pytest.mark.parametrize("measure", ["optical density", "saturation"])
def test_tiles_of_tissue_are_mostly_tissue(name: str, measure: str) -> None:
    """With Otsu's threshold alone, the pale half of each would be glass."""
    settings = TissueSettings(measure=measure, mpp=4, smallest_um=20)
    shares = []
    for path in sorted((samples.tiles() / name).glob("*.png")):
        with open_slide(path, mpp=0.5) as slide:
            try:
                shares.append(find_tissue(slide, settings).array.mean())
            except SlideError:
                shares.append(0)  # one tile of mucus is as clear as glass
    assert np.mean(shares) > 0.7
    assert np.median(shares) > 0.85


def test_pieces_holes_and_borders(tmp_path: Path) -> None:
    shapes = {
        "tissue": ((200, 200, 800, 800), PINK),
        "small hole": ((400, 400, 410, 410), GLASS),  # 40 microns
        "large hole": ((500, 500, 650, 650), GLASS),  # 600 microns
        "dust": ((1200, 200, 1215, 215), (60, 60, 60)),  # 60 microns
        "second piece": ((1100, 700, 1300, 900), PINK),
    }
    with painted(tmp_path, **shapes) as slide:
        mask = find_tissue(slide, TissueSettings())
    at = lambda x, y: bool(mask.array[int(y / mask.scale), int(x / mask.scale)])  # noqa: E731
    assert at(300, 400)
    assert at(1200, 800)
    assert at(405, 405), "a small hole is closed"
    assert not at(575, 575), "a large one stays"
    assert not at(1207, 207), "dust is dropped"
    assert not at(20, 20)
    expected = np.pi * (300**2 + 100**2 - 75**2) * 16e-6
    assert mask.area_mm2 == pytest.approx(expected, rel=0.02)


def test_ink_and_black_border_are_no_tissue(tmp_path: Path) -> None:
    shapes = {
        "tissue": ((200, 200, 800, 800), PINK),
        "blue pen": ((900, 100, 1100, 300), (40, 90, 170)),
        "green pen": ((900, 400, 1100, 600), (40, 140, 80)),
        "dark blue pen": ((100, 900, 300, 1100), (40, 60, 180)),
        "ballpoint": ((400, 900, 600, 1100), (60, 60, 120)),
        "violet marker": ((700, 900, 900, 1100), (40, 35, 85)),
        "thin line": ((50, 20, 1100, 26), (50, 55, 110)),
        "grey border": ((1510, 100, 1590, 1100), (36, 35, 38)),
        "border": ((1200, 100, 1500, 1100), (4, 4, 4)),
    }
    with painted(tmp_path, **shapes) as slide:
        mask = find_tissue(slide, TissueSettings())
    assert mask.area_mm2 == pytest.approx(np.pi * 300**2 * 16e-6, rel=0.03)


def test_dark_nuclei_are_tissue(tmp_path: Path) -> None:
    """The colours mix haematoxylin and eosin of Ruifrok & Johnston at the densities of lymph nodes."""
    haematoxylin, eosin = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])
    for amounts in ((0.3, 0.1), (0.5, 0.1), (0.7, 0.2), (0.9, 0.4)):
        colour = tuple(int(v) for v in 255 * 10 ** -(haematoxylin * amounts[0] + eosin * amounts[1]))
        with painted(tmp_path, tissue=((200, 200, 800, 800), colour)) as slide:
            mask = find_tissue(slide, TissueSettings())
        assert mask.area_mm2 == pytest.approx(np.pi * 300**2 * 16e-6, rel=0.03), colour


def test_all_tissue_is_told(tmp_path: Path) -> None:
    """Glass of 200 is darker than other glass, so all of the slide is taken for tissue, with a warning."""
    grey = ((-400, -400, 2000, 1600), (200, 200, 200))
    with painted(tmp_path, glass=grey, tissue=((200, 200, 800, 800), PINK)) as slide:
        mask = find_tissue(slide, TissueSettings())
        assert mask.array.all()
        assert ["segment.tissue.threshold" in note for note in mask.notes] == [True]
        mask = find_tissue(slide, TissueSettings(threshold=0.12))
        assert mask.area_mm2 == pytest.approx(np.pi * 300**2 * 16e-6, rel=0.03)
        assert not mask.notes


@pytest.mark.parametrize("side", [16, 64, 150, 400])
def test_small_pictures(tmp_path: Path, side: int) -> None:
    """Pieces under 100 microns are dust on a slide, but not in a picture that shows 32 microns of tissue."""
    PIL.Image.new("RGB", (side, side), PINK).save(tmp_path / "small.png")
    with open_slide(tmp_path / "small.png", mpp=0.5) as slide:
        assert find_tissue(slide, TissueSettings()).array.all()


def test_slide_that_would_be_metres_large(huge_slide: Path) -> None:
    with open_slide(huge_slide, mpp=50) as slide, pytest.raises(SlideError, match=r"5e\+03 x 5e\+03 mm.*correct"):
        find_tissue(slide, TissueSettings())


def test_damaged_place_is_not_searched_and_told(sample_slide: Path, tmp_path: Path) -> None:
    content = bytearray(sample_slide.read_bytes())
    with tifffile.TiffFile(sample_slide) as tiff:
        page = tiff.pages[0]
        for index in (85, 86):  # of ten in a row, 240 wide and high: in tissue
            content[page.dataoffsets[index] : page.dataoffsets[index] + 200] = bytes(200)
    (tmp_path / "slide.svs").write_bytes(content)
    with open_slide(sample_slide) as slide, open_slide(tmp_path / "slide.svs") as damaged:
        whole, mask = find_tissue(slide, TissueSettings()), find_tissue(damaged, TissueSettings())
    assert whole.fraction(1220, 1940, 440, 200) > 0.9
    assert mask.fraction(1220, 1940, 440, 200) == 0
    assert mask.fraction(1700, 1920, 400, 240) == pytest.approx(float(whole.fraction(1700, 1920, 400, 240)), abs=0.01)
    assert "x 1200 to 1440, y 1920 to 2160; x 1440 to 1680, y 1920 to 2160" in mask.notes[0]


def test_pale_tissue_on_grey_glass(tmp_path: Path) -> None:
    with painted(tmp_path, pale=((200, 200, 800, 800), (222, 196, 214))) as slide:
        for measure in ("optical density", "saturation"):
            mask = find_tissue(slide, TissueSettings(measure=measure))
            assert mask.area_mm2 == pytest.approx(np.pi * 300**2 * 16e-6, rel=0.03)
        assert find_tissue(slide, TissueSettings(threshold=0.06)).threshold == 0.06


def test_no_tissue(tmp_path: Path) -> None:
    with painted(tmp_path) as slide, pytest.raises(SlideError, match=r"No tissue .*painted\.png.*tissue_mask"):
        find_tissue(slide, TissueSettings())
    for colour in ((255, 255, 255), (0, 0, 0)):
        PIL.Image.new("RGB", (64, 64), colour).save(tmp_path / "plain.png")
        with open_slide(tmp_path / "plain.png", mpp=0.5) as slide, pytest.raises(SlideError, match="No tissue"):
            find_tissue(slide, TissueSettings())


def test_no_microns(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (64, 64), PINK).save(tmp_path / "plain.png")
    with open_slide(tmp_path / "plain.png") as slide, pytest.raises(SlideError, match=r"`mpp=0\.5`"):
        find_tissue(slide, TissueSettings())


def test_slide_coarser_than_asked(tmp_path: Path) -> None:
    with painted(tmp_path, tissue=((200, 200, 800, 800), PINK)) as slide:
        mask = find_tissue(slide, TissueSettings(mpp=1))
    assert mask.mpp == 4
    assert mask.array.shape == (1200, 1600)


def test_mask_written_and_read(sample_slide: Path, tmp_path: Path) -> None:
    with open_slide(sample_slide) as slide:
        mask = find_tissue(slide, TissueSettings())
        mask.write(tmp_path / "tissue.png")
        again = TissueMask.read(tmp_path / "tissue.png", slide)
    np.testing.assert_array_equal(again.array, mask.array)
    assert again.scale == mask.scale
    assert again.mpp == pytest.approx(mask.mpp)
    assert (again.threshold, again.corrected) == (mask.threshold, False)
    mask.write(tmp_path / "new folder" / "tissue.png")
    with pytest.raises(OutputError, match="cannot be written"):
        mask.write(tmp_path / "tissue.png" / "below.png")


def test_mask_of_the_users_own(sample_slide: Path, tmp_path: Path) -> None:
    drawing = PIL.Image.new("RGBA", (555, 742), (0, 0, 0, 255))
    PIL.ImageDraw.Draw(drawing).rectangle((0, 0, 554, 370), fill=(0, 200, 30, 255))
    drawing.save(tmp_path / "drawn.png")
    with open_slide(sample_slide) as slide:
        mask = TissueMask.read(tmp_path / "drawn.png", slide)
        assert mask.array.mean() == pytest.approx(0.5)
        assert mask.threshold is None
        assert mask.fraction(0, 0, 2220, 2967) == pytest.approx(0.5, abs=0.002)
        PIL.Image.new("L", (555, 742)).save(tmp_path / "black.png")
        PIL.Image.new("L", (742, 742), 255).save(tmp_path / "square.png")
        (tmp_path / "text.png").write_text("no image")
        for mode, ground in (("RGBA", (255, 255, 255, 0)), ("LA", (255, 0)), ("I;16", 0), ("F", 0), ("1", 0)):
            clear = PIL.Image.new(mode, (555, 742), ground)
            clear.paste({"RGBA": (9, 9, 9, 255), "LA": (9, 255)}.get(mode, 1), (0, 0, 555, 371))
            clear.save(tmp_path / "clear.tif")
            assert TissueMask.read(tmp_path / "clear.tif", slide).array.mean() == pytest.approx(0.5), mode
        palette = drawing.convert("RGB").quantize(4)
        palette.info["transparency"] = palette.getpixel((0, 0))
        palette.save(tmp_path / "palette.png")
        with pytest.raises(SlideError, match="all black"):  # all that is painted is transparent
            TissueMask.read(tmp_path / "palette.png", slide)
        for name, reason in {
            "black.png": "all black",
            "square.png": "proportions",
            "text.png": "cannot be read",
            "missing.png": "does not exist",
        }.items():
            with pytest.raises(SlideError, match=reason):
                TissueMask.read(tmp_path / name, slide)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "F", "1"])
def test_a_mask_is_what_is_drawn(sample_slide: Path, tmp_path: Path, mode: str) -> None:
    """On a transparent ground of any colour, and with any type of values."""
    drawn = np.zeros((742, 555), bool)
    drawn[:371] = True
    if mode in ("RGBA", "LA"):
        image = PIL.Image.new(mode.removesuffix("A"), (555, 742), "white")
        image.putalpha(PIL.Image.fromarray(drawn.astype(np.uint8) * 255))
    elif mode == "P":  # two colours that are not black, one of them transparent
        image = PIL.Image.frombytes("P", (555, 742), drawn.astype(np.uint8).tobytes())
        image.putpalette([255, 255, 255, 200, 0, 0])
        image.info["transparency"] = 0
    else:
        dtype = {"I;16": np.uint16, "F": np.float32, "1": bool}[mode]
        image = PIL.Image.fromarray(drawn.astype(dtype))
    path = tmp_path / f"mask.{'tif' if mode == 'F' else 'png'}"
    image.save(path)
    with open_slide(sample_slide) as slide:
        np.testing.assert_array_equal(TissueMask.read(path, slide).array, drawn)


def test_a_jpeg_is_no_tissue_mask(sample_slide: Path, tmp_path: Path) -> None:
    """JPEG makes a border around white areas that is not quite black."""
    drawing = PIL.Image.new("L", (555, 742))
    PIL.ImageDraw.Draw(drawing).ellipse((100, 100, 300, 300), fill=255)
    drawing.save(tmp_path / "drawn.jpg", quality=75)
    with open_slide(sample_slide) as slide, pytest.raises(SlideError, match=r"compressed as JPEG.*PNG"):
        TissueMask.read(tmp_path / "drawn.jpg", slide)


def test_fraction_is_exact_and_counts_outside_as_none() -> None:
    array = np.zeros((10, 12), bool)
    array[2:5, 3:7] = True
    mask = TissueMask(array, scale=16.0, mpp=8.0)
    assert mask.fraction(3 * 16, 2 * 16, 4 * 16, 3 * 16) == pytest.approx(1)
    assert mask.fraction(2.5 * 16, 2 * 16, 16, 16) == pytest.approx(0.5)
    assert mask.fraction(0, 0, 12 * 16, 10 * 16) == pytest.approx(12 / 120)
    assert mask.fraction(-16 * 5, -16 * 5, 16 * 12, 16 * 10) == pytest.approx(12 / 120)
    assert mask.fraction(12 * 16, 0, 100, 100) == 0
    full = TissueMask(np.ones((10, 12), bool), 16.0, 8.0)
    assert full.fraction(11 * 16, 0, 32, 16) == pytest.approx(0.5)


def test_fraction_of_some_rectangles_needs_memory_for_these_alone() -> None:
    mask = TissueMask(np.ones((4000, 4000), bool), 16.0, 8.0)
    tracemalloc.start()
    try:
        shares = mask.fraction(np.array([[0, 63_840]]), np.array([[1600], [1700]]), 320, 320)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(shares, [[1, 0.5], [1, 0.5]])
    assert peak < mask.array.nbytes / 4


def test_fraction_of_a_whole_grid(sample_slide: Path) -> None:
    with open_slide(sample_slide) as slide:
        mask = find_tissue(slide, TissueSettings())
        grid = TileGrid.plan(slide.width, slide.height, slide.require_mpp(), 0.5)
    side = grid.tile * grid.scale
    shares = mask.fraction(*grid.corners(), side, side)
    assert shares.shape == (grid.rows, grid.columns)
    for row, column in [(0, 0), (5, 4), (grid.rows - 1, grid.columns - 1)]:
        box = grid.box(row, column)
        assert shares[row, column] == pytest.approx(float(mask.fraction(box.x, box.y, side, side)))


def test_slide_of_ten_thousand_megapixels_within_bounds(huge_slide: Path) -> None:
    with open_slide(huge_slide) as slide:
        assert (slide.width, slide.height) == (100_000, 100_000)
        tracemalloc.start()
        try:
            mask = find_tissue(slide, TissueSettings())
            slide.read(1024, 1024, 224, 224, 0.5)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        # The mask has 6238 x 6238 pixels; what is needed for each is counted in bytes, not in slide pixels.
        assert peak < 1.2e9
        assert mask.fraction(1024, 1024, 2048, 2048) > 0.1
        assert mask.fraction(40_000, 40_000, 4096, 4096) == 0
        assert 0.5 < mask.area_mm2 < 4.2
