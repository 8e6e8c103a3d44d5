"""Networks computed by OpenVINO, an optional package that is fast on the processors of Intel and AMD.

A conversion takes seconds. It is therefore kept in the user's cache folder (``openvino/``), and the next process that
computes the same network takes it from there.

``openvino.convert_model`` reports its use to a server unless the user has forbidden that. The parts that it consists
of, which are called here, do not.
"""

from __future__ import annotations

import hashlib
import importlib.util
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cachetools
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from napari_pbip.engine.array_cache import ArrayCache
from napari_pbip.engine.cores import in_a_piece
from napari_pbip.engine.device import Precision
from napari_pbip.engine.torch_network import Outputs, compute

PACKAGE = "openvino"
REQUIREMENT = "napari-pbip[openvino]"
_COMPARED = 8
"""Number of pictures for which the values of OpenVINO are compared with those of torch before it is used."""
_LARGEST_ERROR: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 0.06}
"""Largest error for each precision. In bfloat16, whose numbers have eight bits, models of the default network had one
to five percent, by their training, while as many of their labels were those of float32 as with torch in bfloat16, whose
error is one percent; a network that was converted wrongly has an error of about a hundred."""
_LIMIT = 1 << 30
"""Bytes of conversions on disk at most: some fifty of default models."""
_CODE = tuple(Path(__file__).parents[1] / name for name in ("engine", "models"))
"""Folders of the code that defines networks, and what is converted of them."""
_CPU = torch.device("cpu")


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

    name = PACKAGE

    def __init__(self, compiled: Any, piece: int) -> None:
        import openvino

        self.version = installed() or ""
        self._compiled, self._piece = compiled, piece
        self._queue = openvino.AsyncInferQueue(compiled)
        self._count = len(compiled.outputs)

    def exported(self) -> npt.NDArray[np.uint8]:
        """Return the conversion as bytes, for :func:`_imported`."""
        return np.frombuffer(self._compiled.export_model().getvalue(), np.uint8)

    def another(self) -> Converted:
        """Return the same network for another thread."""
        return Converted(self._compiled, self._piece)

    def __call__(self, images: torch.Tensor) -> Outputs:
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


_shared: cachetools.LRUCache[str, Converted | None] = cachetools.LRUCache(8)
"""Conversions that networks of this process share; each holds the weights once more, some 20 MB of a default model."""
_sharing = threading.Lock()


def converted(
    network: nn.Module, images: torch.Tensor, precision: Precision, identity: Sequence[str] | None
) -> Converted | None:
    """Return a network as OpenVINO computes it: converted before, in this process or another one, or now.

    Parameters
    ----------
    network
        The network, in evaluation mode, on the processor: from images, RGB in [0, 1], (B, 3, H, W), to a tuple of
        tensors.
    images
        Pictures of the size for which it is converted, RGB uint8, (B, 3, H, W). The largest number of pieces that are
        computed beside each other is that of this batch.
    precision
        ``float32`` or ``bfloat16``.
    identity
        What tells the network, with its weights, from others; None if its conversion is neither shared nor kept.

    Returns
    -------
    Converted or None
        None if OpenVINO is not installed, cannot compute the network, or gives other values than torch.
    """
    if not installed():
        return None
    piece = in_a_piece(images.shape[-2] * images.shape[-1])
    streams = min(-(-len(images) // piece), torch.get_num_threads())
    some = images[:_COMPARED]
    if identity is None:
        return _checked(convert(network, some, precision, piece, streams), network, some, precision)
    parts = (*identity, precision, *images.shape[-2:], piece, streams, torch.get_num_threads())
    key = hashlib.sha256(repr(parts).encode()).hexdigest()
    with _sharing:  # other threads would convert the same
        if key not in _shared:
            _shared[key] = _kept(network, some, precision, piece, streams, key)
        kept: Converted | None = _shared[key]
    return None if kept is None else kept.another()


def _kept(
    network: nn.Module, images: torch.Tensor, precision: Precision, piece: int, streams: int, key: str
) -> Converted | None:
    """Return the conversion on disk if there is one, and otherwise make it and keep it there."""
    disk, code = ArrayCache.of_user(PACKAGE, np.uint8, _LIMIT), _code()
    blob = disk.get(code, key)
    on_disk = None if blob is None else _imported(blob, precision, piece, streams)
    if (found := _checked(on_disk, network, images, precision)) is not None:
        return found
    found = _checked(convert(network, images, precision, piece, streams), network, images, precision)
    if found is not None:
        with suppress(Exception):  # whatever OpenVINO raises; the next process converts it then
            disk.put(code, key, found.exported())
    return found


@cache
def _code() -> str:
    """Return the hash of what a conversion depends on besides the weights: processor, packages, and our own code."""
    versions = [version(name) for name in (PACKAGE, "torch", "timm", "transformers")]
    digest = hashlib.sha256(repr((torch.backends.cpu.get_cpu_capability(), versions)).encode())
    for path in sorted(path for folder in _CODE for path in folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _checked(
    found: Converted | None, network: nn.Module, images: torch.Tensor, precision: Precision
) -> Converted | None:
    """Return a conversion, or None if its values for these pictures are not those of torch, up to rounding."""
    if found is None:
        return None
    try:
        values = found(images)
    except RuntimeError:  # of OpenVINO, for example because it took the number of pictures for a constant
        return None
    exact = compute(network, images, _CPU, "float32")
    return found if _error(exact, values) <= _LARGEST_ERROR[precision] else None


def _error(exact: Outputs, values: Outputs) -> float:
    """Return the mean difference of an output from its exact values, as a share of their root mean square.

    Of several outputs, that with the largest one counts.
    """
    shares = [
        (a - b).abs().mean() / a.square().mean().sqrt().clamp_min(1e-6) for a, b in zip(exact, values, strict=True)
    ]
    return float(torch.stack(shares).max())  # which is no number if one of them is none


def convert(
    network: nn.Module, images: torch.Tensor, precision: Precision, piece: int, streams: int
) -> Converted | None:
    """Convert a network, whose values are not compared with those of torch.

    Parameters
    ----------
    network, images, precision
        As for :func:`converted`.
    piece
        Number of pictures that are computed at once.
    streams
        Number of pieces that are computed beside each other.

    Returns
    -------
    Converted or None
        None if OpenVINO cannot be loaded, or does not know an operation of the network.
    """
    with suppress(Exception):  # whatever a package of another version raises; torch computes the network then
        import openvino

        # other pictures than those that are compared, and only one, so that what was taken for a constant shows
        model = _model(network, (255 - images[:1]).float() / 255)
        return Converted(openvino.Core().compile_model(model, "CPU", _options(precision, streams)), piece)
    return None


def _imported(blob: npt.NDArray[np.uint8], precision: Precision, piece: int, streams: int) -> Converted | None:
    """Return a conversion from its bytes, or None if this version of OpenVINO cannot use them."""
    with suppress(Exception):  # as above
        import openvino

        return Converted(openvino.Core().import_model(blob.tobytes(), "CPU", _options(precision, streams)), piece)
    return None


def _options(precision: Precision, streams: int) -> dict[str, str | int]:
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": streams,
    }


def _model(network: nn.Module, images: torch.Tensor) -> Any:
    """Return the network as OpenVINO's model of pictures, uint8 (B, H, W, 3), from its computation of float images."""
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
    return steps.build()
