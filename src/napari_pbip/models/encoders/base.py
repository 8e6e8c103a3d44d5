"""What every encoder is: a frozen, differentiable network."""

from __future__ import annotations

import hashlib
from typing import Self

import torch
from torch import nn
from torch.nn import functional

from napari_pbip.models.encoders.catalogue import EncoderSpec


class Encoder(nn.Module):
    """A frozen network, with gradients from its features back to the image.

    PBIP masks images by score maps and learns through the encoder, so nothing in here may cut the graph
    (``no_grad``, ``inference_mode``, ``detach``); parameters take no gradient, and the network stays in
    evaluation mode whatever holds it.

    Parameters
    ----------
    spec
        Its facts, complete (``dimension`` known).
    network
        Takes normalised RGB (B, 3, H, W) and returns (B, D).
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, spec: EncoderSpec, network: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.network = network
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()
        self.weights_hash = _weights_hash(spec, network)
        """SHA-256 over the weights, the normalisation and the revision, 16 hex digits."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features of images.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).

        Returns
        -------
        torch.Tensor
            Shape (B, D), float32.
        """
        size = self.spec.input_size
        if size is not None and images.shape[-2:] != (size, size):
            images = functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
        features: torch.Tensor = self.network((images - self.mean) / self.std)
        return features.float()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: a frozen network has no other."""
        return super().train(False)


def _weights_hash(spec: EncoderSpec, network: nn.Module) -> str:
    digest = hashlib.sha256(repr((spec.revision, spec.input_size, spec.mean, spec.std, spec.pooling)).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
