"""The wide ResNet-38 of the literature on weak supervision, which is dilated so that it ends at stride 8.

Wu, Shen and van den Hengel 2019, "Wider or Deeper: Revisiting the ResNet Model for Visual Recognition", model A1, with
the dilations of Ahn & Kwak 2018 (AffinityNet) and later work. No library contains it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from napari_pbip.models.backbones.catalogue import BackboneSpec

_BRANCHES = ("2a", "2b1", "2b2")


class ResidualUnit(nn.Module):
    """A pre-activation residual unit of two 3x3 convolutions, or of 1x1, 3x3 and 1x1.

    Parameters
    ----------
    widths
        Channels before, between and after its convolutions.
    stride
        Stride of the first convolution.
    dilations
        Dilation of each convolution.
    dropout
        Dropout rate before each convolution except the first.
    """

    def __init__(self, widths: Sequence[int], dilations: Sequence[int], stride: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        kernels = (3, 3) if len(widths) == 3 else (1, 3, 1)
        steps = [stride] + [1] * (len(kernels) - 1)
        self.branches = _BRANCHES[: len(kernels)]
        for branch, (before, after), kernel, step, dilation in zip(
            self.branches, pairwise(widths), kernels, steps, dilations, strict=True
        ):
            convolution = nn.Conv2d(
                before, after, kernel, step, padding=dilation * (kernel // 2), dilation=dilation, bias=False
            )
            self.add_module(f"bn_branch{branch}", nn.BatchNorm2d(before))
            self.add_module(f"conv_branch{branch}", convolution)
        same = widths[0] == widths[-1] and stride == 1
        self.conv_branch1 = None if same else nn.Conv2d(widths[0], widths[-1], 1, stride, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return maps of the last width of maps (B, C, h, w)."""
        shortcut = x
        for branch in self.branches:
            x = F.relu(self.get_submodule(f"bn_branch{branch}")(x))
            if branch != "2a":
                x = self.dropout(x)
            elif self.conv_branch1 is not None:
                shortcut = self.conv_branch1(x)
            x = self.get_submodule(f"conv_branch{branch}")(x)
        return shortcut + x


def stages(spec: BackboneSpec) -> nn.ModuleList:
    """Return the four stages: B1 to B3, B4, B5, and B6 with B7.

    Widths follow from the channels of the stages; half of the blocks of the first stage are in B2, half in B3.
    """
    c1, c2, c3, c4 = spec.channels
    half = spec.depths[0] // 2
    first = OrderedDict[str, nn.Module](conv1a=nn.Conv2d(3, c1 // 4, 3, padding=1, bias=False))
    first |= _units("b2", half, c1 // 4, c1 // 2, c1 // 2, stride=2)
    first |= _units("b3", half, c1 // 2, c1, c1, stride=2)
    last = OrderedDict[str, nn.Module](
        b6=ResidualUnit((c3, c4 // 8, c4 // 4, c4 // 2), (1, 4, 1), dropout=0.3),
        b7=ResidualUnit((c4 // 2, c4 // 4, c4 // 2, c4), (1, 4, 1), dropout=0.5),
        bn7=nn.BatchNorm2d(c4),
        relu7=nn.ReLU(),
    )
    network = nn.ModuleList(
        nn.Sequential(units)
        for units in (
            first,
            _units("b4", spec.depths[1], c1, c2, c2, stride=2),
            _units("b5", spec.depths[2], c2, c3 // 2, c3, dilation=2),
            last,
        )
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _units(
    name: str, count: int, before: int, between: int, after: int, *, stride: int = 1, dilation: int = 1
) -> OrderedDict[str, nn.Module]:
    """Return the units of one block of the paper; its first convolution changes the stride and is not dilated."""
    units = OrderedDict[str, nn.Module]()
    units[name] = ResidualUnit((before, between, after), (1, dilation), stride)
    for number in range(1, count):
        units[f"{name}_{number}"] = ResidualUnit((after, between, after), (dilation, dilation))
    return units


_STAGE_OF = {"conv1a": 0, "b2": 0, "b3": 0, "b4": 1, "b5": 2, "b6": 3, "b7": 3, "bn7": 3}
_PUBLISHED = re.compile(r"(conv1a|bn7|b[2-7])(?:_\d+)?\..+")


def to_stages(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename weights with the published names; tensors of no stage (the classifier) are left out."""
    return {
        f"{_STAGE_OF[match[1]]}.{name}": tensor
        for name, tensor in weights.items()
        if (match := _PUBLISHED.fullmatch(name))
    }
