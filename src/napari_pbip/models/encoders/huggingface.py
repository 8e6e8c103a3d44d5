"""Networks of the transformers library, from a local folder in the layout of the Hugging Face hub.

The folder contains ``config.json`` and ``model.safetensors``; a text tower also needs the files of its tokenizer. All
other facts about an encoder of the catalogue are in its row. For other folders, mean, deviation and input size are read
from ``preprocessor_config.json``, and the pooling of tokens follows from the kind of network.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_pbip.errors import WeightsUnavailable
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.encoders.checkpoint import Weights
from napari_pbip.models.encoders.spec import EncoderSpec
from napari_pbip.models.encoders.tokens import CLASS_TOKEN, MEAN, pool, to_map
from napari_pbip.models.encoders.weights import safetensors_file

PROJECTED = "projected class token"

_POOLING = {
    "vit": CLASS_TOKEN,
    "deit": CLASS_TOKEN,
    "dinov2": CLASS_TOKEN,
    "dinov2_with_registers": CLASS_TOKEN,
    "dinov3_vit": CLASS_TOKEN,
    "swin": MEAN,
    "swinv2": MEAN,
    "clip": PROJECTED,
}
"""The pooling with which each kind of network (``model_type`` of config.json) was trained."""
_FILES = ("config.json", "preprocessor_config.json")
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))


def build(spec: EncoderSpec, weights: Path) -> Encoder:
    """Load the network of a row.

    Raises
    ------
    WeightsUnavailable
        If the folder or one of its files is missing or damaged, or contains another network.
    """
    from transformers import AutoConfig

    folder = _folder(weights, spec, _FILES[:1])
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _unreadable(folder / _FILES[0]) from error
    if difference := _difference(config.to_dict(), spec.network):
        raise WeightsUnavailable(
            f"{folder} holds another network than {spec.name!r}: {difference}; give the folder of that encoder."
        )
    return _encoder(spec, folder, config.model_type)


def build_folder(spec: EncoderSpec, weights: Path) -> Encoder:
    """Load a network of any known kind, with its facts from the folder.

    Raises
    ------
    WeightsUnavailable
        If the folder or one of its files is missing or damaged, the network is of an unknown kind, or weights are
        missing from the file.
    """
    folder = _folder(weights, spec, _FILES)
    kind = _read(folder / _FILES[0]).get("model_type")
    if kind not in _POOLING:
        raise WeightsUnavailable(f"{folder} is a network of the kind {kind!r}; known are {', '.join(_POOLING)}.")
    preprocessor = _read(folder / _FILES[1])
    size, mean, std = _input_size(preprocessor), spec.mean, spec.std
    if preprocessor.get("do_normalize", True):
        mean, std = (_triple(preprocessor, key, folder) for key in ("image_mean", "image_std"))
    completed = replace(spec, input_size=size, mean=mean, std=std, pooling=_POOLING[kind], text=kind == "clip")
    encoder = _encoder(completed, folder, kind)
    try:
        with torch.no_grad():
            dimension = encoder.network(torch.zeros(1, 3, size, size)).shape[1]
    except ValueError as error:
        raise WeightsUnavailable(
            f"The network in {folder} does not take the images of {size} pixels that its preprocessor_config.json "
            "names; restore both files."
        ) from error
    encoder.spec = replace(completed, dimension=dimension)
    return encoder


def _encoder(spec: EncoderSpec, folder: Path, kind: str) -> Encoder:
    from transformers import AutoConfig, AutoModel, CLIPVisionModelWithProjection

    if spec.pooling == PROJECTED:  # the text tower is loaded when sentences are encoded
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config.vision_config.projection_dim = config.projection_dim
        options: dict[str, Any] = {"config": config.vision_config}
        model = load_model(CLIPVisionModelWithProjection, folder, folder, use_safetensors=True, **options)
        return Encoder(spec, ClassProjection(model), partial(_clip_text, folder))
    # without their pooling layer, which is not used and missing in many files; DINO has no such layer
    options = {"add_pooling_layer": False} if kind in ("vit", "deit", "swin", "swinv2") else {}
    model = load_model(AutoModel, folder, folder, use_safetensors=True, trust_remote_code=False, **options)
    if kind.startswith("swin"):
        return Encoder(spec, MeanOfTokens(model))
    return Encoder(spec, PooledTokens(model, spec.pooling))


class MeanOfTokens(nn.Module):
    """A network whose stages have fewer and fewer tokens, such as Swin; its vector is the mean of the last ones."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return pool(self.model(pixel_values=images).last_hidden_state, 0, MEAN)


class _Transformer(nn.Module):
    """A vision transformer whose block outputs are available as maps."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: nn.Module = model
        self.patch = int(model.config.patch_size)
        self.depth = int(model.config.num_hidden_layers)
        self.width = int(model.config.hidden_size)
        # networks without this option always interpolate positions, or have no table of them
        asked = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
        self._options = {"interpolate_pos_encoding": True} if asked else {}

    def block_maps(self, images: torch.Tensor, blocks: Sequence[int]) -> tuple[torch.Tensor, ...]:
        states = self.model(pixel_values=images, output_hidden_states=True, **self._options).hidden_states
        return tuple(self._to_map(states[block], images) for block in blocks)

    def patch_map(self, images: torch.Tensor) -> torch.Tensor:
        return self._to_map(self.model(pixel_values=images, **self._options).last_hidden_state, images)

    def _to_map(self, tokens: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return to_map(tokens, images.shape[-2] // self.patch, images.shape[-1] // self.patch)


class PooledTokens(_Transformer):
    """A vision transformer whose vector is pooled from the tokens after the last layer norm."""

    def __init__(self, model: Any, pooling: str) -> None:
        super().__init__(model)
        self.pooling = pooling

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = images.shape[-2] // self.patch * (images.shape[-1] // self.patch)
        return pool(self.model(pixel_values=images).last_hidden_state, patches, self.pooling)


class ClassProjection(_Transformer):
    """CLIP's image tower: the class token, projected to the common space of images and text."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.model(pixel_values=images).image_embeds
        return vectors

    def patch_map(self, images: torch.Tensor) -> torch.Tensor:
        # the library applies the last layer norm only to the class token
        vision: Any = self.model.vision_model
        tokens = self.model(pixel_values=images, **self._options).last_hidden_state
        return self._to_map(vision.post_layernorm(tokens), images)


def _clip_text(folder: Path, sentences: Sequence[str]) -> torch.Tensor:
    from transformers import AutoTokenizer, CLIPModel

    model = load_model(CLIPModel, folder, folder, use_safetensors=True).eval()
    unusable = WeightsUnavailable(
        f"{folder} holds no tokenizer for the text tower that can be read; put the model's tokenizer.json there, "
        "or its vocab.json and merges.txt."
    )
    # without these files, the library would make an empty tokenizer
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS):
        raise unusable
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        longest = model.config.text_config.max_position_embeddings
        tokens = tokenizer(list(sentences), padding=True, truncation=True, max_length=longest, return_tensors="pt")
    except Exception as error:
        raise unusable from error
    with torch.no_grad():
        vectors: torch.Tensor = model.get_text_features(**tokens).pooler_output
    return vectors


def load_model(kind: Any, source: Path, where: Path | None, *, tensors: Weights | None = None, **options: Any) -> Any:
    """Load a network of the library, all weights of which must be in the file.

    Parameters
    ----------
    kind
        Class of the library with a method ``from_pretrained``.
    source
        Path of the weights for errors.
    where
        Folder of the network; None if ``tensors`` and the option ``config`` are given.
    tensors
        Weights by name, in the layout of the hub.
    **options
        Other options of ``from_pretrained``.

    Raises
    ------
    WeightsUnavailable
        If they are damaged, incomplete, or of another network.
    """
    try:
        with _quiet():
            model, report = kind.from_pretrained(
                where,
                state_dict=tensors,
                local_files_only=True,
                output_loading_info=True,
                dtype=torch.float32,
                **options,
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsUnavailable(f"The weights in {source} cannot be loaded ({reason}); restore them.") from error
    if missing := sorted(report["missing_keys"]):
        raise WeightsUnavailable(
            f"The weights in {source} lack {len(missing)} tensors of the network, {missing[0]} for one; "
            "give the complete file."
        )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's progress bar and loading report; missing weights are raised as an error instead."""
    from transformers.utils import logging as library

    logging: Any = library  # its functions have no types
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _folder(weights: Path, spec: EncoderSpec, needed: Sequence[str]) -> Path:
    """Return the folder that the user gave, or that of the file; check that it contains all files."""
    folder = weights.parent if weights.name == "model.safetensors" else weights
    for name in needed:
        if not (folder / name).is_file():
            raise WeightsUnavailable(
                f"{folder} holds no {name}; give the folder of a model in the Hugging Face layout "
                f"({', '.join(needed)}, model.safetensors)."
            )
    if not any(folder.glob("*.safetensors")):
        safetensors_file(folder, spec)  # raises the error with the reason
    return folder


def _difference(given: Mapping[str, Any], wanted: Mapping[str, Any], within: str = "") -> str:
    """Return in words the first option in which a network differs from the wanted one; empty if there is none."""
    for key, value in wanted.items():
        if isinstance(value, Mapping):
            if difference := _difference(given.get(key) or {}, value, f"{within}{key}."):
                return difference
        elif given.get(key) != value:
            return f"{within}{key} is {given.get(key)} instead of {value}"
    return ""


def _unreadable(path: Path) -> WeightsUnavailable:
    return WeightsUnavailable(f"{path} cannot be read; restore the file.")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path) from error
    if not isinstance(values, dict):
        raise WeightsUnavailable(f"{path} holds no settings; restore the file.")
    return values


def _input_size(preprocessor: Mapping[str, Any]) -> int:
    """Return the side of the square input in pixels: that of the centre crop, or else of the resized image."""
    key = "crop_size" if preprocessor.get("do_center_crop") and "crop_size" in preprocessor else "size"
    size = preprocessor.get(key, 224)
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge") or 224
    return int(size)


def _triple(preprocessor: Mapping[str, Any], key: str, folder: Path) -> tuple[float, float, float]:
    values = preprocessor.get(key)
    if not isinstance(values, list) or len(values) != 3:
        raise WeightsUnavailable(f"{folder / _FILES[1]} gives no {key} of three numbers; restore the file.")
    return float(values[0]), float(values[1]), float(values[2])
