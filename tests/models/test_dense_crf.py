"""The random field, compared with sums over all pairs of pixels, on real tissue."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from napari_pbip import samples
from napari_pbip.models.dense_crf import mean_field, reach, refine_cells, refine_image, unary

SIDE = 56


def tissue(side: int, corner: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two real tissues side by side, RGB (3, S, S), and the tissue of each pixel (S, S)."""
    tumour, stroma = (
        np.asarray(Image.open(sorted((samples.tiles() / name).iterdir())[0]).convert("RGB")) for name in ("TUM", "STR")
    )
    rows, columns = np.indices((side, side))
    truth = columns + 4 * np.sin(rows / 6) > side / 2
    cut = np.s_[corner : corner + side, corner : corner + side]
    image = np.where(truth[..., None], stroma[cut], tumour[cut])
    return torch.from_numpy(image).permute(2, 0, 1) / 255, torch.from_numpy(truth).long()


def network_maps(truth: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Return maps like those of a network of stride 8: coarse, blurred and sometimes wrong, (1, 2, S, S)."""
    coarse = F.adaptive_avg_pool2d(F.one_hot(truth, 2).permute(2, 0, 1).float(), truth.shape[0] // 8)
    noise = torch.rand(coarse.shape, generator=torch.Generator().manual_seed(seed))
    return F.interpolate((0.4 * coarse + 0.6 * noise)[None], truth.shape, mode="bilinear")


def all_pairs(
    image: torch.Tensor, maps: torch.Tensor, cell: int = 1, known: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the same field, computed with all pairs of pixels: sigmas 15 and 10 pixels, 20 grey values; 30 and 50."""
    height, width = maps.shape[-2:]
    place = torch.cartesian_prod(torch.arange(height), torch.arange(width)).float() * cell
    distance = torch.cdist(place, place).square()
    colour = torch.cdist(image.flatten(1).T, image.flatten(1).T).square() * 255**2
    there = torch.ones(height * width) if known is None else known.flatten()
    kernels = []
    for weight, exponent in ((30, distance / 15**2), (50, distance / 10**2 + colour / 20**2)):
        matrix = torch.exp(-exponent / 2) * there.outer(there)
        norm = matrix.sum(1).clamp_min(1e-20).rsqrt()
        kernels.append(weight * norm[:, None] * matrix * norm)
    background = (1 - maps.amax(1, keepdim=True)) ** 10
    start = torch.cat([maps, background], 1).softmax(1).log().flatten(2)[0]
    q = start.softmax(0)
    for _ in range(5):
        q = (start + sum(q @ kernel for kernel in kernels)).softmax(0)
    return q.reshape(1, -1, height, width)


def test_an_image_comes_out_as_the_sum_over_all_pairs() -> None:
    image, truth = tissue(SIDE)
    maps = network_maps(truth)
    found, expected = refine_image(image, maps), all_pairs(image, maps)
    assert (found - expected).abs().mean() < 5e-4
    assert (found.argmax(1) != expected.argmax(1)).float().mean() < 2e-3
    # so that the comparison means something: the field changes many labels, and for the better
    before, after = maps.argmax(1)[0], found[:, :2].argmax(1)[0]
    assert (before != after).float().mean() > 0.05
    assert (after == truth).float().mean() > (before == truth).float().mean() + 0.03


def test_cells_come_out_as_the_sum_over_all_pairs_of_known_cells() -> None:
    image, truth = tissue(SIDE)
    maps = network_maps(truth)
    known = torch.ones(SIDE, SIDE, dtype=torch.bool)
    known[:16, :24] = False
    found, expected = refine_cells(image, maps, known, 4), all_pairs(image, maps, 4, known.float())
    assert (found - expected)[..., known].abs().mean() < 2e-3
    assert (found.argmax(1) != expected.argmax(1))[..., known].float().mean() < 3e-3


def test_what_is_not_known_counts_nowhere() -> None:
    image, truth = tissue(SIDE)
    known = torch.ones(SIDE, SIDE, dtype=torch.bool)
    known[24:32, 8:48] = False
    maps, other = network_maps(truth), network_maps(truth)
    other[..., ~known] = 1 - other[..., ~known]
    changed = image.clone()
    changed[:, ~known] = 0.2
    first, second = refine_cells(image, maps, known, 8), refine_cells(changed, other, known, 8)
    torch.testing.assert_close(first[..., known], second[..., known])


def test_a_part_with_its_surroundings_comes_out_as_the_whole() -> None:
    image, truth = tissue(160, corner=30)
    maps = network_maps(truth)
    known = torch.ones(160, 160, dtype=torch.bool)
    whole = refine_cells(image, maps, known, 8)
    margin = reach(8)
    part = np.s_[..., 0 : 90 + margin, 70 - margin : 160]
    own = refine_cells(image[part], maps[part], known[part], 8)
    torch.testing.assert_close(own[..., :90, margin:], whole[..., :90, 70:], atol=1e-4, rtol=0)
    short = np.s_[..., 0:90, 70:160]  # without the surroundings the border differs: the margin is needed
    assert (refine_cells(image[short], maps[short], known[short], 8) - whole[short]).abs().max() > 1e-2


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (5, 7)])
def test_small_grids_are_no_special_case(shape: tuple[int, int]) -> None:
    rng = torch.Generator().manual_seed(1)
    image, maps = torch.rand(3, *shape, generator=rng), torch.rand(1, 2, *shape, generator=rng)
    found = refine_cells(image, maps, torch.ones(shape, dtype=torch.bool), 1)
    torch.testing.assert_close(found, all_pairs(image, maps), atol=2e-3, rtol=0)


def test_several_sets_of_maps_of_one_image_are_independent() -> None:
    image, truth = tissue(40)
    maps = torch.cat([network_maps(truth), network_maps(truth, 1)])
    both = refine_image(image, maps)
    torch.testing.assert_close(both[1:], refine_image(image, maps[1:]), atol=1e-5, rtol=0)


def test_without_connections_the_start_stays() -> None:
    maps = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean_field(unary(maps), [], torch.ones(4, 5)), unary(maps).exp())
    assert unary(torch.zeros(1, 3, 1, 1)).argmax(1).item() == 3  # nothing seen: background
