"""Trained networks and encoders as functions of pictures: the one place where they are computed without gradients.

Torch computes them, in bfloat16 where the device does so natively. On a processor, OpenVINO computes them if it is
installed and there is enough to do: it gives the same values up to the rounding of float32, for the default network 1.4
to 1.7 times as fast (``benchmarks/inference.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Generic, Protocol

import torch

from napari_pbip.engine import openvino_network
from napari_pbip.engine.cores import BatchSizes
from napari_pbip.engine.device import Precision, has_bfloat16, without_tf32
from napari_pbip.engine.freed_memory import keep_freed_memory
from napari_pbip.engine.torch_network import Function, Module, Outputs, TorchNetwork
from napari_pbip.models.methods.probe import Probe

WORTH_CONVERTING = 25_000_000
"""Pixels (500 tiles of 224) from which a conversion for OpenVINO pays: it takes 1.5 seconds, which the default network
has saved again after as many pixels on two cores, and until it is done the user sees nothing. What was converted before
does not count, in this process or on disk, so that a slide has the same scores whatever was segmented before it."""
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


class Runtime(Protocol):
    """A library that computes a network."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def __call__(self, images: torch.Tensor) -> Outputs: ...


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
        Device and number format of the computation; ``auto`` is bfloat16 where the device has it. A linear probe, also
        one in the scores of PBIP, is computed in float32, and so is all of its network if OpenVINO computes it.
    expected
        Number of pixels that are to be computed, as far as it is known. Whether OpenVINO is used depends on it, and
        otherwise on what was computed so far.
    identity
        What tells the module, with its weights, from others. Networks with the same one, for example for one slide
        after the other, share its conversion for OpenVINO, which is also kept on disk; without one it is converted for
        this network.
    """

    def __init__(
        self,
        module: Module,
        outputs: Callable[[Module, torch.Tensor], Sequence[torch.Tensor]],
        device: torch.device,
        precision: Precision = "float32",
        *,
        expected: float = 0,
        identity: Sequence[str] | None = None,
    ) -> None:
        if device.type == "cpu":
            keep_freed_memory()
        self.device = device
        self._function: Function[Module] = Function(module, outputs).eval()
        half = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
        self._precision: Precision = "bfloat16" if half and not isinstance(module, Probe) else "float32"
        self._pixels, self._expected = 0, expected
        self._identity = None if identity is None else (*identity, f"{outputs.__module__}.{outputs.__qualname__}")
        self._by_torch = TorchNetwork(self._function, device, self._precision)
        has_probe = any(isinstance(part, Probe) for part in module.modules())
        if has_probe:
            without_tf32(device)
        self._openvino_precision: Precision = "float32" if has_probe else self._precision
        self._by_openvino: dict[torch.Size, Runtime | None] = {}
        self.computed = self._computed(self._by_torch)
        """What computed the last pictures."""

    @property
    def fitting(self) -> int | None:
        """Number of pictures that are computed at once, since the memory of a graphics card was full with more."""
        return self._by_torch.fitting

    def batch_sizes(self, most: int, pixels: int) -> BatchSizes:
        """Return the sizes of batches in which a picture always gets the same values, bit for bit.

        Parameters
        ----------
        most
            Largest number of pictures in a batch.
        pixels
            Number of pixels of each.
        """
        # a graphics card computes a batch at once
        return BatchSizes.of(most, pixels) if self.device.type == "cpu" else BatchSizes(most, most, most)

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
        runtime = self._runtime(images)
        self.computed = self._computed(runtime)
        return runtime(images)

    def _computed(self, runtime: Runtime) -> Computed:
        precision = self._precision if runtime is self._by_torch else self._openvino_precision
        return Computed(runtime.name, runtime.version, precision)

    def _runtime(self, images: torch.Tensor) -> Runtime:
        """Return what is to compute pictures of this size."""
        self._pixels += images.shape[0] * images.shape[-2] * images.shape[-1]
        if self.device.type != "cpu" or max(self._pixels, self._expected) < WORTH_CONVERTING:
            return self._by_torch
        size = images.shape[-2:]
        if size not in self._by_openvino and len(self._by_openvino) < _SIZES:
            self._by_openvino[size] = openvino_network.converted(
                self._function, images, self._openvino_precision, self._identity
            )
        return self._by_openvino.get(size) or self._by_torch
