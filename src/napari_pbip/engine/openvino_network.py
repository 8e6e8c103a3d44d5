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

    Parameters
    ----------
    compiled
        The network; as many pieces of a batch are computed beside each other as it has streams.
    piece
        Number of pictures of a piece.
    """

    def __init__(self, compiled: Any, piece: int) -> None:
        import openvino

        self.version = installed() or ""
        self._compiled, self._piece = compiled, piece
        self._queue = openvino.AsyncInferQueue(compiled)
        self._count = len(compiled.outputs)

    def another(self) -> Converted:
        """Return the same network for another thread."""
        return Converted(self._compiled, self._piece)

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs, float32, for pictures, RGB uint8, (B, 3, H, W)."""
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())
        starts = range(0, len(pixels), self._piece)
        found: dict[int, list[torch.Tensor]] = {}

        def keep(request: Any, start: int) -> None:
            # copies, because the next piece is written into the same memory
            outputs = (request.get_output_tensor(i).data.astype(np.float32) for i in range(self._count))
            found[start] = [torch.from_numpy(one) for one in outputs]

        self._queue.set_callback(keep)
        for start in starts:
            self._queue.start_async([pixels[start : start + self._piece]], start, share_inputs=True)
        self._queue.wait_all()
        return tuple(torch.cat(of_pieces) for of_pieces in zip(*(found[start] for start in starts), strict=True))


def convert(network: nn.Module, images: torch.Tensor, *, half: bool, piece: int, beside: int) -> Converted | None:
    """Convert a network from images, RGB in [0, 1], (B, 3, H, W), to a tuple of tensors.

    Parameters
    ----------
    network
        The network, in evaluation mode, on the processor.
    images
        Pictures of the size for which it is converted, RGB uint8, (B, 3, H, W).
    half
        Whether to compute in bfloat16 instead of float32.
    piece
        Number of pictures that are computed at once.
    beside
        Largest number of pieces that are computed beside each other.

    Returns
    -------
    Converted or None
        None if OpenVINO cannot be loaded, or does not know an operation of the network.
    """
    with suppress(Exception):  # whatever a package of another version raises; torch computes the network then
        return Converted(_compile(network, images.float() / 255, half=half, beside=beside), piece)
    return None


def _compile(network: nn.Module, images: torch.Tensor, *, half: bool, beside: int) -> Any:
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
        "NUM_STREAMS": min(beside, torch.get_num_threads()),
    }
    return openvino.Core().compile_model(steps.build(), "CPU", options)
