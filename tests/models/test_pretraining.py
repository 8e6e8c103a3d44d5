"""Pre-training: its task, and that a backbone learns it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from napari_pbip import samples
from napari_pbip.errors import WeightsUnavailable
from napari_pbip.models import backbones, encoders
from napari_pbip.models.backbones import Backbone, BackboneSpec
from napari_pbip.models.encoders.stage_statistics import describe
from napari_pbip.models.encoders.texture import statistics
from napari_pbip.models.pretraining import Pretraining, dihedral, mask_patches, patch_features

SMALL = BackboneSpec("small", channels=(16, 32, 40, 64), depths=(1, 1, 1, 1))


@pytest.fixture
def network() -> Pretraining:
    torch.manual_seed(0)
    return Pretraining(Backbone(SMALL)).train()


@pytest.fixture(scope="module")
def tissue() -> torch.Tensor:
    """Return sixteen real tiles of 128 pixels, RGB in [0, 1]."""
    paths: list[Path] = sorted(samples.tiles().glob("*/*.png"))[::2][:16]
    tiles = [np.asarray(Image.open(path).convert("RGB"))[:128, :128] for path in paths]
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).float() / 255


def test_the_teacher_takes_no_gradient_and_averages_the_student(network, tissue):
    network.loss(tissue, tissue).backward()
    assert all(p.grad is None for p in network.teacher.parameters())
    assert all(p.grad is not None for p in network.predictor.parameters())
    with torch.no_grad():
        for parameter in network.backbone.parameters():
            parameter.add_(1)
    before = [p.clone() for p in network.teacher.parameters()]
    network.update_ema(0.75)
    for slow, was in zip(network.teacher.parameters(), before, strict=True):
        torch.testing.assert_close(slow, was + 0.25)
    assert not network.teacher.training
    assert network.backbone.training


def test_hiding_blacks_out_whole_parts_and_dims_the_rest():
    images = torch.ones(64, 3, 128, 96)
    hidden = mask_patches(images, 0.4, torch.Generator().manual_seed(0))
    cells = hidden.unfold(2, 32, 32).unfold(3, 32, 32).flatten(4)
    assert torch.equal(cells.amax(4), cells.amin(4))
    assert 0.35 < float((cells[:, 0, :, :, 0] == 0).float().mean()) < 0.45
    assert 0.5 <= hidden[hidden > 0].min() < 0.6 < 0.9 < hidden.max() <= 1


def test_it_learns_what_it_is_asked_and_not_to_see_the_same_everywhere(network, tissue):
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=2e-3)
    losses = []
    for _ in range(40):
        loss = network.loss(mask_patches(tissue, 0.4, generator), tissue)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        network.update_ema(0.9)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    with torch.no_grad():
        network.eval()
        new = tissue.flip(3).roll(17, 3)
        assert network.loss(new, new) < 0.9  # 1 is what seeing nothing leaves
        seen = patch_features(network.backbone(tissue))
        assert seen.std((0, 2, 3)).median() > 0.1


def test_a_batch_is_shown_in_all_positions_of_a_square_and_maps_follow_their_images():
    square = torch.arange(16.0).reshape(1, 1, 4, 4)
    positions = dihedral(square.repeat(8, 1, 1, 1))
    assert len({tuple(p.flatten().tolist()) for p in positions}) == 8
    images = torch.rand(16, 3, 64, 64)
    halved = torch.nn.functional.avg_pool2d
    torch.testing.assert_close(halved(dihedral(images), 32), dihedral(halved(images, 32)))


def test_a_turned_tile_is_asked_for_what_it_shows_where_it_shows_it(network, tissue):
    class Colours(torch.nn.Module):
        """A network whose features are the same in every orientation, so that there is nothing left to learn."""

        def forward(self, images):
            return [torch.nn.functional.avg_pool2d(images, stride) for stride in (4, 8, 16, 16)]

    class Known(torch.nn.Module):
        def forward(self, seen):
            mean, deviation = seen.mean((0, 2, 3), keepdim=True), seen.std((0, 2, 3), keepdim=True)
            return ((seen - mean) / (deviation + 1e-3)).clamp(-5, 5)

    network.backbone, network.teacher, network.predictor = Colours(), Colours(), Known()
    assert float(network.loss(tissue, tissue)) < 1e-6
    assert float(network.loss(tissue.rot90(1, (2, 3)), tissue)) > 0.1


def test_a_description_counts_only_what_is_not_black(tissue):
    torch.manual_seed(0)
    backbone = Backbone(SMALL).eval()
    with torch.no_grad():
        image = tissue[:1].clone()
        image[..., 64:] = 0
        features = backbone(image)
        stage = torch.nn.functional.layer_norm(features[2].movedim(1, 3), features[2].shape[1:2])
        left = stage[:, :, :4].flatten(1, 2).mean(1)
        c = SMALL.channels
        found = describe(backbone, image)[0][:, 2 * c[1] : 2 * c[1] + c[2]]
    assert torch.nn.functional.cosine_similarity(found, left) > 0.99
    network, texture = describe(backbone, tissue)
    assert network.shape == (16, 2 * (c[1] + c[2]))
    torch.testing.assert_close(texture, statistics(tissue))


def test_an_encoder_of_an_earlier_version_says_how_to_make_it_anew(tmp_path: Path):
    """The linear map of that version had fewer statistics."""
    state = backbones.load("mit-b0").state_dict()
    tensors = {f"backbone.{name}": tensor.contiguous() for name, tensor in state.items()}
    tensors |= {"centre": torch.zeros(700), "projection": torch.zeros(128, 700)}
    save_file(tensors, tmp_path / "model.safetensors", {"backbone": "mit-b0"})
    with pytest.raises(WeightsUnavailable, match="with `resume=True`, which writes it again"):
        encoders.load("pretrained", tmp_path)
