"""The features of each family, compared with the libraries' classes or the released equations."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import BertConfig, BertModel, CLIPModel, CLIPTokenizer, Dinov2Model, SwinConfig, SwinModel

from napari_pbip.errors import ConfigError, WeightsUnavailable
from napari_pbip.models import encoders
from napari_pbip.models.encoders.catalogue import from_spec
from tests.models.encoders.small_encoders import DEPTH, HEADS, WIDTH, small

SENTENCES = ("an image of tumour", "muscle", "a long sentence, longer than what fits: " + "word " * 40)


def pixels(side: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def normalised(images: torch.Tensor, spec: encoders.EncoderSpec) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    return (images - mean) / std


@pytest.mark.parametrize("name", ["uni", "h-optimus-1", "virchow2", "h0-mini", "lunit-s16"])
def test_timm_networks_pool_as_their_cards_say(name: str, tmp_path: Path) -> None:
    spec, _ = small(name, tmp_path)
    options = dict(spec.network)
    layer = options.pop("mlp_layer", None)
    options |= {"mlp_layer": timm.layers.SwiGLUPacked} if layer else {}
    model = timm.create_model(
        options.pop("architecture"), num_classes=0, global_pool="", img_size=spec.input_size, **options
    )
    model.load_state_dict(load_file(tmp_path / "model.safetensors"))
    images = pixels(spec.input_size or 0)
    tokens = model.eval()(normalised(images, spec))
    registers = {"virchow2": 4, "h-optimus-1": 4, "h0-mini": 4}.get(name, 0)
    assert tokens.shape[1] == 1 + registers + 16
    expected = tokens[:, 0]
    if name in ("virchow2", "h0-mini"):
        expected = torch.cat([expected, tokens[:, 1 + registers :].mean(1)], 1)
    torch.testing.assert_close(from_spec(spec, tmp_path)(images), expected)


def test_midnight_joins_class_token_and_mean_of_patches(tmp_path: Path) -> None:
    spec, _ = small("midnight", tmp_path)
    images = pixels(spec.input_size or 0)
    tokens = Dinov2Model.from_pretrained(tmp_path).eval()(normalised(images, spec)).last_hidden_state
    expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1)
    torch.testing.assert_close(from_spec(spec, tmp_path)(images), expected)


def test_medclip_projects_the_pooled_output_of_swin(tmp_path: Path) -> None:
    spec, _ = small("medclip", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    inner = {n.removeprefix("vision_model.model."): t for n, t in tensors.items() if n.startswith("vision_model.model")}
    model = SwinModel.from_pretrained(None, config=SwinConfig(**spec.network["image"]), state_dict=inner).eval()
    images = pixels(32)
    expected = model(normalised(images, spec)).pooler_output @ tensors["vision_model.projection_head.weight"].T
    torch.testing.assert_close(from_spec(spec, tmp_path)(images), expected)


def test_medclip_reads_text_as_released(tmp_path: Path) -> None:
    spec, _ = small("medclip", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    inner = {n.removeprefix("text_model.model."): t for n, t in tensors.items() if n.startswith("text_model.model")}
    model = BertModel.from_pretrained(None, config=BertConfig(**spec.network["text"]), state_dict=inner).eval()
    words = (tmp_path / "vocab.txt").read_text().split("\n")
    tokens = ["[CLS]", "a", "f", *(f"##{letter}" for letter in "ibre"), ".", "[SEP]"]
    states = model(torch.tensor([[words.index(t) for t in tokens]]), output_hidden_states=True).hidden_states
    embedded = (states[1].mean(1) + states[2].mean(1) + states[3].mean(1)) / 3
    expected = embedded @ tensors["text_model.projection_head.weight"].T
    found = from_spec(spec, tmp_path).text_features(["A fibre.", "another, longer one"])
    torch.testing.assert_close(found[:1], expected)


@pytest.mark.parametrize("name", ["clip", "plip"])
def test_clip_gives_the_features_of_the_library(name: str, tmp_path: Path) -> None:
    spec, _ = small(name, tmp_path)
    model = CLIPModel.from_pretrained(tmp_path).eval()
    encoder = from_spec(spec, tmp_path)
    images = pixels(spec.input_size or 0)
    expected = model.get_image_features(normalised(images, spec)).pooler_output
    torch.testing.assert_close(encoder(images), expected)

    tokens = CLIPTokenizer.from_pretrained(tmp_path)(
        list(SENTENCES), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    expected = model.get_text_features(**tokens).pooler_output
    found = encoder.text_features(SENTENCES)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


# CONCH, written out. A sentence of the small tokenizer is its letters, "Ġ" before each word.


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, seen: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the attention of one sequence: (Q, D) and (L, D) to (Q, D)."""
    width = q.shape[1] // heads
    parts = []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        scores = q[:, own] @ k[:, own].T / width**0.5
        if seen is not None:
            scores = scores.masked_fill(~seen, float("-inf"))
        parts.append(scores.softmax(1) @ v[:, own])
    return torch.cat(parts, 1)


def norm(x: torch.Tensor, tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-5)


def test_conch_pools_images_by_attention(tmp_path: Path) -> None:
    spec, _ = small("conch", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    trunk = timm.create_model(
        "vit_base_patch16_224", num_classes=0, img_size=64, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS
    )
    trunk.load_state_dict({n[13:]: t for n, t in tensors.items() if n.startswith("visual.trunk.")})
    images = pixels(64)
    at = "visual.attn_pool_contrast"
    bias = tensors[f"{at}.attn.in_proj_bias"].chunk(3)
    query = norm(tensors[f"{at}.query"], tensors, f"{at}.ln_q") @ tensors[f"{at}.attn.q_proj_weight"].T + bias[0]
    expected = []
    for tokens in trunk.eval().forward_features(normalised(images, spec)):
        context = norm(tokens, tensors, f"{at}.ln_k")
        keys = context @ tensors[f"{at}.attn.k_proj_weight"].T + bias[1]
        values = context @ tensors[f"{at}.attn.v_proj_weight"].T + bias[2]
        pooled = attention(query, keys, values, 8)
        pooled = pooled @ tensors[f"{at}.attn.out_proj.weight"].T + tensors[f"{at}.attn.out_proj.bias"]
        expected.append(norm(pooled, tensors, "visual.ln_contrast") @ tensors["visual.proj_contrast"])
    torch.testing.assert_close(from_spec(spec, tmp_path)(images), torch.cat(expected), rtol=1e-4, atol=1e-5)


def conch_text(letters: list[int], tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return features (1, D) of eleven token indices, the last of which may be padding (0)."""
    x = torch.cat([tensors["text.token_embedding.weight"][letters], tensors["text.cls_emb"][None]])
    x = x + tensors["text.positional_embedding"]
    seen = torch.ones(12, 12, dtype=torch.bool).tril()
    seen[11, 1:] &= torch.tensor(letters) != 0  # the released mask, one position too far to the right
    for block in range(DEPTH):
        at = f"text.transformer.resblocks.{block}"
        y = norm(x, tensors, f"{at}.ln_1") @ tensors[f"{at}.attn.in_proj_weight"].T + tensors[f"{at}.attn.in_proj_bias"]
        y = attention(*y.chunk(3, 1), HEADS, seen)
        x = x + y @ tensors[f"{at}.attn.out_proj.weight"].T + tensors[f"{at}.attn.out_proj.bias"]
        y = norm(x, tensors, f"{at}.ln_2") @ tensors[f"{at}.mlp.c_fc.weight"].T + tensors[f"{at}.mlp.c_fc.bias"]
        x = x + functional.gelu(y) @ tensors[f"{at}.mlp.c_proj.weight"].T + tensors[f"{at}.mlp.c_proj.bias"]
    return norm(x[-1:], tensors, "text.ln_final") @ tensors["text.text_projection"]


def test_conch_reads_text(tmp_path: Path) -> None:
    spec, _ = small("conch", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    letter = {name: 4 + i for i, name in enumerate("abcdefghijklmnopqrstuvwxyz")}
    word = [letter[c] for c in "stroma"]
    expected = [
        conch_text([1, 3, *word, 2, 0, 0], tensors),
        conch_text([1, 3, *word, 3, *word[:1], 2], tensors),  # cut to the context, and ended
    ]
    found = from_spec(spec, tmp_path).text_features(["Stroma", "stroma stroma stroma"])
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-5)


# Text towers in general


@pytest.mark.parametrize("name", [n for n, row in encoders.catalogue().items() if row.text])
def test_text_and_images_share_a_space(name: str, tmp_path: Path) -> None:
    spec, _ = small(name, tmp_path)
    encoder = from_spec(spec, tmp_path)
    features = encoder.text_features(SENTENCES)
    assert features.shape == (3, spec.dimension)
    assert not features.requires_grad
    assert torch.equal(features, encoder.text_features(SENTENCES))
    torch.testing.assert_close(encoder.text_features(SENTENCES[1:2]), features[1:2], rtol=1e-4, atol=1e-5)
    assert torch.cdist(features, features).add(torch.eye(3)).min() > 0.01
    with pytest.raises(ConfigError, match="no sentences"):
        encoder.text_features([])


def test_an_encoder_without_a_text_tower_says_which_have_one() -> None:
    with pytest.raises(ConfigError, match="clip, plip or conch"):
        encoders.load("tiny").text_features(["tumour"])


@pytest.mark.parametrize("name", ["clip", "conch", "medclip"])
@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_tokenizer_that_cannot_be_read(name: str, fault: str, tmp_path: Path) -> None:
    spec, _ = small(name, tmp_path)
    for file in ("vocab.json", "merges.txt", "vocab.txt", "conch_byte_level_bpe_uncased.json"):
        if fault == "missing":
            (tmp_path / file).unlink(missing_ok=True)
        elif (tmp_path / file).exists():
            (tmp_path / file).write_bytes(b"{\xff")
    encoder = from_spec(spec, tmp_path)  # images need none
    with pytest.raises(WeightsUnavailable) as error:
        encoder.text_features(["tumour"])
    assert str(error.value).endswith(".")
    assert str(tmp_path) in str(error.value)


# Sentences


@pytest.mark.parametrize(
    ("name", "word"),
    [
        *(("TUM", "tumour"), ("STR", "stroma"), ("LYM", "lymphocytes"), ("NEC", "necrosis"), ("ADI", "adipose")),
        *(("MUC", "mucus"), ("MUS", "muscle"), ("NORM", "normal mucosa"), ("DEB", "debris"), ("BACK", "background")),
        *(("TE", "tumour"), ("TAS", "stroma"), ("gland", "glands"), ("Invasive_Tumor", "tumour")),
        *(("tumour-associated stroma", "stroma"), ("normal lung", "lung"), ("Lymphoid aggregate", "lymphocytes")),
    ],
)
def test_sentences_are_found_by_name_or_abbreviation(name: str, word: str) -> None:
    assert word in encoders.default_sentence(name)


def test_an_unknown_class_stands_for_itself() -> None:
    assert encoders.default_sentence("Bile_duct") == "An H&E image of bile duct."
    assert encoders.default_sentence("non-tumour") == "An H&E image of non tumour."
