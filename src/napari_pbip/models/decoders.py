"""Decoders of segmentation networks, which compute logits of each class and cell from the four maps of a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import ASPP
from torchvision.ops import Conv2dNormActivation


class DeepLabV3Plus(nn.Module):
    """Dilated convolutions and a pooled one on the last stage (ASPP), joined with the second stage.

    Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", in a light
    form: half of the channels, dilations for tiles of 7 to 14 cells, and joined at stride 8, the grid of slides.

    Parameters
    ----------
    channels
        Channels of the four stages.
    classes
        Number of classes N.
    """

    DILATIONS = (2, 4, 6)
    WIDTH, FINE = 128, 48

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.aspp = ASPP(channels[3], self.DILATIONS, self.WIDTH)
        self.fine = Conv2dNormActivation(channels[1], self.FINE, 1)
        self.join = Conv2dNormActivation(self.WIDTH + self.FINE, self.WIDTH)
        self.classify = nn.Conv2d(self.WIDTH, classes, 1)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits (B, N, h_2, w_2) of feature maps (B, C_i, h_i, w_i)."""
        fine = self.fine(features[1])
        coarse = F.interpolate(self.aspp(features[3]), fine.shape[-2:], mode="bilinear")
        logits: torch.Tensor = self.classify(self.join(torch.cat([coarse, fine], 1)))
        return logits


class DeepLabV2(nn.Module):
    """The sum of four dilated convolutions on the last stage.

    Chen et al. 2017, "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully
    Connected CRFs" (ASPP-L). The published network has a ResNet-101 that ends at stride 8.

    Parameters
    ----------
    channels
        Channels of the four stages.
    classes
        Number of classes N.
    """

    DILATIONS = (6, 12, 18, 24)

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        branches = [nn.Conv2d(channels[3], classes, 3, padding=rate, dilation=rate) for rate in self.DILATIONS]
        for branch in branches:
            nn.init.normal_(branch.weight, std=0.01)  # as published
        self.branches = nn.ModuleList(branches)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits (B, N, h_4, w_4) of feature maps (B, C_i, h_i, w_i)."""
        return torch.stack([branch(features[3]) for branch in self.branches]).sum(0)
