"""Vision networks of a local folder in the Hugging Face layout, through the transformers library.

The folder holds ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``. Mean, deviation and
input size come from the last; how tokens become one vector depends on the kind of network.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_pbip.errors import WeightsUnavailable
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.encoders.catalogue import EncoderSpec

_POOLING = {
    "vit": "class token",
    "deit": "class token",
    "dinov2": "class token",
    "dinov2_with_registers": "class token",
    "swin": "mean of tokens",
    "swinv2": "mean of tokens",
    "clip": "projected class token",
}
"""How each kind of network was trained to make one vector of an image (``model_type`` of config.json)."""
_FILES = ("config.json", "preprocessor_config.json")


def build(spec: EncoderSpec, weights: Path) -> Encoder:
    """Load a network and read its facts from the folder.

    Raises
    ------
    WeightsUnavailable
        If the folder or one of its files is missing or damaged, the network is of a kind that is not known
        here, or weights are missing from the file.
    """
    for name in _FILES:
        if not (weights / name).is_file():
            raise WeightsUnavailable(
                f"{weights} holds no {name}; give the folder of a model in the Hugging Face layout "
                f"({', '.join(_FILES)}, model.safetensors)."
            )
    kind = _read(weights / "config.json").get("model_type")
    if kind not in _POOLING:
        raise WeightsUnavailable(f"{weights} is a network of the kind {kind!r}; known are {', '.join(_POOLING)}.")
    preprocessor = _read(weights / "preprocessor_config.json")
    size, mean, std = _input_size(preprocessor), spec.mean, spec.std
    if preprocessor.get("do_normalize", True):
        mean, std = (_triple(preprocessor, key, weights) for key in ("image_mean", "image_std"))
    network = _network(_load(weights, kind), _POOLING[kind])
    try:
        with torch.no_grad():
            dimension = network(torch.zeros(1, 3, size, size)).shape[1]
    except ValueError as error:
        raise WeightsUnavailable(
            f"The network in {weights} does not take the images of {size} pixels that its preprocessor_config.json "
            "names; restore both files."
        ) from error
    return Encoder(
        replace(spec, dimension=dimension, input_size=size, mean=mean, std=std, pooling=_POOLING[kind]), network
    )


def _network(model: Any, pooling: str) -> nn.Module:
    if pooling == "mean of tokens":
        return _MeanOfTokens(model)
    if pooling == "projected class token":  # the text tower is not kept
        return _ClassToken(model.vision_model, model.visual_projection)
    return _ClassToken(model)


class _MeanOfTokens(nn.Module):
    """A network of stages that shrink, such as Swin."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.model(pixel_values=images).last_hidden_state.mean(1)
        return vectors


class _ClassToken(nn.Module):
    """A vision transformer: its class token after the last layer norm, projected where there is a projection."""

    def __init__(self, model: Any, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.model: nn.Module = model
        self.projection = projection
        self.patch = int(model.config.patch_size)
        self.depth = int(model.config.num_hidden_layers)
        self.width = int(model.config.hidden_size)
        # those without the option always interpolate, or have no table of positions
        asked = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
        self._options = {"interpolate_pos_encoding": True} if asked else {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output = self.model(pixel_values=images)
        vectors: torch.Tensor = output.last_hidden_state[:, 0]
        return vectors if self.projection is None else self.projection(output.pooler_output)

    def block_maps(self, images: torch.Tensor, blocks: Sequence[int]) -> tuple[torch.Tensor, ...]:
        height, width = (side // self.patch for side in images.shape[-2:])
        states = self.model(pixel_values=images, output_hidden_states=True, **self._options).hidden_states
        patches = (states[block][:, -height * width :].mT for block in blocks)  # class and registers come first
        return tuple(tokens.reshape(len(images), self.width, height, width) for tokens in patches)


def _load(folder: Path, kind: str) -> nn.Module:
    """The network of a folder; every weight from the file, none left at random."""
    from transformers import AutoModel

    # Without their pooling layer: it is not used, and absent from many files. DINOv2 has no such layer.
    options = {"add_pooling_layer": False} if kind in ("vit", "deit", "swin", "swinv2") else {}
    try:
        with _quiet():
            model, report = AutoModel.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, dtype=torch.float32, **options
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsUnavailable(f"The weights in {folder} cannot be loaded ({reason}); restore the folder.") from error
    if missing := sorted(report["missing_keys"]):
        raise WeightsUnavailable(
            f"The weights in {folder} lack {len(missing)} tensors of the network, {missing[0]} for one; "
            "give the complete file."
        )
    network: nn.Module = model
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's progress bar and report off the user's screen; what matters becomes an error."""
    from transformers.utils import logging as library

    logging: Any = library  # its functions carry no types
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _read(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsUnavailable(f"{path} cannot be read; restore the file.") from error
    if not isinstance(values, dict):
        raise WeightsUnavailable(f"{path} holds no settings; restore the file.")
    return values


def _input_size(preprocessor: Mapping[str, Any]) -> int:
    """Side of the square that the network sees: of the centre crop, else of the resized image."""
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
