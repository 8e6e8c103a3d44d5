from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_pbip import samples
from napari_pbip.bank import ImageBank, load_single_tiles
from napari_pbip.bank.features import white_fraction
from napari_pbip.config import BankSettings, DataSettings
from napari_pbip.engine.banks.build_bank import build_bank
from napari_pbip.engine.banks.preview import Coloured, coarse_to_fine, preview
from napari_pbip.engine.encoding import bank_encoder, encode
from napari_pbip.errors import BankError, SlideError
from napari_pbip.events import Finished, Started, Warned
from napari_pbip.slides import open_slide

DATA = DataSettings(folder=samples.tiles(), mpp=0.5)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bank") / "bank"
    data = DataSettings(folder=samples.tiles(), white_fraction=1)
    list(build_bank(load_single_tiles(samples.tiles()), out, BankSettings(k=1), data))
    return out


def test_each_cell_has_the_class_of_the_nearest_prototype(bank: Path) -> None:
    events = list(preview(samples.slide(), bank, (500, 700, 900, 1000), DATA))
    started = next(e for e in events if isinstance(e, Started))
    maps = [e for e in events if isinstance(e, Coloured)]
    grid, labels = maps[-1].grid, maps[-1].labels
    assert grid is not None
    assert labels is not None
    assert (grid.rows, grid.columns) == labels.shape == (5, 5)
    assert started.total == maps[-1].done == 25
    assert grid.side == pytest.approx(224 * 0.5 / 0.499, rel=1e-3)
    assert grid.x <= 500 < grid.x + grid.side
    assert grid.x + grid.columns * grid.side >= 1400
    known = ImageBank.read(bank)
    encoder = bank_encoder(known)
    with open_slide(samples.slide()) as slide:
        for row, column in ((0, 0), (3, 2), (4, 4), (2, 1)):
            tile = slide.read(grid.x + column * grid.side, grid.y + row * grid.side, 224, 224, 0.5)
            if white_fraction(tile) > DATA.white_fraction:
                assert labels[row, column] == 0
            else:
                nearest = known.similarity(encode(encoder, [tile])).argmax()
                assert labels[row, column] == known.subclass_class[nearest] + 1
    assert np.unique(labels).size > 2
    end = events[-1]
    assert isinstance(end, Finished)
    assert sum(end.summary["shares"].values()) == pytest.approx(1)
    assert end.summary["tissue"] == np.count_nonzero(labels)


def test_coarse_first_then_finer_and_the_same_in_the_end(bank: Path) -> None:
    whole = (0, 0, 2220, 2967)
    maps = [e.labels for e in preview(samples.slide(), bank, whole, DATA) if isinstance(e, Coloured)]
    assert len(maps) > 4
    assert maps[-1].shape == (14, 10)
    assert all(one.shape == (14, 10) for one in maps)
    part = [e for e in preview(samples.slide(), bank, (900, 900, 300, 300), DATA) if isinstance(e, Coloured)][-1]
    row, column = (round(v / part.grid.side) for v in (part.grid.y, part.grid.x))
    rows, columns = part.labels.shape
    np.testing.assert_array_equal(part.labels, maps[-1][row : row + rows, column : column + columns])


def test_every_cell_is_looked_at_once(bank: Path) -> None:
    grid = next(e.grid for e in preview(samples.slide(), bank, (0, 0, 2220, 2967), DATA) if isinstance(e, Coloured))
    cells = list(coarse_to_fine(grid))
    assert sorted((r, c) for r, c, _ in cells) == [(r, c) for r in range(grid.rows) for c in range(grid.columns)]
    painted = np.full((grid.rows, grid.columns, 2), -1)
    for row, column, side in cells:
        painted[row : row + side, column : column + side] = row, column
    assert [tuple(painted[r, c]) for r, c, _ in cells] == [(r, c) for r, c, _ in cells]


def test_pixel_for_pixel_where_nobody_knows_the_scale(bank: Path) -> None:
    events = list(preview(samples.slide(), bank, (0, 0, 500, 500), DataSettings(folder=samples.tiles())))
    assert "pixel for pixel" in next(e.message for e in events if isinstance(e, Warned))
    assert next(e.grid for e in events if isinstance(e, Coloured)).side == 224


def test_a_cancelled_preview_closes_the_slide(bank: Path) -> None:
    running = preview(samples.slide(), bank, (0, 0, 2220, 2967), DATA)
    for event in running:
        if isinstance(event, Coloured):
            break
    running.close()
    with pytest.raises(StopIteration):
        next(running)


def test_what_cannot_be_previewed_is_one_sentence(bank: Path, tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="No part of CMU-1-Small-Region"):
        list(preview(samples.slide(), bank, (9000, 0, 500, 500), DATA))
    with pytest.raises(BankError, match="is no image bank"):
        list(preview(samples.slide(), tmp_path, (0, 0, 500, 500), DATA))
    with pytest.raises(SlideError, match="no slide at"):
        list(preview(tmp_path / "gone.svs", bank, (0, 0, 500, 500), DATA))
