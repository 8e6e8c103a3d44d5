"""The catalogue of backbones, one row each. Factories are given by name, so that importing it does not load torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

Triple = tuple[float, float, float]
Four = tuple[int, int, int, int]

SMALLEST = 32
"""Smallest side in pixels of an image that all backbones can compute: one cell of their coarsest stage."""

# Statistics of RGB in [0, 1].
PBIP_MEAN, PBIP_STD = (0.66791496, 0.47791372, 0.70623304), (0.1736589, 0.22564577, 0.19820057)
"""Mean and deviation of the tiles that PBIP was trained with, from its released code."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """The facts about a backbone, a row of the catalogue. The defaults are those of PBIP's Mix Transformers."""

    name: str
    """Name in settings and on the command line."""
    channels: Four
    """Channels C_i of each stage."""
    depths: Four
    """Number of blocks of each stage."""
    heads: Four = (1, 2, 5, 8)
    """Number of attention heads of each stage, for networks with attention."""
    strides: Four = (4, 8, 16, 16)
    """Stride of each stage's map in pixels of the image. The second is always 8, the grid of slides."""
    factory: str = "mit:stages"
    """``module:function`` of this package that builds the four stages from the row; ``to_stages`` of the same module
    renames published weights."""
    mean: Triple = PBIP_MEAN
    """Mean of the training images, which is subtracted from RGB in [0, 1]."""
    std: Triple = PBIP_STD
    """Standard deviation of the training images, by which RGB is then divided."""
    published: tuple[Triple, Triple] = (IMAGENET_MEAN, IMAGENET_STD)
    """Mean and deviation with which the published weights were trained, for use without training."""
    hub: str = ""
    """Repository or page with pretrained weights."""
    layouts: str = ""
    """Layouts of weights, by the names of their tensors, that can be read in addition to that of our own runs."""
    licence: str = ""
    """Licence of the pretrained weights."""
    paper: str = ""
    """The publication that describes it."""


def _mit(size: int, channels: Four, depths: Four) -> BackboneSpec:
    return BackboneSpec(
        f"mit-b{size}",
        channels,
        depths,
        hub=f"nvidia/mit-b{size}",
        layouts="transformers (hub), SegFormer's authors, PBIP's models",
        licence="NVIDIA Source Code License for SegFormer (non-commercial)",
        paper="Xie et al. 2021, SegFormer (arXiv 2105.15203)",
    )


def _resnet(name: str, channels: Four, depths: Four, block: str, strides: Four = (4, 8, 16, 16)) -> BackboneSpec:
    return BackboneSpec(
        name,
        channels,
        depths,
        strides=strides,
        factory=f"resnet:{block}",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        hub=f"timm/{name}.a1_in1k",
        layouts="timm (hub), torchvision",
        licence="Apache-2.0",
        paper="He et al. 2016, Deep Residual Learning (arXiv 1512.03385)",
    )


def _pvt(size: int, channels: Four, depths: Four) -> BackboneSpec:
    return BackboneSpec(
        f"pvt-v2-b{size}",
        channels,
        depths,
        factory="pvt:stages",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        hub=f"timm/pvt_v2_b{size}.in1k",
        layouts="timm (hub), PVT's authors",
        licence="Apache-2.0",
        paper="Wang et al. 2022, PVT v2 (arXiv 2106.13797)",
    )


_HALVES = (0.5, 0.5, 0.5)
_SMALL = (32, 64, 160, 256)
_LARGE = (64, 128, 320, 512)
_ROWS = (
    BackboneSpec(
        "efficientnet-lite0",
        (24, 40, 112, 320),
        (3, 2, 6, 5),
        factory="efficientnet:lite",
        mean=_HALVES,
        std=_HALVES,
        published=(_HALVES, _HALVES),
        hub="timm/tf_efficientnet_lite0.in1k",
        layouts="timm (hub), EfficientNet-PyTorch",
        licence="Apache-2.0",
        paper="Tan & Le 2019, EfficientNet (arXiv 1905.11946)",
    ),
    _mit(0, _SMALL, (2, 2, 2, 2)),
    _mit(1, _LARGE, (2, 2, 2, 2)),
    _mit(2, _LARGE, (3, 4, 6, 3)),
    _mit(3, _LARGE, (3, 4, 18, 3)),
    _mit(4, _LARGE, (3, 8, 27, 3)),
    _mit(5, _LARGE, (3, 6, 40, 3)),
    _resnet("resnet18", (64, 128, 256, 512), (2, 2, 2, 2), "basic"),
    _resnet("resnet50", (256, 512, 1024, 2048), (3, 4, 6, 3), "bottleneck"),
    _resnet("resnet101", (256, 512, 1024, 2048), (3, 4, 23, 3), "bottleneck", strides=(4, 8, 8, 8)),  # DeepLab's
    _pvt(0, _SMALL, (2, 2, 2, 2)),
    _pvt(1, _LARGE, (2, 2, 2, 2)),
    _pvt(2, _LARGE, (3, 4, 6, 3)),
    BackboneSpec(
        "wide-resnet38",
        (256, 512, 1024, 4096),
        (6, 6, 3, 2),
        strides=(4, 8, 8, 8),
        factory="wide_resnet:stages",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        hub="github.com/itijyou/ademxapp (model A1), converted from MXNet",
        layouts="conv1a, b2 .. b7, bn7, as in PyTorch conversions",
        licence="Apache-2.0",
        paper="Wu et al. 2019, Wider or Deeper (arXiv 1611.10080)",
    ),
    BackboneSpec(
        "transunet",
        (256, 512, 1024, 768),
        (3, 4, 9, 12),
        (1, 1, 1, 12),
        factory="transunet:stages",
        mean=_HALVES,
        std=_HALVES,
        published=(_HALVES, _HALVES),
        hub="timm/vit_base_r50_s16_384.orig_in21k_ft_in1k",
        layouts="timm (hub)",
        licence="Apache-2.0",
        paper="Chen et al. 2021, TransUNet (arXiv 2102.04306)",
    ),
)


def catalogue() -> Mapping[str, BackboneSpec]:
    """Return the facts about all backbones, by name."""
    return MappingProxyType({row.name: row for row in _ROWS})
