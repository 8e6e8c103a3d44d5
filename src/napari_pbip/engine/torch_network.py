"""Networks computed by torch, with batch normalisation folded into convolutions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

from napari_pbip.engine.cores import in_a_piece, side_by_side
from napari_pbip.engine.device import Precision, autocast, to_device
from napari_pbip.models.folding import fold_batch_norms
from napari_pbip.models.frozen import Frozen

Module = TypeVar("Module", bound=nn.Module)
Outputs = tuple[torch.Tensor, ...]


class Function(nn.Module, Generic[Module]):
    """A function of a network and images, RGB in [0, 1], as a module; frozen networks inside of it are parts of it."""

    def __init__(self, module: Module, outputs: Callable[[Module, torch.Tensor], Sequence[torch.Tensor]]) -> None:
        super().__init__()
        self.module = module
        self.frozen = nn.ModuleList(part.network for part in module.modules() if isinstance(part, Frozen))
        self._outputs = outputs

    def forward(self, images: torch.Tensor) -> Outputs:
        return tuple(self._outputs(self.module, images))


@torch.no_grad()
def compute(network: nn.Module, images: torch.Tensor, device: torch.device, precision: Precision) -> Outputs:
    """Return the outputs of a network, float32, for pictures, RGB uint8, (B, 3, H, W)."""
    with autocast(device, precision):
        outputs: Sequence[torch.Tensor] = network(_to_unit(to_device(images, device)))
    return tuple(one.float() for one in outputs)


def _to_unit(images: torch.Tensor) -> torch.Tensor:
    """Return pictures as float32 in [0, 1]."""
    return images.float().div_(255)


class TorchNetwork(Generic[Module]):
    """A network that torch computes; a graphics card whose memory is too small for a batch computes it in parts.

    Parameters
    ----------
    function
        The network, in evaluation mode, on ``device``.
    device, precision
        Device and number format of the computation.
    """

    name = "torch"
    version = torch.__version__

    def __init__(self, function: Function[Module], device: torch.device, precision: Precision) -> None:
        self._function, self._device, self._precision = function, device, precision
        self._folded: Function[Module] | None = None
        self.fitting: int | None = None
        """Number of pictures that are computed at once, since the memory of a graphics card was full with more."""
        self._most_pixels = sys.maxsize
        """Pixels of that number of pictures."""

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> Outputs:
        """Return the outputs, float32, on the device, for pictures, RGB uint8, (B, 3, H, W)."""
        if self._folded is None:
            self._folded = self._fold(images[:1])
        beside = side_by_side if self._device.type == "cpu" else map
        while True:
            count = self._at_once(images)
            try:
                pieces = list(beside(self._compute, torch.split(images, count)))
                return tuple(torch.cat(of_pieces) for of_pieces in zip(*pieces, strict=True))
            except torch.OutOfMemoryError:  # of graphics cards only
                if count == 1:
                    raise
            # here, where the error no longer holds what was computed
            self.fitting = count // 2
            self._most_pixels = self.fitting * images.shape[-2] * images.shape[-1]
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _fold(self, images: torch.Tensor) -> Function[Module]:
        folded = fold_batch_norms(self._function, _to_unit(images.to(self._device)), Function.forward)
        if self._device.type == "cuda" and folded is not self._function:  # else cuDNN converts them for every batch
            folded.to(memory_format=torch.channels_last)
        return folded

    def _at_once(self, images: torch.Tensor) -> int:
        """Return how many of some pictures are computed at once."""
        pixels = images.shape[-2] * images.shape[-1]
        most = max(1, self._most_pixels // pixels)
        return min(len(images), most, in_a_piece(pixels)) if self._device.type == "cpu" else min(len(images), most)

    def _compute(self, images: torch.Tensor) -> Outputs:
        assert self._folded is not None
        return compute(self._folded, images, self._device, self._precision)
