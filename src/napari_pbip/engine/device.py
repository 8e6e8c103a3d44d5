"""The choice of the device and of the precision, and the way of tensors to a device and back.

The processor does not wait for a graphics card of NVIDIA until it needs the results: what is copied lies in memory that
the system does not move (pinned), from and to which the card copies by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import numpy.typing as npt
import torch

from napari_pbip.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]


def choose_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is the first CUDA device, else Apple's, else the CPU.

    Raises
    ------
    ConfigError
        If the name is not that of a device, or the device is not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"The device {name!r} is not on this machine; use device=auto or cpu.") from error
    return device


def devices() -> tuple[str, ...]:
    """Return the names of the devices of this machine, for :func:`choose_device`."""
    cuda = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    return ("auto", "cpu", *cuda, *(("mps",) if torch.backends.mps.is_available() else ()))


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device computes bfloat16 natively, so that it is faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
    return False


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return the autocast context of a precision; ``auto`` is bfloat16 if :func:`has_bfloat16`, else float32.

    In float32, :func:`without_tf32` is called.
    """
    enabled = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    if not enabled:
        without_tf32(device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def without_tf32(device: torch.device) -> None:
    """Switch TF32 off for all convolutions of this process, if the device is a graphics card.

    Torch would otherwise round the factors of their products to 10 bits, and labels would not be those of a processor.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # for matrices, that is torch's default


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; a graphics card copies it while the processor goes on."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Fetched:
    """Tensors on their way back to the processor; a graphics card sends them when it has computed them.

    Parameters
    ----------
    tensors
        The tensors, all on one device.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._tensors, self._sent = tensors, None
        if tensors[0].is_cuda:
            # before other work is given to the card, after which they would otherwise be sent
            self._tensors = [one.to("cpu", non_blocking=True) for one in tensors]  # into pinned memory
            self._sent = torch.cuda.current_stream(tensors[0].device).record_event()

    def wait(self) -> list[npt.NDArray[Any]]:
        """Wait until they are here; return them."""
        if self._sent is not None:
            self._sent.synchronize()
        return [one.cpu().numpy() for one in self._tensors]
