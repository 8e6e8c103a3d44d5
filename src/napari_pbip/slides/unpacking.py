"""A limit on the size that the chunks of a zarr array unpack to, by their shape.

zarr and numcodecs allocate whatever a chunk unpacks to, so that a damaged chunk of a few kilobytes can take all memory.
"""

from __future__ import annotations

import asyncio
import bz2
import dataclasses
import gzip
import io
import lzma
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import imagecodecs
import numcodecs.abc  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.codec import BytesBytesCodec, Codec
from zarr.codecs import ShardingCodec

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

Bytes = npt.NDArray[np.uint8]

_ROOM = 2, 1 << 16
"""Largest output of one codec of a chain: a multiple of the chunk's size, plus a number of bytes."""
_INDEX_ENTRY = 16
"""Bytes that the index of a shard takes for each of its chunks."""


def read_as_one(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Return the shape that is decoded to read one pixel: a chunk, or a whole shard if that is compressed itself."""
    metadata: Any = array.metadata
    return array.shards if array.shards and len(metadata.codecs) > 1 else array.chunks


def bounded(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Return the array with limited codecs: a chunk that unpacks to far more than its shape needs raises ValueError.

    The codecs of zarr and the compressing codecs of numcodecs are limited; others (such as JPEG 2000) are not.
    """
    metadata: Any = array.metadata
    if metadata.zarr_format == 2:
        room = _room(array.chunks, array.dtype.itemsize)
        metadata = dataclasses.replace(
            metadata,
            compressor=metadata.compressor and _bounded_v2(metadata.compressor, room),
            filters=metadata.filters and tuple(_bounded_v2(one, room) for one in metadata.filters),
        )
    else:
        shape = array.shards or array.chunks
        metadata = dataclasses.replace(metadata, codecs=_bounded_v3(metadata.codecs, shape, array.dtype.itemsize))
    return zarr.Array(zarr.AsyncArray(metadata, array.store_path))


def _room(shape: Sequence[int], itemsize: int) -> int:
    times, more = _ROOM
    return times * math.prod(shape) * itemsize + more


def _bounded_v2(codec: Any, room: int) -> Any:
    return _NumcodecsWithin(codec.codec_id, room) if codec.codec_id in _UNPACK else codec


def _bounded_v3(codecs: Sequence[Any], shape: Sequence[int], itemsize: int) -> tuple[Codec, ...]:
    """Return the limited codecs of a chunk or shard of this shape."""
    return tuple(_bounded_codec(codec, shape, itemsize) for codec in codecs)


def _bounded_codec(codec: Any, shape: Sequence[int], itemsize: int) -> Codec:
    if isinstance(codec, ShardingCodec):
        chunks = [-(-side // chunk) for side, chunk in zip(shape, codec.chunk_shape, strict=True)]
        return dataclasses.replace(
            codec,
            codecs=_bounded_v3(codec.codecs, codec.chunk_shape, itemsize),
            index_codecs=_bounded_v3(codec.index_codecs, chunks, _INDEX_ENTRY),
        )
    name = str(codec.to_dict()["name"]).removeprefix("numcodecs.")
    return _Within(name, _room(shape, itemsize)) if name in _UNPACK else codec


@dataclass(frozen=True)
class _Within(BytesBytesCodec):
    """A codec of zarr format 3 whose output is limited to a number of bytes."""

    name: str
    room: int
    is_fixed_size = False

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        packed = chunk_bytes.as_numpy_array()
        return chunk_spec.prototype.buffer.from_array_like(
            await asyncio.to_thread(_unpack, self.name, self.room, packed)
        )

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        raise NotImplementedError


class _NumcodecsWithin(numcodecs.abc.Codec):  # type: ignore[misc]
    """A codec of zarr format 2 whose output is limited to a number of bytes."""

    codec_id = "within"

    def __init__(self, name: str, room: int) -> None:
        self._name = name
        self._room = room

    def decode(self, buf: Any, out: Any = None) -> Bytes:
        return _unpack(self._name, self._room, np.frombuffer(buf, np.uint8))

    def encode(self, buf: Any) -> Any:
        raise NotImplementedError


def _unpack(name: str, room: int, packed: Bytes) -> Bytes:
    try:
        unpacked = np.frombuffer(_UNPACK[name](packed.tobytes(), room + 1), np.uint8)
    except Exception as error:
        raise ValueError(f"a chunk is damaged, or unpacks to more than the {room:,} bytes it may have") from error
    if len(unpacked) > room:
        raise ValueError(f"a chunk unpacks to more than the {room:,} bytes it may have")
    return unpacked


def _stream(opened: Callable[[io.BytesIO], Any]) -> Callable[[bytes, int], bytes]:
    def unpack(packed: bytes, most: int) -> bytes:
        with opened(io.BytesIO(packed)) as stream:
            return bytes(stream.read(most))

    return unpack


_UNPACK: dict[str, Callable[[bytes, int], Any]] = {
    "blosc": lambda packed, most: imagecodecs.blosc_decode(packed, out=most),
    "zstd": lambda packed, most: imagecodecs.zstd_decode(packed, out=most),
    "lz4": lambda packed, most: imagecodecs.lz4_decode(packed, out=most, header=True),
    "zlib": lambda packed, most: zlib.decompressobj().decompress(packed, most),
    "gzip": _stream(lambda file: gzip.GzipFile(fileobj=file)),
    "bz2": _stream(bz2.BZ2File),
    "lzma": _stream(lzma.LZMAFile),
}
"""By the name of a codec, the function that unpacks bytes to at most a number of bytes."""
