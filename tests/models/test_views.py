from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from napari_pbip import samples
from napari_pbip.models.backbones import Backbone
from napari_pbip.models.methods.cam import Cam
from napari_pbip.models.views import average_over_views


@pytest.fixture
def images() -> torch.Tensor:
    paths = sorted((samples.tiles() / "TUM").iterdir())[:2]
    tiles = np.stack([np.asarray(Image.open(path).convert("RGB"))[:64, :64] for path in paths])
    return torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255


def cam_maps(backbone: Backbone) -> Cam:
    torch.manual_seed(1)
    return Cam(backbone, 3, stage_weights=(0, 0.1, 1, 1), fusion_weights=(0, 0.3, 0.3, 0.4)).eval()


@torch.no_grad()
def test_a_turned_image_gives_the_turned_mean(backbone: Backbone, images: torch.Tensor) -> None:
    """A network gives other maps for a rotated tile, but their mean over all rotations is the same."""
    method = cam_maps(backbone)

    def look(some: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = method.scores(some)
        return seen.maps, seen.presence

    maps, presence = average_over_views(look, images)
    turned_maps, turned_presence = average_over_views(look, torch.rot90(images, 1, (2, 3)).flip(2))
    torch.testing.assert_close(turned_maps, torch.rot90(maps, 1, (2, 3)).flip(2), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(turned_presence, presence, atol=1e-5, rtol=1e-4)
    single, once = look(images)
    assert (single - maps).abs().max() > 1e-3
    assert maps.shape == single.shape
    assert presence.shape == once.shape


def test_an_image_that_is_not_square_keeps_its_shape(images: torch.Tensor) -> None:
    seen: list[torch.Size] = []

    def look(some: torch.Tensor) -> tuple[torch.Tensor]:
        seen.append(some.shape)
        return (some,)

    (mean,) = average_over_views(look, images[..., :40])
    torch.testing.assert_close(mean, images[..., :40])  # what is turned back lies where it was
    assert len(seen) == 4
    assert set(seen) == {images[..., :40].shape}
