"""The class of all encoders, which are frozen, differentiable networks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol, Self, runtime_checkable

import torch
from torch import nn
from torch.nn import functional

from napari_pbip.errors import ConfigError
from napari_pbip.models.backbones.catalogue import SMALLEST
from napari_pbip.models.encoders.spec import EncoderSpec
from napari_pbip.models.shares import in_shares

STAGE_STRIDE = 8
"""Stride of a pyramid's second stage in pixels."""
_DENSE_STAGES = 3


@runtime_checkable
class VisionTransformer(Protocol):
    """A network of equal blocks over patches, whose intermediate outputs are available as maps."""

    patch: int
    """Side of a patch in pixels."""
    depth: int
    """Number of blocks."""
    width: int
    """Channels C of every block."""

    def block_maps(self, images: torch.Tensor, blocks: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """Return the patch tokens after some blocks, before the last layer norm.

        Parameters
        ----------
        images
            Normalised RGB, shape (B, 3, H, W); sides are multiples of :attr:`patch`, positions are interpolated.
        blocks
            Numbers of the blocks, in rising order, counted from 1.

        Returns
        -------
        tuple of torch.Tensor
            Shape (B, C, H / patch, W / patch) each, without class and register tokens.
        """
        ...

    def patch_map(self, images: torch.Tensor) -> torch.Tensor:
        """Return the patch tokens of the last block, after the last layer norm, if any; see :meth:`block_maps`."""
        ...


@runtime_checkable
class StageNetwork(Protocol):
    """A pyramid of four stages, whose outputs are available as maps."""

    channels: tuple[int, int, int, int]
    """Channels C_i of each stage."""

    def stage_maps(self, images: torch.Tensor, count: int) -> Sequence[torch.Tensor]:
        """Return the maps of the first stages, without computing later ones.

        Parameters
        ----------
        images
            Normalised RGB, shape (B, 3, H, W).
        count
            Number of stages, 1 to 4.

        Returns
        -------
        sequence of torch.Tensor
            Shape (B, C_i, h_i, w_i) each, the third with about H / 16 x W / 16 cells.
        """
        ...


@runtime_checkable
class CellPooling(Protocol):
    """A network whose features are statistics of the cells of a map, weighted by how bright the image is there."""

    def cells(self, images: torch.Tensor) -> torch.Tensor:
        """Return the map (B, C, h, w) of normalised RGB (B, 3, H, W)."""
        ...

    def pool(self, cells: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the features (B, D) of maps (B, C, h, w), weighted by images (B, 1 or 3, H, W) in [0, 1]."""
        ...


class Encoder(nn.Module):
    """A frozen network, through which gradients flow from the features back to the image.

    PBIP masks images by score maps and backpropagates through the encoder, so nothing in :meth:`forward` may cut the
    graph (``no_grad``, ``inference_mode``, ``detach``). Parameters require no gradients, and the network stays in
    evaluation mode, also as a part of another module.

    Parameters
    ----------
    spec
        The row of the catalogue, with its ``dimension``.
    network
        A network that takes normalised RGB (B, 3, H, W) and returns (B, D).
    text
        A function that takes sentences and returns (T, D) in the same space; None if there is no text tower. It loads
        the tower for each call, because sentences are few and rarely needed.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        spec: EncoderSpec,
        network: nn.Module,
        text: Callable[[Sequence[str]], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.network = network
        self._text = text
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()
        self.weights_hash = _weights_hash(spec, network)
        """SHA-256 over the weights, the normalisation and the revision, 16 hex digits."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of images.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).

        Returns
        -------
        torch.Tensor
            Shape (B, D), float32.
        """
        return in_shares(self._features, images)[0]

    def _features(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        size = self.spec.input_size
        if size is not None and images.shape[-2:] != (size, size):
            images = functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
        features: torch.Tensor = self.network(self.normalise(images))
        return (features.float(),)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise images (B, 3, H, W), RGB in [0, 1], by the mean and deviation of the network's training images."""
        return (images - self.mean) / self.std

    def block_maps(self, images: torch.Tensor, blocks: Sequence[int] = (3, 6, 9, 12)) -> tuple[torch.Tensor, ...]:
        """Return the patch tokens after some blocks of a vision transformer, as maps; gradients flow.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W), of any size. Positions are interpolated, and images are stretched so that
            their sides are multiples of the patch.
        blocks
            Numbers of the blocks, in rising order, counted from 1.

        Returns
        -------
        tuple of torch.Tensor
            One map for each block, shape (B, C, h, w), float32, of h x w patches, without class and register tokens.

        Raises
        ------
        ConfigError
            If the network is not a vision transformer, or does not have these blocks.
        """
        network = self.network
        if not isinstance(network, VisionTransformer):
            raise ConfigError(
                f"The encoder {self.spec.name!r} has no blocks of patches to look at; choose a vision transformer."
            )
        if not blocks or list(blocks) != sorted(set(blocks)) or blocks[0] < 1 or blocks[-1] > network.depth:
            raise ConfigError(
                f"The encoder {self.spec.name!r} has the blocks 1 to {network.depth}, and not "
                f"{', '.join(map(str, blocks))} in rising order; choose among them."
            )
        return tuple(maps.float() for maps in network.block_maps(self._in_patches(images, network.patch), blocks))

    @property
    def pools_cells(self) -> bool:
        """Whether features are statistics of the cells of a map, so that there are :meth:`cells` and :meth:`pool`."""
        return isinstance(self.network, CellPooling)

    @torch.no_grad()
    def cells(self, images: torch.Tensor) -> torch.Tensor:
        """Return the maps of which the features are statistics, without gradients.

        ``pool(cells(images), images)`` is :meth:`forward`. With masked images as the second argument, the cells keep
        what they see of the whole image, and only their weights are masked. The gradient of the masks then needs no
        pass through the network.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).

        Returns
        -------
        torch.Tensor
            Shape (B, C, h, w).

        Raises
        ------
        ConfigError
            If the network does not pool cells (:attr:`pools_cells`).
        """
        network = self._cell_pooling()
        return in_shares(lambda share: [network.cells(self.normalise(share))], images)[0]

    def pool(self, cells: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the features of :meth:`cells`, weighted by the brightness of images; gradients flow to both.

        Parameters
        ----------
        cells
            Shape (B, C, h, w).
        images
            The images or masked ones, or only their brightness, in [0, 1], shape (B, 3, H, W) or (B, 1, H, W).

        Returns
        -------
        torch.Tensor
            Shape (B, D), float32.

        Raises
        ------
        ConfigError
            If the network does not pool cells (:attr:`pools_cells`).
        """
        return self._cell_pooling().pool(cells, images).float()

    def _cell_pooling(self) -> CellPooling:
        if not isinstance(self.network, CellPooling):
            raise ConfigError(
                f"The features of the encoder {self.spec.name!r} are no statistics of cells; choose one whose are, "
                "such as efficientnet-lite0."
            )
        return self.network

    @property
    def dense_stride(self) -> int:
        """Stride of the dense features in pixels.

        Raises
        ------
        ConfigError
            If the encoder has no dense features.
        """
        if isinstance(self.network, StageNetwork):
            return STAGE_STRIDE
        if isinstance(self.network, VisionTransformer):
            return self.network.patch
        raise self._no_dense_features()

    @property
    def dense_dimension(self) -> int:
        """Length D of the dense features of a cell; it raises the errors of :attr:`dense_stride`."""
        if isinstance(self.network, StageNetwork):
            return 2 * sum(self.network.channels[:_DENSE_STAGES])
        if isinstance(self.network, VisionTransformer):
            return self.network.width
        raise self._no_dense_features()

    def _no_dense_features(self) -> ConfigError:
        return ConfigError(
            f"The encoder {self.spec.name!r} has no dense features: it is neither a pyramid nor a vision transformer; "
            "choose one that is, such as efficientnet-lite0."
        )

    @torch.no_grad()
    def dense(self, images: torch.Tensor) -> torch.Tensor:
        """Return a feature vector of every cell of images, without gradients.

        They are the maps of :meth:`dense_maps`, resized to one grid and concatenated.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W), with sides of 32 pixels or more. For a transformer they are stretched so
            that their sides are multiples of the patch.

        Returns
        -------
        torch.Tensor
            Shape (B, D, h, w), float32, with one cell per :attr:`dense_stride` pixels.

        Raises
        ------
        ConfigError
            If the encoder has no dense features (:attr:`EncoderSpec.dense`).
        """
        maps, grid = self.dense_maps(images)
        return torch.cat([resized(m, grid) for m in maps], 1)

    @torch.no_grad()
    def dense_maps(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Size]:
        """Return the maps that dense features consist of, and the height and width of the grid of :meth:`dense`.

        For a pyramid, these are the maps of its first three stages for the image and for the image in half size (32
        pixels at least), which see twice as far, normalised over their channels; the grid is that of the image's second
        stage. For a vision transformer, it is the map of the patch tokens of the last block. Parameters and errors are
        those of :meth:`dense`.
        """
        stride, network = self.dense_stride, self.network
        if isinstance(network, VisionTransformer):
            tokens = network.patch_map(self._in_patches(images, stride)).float()
            return [tokens], tokens.shape[-2:]
        assert isinstance(network, StageNetwork)
        height, width = (max(SMALLEST, -(-side // 2)) for side in images.shape[-2:])
        sizes = images, functional.adaptive_avg_pool2d(images, (height, width))
        maps = [m for size in sizes for m in self._normalised_stages(network, size)]
        return maps, maps[1].shape[-2:]

    def _normalised_stages(self, network: StageNetwork, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of the first stages, each normalised over its channels."""
        # convolutions with few channels and many pixels are twice as fast in this memory order
        normalised = self.normalise(images).contiguous(memory_format=torch.channels_last)
        return [functional.normalize(m.float(), dim=1) for m in network.stage_maps(normalised, _DENSE_STAGES)]

    def _in_patches(self, images: torch.Tensor, patch: int) -> torch.Tensor:
        """Return normalised images, stretched so that their sides are multiples of a patch."""
        height, width = (-(-side // patch) * patch for side in images.shape[-2:])
        if images.shape[-2:] != (height, width):
            images = functional.interpolate(images, (height, width), mode="bilinear", antialias=True)
        return self.normalise(images)

    def text_features(self, sentences: Sequence[str]) -> torch.Tensor:
        """Return the features of sentences, which are comparable with those of images by their cosine.

        Parameters
        ----------
        sentences
            Sentences that describe what an image shows, T of them.

        Returns
        -------
        torch.Tensor
            Shape (T, D), float32, not normalised, on the device of the encoder.

        Raises
        ------
        ConfigError
            If the encoder has no text tower, or there are no sentences.
        WeightsUnavailable
            If the files of the text tower or of its tokenizer are missing or damaged.
        """
        if self._text is None:
            raise ConfigError(
                f"The encoder {self.spec.name!r} has no text tower; choose one that has, such as clip, plip or conch."
            )
        if not sentences:
            raise ConfigError("There are no sentences to encode; give one a class.")
        return self._text(sentences).float().to(self.mean.device)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, the only mode of a frozen network."""
        return super().train(False)


def _weights_hash(spec: EncoderSpec, network: nn.Module) -> str:
    digest = hashlib.sha256(repr((spec.revision, spec.input_size, spec.mean, spec.std, spec.pooling)).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def resized(maps: torch.Tensor, grid: torch.Size) -> torch.Tensor:
    """Return maps (B, C, h, w) with the height and width of a grid, bilinear."""
    return functional.interpolate(maps, grid, mode="bilinear")
