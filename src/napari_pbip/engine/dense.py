"""Dense features of pictures: a vector for every cell, computed once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from napari_pbip.engine.array_cache import ArrayCache
from napari_pbip.engine.encoding import network_identity
from napari_pbip.engine.loading import Image, to_pixels
from napari_pbip.engine.network import Network
from napari_pbip.engine.torch_network import Outputs
from napari_pbip.models.encoders.base import Encoder

Features = npt.NDArray[np.float16]

_LIMIT = 4 << 30
"""Bytes of features on disk at most: about 7,500 tiles of 224 pixels with 352 channels per cell of 8 pixels."""
_REVISION = 2
"""Revision of the computation of features from the encoder's maps; cached features of another one are not used."""


class DenseFeatures:
    """Computes dense features of pictures with one encoder; those of known pictures come from the cache.

    Parameters
    ----------
    encoder
        The encoder, on the device of the computation.
    cache
        Cache of the features; by default that in the user's cache folder.
    """

    def __init__(self, encoder: Encoder, cache: ArrayCache | None = None) -> None:
        self.encoder = encoder
        self.cache = cache or ArrayCache.of_user("dense", np.float16, _LIMIT)
        self._identity = f"{encoder.weights_hash}-{_REVISION}"
        self._network = Network(encoder, _dense, encoder.mean.device, identity=network_identity(encoder))

    def __call__(self, images: Sequence[Image]) -> list[Features]:
        """Return the features of each picture; unknown pictures of the same size are encoded together.

        Parameters
        ----------
        images
            RGB uint8, shape (H, W, 3) each.

        Returns
        -------
        list of float16 arrays
            Shape (D, h, w) each, with one cell per :attr:`Encoder.dense_stride` pixels. Half precision changes the
            log-probabilities of a linear probe by 0.002 at most, and needs half the space.

        Raises
        ------
        ConfigError
            If the encoder has no dense features.
        """
        keys = [_content(image) for image in images]
        kept = {key: self.cache.get(self._identity, key) for key in keys}
        found = {key: features for key, features in kept.items() if features is not None}
        missing = {key: image for key, image in zip(keys, images, strict=True) if key not in found}
        for shape in {image.shape for image in missing.values()}:
            same_size = [key for key, image in missing.items() if image.shape == shape]
            (batch,) = self._network(to_pixels([missing[key] for key in same_size]))
            for key, features in zip(same_size, batch.to(torch.float16).cpu(), strict=True):
                # in the order of the cache's files, so that sums of known and new features agree to the last bit
                found[key] = np.ascontiguousarray(features.numpy())
                self.cache.put(self._identity, key, found[key])
        return [found[key] for key in keys]


def _dense(encoder: Encoder, images: torch.Tensor) -> Outputs:
    return (encoder.dense(images),)


def _content(image: Image) -> str:
    """Return the hash of a picture's pixels, hexadecimal."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
