"""Pre-training a backbone on tissue that nobody labelled, for small data and small computers.

Masked self-distillation, in the line of BYOL (Grill et al. 2020) and data2vec (Baevski et al. 2022). A crop is shown
with much of it black and its stain changed. The backbone is asked, part by part, for what a slowly following copy of it
sees in the whole crop under another stain: what is the same under all stains and can be told from the surroundings.

What is shown is turned and mirrored too, and the answer is asked for in the same position: tissue has no upright, and a
network that has learned so sees the same in a turned tile.

Blacking out is what PBIP does to the images that it shows to its encoder (Eq. 5), so black means "not known" to
whatever starts from these weights.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from napari_pbip.models.backbones import Backbone, Features

PART = 32
"""Pixels of a part of the crop, the grid on which features are compared."""
_WIDTH = 256
"""Of the predictor, narrower than the features: it cannot copy them."""


class Pretraining(nn.Module):
    """The backbone that learns, its teacher, and the predictor that is thrown away afterwards.

    Parameters
    ----------
    backbone
        The one that learns.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        channels = sum(backbone.channels[1:])
        self.predictor = nn.Sequential(
            nn.Conv2d(channels, _WIDTH, 1), nn.BatchNorm2d(_WIDTH), nn.GELU(), nn.Conv2d(_WIDTH, channels, 1)
        )
        self.teacher = copy.deepcopy(backbone).requires_grad_(False)

    def loss(self, shown: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """Mean square error of what the teacher sees in each part, each of its channels at unit variance.

        What all parts have in common is taken out, so a teacher that sees the same everywhere is no way out.

        Parameters
        ----------
        shown
            What the backbone is shown, before it is turned: stain changed, parts black. RGB in [0, 1], (B, 3, H, H).
        whole
            The same tissue for its teacher, in the same position: stain changed in another way, nothing black.

        Returns
        -------
        torch.Tensor
            A scalar; 1 is what seeing nothing leaves.
        """
        with torch.no_grad():
            seen = parts(self.teacher(whole)).float()
            mean, deviation = seen.mean((0, 2, 3), keepdim=True), seen.std((0, 2, 3), keepdim=True)
            asked = ((seen - mean) / (deviation + 1e-3)).clamp(-5, 5)
        answered = self.predictor(parts(self.backbone(turned(shown)))).float()
        return F.mse_loss(answered, turned(asked))

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the teacher towards the learner: teacher = momentum * teacher + (1 - momentum) * learner."""
        for slow, fast in zip(self.teacher.parameters(), self.backbone.parameters(), strict=True):
            slow.lerp_(fast, 1 - momentum)

    def train(self, mode: bool = True) -> Pretraining:
        """The teacher stays in evaluation mode: it drops nothing."""
        super().train(mode)
        self.teacher.eval()
        return self


def parts(features: Features) -> torch.Tensor:
    """Stages 2 to 4 side by side, each averaged over the parts of the crop, shape (B, C, H / 32, W / 32)."""
    h, w = (-(-side * 8 // PART) for side in features[1].shape[2:])
    # each stage at unit variance: otherwise the one with the largest numbers decides
    even = [F.layer_norm(stage.movedim(1, 3), stage.shape[1:2]).movedim(3, 1) for stage in features[1:]]
    return torch.cat([F.adaptive_avg_pool2d(stage, (h, w)) for stage in even], 1)


def turned(images: torch.Tensor) -> torch.Tensor:
    """Images or maps (B, C, H, H), each eighth of the batch in another of a square's eight positions.

    Which image gets which is no matter of chance: the crops themselves are.
    """
    turns = [eighth.rot90(way, (2, 3)) for way, eighth in enumerate(images.chunk(8))]
    return torch.cat([part.flip(3) if way >= 4 else part for way, part in enumerate(turns)])


def hide(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Images with about ``share`` of their parts black and the rest dimmed, each image in another way."""
    b, _, h, w = images.shape
    kept = torch.rand(b, 1, -(-h // PART), -(-w // PART), generator=generator) >= share
    light = 1 - 0.5 * torch.rand(b, 1, 1, 1, generator=generator)
    mask = F.interpolate(kept * light, scale_factor=PART, mode="nearest")[:, :, :h, :w]
    return images * mask.to(images.device)
