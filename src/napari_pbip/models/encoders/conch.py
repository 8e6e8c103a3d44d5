"""CONCH: image and text towers of a contrastive captioner for histology (Lu et al. 2024, Nature Medicine 30:863).

The image tower is a ViT-B/16 of timm, to whose tokens one learned query attends, with layer norm and projection. The
text tower is a causal transformer with a learned summary token at the end. The caption decoder is not released, and the
pooler that feeds it is not loaded. Modules have the names of the released checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from napari_pbip.errors import WeightsUnavailable
from napari_pbip.models.encoders import checkpoint
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.encoders.spec import EncoderSpec
from napari_pbip.models.encoders.timm_vit import timm_block_maps, vision_transformer
from napari_pbip.models.encoders.weights import safetensors_file
from napari_pbip.models.weight_files import read

TOKENIZER = "conch_byte_level_bpe_uncased.json"
"""File of the tokenizer in the authors' code repository; it may also be named ``tokenizer.json``."""
_CAPTION = ("attn_pool_caption.", "ln_caption.")


def build(spec: EncoderSpec, weights: Path) -> Encoder:
    """Load the image tower; the text tower is loaded when sentences are encoded.

    Raises
    ------
    WeightsUnavailable
        If the safetensors file does not exist, is damaged, or contains the weights of another network.
    """
    path = safetensors_file(weights, spec)
    with torch.device("meta"):
        tower = ImageTower(vision_transformer(**spec.network["image"], img_size=spec.input_size), spec.dimension or 0)
    weights_of_tower = checkpoint.below(read(path), "visual.")
    checkpoint.fill(tower, {k: v for k, v in weights_of_tower.items() if not k.startswith(_CAPTION)}, spec.name, path)
    return Encoder(spec, tower, partial(_text, spec, path))


class AttentionPooler(nn.Module):
    """Learned queries that attend to tokens (B, L, C) and give vectors (B, Q, D)."""

    def __init__(self, queries: int, width: int, tokens: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(queries, width))
        self.attn = nn.MultiheadAttention(width, num_heads=8, kdim=tokens, vdim=tokens, batch_first=True)
        self.ln_q = nn.LayerNorm(width)
        self.ln_k = nn.LayerNorm(tokens)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        keys = self.ln_k(tokens)
        queries = self.ln_q(self.query).expand(len(tokens), -1, -1)
        pooled: torch.Tensor = self.attn(queries, keys, keys, need_weights=False)[0]
        return pooled


class ImageTower(nn.Module):
    """The network from images to the feature space that they share with text.

    Parameters
    ----------
    trunk
        A :class:`timm.models.VisionTransformer`.
    dimension
        Length D of the features.
    """

    def __init__(self, trunk: Any, dimension: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.attn_pool_contrast = AttentionPooler(1, dimension, trunk.embed_dim)
        self.ln_contrast = nn.LayerNorm(dimension)
        self.proj_contrast = nn.Parameter(torch.empty(dimension, dimension))
        self.patch = int(trunk.patch_embed.patch_size[0])
        self.depth = len(trunk.blocks)
        self.width = int(trunk.embed_dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = self.attn_pool_contrast(self.trunk.forward_features(images))[:, 0]
        vectors: torch.Tensor = self.ln_contrast(pooled) @ self.proj_contrast
        return vectors

    def block_maps(self, images: torch.Tensor, blocks: Sequence[int]) -> tuple[torch.Tensor, ...]:
        return timm_block_maps(self.trunk, images, blocks)

    def patch_map(self, images: torch.Tensor) -> torch.Tensor:
        return timm_block_maps(self.trunk, images, [self.depth], norm=True)[0]


class _Block(nn.Module):
    """A transformer block: attention and MLP, each after a layer norm and with a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=hidden)[0]
        x = x + self.mlp(self.ln_2(x))
        return x


class TextTower(nn.Module):
    """The network from token indices to the feature space that text shares with images.

    Parameters
    ----------
    vocabulary, context
        Number of known tokens, and of tokens in a sentence, including the summary token.
    width, depth, heads
        Number of channels, blocks and attention heads.
    dimension
        Length D of the features.
    """

    def __init__(self, vocabulary: int, context: int, width: int, depth: int, heads: int, dimension: int) -> None:
        super().__init__()
        self.heads = heads
        self.cls_emb = nn.Parameter(torch.empty(width))
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(context, width))
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(_Block(width, heads) for _ in range(depth))})
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, dimension))

    def forward(self, tokens: torch.Tensor, padding: int) -> torch.Tensor:
        """Return the features (T, D) of token indices (T, context - 1), which are padded with ``padding``."""
        count, length = tokens.shape
        x = torch.cat([self.token_embedding(tokens), self.cls_emb.expand(count, 1, -1)], 1) + self.positional_embedding
        hidden = self._hidden(tokens == padding, length + 1)
        for block in self.transformer["resblocks"].children():
            x = block(x, hidden)
        vectors: torch.Tensor = self.ln_final(x[:, -1]) @ self.text_projection
        return vectors

    def _hidden(self, padded: torch.Tensor, length: int) -> torch.Tensor:
        """Return which positions (last axis) are hidden from a position, shape (T heads, L, L): later ones.

        Padding is hidden from the summary token too. As in the released code, with which the weights were trained, that
        part of the mask is shifted to the right by one: the token sees the first padding, and itself only if nothing is
        padded.
        """
        later = torch.ones(length, length, dtype=torch.bool, device=padded.device).triu(1)
        hidden = later.repeat(len(padded), 1, 1)
        hidden[:, -1] |= functional.pad(padded, (1, 0), value=False)
        return hidden.repeat_interleave(self.heads, 0)


def _text(spec: EncoderSpec, path: Path, sentences: Sequence[str]) -> torch.Tensor:
    tokens, padding = _tokens(path.parent, sentences, spec.network["text"]["context"] - 1)
    with torch.device("meta"):
        tower = TextTower(**spec.network["text"], dimension=spec.dimension or 0)
    checkpoint.fill(tower, checkpoint.below(read(path), "text."), spec.name, path)
    with torch.no_grad():
        vectors: torch.Tensor = tower.eval()(tokens, padding)
    return vectors


def _tokens(folder: Path, sentences: Sequence[str], length: int) -> tuple[torch.Tensor, int]:
    """Return the token indices of sentences, shape (T, length), and the index of the padding."""
    from transformers import PreTrainedTokenizerFast

    file = next((folder / name for name in (TOKENIZER, "tokenizer.json") if (folder / name).is_file()), None)
    if file is None:
        raise WeightsUnavailable(
            f"{folder} holds no tokenizer for the text tower; put {TOKENIZER} of "
            "https://github.com/mahmoodlab/CONCH there."
        )
    try:
        make: Any = PreTrainedTokenizerFast  # it has no types
        tokenizer = make(
            tokenizer_file=str(file), bos_token="<start_of_text>", eos_token="<end_of_text>", pad_token="<pad>"
        )
    except Exception as error:
        raise WeightsUnavailable(f"{file} cannot be read; fetch the file again.") from error
    indices = tokenizer(
        list(sentences), max_length=length, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    return indices, tokenizer.pad_token_id
