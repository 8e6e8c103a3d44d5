"""The choice of the device and of the precision."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

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
    """Return the autocast context of a precision; ``auto`` is bfloat16 if :func:`has_bfloat16`, else float32."""
    enabled = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
