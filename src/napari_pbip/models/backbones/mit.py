"""The Mix Transformers (MiT) of SegFormer, with the strides that PBIP uses.

Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers". PBIP's released
code changes the stride of the last stage from 2 to 1, so that the four stages have strides 4, 8, 16 and 16. The layers
are those of :class:`transformers.SegformerModel`, with scaled-dot-product attention.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import nn
from transformers import SegformerConfig, SegformerModel

from napari_pbip.models.backbones.catalogue import BackboneSpec


def stages(spec: BackboneSpec) -> nn.ModuleList:
    """Return the four stages.

    In training they have no dropout, and stochastic depth that rises to 0.1 over the blocks, as in SegFormer and PBIP's
    released code.
    """
    config = SegformerConfig(
        hidden_sizes=spec.channels,
        depths=spec.depths,
        num_attention_heads=spec.heads,
        strides=(4, 2, 2, 1),
        drop_path_rate=0.1,
    )
    network: nn.ModuleList = SegformerModel(config).stages
    for name, module in network.named_modules():
        # Blocks and stages of the authors have an epsilon of 1e-6; the library uses torch's default, 1e-5.
        inner = "patch_embeddings" in name or "sequence_reduction" in name
        if isinstance(module, nn.LayerNorm) and not inner:
            module.eps = 1e-6
    return network


_HUB = re.compile(r"(?:segformer\.)?encoder\.(patch_embeddings|block|layer_norm)\.(\d)\.(.+)")
_AUTHORS = re.compile(r"(?:encoder\.)?(patch_embed|block|norm)(\d)\.(.+)")
_LIBRARY = re.compile(r"(?:segformer\.)?stages\.(.+)")
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
    """Rename weights of any known layout to the names of :func:`stages`; tensors of no stage are left out."""
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
        if ".kv_proj." in place:  # the authors have keys and values in one matrix, keys first
            key, value = tensor.chunk(2)
            renamed[place.replace(".kv_proj.", ".k_proj.")] = key
            renamed[place.replace(".kv_proj.", ".v_proj.")] = value
        else:
            renamed[place] = tensor
    return renamed
