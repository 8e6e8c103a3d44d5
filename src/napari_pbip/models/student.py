"""The student of ConStruct: a pyramid of four feature maps of a frozen encoder, each with a trainable adapter."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn
from torch.nn import functional as F

from napari_pbip.errors import ModelError
from napari_pbip.models.backbones import Features, Pyramid
from napari_pbip.models.encoders.base import Encoder, StageNetwork, VisionTransformer
from napari_pbip.models.frozen import Frozen
from napari_pbip.models.shares import in_shares

_LEVELS = 4


class ResidualAdapter(nn.Module):
    """A residual adapter, initialised to the identity.

    It adds to the map the output of a 1x1, a depthwise 3x3 and a 1x1 convolution, with batch normalisation and GELU
    between them; weights and bias of the last one start at zero.

    Parameters
    ----------
    channels
        Channels C of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.BatchNorm2d(channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 1),
        )
        for parameter in self.net[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the adapted maps of maps (B, C, h, w), same shape."""
        adapted: torch.Tensor = maps + self.net(maps)
        return adapted


class StudentPyramid(Pyramid):
    """Four feature maps of a frozen encoder, called levels; only the adapters are trained.

    The levels of a vision transformer have four times, twice, once and half the resolution of its patches. The levels
    of a pyramid are its stages.

    Parameters
    ----------
    encoder
        A vision transformer of four blocks or more, or a pyramid. Its weights are neither in ``parameters()`` nor in
        ``state_dict()``.

    Raises
    ------
    ModelError
        If the encoder is neither of both.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        network = encoder.network
        self.encoder = Frozen(encoder)
        self.blocks: tuple[int, ...] = ()
        """Number of the block of each level, counted from 1, at each quarter of the network; empty for a pyramid."""
        if isinstance(network, StageNetwork):
            self.channels = network.channels
        elif isinstance(network, VisionTransformer) and network.depth >= _LEVELS:
            self.channels = (network.width, network.width, network.width, network.width)
            self.blocks = tuple(round(network.depth * level / _LEVELS) for level in range(1, _LEVELS + 1))
        else:
            raise ModelError(
                f"ConStruct needs four blocks of a vision transformer or stages of a pyramid, and the encoder "
                f"{encoder.spec.name!r} has neither; build the bank with another encoder, such as efficientnet-lite0."
            )
        self.adapters = nn.ModuleList(ResidualAdapter(channels) for channels in self.channels)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """See :class:`Pyramid`; the statistics are those of the encoder."""
        return self.encoder.network.normalise(images)

    def forward(self, images: torch.Tensor) -> Features:
        """Return the maps of all four levels.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).

        Returns
        -------
        tuple of four tensors
            Shapes (B, C, 4h, 4w), (B, C, 2h, 2w), (B, C, h, w) and (B, C, h / 2, w / 2), rounded up, for h x w patches;
            or the shapes of the stages of a pyramid.
        """
        levels = self.levels(images, range(_LEVELS))
        return levels[0], levels[1], levels[2], levels[3]

    def levels(self, images: torch.Tensor, wanted: Collection[int]) -> dict[int, torch.Tensor]:
        """Return some of the levels by their indices 0..3, without computing blocks or stages after the last one."""
        places = sorted(wanted)

        def adapted(share: torch.Tensor) -> list[torch.Tensor]:
            with torch.no_grad():
                frozen = self._of_blocks(share, places) if self.blocks else self._of_stages(share, places)
            return [self.adapters[i](frozen[i]) for i in places]

        return dict(zip(places, in_shares(adapted, images), strict=True))

    def _of_blocks(self, images: torch.Tensor, places: list[int]) -> dict[int, torch.Tensor]:
        maps = self.encoder.network.block_maps(images, [self.blocks[i] for i in places])
        return {i: _resize(m, i) for i, m in zip(places, maps, strict=True)}

    def _of_stages(self, images: torch.Tensor, places: list[int]) -> dict[int, torch.Tensor]:
        network = self.encoder.network.network
        assert isinstance(network, StageNetwork)
        maps = network.stage_maps(self.normalise(images), max(places) + 1)
        return {i: maps[i].float() for i in places}


def _resize(maps: torch.Tensor, level: int) -> torch.Tensor:
    """Resize patch maps (B, C, h, w) to the resolution of a level."""
    if level == _LEVELS - 1:
        return F.avg_pool2d(maps, 2, ceil_mode=True)
    factor = (4, 2, 1)[level]
    return maps if factor == 1 else F.interpolate(maps, scale_factor=factor, mode="bilinear")
