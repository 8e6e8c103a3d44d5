"""Pre-training a backbone on tissue that nobody labelled, for small data and small computers.

Two things are asked of the backbone for every part of a crop, of which much is blacked out and whose stain was changed:

* its *texture*: the statistics that the encoder `texture` measures in the crop as it was. They need no teacher that
  would have to learn first, so there is something to learn from the first step on, and they keep features from
  collapsing.
* *agreement* with what a slowly following copy of the backbone sees in the whole crop under another stain: masked
  self-distillation, in the line of BYOL (Grill et al. 2020) and data2vec (Baevski et al. 2022). It asks for what is
  the same under all stains and can be told from the surroundings.

Blacking out is what PBIP does to the images that it shows to its encoder (Eq. 5), so black means "not known" to
whatever starts from these weights.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from napari_pbip.models.backbones import Backbone, Features
from napari_pbip.models.encoders.texture import statistics
from napari_pbip.models.methods.base import LossTerms

PART = 32
"""Pixels of a part of the crop, the grid on which features are compared."""
_WINDOW = 64
"""Pixels of the square whose texture a part is asked for; smaller ones have no coarse scales."""
_WIDTH = 256
"""Of the predictor, narrower than the features: it cannot copy them."""


@dataclass(frozen=True, slots=True)
class Views:
    """A batch of crops as the networks see them, all with the tissue in the same places."""

    plain: torch.Tensor
    """As they were, RGB in [0, 1], shape (B, 3, H, W)."""
    shown: torch.Tensor
    """To the network that learns: stain changed, parts black."""
    whole: torch.Tensor
    """To its teacher: stain changed in another way, nothing black."""

    def to(self, device: torch.device) -> Views:
        """The same on a device."""
        return Views(self.plain.to(device), self.shown.to(device), self.whole.to(device))


class Pretraining(nn.Module):
    """The backbone that learns, its teacher, and the heads that are thrown away afterwards.

    Parameters
    ----------
    backbone
        The one that learns.
    texture, agreement
        Weights of the two losses.
    """

    centre: torch.Tensor
    spread: torch.Tensor
    batches: torch.Tensor

    def __init__(self, backbone: Backbone, *, texture: float, agreement: float) -> None:
        super().__init__()
        self.backbone = backbone
        channels = sum(backbone.channels[1:])
        dimension = statistics(torch.zeros(1, 3, _WINDOW, _WINDOW)).shape[1]
        self.to_texture = nn.Conv2d(channels, dimension, 1)
        self.predictor = nn.Sequential(
            nn.Conv2d(channels, _WIDTH, 1), nn.BatchNorm2d(_WIDTH), nn.GELU(), nn.Conv2d(_WIDTH, channels, 1)
        )
        self.teacher = copy.deepcopy(backbone).requires_grad_(False)
        # Running mean and deviation of the statistics: each counts the same, whatever its size.
        self.register_buffer("centre", torch.zeros(dimension))
        self.register_buffer("spread", torch.ones(dimension))
        self.register_buffer("batches", torch.zeros(()))
        self.weights = {"texture": texture, "agreement": agreement}

    def loss(self, views: Views) -> LossTerms:
        """Weighted sum of ``texture`` and ``agreement``, those that have a weight."""
        features = parts(self.backbone(views.shown))
        found = {}
        if self.weights["texture"]:
            found["texture"] = self._texture(features, views.plain)
        if self.weights["agreement"]:
            found["agreement"] = self._agreement(features, views.whole)
        return LossTerms.weighted({name: (self.weights[name], loss) for name, loss in found.items()})

    def _texture(self, features: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
        """Mean square error of the standardised statistics of the window around each part."""
        asked = self._standardised(_windows(plain))
        # a window reaches over two parts each way: features of the four are averaged
        given = self.to_texture(F.avg_pool2d(features, _WINDOW // PART, stride=1))
        return F.mse_loss(given.float(), asked.view(len(plain), *given.shape[2:], -1).permute(0, 3, 1, 2))

    @torch.no_grad()
    def _standardised(self, windows: torch.Tensor) -> torch.Tensor:
        values = torch.cat([statistics(some) for some in torch.split(windows, 64)])
        if self.training:
            self.batches += 1
            rate = max(1 / float(self.batches), 0.01)
            self.centre.lerp_(values.mean(0), rate)
            self.spread.lerp_(values.std(0), rate)
        return ((values - self.centre) / (self.spread + 1e-3)).clamp(-5, 5)

    def _agreement(self, features: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """Mean square error of what the teacher sees in each part, each of its channels at unit variance.

        What all parts have in common is taken out, so a teacher that sees the same everywhere is no way out.
        """
        with torch.no_grad():
            seen = parts(self.teacher(whole)).float()
            mean, deviation = seen.mean((0, 2, 3), keepdim=True), seen.std((0, 2, 3), keepdim=True)
            asked = ((seen - mean) / (deviation + 1e-3)).clamp(-5, 5)
        return F.mse_loss(self.predictor(features).float(), asked)

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


def hide(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Images with about ``share`` of their parts black and the rest dimmed, each image in another way."""
    b, _, h, w = images.shape
    kept = torch.rand(b, 1, -(-h // PART), -(-w // PART), generator=generator) >= share
    light = 1 - 0.5 * torch.rand(b, 1, 1, 1, generator=generator)
    mask = F.interpolate(kept * light, scale_factor=PART, mode="nearest")[:, :, :h, :w]
    return images * mask.to(images.device)


def _windows(images: torch.Tensor) -> torch.Tensor:
    """Squares of 64 pixels at every 32, shape (B * rows * columns, 3, 64, 64), row by row within an image."""
    cut = images.unfold(2, _WINDOW, PART).unfold(3, _WINDOW, PART)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
