"""MedCLIP's image tower: a Swin-T, its mean token projected to 512 (Wang et al. 2022).

The released checkpoint holds it below ``vision_model.``, in the layout of transformers 4. The text tower, trained on
radiology reports, is not loaded.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import SwinConfig, SwinModel

from napari_pbip.models.encoders import checkpoint
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.encoders.huggingface import MeanOfTokens, load_model
from napari_pbip.models.encoders.spec import EncoderSpec
from napari_pbip.models.encoders.weights import safetensors_file


def build(spec: EncoderSpec, weights: Path) -> Encoder:
    """Load the image tower.

    Raises
    ------
    WeightsUnavailable
        If there is no such safetensors file, it is damaged, or holds the weights of another network.
    """
    path = safetensors_file(weights, spec)
    tensors = checkpoint.read(path)
    config = SwinConfig(**spec.network)
    own = checkpoint.below(tensors, "vision_model.model.")
    model = load_model(SwinModel, path, None, tensors=own, config=config, add_pooling_layer=False)
    with torch.device("meta"):
        projection = nn.Linear(config.hidden_size, spec.dimension or 0, bias=False)
    checkpoint.fill(projection, checkpoint.below(tensors, "vision_model.projection_head."), spec.name, path)
    return Encoder(spec, nn.Sequential(MeanOfTokens(model), projection))
