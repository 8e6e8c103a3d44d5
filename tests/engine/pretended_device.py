"""A device that is not there: its tensors are computed by the processor, and it is as strict as a graphics card.

Once this module is imported, tensors can be moved to :data:`DEVICE`. An operation on tensors of it and of the processor
together fails, and so does numpy with them. What comes back to the processor is counted, because a graphics card is
waited for there. Torch cannot forget a kind of device; import this in a process of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

fetched: list[str] = []
"""Operations that brought values back to the processor, each of which waits for it."""


class _Module:
    """What torch asks a kind of device."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Do nothing: random numbers come from the processor."""

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend("pretended", _Module())
DEVICE = torch.device("pretended", 0)


class _Tensor(torch.Tensor):
    """A tensor of the device, with its values in the memory of the processor."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> _Tensor:
        pretended: _Tensor = torch.Tensor._make_wrapper_subclass(
            cls, values.shape, values.stride(), values.storage_offset(), dtype=values.dtype, device=DEVICE
        )
        pretended.values = values
        return pretended

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(function, *args, **kwargs or {})


def _compute(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute an operation on tensors of the device, or one that makes such a tensor."""
    copies = function.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_, torch.ops.aten._copy_from)
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
    there = {id(one.values): one for one in tensors if isinstance(one, _Tensor)}
    # torch lets a single number of the processor take part, but not be stacked
    stacks = function.overloadpacket in (torch.ops.aten.stack, torch.ops.aten.cat)
    here = [one for one in tensors if not isinstance(one, _Tensor) and (one.ndim or stacks)]
    assert copies or not (there and here), f"{function} gets tensors of two devices"
    goes = torch.device(kwargs.get("device") or DEVICE).type
    if "device" in kwargs:
        kwargs["device"] = torch.device("cpu")
    args, kwargs = tree_map_only(_Tensor, lambda one: one.values, (args, kwargs))
    found = function(*args, **kwargs)
    if isinstance(found, torch.Tensor) and function.overloadpacket is torch.ops.aten.copy_:
        goes = DEVICE.type if id(found) in there else "cpu"
    if goes == "cpu" or function.overloadpacket is torch.ops.aten._local_scalar_dense:
        fetched.append(str(function))
        return found
    return tree_map_only(torch.Tensor, lambda one: there[id(one)] if id(one) in there else _Tensor(one), found)


_library = torch.library.Library("_", "IMPL")
_library.fallback(_compute, "PrivateUse1")
