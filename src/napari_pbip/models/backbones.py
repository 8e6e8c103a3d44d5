"""Trainable pyramid networks: the Mix Transformers (MiT) of SegFormer, with the strides PBIP uses.

Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers". PBIP's
released code changes the stride of the last stage from 2 to 1, so that the four stages lie at strides 4, 8, 16
and 16. The layers are those of :class:`transformers.SegformerModel`, with scaled-dot-product attention.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import SegformerConfig, SegformerModel

from napari_pbip.errors import ConfigError, ModelError, WeightsUnavailable

Features = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

# Statistics of RGB in [0, 1] that the released code normalises with (of its training tiles).
MEAN = (0.66791496, 0.47791372, 0.70623304)
STD = (0.1736589, 0.22564577, 0.19820057)


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """A row of the catalogue."""

    name: str
    channels: tuple[int, int, int, int]
    """Channels C_i of each stage."""
    depths: tuple[int, int, int, int]
    """Transformer blocks of each stage."""
    heads: tuple[int, int, int, int] = (1, 2, 5, 8)
    """Attention heads of each stage."""


_SMALL = (32, 64, 160, 256)
_LARGE = (64, 128, 320, 512)
_ROWS = (
    BackboneSpec("mit-b0", _SMALL, (2, 2, 2, 2)),
    BackboneSpec("mit-b1", _LARGE, (2, 2, 2, 2)),
    BackboneSpec("mit-b2", _LARGE, (3, 4, 6, 3)),
    BackboneSpec("mit-b3", _LARGE, (3, 4, 18, 3)),
    BackboneSpec("mit-b4", _LARGE, (3, 8, 27, 3)),
    BackboneSpec("mit-b5", _LARGE, (3, 6, 40, 3)),
)


def catalogue() -> Mapping[str, BackboneSpec]:
    """Facts of all backbones, by name."""
    return MappingProxyType({row.name: row for row in _ROWS})


def load(name: str, weights: Path | None = None) -> Backbone:
    """A backbone, randomly initialised from torch's current random state or with pretrained weights.

    Nothing is ever downloaded.

    Parameters
    ----------
    name
        Its name in the catalogue.
    weights
        Safetensors file with the weights of this backbone (of ImageNet, say), or a folder with one
        in it: in the layout of the hub (``nvidia/mit-b0``), that of SegFormer's authors, or
        that of PBIP's released models. Classification and segmentation heads in it are not read.

    Raises
    ------
    ConfigError
        If no backbone has that name.
    WeightsUnavailable
        If there is no such safetensors file.
    ModelError
        If the file cannot be read or holds the weights of another network.
    """
    spec = catalogue().get(name)
    if spec is None:
        raise ConfigError(f"There is no backbone {name!r}; choose one of {', '.join(catalogue())}.")
    backbone = Backbone(spec)
    if weights is not None:
        path = _weights_file(weights, name)
        load_weights(backbone, _read(path), str(path))
    return backbone


class Backbone(nn.Module):
    """A Mix Transformer that returns the feature maps F_i of its four stages.

    It has no dropout, and stochastic depth that rises to 0.1 over the blocks, as SegFormer and PBIP's released
    code train it; in evaluation mode there is neither.

    Parameters
    ----------
    spec
        Channels, blocks and heads of the stages.
    """

    strides = (4, 8, 16, 16)
    """Pixels of the image between two cells of each stage's map."""
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.spec = spec
        self.channels = spec.channels
        """Channels C_i of each stage."""
        config = SegformerConfig(
            hidden_sizes=spec.channels,
            depths=spec.depths,
            num_attention_heads=spec.heads,
            strides=(4, 2, 2, 1),
            drop_path_rate=0.1,
        )
        self.stages = SegformerModel(config).stages
        for name, module in self.stages.named_modules():
            # The authors' blocks and stages divide with 1e-6 under the root; the library leaves torch's 1e-5.
            inner = "patch_embeddings" in name or "sequence_reduction" in name
            if isinstance(module, nn.LayerNorm) and not inner:
                module.eps = 1e-6
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) with the statistics of the training tiles taken out, per channel."""
        return (images - self.mean) / self.std

    def forward(self, images: torch.Tensor) -> Features:
        """Feature maps of images.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).

        Returns
        -------
        tuple of four tensors
            F_i of shape (B, C_i, H / s_i, W / s_i), rounded up, with the strides s_i of :attr:`strides`.
        """
        maps, x = [], self.normalise(images)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        first, second, third, fourth = maps
        return first, second, third, fourth


def load_weights(backbone: Backbone, weights: Mapping[str, torch.Tensor], source: str = "The file") -> None:
    """Put weights of any of the known layouts into a backbone.

    Parameters
    ----------
    backbone
        Changed in place.
    weights
        Tensors by name, in one of the layouts that :func:`load` lists.
    source
        What to call them in an error.

    Raises
    ------
    ModelError
        If they do not cover this backbone exactly.
    """
    renamed = to_stages(weights)
    own = backbone.stages.state_dict()
    missing = own.keys() - renamed.keys()
    wrong = [n for n in own.keys() & renamed.keys() if own[n].shape != renamed[n].shape]
    if missing or wrong or renamed.keys() - own.keys():
        raise ModelError(
            f"{source} does not hold the weights of {backbone.spec.name} ({len(missing)} tensors are missing, "
            f"{len(wrong)} have another shape); give the weights of that backbone, or choose the one they belong to."
        )
    backbone.stages.load_state_dict(renamed)


_HUB = re.compile(r"(?:segformer\.)?encoder\.(patch_embeddings|block|layer_norm)\.(\d)\.(.+)")
_AUTHORS = re.compile(r"(?:encoder\.)?(patch_embed|block|norm)(\d)\.(.+)")
_LIBRARY = re.compile(r"(?:backbone\.|segformer\.)?stages\.(.+)")
_PARTS = {
    "patch_embed": "patch_embeddings.",
    "patch_embeddings": "patch_embeddings.",
    "block": "blocks.",
    "norm": "layer_norm.",
    "layer_norm": "layer_norm.",
}
# Within a stage, in this order: hub layout, then the authors'.
_RENAMES = (
    ("attention.self.query.", "attention.q_proj."),
    ("attention.self.key.", "attention.k_proj."),
    ("attention.self.value.", "attention.v_proj."),
    ("attention.self.sr.", "attention.sequence_reduction.sequence_reduction."),
    ("attention.self.layer_norm.", "attention.sequence_reduction.layer_norm."),
    ("attention.output.dense.", "attention.o_proj."),
    ("layer_norm_1.", "layernorm_before."),
    ("layer_norm_2.", "layernorm_after."),
    ("mlp.dense", "mlp.fc"),
    ("attn.q.", "attention.q_proj."),
    ("attn.kv.", "attention.kv_proj."),
    ("attn.proj.", "attention.o_proj."),
    ("attn.sr.", "attention.sequence_reduction.sequence_reduction."),
    ("attn.norm.", "attention.sequence_reduction.layer_norm."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    ("patch_embeddings.norm.", "patch_embeddings.layer_norm."),
)


def to_stages(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of any known layout under the names of ``Backbone.stages``; what is of no stage is left out."""
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if match := _HUB.fullmatch(name):
            place = f"{match[2]}.{_PARTS[match[1]]}{match[3]}"
        elif match := _AUTHORS.fullmatch(name):
            place = f"{int(match[2]) - 1}.{_PARTS[match[1]]}{match[3]}"
        elif match := _LIBRARY.fullmatch(name):
            place = match[1]
        else:
            continue
        for old, new in _RENAMES:
            place = place.replace(old, new)
        if ".kv_proj." in place:  # the authors keep keys and values in one matrix, keys first
            key, value = tensor.chunk(2)
            renamed[place.replace(".kv_proj.", ".k_proj.")] = key
            renamed[place.replace(".kv_proj.", ".v_proj.")] = value
        else:
            renamed[place] = tensor
    return renamed


def _weights_file(path: Path, name: str) -> Path:
    """The safetensors file that a path names: itself, or the ``model.safetensors`` or only such file of a folder.

    Raises
    ------
    WeightsUnavailable
        If there is none, there are several, or the file is of another kind. Pickles (``.pth``, ``.bin``) can run
        code when they are read, so they are not.
    """
    if path.is_file() and path.suffix != ".safetensors":
        raise WeightsUnavailable(
            f"{path.name} is no safetensors file, and other formats can run code when they are read; convert it once, "
            "as docs/methods.md shows under Backbones."
        )
    found = [path] if path.is_file() else sorted(path.glob("*.safetensors")) if path.is_dir() else []
    preferred = [p for p in found if p.name == "model.safetensors"] or found
    if len(preferred) > 1:
        raise WeightsUnavailable(f"{path} holds {len(found)} safetensors files; point backbone.weights to one of them.")
    if not preferred:
        raise WeightsUnavailable(
            f"There are no weights of {name} at {path}; put its model.safetensors there, point backbone.weights to "
            "it, or leave backbone.weights out to train from scratch."
        )
    return preferred[0]


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"The weights {path} cannot be read; the file is damaged: fetch it again.") from error
