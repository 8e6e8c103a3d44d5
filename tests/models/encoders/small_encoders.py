"""Every row of the catalogue with a small network, and random weights for it in the layout of the released file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, SwinConfig, SwinModel, ViTConfig, ViTModel

from napari_pbip.models import backbones
from napari_pbip.models.backbones import Backbone
from napari_pbip.models.encoders import EncoderSpec, catalogue
from napari_pbip.models.encoders.stage_statistics import describe

WIDTH, DEPTH, HEADS = 32, 2, 2
MEAN, STD = [0.7, 0.5, 0.6], [0.2, 0.25, 0.15]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
SHRUNK = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}


def small(name: str, folder: Path) -> tuple[EncoderSpec, Path | None]:
    """Return a row with a small network, and the path of its weights, which are always the same."""
    spec = catalogue()[name]
    if not spec.needs_weights:
        return spec, None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _WRITERS[spec.factory.partition(":")[0].rpartition(".")[2]](spec, folder), folder


def write_folder(folder: Path, model: Any, **preprocessor: object) -> Path:
    """Write a model in the layout of the hub, with its configuration."""
    model.save_pretrained(folder)
    facts = {"size": {"height": 32, "width": 32}, "image_mean": MEAN, "image_std": STD, **preprocessor}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return folder


def _huggingface(spec: EncoderSpec, folder: Path) -> EncoderSpec:
    if spec.name == "transformers":
        write_folder(folder, ViTModel(ViTConfig(**SMALL)))
        return spec
    if spec.text:
        image = {**spec.network["vision_config"], **SHRUNK}
        text = {**spec.network["text_config"], **SHRUNK}
        network = {**spec.network, "vision_config": image, "text_config": text, "projection_dim": 24}
        side, dimension = 2 * image["patch_size"], 24
        config = {**network, "vision_config": {**image, "image_size": side, "intermediate_size": 64}}
        config["text_config"] = {
            **text,
            "intermediate_size": 64,
            "vocab_size": 99,
            "bos_token_id": 97,
            "eos_token_id": 98,
        }
    else:
        network = config = {**spec.network, **SHRUNK}
        if "intermediate_size" in network:
            network["intermediate_size"] = 4 * WIDTH
        side, dimension = 4 * network["patch_size"], (spec.dimension or 0) // spec.network["hidden_size"] * WIDTH
        config = {**network, "image_size": side}
    model = AutoModel.from_config(AutoConfig.for_model(**config))
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.05)
    model.save_pretrained(folder)
    if spec.text:
        _write_clip_tokenizer(folder)
    return replace(spec, network=network, input_size=side, dimension=dimension)


def _stage_statistics(spec: EncoderSpec, folder: Path) -> EncoderSpec:
    """Write weights as `napari-pbip pretrain` does."""
    backbone = Backbone(backbones.catalogue()["mit-b0"]).eval()
    tensors = {f"backbone.{name}": tensor.half().contiguous() for name, tensor in backbone.state_dict().items()}
    length = sum(part.shape[1] for part in describe(backbone, torch.rand(1, 3, 64, 64)))
    tensors |= {"centre": _random(length).half(), "projection": _random(24, length).half()}
    save_file(tensors, folder / "model.safetensors", {"backbone": "mit-b0"})
    return spec


LETTERS = "abcdefghijklmnopqrstuvwxyz&,:.-"


def _write_clip_tokenizer(folder: Path) -> None:
    """Write a vocabulary of letters, within and at the end of a word."""
    names = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    vocabulary = {name: i for i, name in enumerate(names)} | {"<|startoftext|>": 97, "<|endoftext|>": 98}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def _write_conch_tokenizer(folder: Path) -> None:
    """Write a tokenizer like the released one, with a vocabulary of letters."""
    special = ["<pad>", "<start_of_text>", "<end_of_text>"]
    vocabulary = {name: i for i, name in enumerate([*special, "Ġ", *LETTERS])}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start_of_text> $A <end_of_text>", special_tokens=[("<start_of_text>", 1), ("<end_of_text>", 2)]
    )
    tokenizer.save(str(folder / "conch_byte_level_bpe_uncased.json"))


def _timm(spec: EncoderSpec, folder: Path) -> EncoderSpec:
    network = {**spec.network, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
    patch = network.get("patch_size") or int(network["architecture"].partition("patch")[2].partition("_")[0])
    dino = "dinov2" in network["architecture"]
    tensors = vit_layout(
        patch,
        scale="init_values" in network or dino,
        gated=network.get("mlp_ratio", 5.33334)
        if "mlp_layer" in network or "giant" in network["architecture"]
        else None,
        registers=4 if "reg4" in network["architecture"] else network.get("reg_tokens", 0),
        positions_of_patches_only="reg4" in network["architecture"] or network.get("no_embed_class", False),
    )
    save_file(tensors, folder / "model.safetensors")
    times = 2 if "mean" in spec.pooling else 1
    return replace(spec, network=network, input_size=4 * patch, dimension=times * WIDTH)


def vit_layout(
    patch: int,
    *,
    scale: bool,
    gated: float | None = None,
    registers: int = 0,
    positions_of_patches_only: bool = False,
) -> dict[str, torch.Tensor]:
    """Return random weights with the names of a timm vision transformer of 4 x 4 patches."""
    hidden = int(WIDTH * (gated or 4))
    tensors = {
        "cls_token": _random(1, 1, WIDTH),
        "pos_embed": _random(1, 16 + (0 if positions_of_patches_only else 1 + registers), WIDTH),
        "patch_embed.proj.weight": _random(WIDTH, 3, patch, patch),
        "patch_embed.proj.bias": _random(WIDTH),
        "norm.weight": 1 + _random(WIDTH),
        "norm.bias": _random(WIDTH),
    }
    if registers:
        tensors["reg_token"] = _random(1, registers, WIDTH)
    for block in range(DEPTH):
        parts = {
            "norm1.weight": 1 + _random(WIDTH),
            "norm1.bias": _random(WIDTH),
            "attn.qkv.weight": _random(3 * WIDTH, WIDTH),
            "attn.qkv.bias": _random(3 * WIDTH),
            "attn.proj.weight": _random(WIDTH, WIDTH),
            "attn.proj.bias": _random(WIDTH),
            "norm2.weight": 1 + _random(WIDTH),
            "norm2.bias": _random(WIDTH),
            "mlp.fc1.weight": _random(hidden, WIDTH),
            "mlp.fc1.bias": _random(hidden),
            "mlp.fc2.weight": _random(WIDTH, hidden // 2 if gated else hidden),
            "mlp.fc2.bias": _random(WIDTH),
        }
        if scale:
            parts |= {"ls1.gamma": 0.5 + _random(WIDTH), "ls2.gamma": 0.5 + _random(WIDTH)}
        tensors |= {f"blocks.{block}.{name}": tensor for name, tensor in parts.items()}
    return tensors


def _medclip(spec: EncoderSpec, folder: Path) -> EncoderSpec:
    """Return weights like the released ones: image tower, text tower, scale, and the buffers of transformers 4."""
    image = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    text = {**SHRUNK, "num_hidden_layers": 3, "vocab_size": len(words), "intermediate_size": 64}
    tensors = {
        "vision_model.projection_head.weight": _random(24, 16),
        "text_model.projection_head.weight": _random(24, WIDTH),
        "logit_scale": torch.tensor(2.0),
    }
    for tower, model in (("vision", SwinModel(SwinConfig(**image))), ("text", BertModel(BertConfig(**text)))):
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.add_(torch.randn_like(tensor) * 0.05)
        model.save_pretrained(folder)
        own = load_file(folder / "model.safetensors")
        tensors |= {f"{tower}_model.model.{name}": tensor for name, tensor in own.items()}
    (folder / "config.json").unlink()
    buffer = "vision_model.model.encoder.layers.0.blocks.0.attention.self.relative_position_index"
    tensors |= {buffer: torch.zeros(16, 16), "text_model.model.embeddings.position_ids": torch.arange(512)[None]}
    save_file(tensors, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(words))
    return replace(spec, network={"image": image, "text": text}, input_size=32, dimension=24)


def _conch(spec: EncoderSpec, folder: Path) -> EncoderSpec:
    """Return weights like the released ones: image tower with both poolers, text tower, scale."""
    size, words, context = 16, 99, 12
    tensors = {f"visual.trunk.{name}": tensor for name, tensor in vit_layout(16, scale=False).items()}
    for pooler, width, queries in (("contrast", size, 1), ("caption", WIDTH, 5)):
        at = f"visual.attn_pool_{pooler}"
        tensors |= {
            f"{at}.query": _random(queries, width),
            f"{at}.attn.in_proj_bias": _random(3 * width),
            f"{at}.attn.out_proj.weight": _random(width, width),
            f"{at}.attn.out_proj.bias": _random(width),
            f"visual.ln_{pooler}.weight": 1 + _random(width),
            f"visual.ln_{pooler}.bias": _random(width),
            f"{at}.ln_q.weight": 1 + _random(width),
            f"{at}.ln_q.bias": _random(width),
            f"{at}.ln_k.weight": 1 + _random(WIDTH),
            f"{at}.ln_k.bias": _random(WIDTH),
        }
        if width == WIDTH:
            tensors[f"{at}.attn.in_proj_weight"] = _random(3 * width, width)
        else:
            tensors[f"{at}.attn.q_proj_weight"] = _random(width, width)
            tensors[f"{at}.attn.k_proj_weight"] = _random(width, WIDTH)
            tensors[f"{at}.attn.v_proj_weight"] = _random(width, WIDTH)
    tensors["visual.proj_contrast"] = _random(size, size)
    tensors |= {
        "text.text_projection": _random(WIDTH, size),
        "text.cls_emb": _random(WIDTH),
        "text.token_embedding.weight": _random(words, WIDTH),
        "text.positional_embedding": _random(context, WIDTH),
        "text.ln_final.weight": 1 + _random(WIDTH),
        "text.ln_final.bias": _random(WIDTH),
        "logit_scale": torch.tensor(2.0),
    }
    for block in range(DEPTH):
        at = f"text.transformer.resblocks.{block}"
        tensors |= {
            f"{at}.ln_1.weight": 1 + _random(WIDTH),
            f"{at}.ln_1.bias": _random(WIDTH),
            f"{at}.attn.in_proj_weight": _random(3 * WIDTH, WIDTH),
            f"{at}.attn.in_proj_bias": _random(3 * WIDTH),
            f"{at}.attn.out_proj.weight": _random(WIDTH, WIDTH),
            f"{at}.attn.out_proj.bias": _random(WIDTH),
            f"{at}.ln_2.weight": 1 + _random(WIDTH),
            f"{at}.ln_2.bias": _random(WIDTH),
            f"{at}.mlp.c_fc.weight": _random(4 * WIDTH, WIDTH),
            f"{at}.mlp.c_fc.bias": _random(4 * WIDTH),
            f"{at}.mlp.c_proj.weight": _random(WIDTH, 4 * WIDTH),
            f"{at}.mlp.c_proj.bias": _random(WIDTH),
        }
    save_file(tensors, folder / "model.safetensors")
    _write_conch_tokenizer(folder)
    image = {"architecture": "vit_base_patch16_224", "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
    text = {"vocabulary": words, "context": context, "width": WIDTH, "depth": DEPTH, "heads": HEADS}
    return replace(spec, network={"image": image, "text": text}, input_size=64, dimension=size)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape) / math.sqrt(math.prod(shape[1:]) or 1) * (0.1 if len(shape) == 1 else 1)


_WRITERS: Mapping[str, Any] = {
    "huggingface": _huggingface,
    "timm_vit": _timm,
    "medclip": _medclip,
    "conch": _conch,
    "stage_statistics": _stage_statistics,
}
