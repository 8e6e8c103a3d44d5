"""Make the constants of the `texture` encoder from the bundled slide and tiles.

    python benchmarks/texture_constants.py

No labels are used. The reference tissue is cut into tiles of 224 pixels at about 0.5 microns per pixel. Each tile is
described again after changes that keep its tissue the same: with other amounts of stain, with a random mask and
brightness, and as two halves; :mod:`napari_pbip.engine.training.discriminant` fits the linear map.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from scipy.ndimage import gaussian_filter

from napari_pbip import samples
from napari_pbip.engine.loading import change_stain
from napari_pbip.engine.training.discriminant import discriminant
from napari_pbip.models.encoders.texture import CONSTANTS, statistics
from napari_pbip.slides import open_slide

DIMENSION = 64
SIDE = 224
VIEWS = 4
WHITE, MOSTLY = 220, 0.7


def reference() -> torch.Tensor:
    """Return tiles of the reference tissue, RGB in [0, 1], shape (T, 3, 224, 224)."""
    tiles = [np.asarray(Image.open(p).convert("RGB")) for p in sorted(samples.tiles().glob("*/*.png"))]
    with open_slide(samples.slide()) as slide:
        pixels = slide.read_level(0, 0, 0, slide.width, slide.height)
    for y in range(0, pixels.shape[0] - SIDE + 1, SIDE):
        for x in range(0, pixels.shape[1] - SIDE + 1, SIDE):
            tile = pixels[y : y + SIDE, x : x + SIDE]
            if (tile.min(2) >= WHITE).mean() < MOSTLY:
                tiles.append(tile)
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).float() / 255


def masks(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Return smooth masks, 0 over a fifth to seven tenths of the image, else 0.06 to 1, shape (count, 1, 224, 224)."""
    drawn = []
    for _ in range(count):
        shape, level = (gaussian_filter(rng.normal(size=(SIDE, SIDE)), 20) for _ in range(2))
        level = (level - level.min()) / np.ptp(level)
        lowest = rng.uniform(0.2, 1)
        kept = shape > np.quantile(shape, rng.uniform(0.2, 0.7))
        drawn.append(kept * (lowest + (1 - lowest) * level) * rng.uniform(0.3, 1))
    return torch.from_numpy(np.stack(drawn)).float().unsqueeze(1)


def measure(images: torch.Tensor) -> np.ndarray:
    """Return statistics in float64, shape (T, F)."""
    with torch.no_grad():
        return torch.cat([statistics(part) for part in images.split(16)]).double().numpy()


def fit() -> dict[str, torch.Tensor]:
    """Return the constants ``centre`` (F,) and ``projection`` (64, F)."""
    rng = np.random.default_rng(0)
    images = reference()
    whole = measure(images)
    stain = [measure(torch.cat([change_stain(i[None], 0.2, rng) for i in images])) - whole for _ in range(VIEWS)]
    mask = [measure(images * masks(len(images), rng)) - whole for _ in range(VIEWS)]
    halves = [
        (measure(images[..., : SIDE // 2, :]) - measure(images[..., SIDE // 2 :, :])) / np.sqrt(2),
        (measure(images[..., : SIDE // 2]) - measure(images[..., SIDE // 2 :])) / np.sqrt(2),
    ]
    centre, projection = discriminant(whole, (stain, mask, halves), DIMENSION)
    return {"centre": torch.from_numpy(centre).float(), "projection": torch.from_numpy(projection).float()}


if __name__ == "__main__":
    constants = fit()
    CONSTANTS.write_bytes(save(constants))
    print(Path(CONSTANTS).name, {name: tuple(value.shape) for name, value in constants.items()})
