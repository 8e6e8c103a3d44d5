"""The catalogue of encoders, one row each. Factories are given by name, so that importing it does not load torch.

Shapes, statistics and poolings are those of the model cards and configuration files; the microns per pixel are those of
the encoder's training.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict

from napari_pbip.errors import ConfigError, PbipError
from napari_pbip.models.encoders.spec import EncoderSpec
from napari_pbip.models.encoders.weights import require
from napari_pbip.plugins import plugins

if TYPE_CHECKING:
    from napari_pbip.models.encoders.base import Encoder


class _Statistics(TypedDict):
    """Mean and deviation by which images are normalised."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_HERE = "napari_pbip.models.encoders"
_ZERO, _ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_IMAGENET: _Statistics = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_OPENAI: _Statistics = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
_OPTIMUS: _Statistics = {"mean": (0.707223, 0.578729, 0.703617), "std": (0.211883, 0.230117, 0.177517)}
# from the authors' release notes; the copy on the hub has those of ImageNet
_LUNIT: _Statistics = {"mean": (0.70322989, 0.53606487, 0.66096631), "std": (0.21716536, 0.26081574, 0.20723464)}
_SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
_CC = "CC-BY-NC-ND-4.0"

_Hub = partial(EncoderSpec, factory=f"{_HERE}.huggingface:build", needs_weights=True, blocks=True, input_size=224)
_Timm = partial(EncoderSpec, factory=f"{_HERE}.timm_vit:build", needs_weights=True, blocks=True, input_size=224)
_Clip = partial(_Hub, mpp=None, dimension=512, pooling="projected class token", gated=False, text=True, **_OPENAI)
_Dino = partial(_Hub, mpp=None, pooling="class token", **_IMAGENET)


def _clip(patch: int) -> Mapping[str, object]:
    image = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": patch}
    text = {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8}
    return {"model_type": "clip", "projection_dim": 512, "vision_config": image, "text_config": text}


def _vit(model_type: str, width: int, depth: int, patch: int, **others: object) -> Mapping[str, object]:
    heads = width // 64
    shape = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "patch_size": patch}
    return {"model_type": model_type, **shape, **others}


_ROWS = (
    EncoderSpec(
        name="efficientnet-lite0",
        title="EfficientNet-Lite0, ImageNet: comes with napari-pbip, quick on a processor",
        factory=f"{_HERE}.stage_statistics:build_imagenet",
        dimension=224,
        dense_stride=8,
        input_size=None,
        mpp=None,
        mean=_ZERO,
        std=_ONE,
        pooling="mean and deviation over the tissue",
        licence="Apache-2.0",
        gated=False,
        paper="Tan & Le 2019, EfficientNet (arXiv 1905.11946)",
        needs_weights=False,
        stages=True,
    ),
    EncoderSpec(
        name="texture",
        title="Stain and texture statistics, without weights",
        factory=f"{_HERE}.texture:build",
        dimension=64,
        input_size=None,
        mpp=0.5,
        mean=_ZERO,
        std=_ONE,
        pooling="mean and deviation over the tissue",
        licence="BSD-3-Clause",
        gated=False,
        paper="Kather et al. 2016, Scientific Reports 6:27988",
        needs_weights=False,
    ),
    EncoderSpec(
        name="pretrained",
        title="A backbone that `napari-pbip pretrain` trained on your own slides",
        factory=f"{_HERE}.stage_statistics:build",
        dimension=None,
        dense_stride=8,
        input_size=None,
        mpp=None,
        mean=_ZERO,
        std=_ONE,
        pooling="mean and deviation over the tissue",
        licence="yours",
        gated=False,
        paper="documentation, Pre-training",
        needs_weights=True,
        revision=2,
        stages=True,
    ),
    EncoderSpec(
        name="tiny",
        title="A small convolutional network with random weights, for tests",
        factory=f"{_HERE}.tiny:build",
        dimension=32,
        input_size=64,
        mpp=None,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        pooling="mean over positions",
        licence="BSD-3-Clause",
        gated=False,
        paper="none",
        needs_weights=False,
    ),
    # images and text, pathology
    EncoderSpec(
        name="conch",
        title="CONCH, pathology images and captions, ViT-B/16",
        factory=f"{_HERE}.conch:build",
        dimension=512,
        dense_stride=16,
        input_size=448,
        mpp=None,
        **_OPENAI,
        pooling="attention over tokens, projected",
        licence=_CC,
        gated=True,
        paper="Lu et al. 2024, Nature Medicine 30:863",
        needs_weights=True,
        text=True,
        blocks=True,
        hub="MahmoodLab/CONCH",
        megabytes=810,
        network={
            "image": {"architecture": "vit_base_patch16_224"},
            "text": {"vocabulary": 32007, "context": 128, "width": 768, "depth": 12, "heads": 12},
        },
    ),
    _Clip(
        name="plip",
        title="PLIP, pathology images and captions of Twitter, ViT-B/32",
        dense_stride=32,
        licence="not stated, for research",
        paper="Huang et al. 2023, Nature Medicine 29:2307",
        hub="vinid/plip",
        megabytes=605,
        network=_clip(32),
    ),
    EncoderSpec(
        name="medclip",
        title="MedCLIP, chest radiographs and reports, Swin-T (used by PBIP)",
        factory=f"{_HERE}.medclip:build",
        dimension=512,
        input_size=224,
        mpp=None,
        mean=(0.5862785803043838,) * 3,
        std=(0.27950088968644304,) * 3,
        pooling="mean of tokens, projected",
        licence="not stated; trained on MIMIC-CXR and CheXpert",
        gated=False,
        paper="Wang et al. 2022, EMNLP, arXiv 2210.10163",
        needs_weights=True,
        page="https://github.com/RyanWangZf/MedCLIP",
        megabytes=545,
        text=True,
        network={
            "image": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
            "text": {"vocab_size": 28996, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        },
    ),
    # images, pathology
    _Timm(
        name="lunit-s16",
        title="Lunit DINO, small: quick on a processor, ViT-S/16",
        dimension=384,
        dense_stride=16,
        mpp=0.5,
        **_LUNIT,
        pooling="class token",
        licence="Lunit, non-commercial",
        gated=False,
        paper="Kang et al. 2023, CVPR, arXiv 2212.04690",
        hub="1aurent/vit_small_patch16_224.lunit_dino",
        megabytes=87,
        network={"architecture": "vit_small_patch16_224"},
    ),
    _Hub(
        name="phikon",
        title="Phikon, TCGA, iBOT, ViT-B/16",
        dimension=768,
        dense_stride=16,
        mpp=0.5,
        **_IMAGENET,
        pooling="class token",
        licence="Owkin, non-commercial",
        gated=False,
        paper="Filiot et al. 2023, medRxiv 2023.07.21.23292757",
        hub="owkin/phikon",
        megabytes=343,
        network=_vit("vit", 768, 12, 16, intermediate_size=3072),
    ),
    _Hub(
        name="phikon-v2",
        title="Phikon-v2, public slides, DINOv2, ViT-L/16",
        dimension=1024,
        dense_stride=16,
        mpp=0.5,
        **_IMAGENET,
        pooling="class token",
        licence="Owkin, non-commercial",
        gated=False,
        paper="Filiot et al. 2024, arXiv 2409.09173",
        hub="owkin/phikon-v2",
        megabytes=1213,
        network=_vit("dinov2", 1024, 24, 16),
    ),
    _Timm(
        name="uni",
        title="UNI, 100,000 slides, DINOv2, ViT-L/16",
        dimension=1024,
        dense_stride=16,
        mpp=0.5,
        **_IMAGENET,
        pooling="class token",
        licence=_CC,
        gated=True,
        paper="Chen et al. 2024, Nature Medicine 30:850",
        hub="MahmoodLab/UNI",
        megabytes=1213,
        network={"architecture": "vit_large_patch16_224", "init_values": 1e-5},
    ),
    _Timm(
        name="uni2-h",
        title="UNI 2, 350,000 slides, DINOv2, ViT-H/14",
        dimension=1536,
        dense_stride=14,
        mpp=0.5,
        **_IMAGENET,
        pooling="class token",
        licence=_CC,
        gated=True,
        paper="Chen et al. 2024, Nature Medicine 30:850",
        hub="MahmoodLab/UNI2-h",
        megabytes=2726,
        network={
            "architecture": "vit_giant_patch14_224",
            "embed_dim": 1536,
            "depth": 24,
            "num_heads": 24,
            "mlp_ratio": 5.33334,
            "init_values": 1e-5,
            "reg_tokens": 8,
            "no_embed_class": True,
            **_SWIGLU,
        },
    ),
    _Timm(
        name="virchow",
        title="Virchow, 1.5 million slides, DINOv2, ViT-H/14",
        dimension=2560,
        dense_stride=14,
        mpp=0.5,
        **_IMAGENET,
        pooling="class token and mean of patches",
        licence="Apache-2.0",
        gated=True,
        paper="Vorontsov et al. 2024, Nature Medicine 30:2924",
        hub="paige-ai/Virchow",
        megabytes=2525,
        network={"architecture": "vit_huge_patch14_224", "mlp_ratio": 5.3375, "init_values": 1e-5, **_SWIGLU},
    ),
    _Timm(
        name="virchow2",
        title="Virchow 2, 3.1 million slides, mixed magnifications, ViT-H/14",
        dimension=2560,
        dense_stride=14,
        mpp=0.5,
        **_IMAGENET,
        pooling="class token and mean of patches",
        licence=_CC,
        gated=True,
        paper="Zimmermann et al. 2024, arXiv 2408.00738",
        hub="paige-ai/Virchow2",
        megabytes=2525,
        network={
            "architecture": "vit_huge_patch14_224",
            "mlp_ratio": 5.3375,
            "init_values": 1e-5,
            "reg_tokens": 4,
            **_SWIGLU,
        },
    ),
    _Timm(
        name="prov-gigapath",
        title="Prov-GigaPath, tile encoder, 170,000 slides, DINOv2, ViT-g/16",
        dimension=1536,
        dense_stride=16,
        mpp=0.5,
        **_IMAGENET,
        pooling="class token",
        licence="Apache-2.0, with conditions",
        gated=True,
        paper="Xu et al. 2024, Nature 630:181",
        hub="prov-gigapath/prov-gigapath",
        megabytes=4540,
        network={
            "architecture": "vit_giant_patch14_dinov2",
            "patch_size": 16,
            "embed_dim": 1536,
            "depth": 40,
            "num_heads": 24,
            "mlp_ratio": 5.33334,
        },
    ),
    _Timm(
        name="h-optimus-0",
        title="H-optimus-0, 500,000 slides, DINOv2, ViT-g/14",
        dimension=1536,
        dense_stride=14,
        mpp=0.5,
        **_OPTIMUS,
        pooling="class token",
        licence="Apache-2.0",
        gated=True,
        paper="Saillard et al. 2024, github.com/bioptimus/releases",
        hub="bioptimus/H-optimus-0",
        megabytes=4539,
        network={"architecture": "vit_giant_patch14_reg4_dinov2", "init_values": 1e-5},
    ),
    _Timm(
        name="h-optimus-1",
        title="H-optimus-1, one million slides, DINOv2, ViT-g/14",
        dimension=1536,
        dense_stride=14,
        mpp=0.5,
        **_OPTIMUS,
        pooling="class token",
        licence=_CC,
        gated=True,
        paper="Bioptimus 2025, huggingface.co/bioptimus/H-optimus-1",
        hub="bioptimus/H-optimus-1",
        megabytes=4539,
        network={"architecture": "vit_giant_patch14_reg4_dinov2", "init_values": 1e-5},
    ),
    _Timm(
        name="h0-mini",
        title="H0-mini, distilled from H-optimus-0, ViT-B/14",
        dimension=1536,
        dense_stride=14,
        mpp=0.5,
        **_OPTIMUS,
        pooling="class token and mean of patches",
        licence=_CC,
        gated=True,
        paper="Filiot et al. 2025, arXiv 2501.16239",
        hub="bioptimus/H0-mini",
        megabytes=343,
        network={
            "architecture": "vit_base_patch14_reg4_dinov2",
            "mlp_ratio": 5.33334,
            "init_values": 1e-5,
            **_SWIGLU,
        },
    ),
    _Hub(
        name="midnight",
        title="Midnight-12k, TCGA, DINOv2, ViT-g/14",
        dimension=3072,
        dense_stride=14,
        mpp=0.5,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        pooling="class token and mean of patches",
        licence="MIT",
        gated=False,
        paper="Karasikov et al. 2025, arXiv 2504.05186",
        hub="kaiko-ai/midnight",
        megabytes=4546,
        network=_vit("dinov2", 1536, 40, 14, use_swiglu_ffn=True),
    ),
    # images, in general
    _Clip(
        name="clip",
        title="CLIP, images and text of the web, ViT-B/16",
        dense_stride=16,
        licence="MIT",
        paper="Radford et al. 2021, arXiv 2103.00020",
        hub="openai/clip-vit-base-patch16",
        megabytes=599,
        network=_clip(16),
    ),
    _Clip(
        name="clip-b32",
        title="CLIP, images and text of the web, ViT-B/32",
        dense_stride=32,
        licence="MIT",
        paper="Radford et al. 2021, arXiv 2103.00020",
        hub="openai/clip-vit-base-patch32",
        megabytes=605,
        network=_clip(32),
    ),
    *(
        _Dino(
            name=f"dinov2-{size}",
            title=f"DINOv2, images of the web, ViT-{size[0].upper()}/14",
            dimension=width,
            dense_stride=14,
            licence="Apache-2.0",
            gated=False,
            paper="Oquab et al. 2023, arXiv 2304.07193",
            hub=f"facebook/dinov2-{size}",
            megabytes=megabytes,
            network=_vit("dinov2", width, depth, 14),
        )
        for size, width, depth, megabytes in (
            ("small", 384, 12, 88),
            ("base", 768, 12, 346),
            ("large", 1024, 24, 1217),
        )
    ),
    *(
        _Dino(
            name=f"dinov3-{size}",
            title=f"DINOv3, images of the web, ViT-{size[0].upper()}/16",
            dimension=width,
            dense_stride=16,
            licence="DINOv3 License",
            gated=True,
            paper="Siméoni et al. 2025, arXiv 2508.10104",
            hub=f"facebook/dinov3-vit{size[0]}16-pretrain-lvd1689m",
            megabytes=megabytes,
            network=_vit("dinov3_vit", width, depth, 16, intermediate_size=4 * width, num_register_tokens=4),
        )
        for size, width, depth, megabytes in (
            ("small", 384, 12, 86),
            ("base", 768, 12, 343),
            ("large", 1024, 24, 1213),
        )
    ),
    EncoderSpec(
        name="transformers",
        title="Any vision transformer of a local folder in the Hugging Face layout",
        factory=f"{_HERE}.huggingface:build_folder",
        dimension=None,
        input_size=None,
        mpp=None,
        mean=_ZERO,
        std=_ONE,
        pooling="as the network was trained",
        licence="that of the weights",
        gated=False,
        paper="that of the weights",
        needs_weights=True,
        blocks=True,
    ),
)


@cache
def catalogue() -> Mapping[str, EncoderSpec]:
    """Return the facts about all encoders by name: the built-in ones, then those of other installed packages."""
    ours = {row.name: row for row in _ROWS}
    return MappingProxyType(ours | plugins("encoder", ours, _checked))


def _checked(name: str, row: Any) -> EncoderSpec:
    """Return the row that another package registered under a name, after checking it."""
    if not isinstance(row, EncoderSpec) or row.name != name:
        raise PbipError(f"it is no EncoderSpec with the name {name!r}")
    return row


def lookup(name: str) -> EncoderSpec:
    """Return the facts about an encoder.

    Raises
    ------
    ConfigError
        If no encoder has that name.
    """
    try:
        return catalogue()[name]
    except KeyError:
        if name == "builtin":  # of version 0.1.0
            raise ConfigError(
                "The encoder 'builtin' of an earlier version is no longer there; build the image bank again with "
                "'efficientnet-lite0', which is better and comes with the package."
            ) from None
        raise ConfigError(f"There is no encoder {name!r}; there are {', '.join(catalogue())}.") from None


def load(name: str, weights: Path | None = None) -> Encoder:
    """Load an encoder. Nothing is ever downloaded.

    Parameters
    ----------
    name
        Name of the encoder in the catalogue.
    weights
        Folder or file with its weights, for encoders that need them. By default they are searched for in the folder
        that the environment variable ``NAPARI_PBIP_WEIGHTS`` names, and in the Hugging Face cache.

    Raises
    ------
    ConfigError
        If no encoder has that name, or weights are given to one that needs none.
    WeightsUnavailable
        If the weights are missing, damaged, incomplete, of another network, or a pickle.
    """
    return from_spec(lookup(name), weights)


def from_spec(spec: EncoderSpec, weights: Path | None = None) -> Encoder:
    """Load the encoder of a row; parameters and errors as for :func:`load`."""
    if weights is not None and not spec.needs_weights:
        raise ConfigError(f"The encoder {spec.name!r} takes no weights; leave `bank.weights` empty.")
    place = require(spec, weights) if spec.needs_weights else None
    module, _, function = spec.factory.partition(":")
    encoder: Encoder = getattr(importlib.import_module(module), function)(spec, place)
    return encoder
