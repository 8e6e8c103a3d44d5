"""Networks computed by OpenVINO, an optional package that is fast on the processors of Intel and AMD.

``openvino.convert_model`` reports its use to a server unless the user has forbidden that. The parts that it consists
of, which are called here, do not.
"""

from __future__ import annotations

import importlib.util
import warnings
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import nn

PACKAGE = "openvino"
REQUIREMENT = "napari-pbip[openvino]"


@cache
def installed() -> str | None:
    """Return the version of OpenVINO, or None if it is not installed."""
    return version(PACKAGE) if importlib.util.find_spec(PACKAGE) else None


class Converted:
    """A network that OpenVINO computes, for pictures of one size and batches of any.

    It must not be used from several threads at once; each needs its :meth:`another`.
    """

    def __init__(self, compiled: Any) -> None:
        self.version = installed() or ""
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._count = len(compiled.outputs)

    def another(self) -> Converted:
        """Return the same network for another thread."""
        return Converted(self._compiled)

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs, float32, for pictures, RGB uint8, (B, 3, H, W)."""
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())
        self._request.infer([pixels], share_inputs=True)
        # copies, because the next call writes into the same memory
        outputs = [self._request.get_output_tensor(i).data.astype(np.float32) for i in range(self._count)]
        return tuple(torch.from_numpy(one) for one in outputs)


def convert(network: nn.Module, images: torch.Tensor, *, half: bool) -> Converted | None:
    """Convert a network from images, RGB in [0, 1], (B, 3, H, W), to a tuple of tensors.

    Parameters
    ----------
    network
        The network, in evaluation mode, on the processor.
    images
        Pictures of the size for which it is converted, RGB uint8, (B, 3, H, W).
    half
        Whether to compute in bfloat16 instead of float32.

    Returns
    -------
    Converted or None
        None if OpenVINO cannot be loaded, or does not know an operation of the network.
    """
    with suppress(Exception):  # whatever a package of another version raises; torch computes the network then
        return Converted(_compile(network, images.float() / 255, half=half))
    return None


def _compile(network: nn.Module, images: torch.Tensor, *, half: bool) -> Any:
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.preprocess import PrePostProcessor

    with warnings.catch_warnings(), torch.no_grad():
        # Of the tracer, that shapes become constants: a network is converted for one size. Of torch, that the tracer is
        # old; OpenVINO takes ten times as long for what the newer one gives.
        warnings.simplefilter("ignore")
        traced: Any = torch.jit.trace(network, images, check_trace=False)  # type: ignore[no-untyped-call]
        decoder = TorchScriptPythonDecoder(traced)  # must live as long as its model
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    steps = PrePostProcessor(model)
    pictures = steps.input(0)
    pictures.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    pictures.tensor().set_shape([-1, *images.shape[-2:], 3])
    pictures.model().set_layout(openvino.Layout("NCHW"))
    pictures.preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    return openvino.Core().compile_model(steps.build(), "CPU", options)
