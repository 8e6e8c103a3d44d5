"""Features of tiles by a frozen encoder, and the encoder of a bank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from napari_pbip.bank import EncoderFacts, ImageBank
from napari_pbip.engine.loading import to_pixels
from napari_pbip.engine.network import Network
from napari_pbip.engine.torch_network import Outputs
from napari_pbip.errors import BankError
from napari_pbip.models import encoders
from napari_pbip.models.encoders.base import Encoder

Item = TypeVar("Item")
Features = npt.NDArray[np.float32]


def encoder_facts(encoder: Encoder, weights: Path | None) -> EncoderFacts:
    """Return the facts about an encoder that are saved in a bank."""
    if encoder.spec.dimension is None:
        raise ValueError("a loaded encoder knows its dimension")
    return EncoderFacts(
        name=encoder.spec.name,
        weights_hash=encoder.weights_hash,
        dimension=encoder.spec.dimension,
        weights=str(weights.resolve()) if weights else None,
    )


def bank_encoder(bank: ImageBank, weights: Path | None = None) -> Encoder:
    """Load the encoder that a bank was built with.

    Parameters
    ----------
    bank
        The bank.
    weights
        Path of the encoder's weights, if they have been moved since.

    Raises
    ------
    BankError
        If the weights are not those that the bank was built with.
    ConfigError, WeightsUnavailable
        As :func:`napari_pbip.models.encoders.load` does.
    """
    name, kept = bank.encoder["name"], bank.encoder["weights"]
    encoder = encoders.load(name, weights or (Path(kept) if kept else None))
    if encoder.weights_hash != bank.encoder["weights_hash"]:
        raise BankError(
            f"The encoder {name!r} has other weights than when the bank was made; build the bank again, "
            "or point `bank.weights` to the weights it was made with."
        )
    return encoder


def network_identity(encoder: Encoder) -> tuple[str, str]:
    """Return what tells an encoder from others, for :class:`~napari_pbip.engine.network.Network`."""
    return encoder.spec.name, encoder.weights_hash


class TileEncoder:
    """Computes features of tiles with a frozen encoder.

    Parameters
    ----------
    encoder
        The encoder, on the device of the computation.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._dimension = encoder.spec.dimension or 0
        self._network = Network(encoder, _features, encoder.mean.device, identity=network_identity(encoder))

    def __call__(self, images: Sequence[npt.NDArray[np.uint8]]) -> Features:
        """Return the features of images, RGB (H, W, 3), shape (n, D); images of the same size are encoded together."""
        features = np.empty((len(images), self._dimension), np.float32)
        for shape in {image.shape for image in images}:
            members = [i for i, image in enumerate(images) if image.shape == shape]
            (found,) = self._network(to_pixels([images[i] for i in members]))
            features[members] = found.cpu().numpy()
        return features


def _features(encoder: Encoder, images: torch.Tensor) -> Outputs:
    return (encoder(images),)


def chunks(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of ``size`` items; the last list may be shorter."""
    while chunk := list(islice(items, size)):
        yield chunk
