"""MedCLIP: a Swin-T for images and a BERT for text, each projected to 512 dimensions without bias (Wang et al. 2022).

In the released checkpoint, their names begin with ``vision_model.`` and ``text_model.``, in the layout of transformers
4. It was trained on grey chest radiographs and lower-case sentences of their reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from tokenizers import BertWordPieceTokenizer
from torch import nn
from transformers import BertConfig, BertModel, SwinConfig, SwinModel

from napari_pbip.errors import WeightsUnavailable
from napari_pbip.models.encoders import checkpoint
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.encoders.huggingface import MeanOfTokens, load_model
from napari_pbip.models.encoders.spec import EncoderSpec
from napari_pbip.models.encoders.weights import safetensors_file
from napari_pbip.models.weight_files import read

_VOCABULARY = "vocab.txt"
_LONGEST = 77


def build(spec: EncoderSpec, weights: Path) -> Encoder:
    """Load the image tower; the text tower is loaded when sentences are encoded.

    Raises
    ------
    WeightsUnavailable
        If the safetensors file does not exist, is damaged, or contains the weights of another network.
    """
    path = safetensors_file(weights, spec)
    tensors = read(path)
    config = SwinConfig(**spec.network["image"])
    tower = checkpoint.below(tensors, "vision_model.model.")
    model = load_model(SwinModel, path, None, tensors=tower, config=config, add_pooling_layer=False)
    projection = _projection(config.hidden_size, "vision_model.", tensors, spec, path)
    return Encoder(spec, nn.Sequential(MeanOfTokens(model), projection), partial(_text, spec, path))


def _projection(width: int, tower: str, tensors: checkpoint.Weights, spec: EncoderSpec, path: Path) -> nn.Linear:
    with torch.device("meta"):
        projection = nn.Linear(width, spec.dimension or 0, bias=False)
    checkpoint.fill(projection, checkpoint.below(tensors, f"{tower}projection_head."), spec.name, path)
    return projection


def _text(spec: EncoderSpec, path: Path, sentences: Sequence[str]) -> torch.Tensor:
    """Return the features of sentences: as released, the projected mean of all tokens of layers 1, 2 and the last."""
    tensors = read(path)
    config = BertConfig(**spec.network["text"])
    model = load_model(BertModel, path, None, tensors=checkpoint.below(tensors, "text_model.model."), config=config)
    projection = _projection(config.hidden_size, "text_model.", tensors, spec, path)
    tokenizer = _tokenizer(path.parent)
    vectors = []
    with torch.no_grad():
        # One by one, because the mean would include padding, which depends on the other sentences of a batch.
        for sentence in sentences:
            states = model.eval()(
                torch.tensor([tokenizer.encode(sentence.lower()).ids]), output_hidden_states=True
            ).hidden_states
            vectors.append(projection(torch.stack([states[1], states[2], states[-1]]).mean((0, 2))))
    return torch.cat(vectors)


def _tokenizer(folder: Path) -> BertWordPieceTokenizer:
    try:
        tokenizer = BertWordPieceTokenizer(str(folder / _VOCABULARY))
    except Exception as error:
        raise WeightsUnavailable(
            f"{folder} holds no {_VOCABULARY} for the text tower that can be read; put that of "
            "https://huggingface.co/emilyalsentzer/Bio_ClinicalBERT there."
        ) from error
    tokenizer.enable_truncation(_LONGEST)
    return tokenizer
