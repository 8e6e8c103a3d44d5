"""Trained networks and encoders as functions of pictures: the one place where they are computed without gradients.

Torch computes them, in bfloat16 where the device does so natively, and with batch normalisation folded into
convolutions. A graphics card whose memory is too small for a batch computes it in parts. On a processor, OpenVINO
computes them if it is installed and there is enough to do: it gives the same values up to the rounding of float32, for
the default network 1.4 to 1.7 times as fast (``benchmarks/inference.py``).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

import cachetools
import torch
from torch import nn

from napari_pbip.engine import openvino_network
from napari_pbip.engine.cores import side_by_side
from napari_pbip.engine.device import Precision, autocast, has_bfloat16, to_device
from napari_pbip.engine.freed_memory import keep_freed_memory
from napari_pbip.models.folding import fold_batch_norms
from napari_pbip.models.frozen import Frozen

Module = TypeVar("Module", bound=nn.Module)
Outputs = tuple[torch.Tensor, ...]

WORTH_CONVERTING = 25_000_000
"""Pixels (500 tiles of 224) from which a conversion for OpenVINO pays: it takes 1.5 seconds, which the default network
has saved again after as many pixels on two cores, and until it is done the user sees nothing. What other networks of
the process have converted does not count, so that a slide has the same scores whatever was segmented before it."""
PIECE = 4 * 224**2
"""Pixels that torch computes at once in a thread of a processor: 4 tiles of 224, or 16 of 112. The activations of more
are so large that memory costs more than is saved: in float32, 16 tiles of 224 at once take 1.4 times as long."""
_COMPARED = 4
"""Number of pictures for which the values of OpenVINO are compared with those of torch before it is used."""
_SIZES = 2
"""Largest number of sizes of pictures for which a network is converted; pictures of other sizes are left to torch."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What computed a network."""

    runtime: str
    """``torch`` or ``openvino``."""
    version: str
    precision: str
    """``float32`` or ``bfloat16``."""

    def to_json(self) -> dict[str, str]:
        """Return plain values for JSON."""
        return asdict(self)


class Network(Generic[Module]):
    """A network as a function of pictures, without gradients. It must not be used from several threads at once.

    Parameters
    ----------
    module
        The network, in evaluation mode, on ``device``. It is not changed, and changes of its weights after the first
        call are not noticed.
    outputs
        Computes the outputs of the module for images, RGB in [0, 1], (B, 3, H, W): tensors whose first axis is B.
    device, precision
        Device and number format of the computation; ``auto`` is bfloat16 where the device has it.
    expected
        Number of pixels that are to be computed, as far as it is known. Whether OpenVINO is used depends on it, and
        otherwise on what was computed so far.
    identity
        What tells the module, with its weights, from others of this process. Networks with the same one, for example
        for one slide after the other, share its conversion for OpenVINO; without one it is converted for this network.
    """

    def __init__(
        self,
        module: Module,
        outputs: Callable[[Module, torch.Tensor], Sequence[torch.Tensor]],
        device: torch.device,
        precision: Precision = "float32",
        *,
        expected: float = 0,
        identity: Hashable | None = None,
    ) -> None:
        if device.type == "cpu":
            keep_freed_memory()
        self.device = device
        self._module: _Function[Module] = _Function(module, outputs).eval()
        half = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
        self._precision: Precision = "bfloat16" if half else "float32"
        self._folded: _Function[Module] | None = None
        self._pixels, self._expected = 0, expected
        self._identity = None if identity is None else (identity, outputs, self._precision)
        self._piece = PIECE if device.type == "cpu" else sys.maxsize
        self.fitting: int | None = None
        """Number of pictures that are computed at once, since the memory of a graphics card was full with more."""
        self._converted: dict[torch.Size, openvino_network.Converted | None] = {}
        self.computed = Computed("torch", torch.__version__, self._precision)
        """What computed the last pictures."""

    def __call__(self, images: torch.Tensor) -> Outputs:
        """Return the outputs for pictures.

        Parameters
        ----------
        images
            RGB uint8, shape (B, 3, H, W), on any device.

        Returns
        -------
        tuple of torch.Tensor
            Float32, on :attr:`device`.
        """
        converted = self._conversion(images)
        if converted is None:
            self.computed = Computed("torch", torch.__version__, self._precision)
            return self._by_torch(images)
        self.computed = Computed("openvino", converted.version, self._precision)
        return converted(images)

    @torch.no_grad()
    def _by_torch(self, images: torch.Tensor) -> Outputs:
        if self._folded is None:
            folded = fold_batch_norms(self._module, _to_unit(images[:1].to(self.device)), _Function.forward)
            if self.device.type == "cuda" and folded is not self._module:  # else cuDNN converts them for every batch
                folded.to(memory_format=torch.channels_last)
            self._folded = folded
        height, width = images.shape[-2:]
        while True:
            count = self._at_once(images)
            try:
                compute = side_by_side if self.device.type == "cpu" else map
                pieces = list(compute(self._compute_folded, torch.split(images, count)))
                return tuple(torch.cat(of_pieces) for of_pieces in zip(*pieces, strict=True))
            except torch.OutOfMemoryError:  # of graphics cards only
                if count == 1:
                    raise
            # here, where the error no longer holds what was computed
            self.fitting = count // 2
            self._piece = self.fitting * height * width
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _at_once(self, images: torch.Tensor) -> int:
        """Return how many of some pictures are computed at once."""
        return max(1, min(len(images), self._piece // (images.shape[-2] * images.shape[-1])))

    def _compute_folded(self, images: torch.Tensor) -> Outputs:
        assert self._folded is not None
        return self._compute(self._folded, images, self._precision)

    def _compute(self, module: _Function[Module], images: torch.Tensor, precision: Precision) -> Outputs:
        with autocast(self.device, precision):
            outputs = module(_to_unit(to_device(images, self.device)))
        return tuple(one.float() for one in outputs)

    def _conversion(self, images: torch.Tensor) -> openvino_network.Converted | None:
        """Return the network as OpenVINO computes it for pictures of this size; None if torch is to compute it."""
        self._pixels += images.shape[0] * images.shape[-2] * images.shape[-1]
        if self.device.type != "cpu" or max(self._pixels, self._expected) < WORTH_CONVERTING:
            return None
        size = images.shape[-2:]
        if size not in self._converted and len(self._converted) < _SIZES:
            self._converted[size] = self._shared(images) if openvino_network.installed() else None
        return self._converted.get(size)

    def _shared(self, images: torch.Tensor) -> openvino_network.Converted | None:
        """Return the conversion that another network of this process has, or a new one."""
        piece = max(1, PIECE // (images.shape[-2] * images.shape[-1]))
        beside = -(-len(images) // piece)
        if self._identity is None:
            return self._convert(images[:_COMPARED], piece, beside)
        key = (self._identity, images.shape[-2:], torch.get_num_threads(), piece, beside)
        with _conversions_lock:  # other threads would convert the same
            if key not in _conversions:
                _conversions[key] = self._convert(images[:_COMPARED], piece, beside)
            kept: openvino_network.Converted | None = _conversions[key]
        return None if kept is None else kept.another()

    @torch.no_grad()
    def _convert(self, images: torch.Tensor, piece: int, beside: int) -> openvino_network.Converted | None:
        """Convert the network; None if OpenVINO cannot compute it, or gives other values than torch."""
        # converted for one picture and compared for others, so that what was taken for a constant shows
        half = self._precision == "bfloat16"
        converted = openvino_network.convert(self._module, 255 - images[:1], half=half, piece=piece, beside=beside)
        if converted is None:
            return None
        try:
            values = converted(images)
        except RuntimeError:  # of OpenVINO, for example because it took the number of pictures for a constant
            return None
        exact = self._compute(self._module, images, "float32")
        allowed = _FLOAT32
        if half:
            allowed += _BFLOAT16 * _error(exact, self._compute(self._module, images, "bfloat16"))
        return converted if _error(exact, values) <= allowed else None


_conversions: cachetools.LRUCache[Hashable, openvino_network.Converted | None] = cachetools.LRUCache(8)
"""Conversions that networks of this process share; each holds the weights once more, some 20 MB of a default model."""
_conversions_lock = threading.Lock()
_FLOAT32 = 1e-4
"""Largest error of OpenVINO in float32."""
_BFLOAT16 = 2.0
"""Largest error of OpenVINO in bfloat16, as a multiple of the error that torch has."""


def _error(exact: Outputs, values: Outputs) -> float:
    """Return the mean difference of the values of an output from exact ones, as a share of their root mean square.

    It is that of the output with the largest one: an output of a few values, such as the classes that are present, is
    too small a sample for a comparison of its own.
    """
    return max(
        float((a - b).abs().mean()) / max(1e-6, float(a.square().mean().sqrt()))
        for a, b in zip(exact, values, strict=True)
    )


def _to_unit(images: torch.Tensor) -> torch.Tensor:
    """Return pictures as float32 in [0, 1]."""
    return images.float().div_(255)


class _Function(nn.Module, Generic[Module]):
    """A function of a network and images as a module; frozen networks inside of it are parts of it."""

    def __init__(self, module: Module, outputs: Callable[[Module, torch.Tensor], Sequence[torch.Tensor]]) -> None:
        super().__init__()
        self.module = module
        self.frozen = nn.ModuleList(part.network for part in module.modules() if isinstance(part, Frozen))
        self._outputs = outputs

    def forward(self, images: torch.Tensor) -> Outputs:
        return tuple(self._outputs(self.module, images))
