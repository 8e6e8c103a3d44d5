"""Small files that unpack to gigabytes are read or refused without using that memory."""

from __future__ import annotations

import bz2
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import google_crc32c
import imagecodecs
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from napari_pbip.errors import SlideError
from napari_pbip.slides import open_slide
from tests.robustness.mutate_slides import Visitor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not limit the memory of a process")
_GIGABYTE = 1 << 30
_MEMORY = 500 << 20
"""Bytes of a process that has imported the package and holds a small slide."""


def _deflated(wbits: int) -> bytes:
    """Return a gigabyte of zeros, compressed as repetitions of one piece."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    first = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + again * 1023 + packer.flush()


def _zstd() -> bytes:
    return bytes(numcodecs.Zstd().encode(np.zeros(_GIGABYTE, np.uint8)))


def _blosc() -> bytes:
    """Return a header that claims a gigabyte; the data after it are not read."""
    packed = bytearray(numcodecs.Blosc().encode(bytes(1 << 16)))
    packed[4:8] = struct.pack("<I", _GIGABYTE)
    return bytes(packed)


def _bz2() -> bytes:
    return bz2.compress(bytes(1 << 20)) * 1024


_ZARRS: dict[str, tuple[dict[str, object], Callable[[], bytes]]] = {
    "zlib, 0.4": ({"compressors": numcodecs.Zlib()}, lambda: _deflated(15)),
    "zstd, 0.4": ({"compressors": numcodecs.Zstd()}, _zstd),
    "gzip": ({"compressors": GzipCodec()}, lambda: _deflated(31)),
    "zstd": ({"compressors": ZstdCodec()}, _zstd),
    "blosc": ({"compressors": BloscCodec()}, _blosc),
    "bz2, 0.4": ({"compressors": numcodecs.BZ2()}, _bz2),
    "zstd in a shard": ({"compressors": ZstdCodec(), "shards": (3, 512, 512)}, _zstd),
}


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], str]]:
    """Open a slide in a separate process with little memory; return its message."""
    visitor = Visitor(tmp_path_factory.mktemp("visitor") / "noise.log")

    def visited(path: Path) -> str:
        outcome, said = visitor.visit(path)
        assert outcome in ("read", "refused or told"), said
        assert visitor.peak < _MEMORY
        return said

    yield visited
    visitor.close()


@pytest.mark.parametrize("kind", _ZARRS)
def test_a_chunk_of_ome_zarr(tmp_path: Path, kind: str, visit: Callable[[Path], str]) -> None:
    options, packed = dict(_ZARRS[kind][0]), _ZARRS[kind][1]()
    path, old = tmp_path / "slide.ome.zarr", "0.4" in kind
    group = zarr.open_group(path, mode="w", zarr_format=2 if old else 3)
    array = group.create_array("0", shape=(3, 400, 400), dtype="uint8", chunks=(1, 256, 256), **options)
    array[:] = 7
    axes = [{"name": axis} for axis in "cyx"]
    multiscale = {"axes": axes, "datasets": [{"path": "0"}]}
    group.attrs.update(
        {"multiscales": [multiscale]} if old else {"ome": {"version": "0.5", "multiscales": [multiscale]}}
    )
    if "shards" in options:  # one chunk, and the index that says where it lies
        index = np.full((3, 2, 2, 2), 2**64 - 1, "<u8")
        index[0, 0, 0] = 0, len(packed)
        packed += index.tobytes() + struct.pack("<I", google_crc32c.value(index.tobytes()))
    chunk = min(
        file
        for file in (path / "0").rglob("*")
        if file.is_file() and not file.name.endswith(("json", ".zarray", ".zattrs"))
    )
    chunk.write_bytes(packed)
    assert len(packed) < 3 << 20
    said = visit(path)
    assert "is damaged at x 0 to 256, y 0 to 256" in said
    with open_slide(path) as slide, pytest.raises(SlideError, match=r"unpacks to more than the 196,608 bytes"):
        slide.read_level(0, 0, 0, 100, 100)


def _jpeg2000(pixels: np.ndarray) -> bytes:
    packed = bytearray(imagecodecs.jpeg2k_encode(pixels, codecformat="j2k"))
    size = packed.index(b"\xff\x51") + 6  # Xsiz, Ysiz, XOsiz, YOsiz, XTsiz, YTsiz
    for place in (0, 4, 16, 20):
        packed[size + place : size + place + 4] = struct.pack(">I", 30_000)
    return bytes(packed)


def _png(pixels: np.ndarray) -> bytes:
    packed = bytearray(imagecodecs.png_encode(pixels))
    packed[16:24] = struct.pack(">II", 30_000, 30_000)
    packed[29:33] = struct.pack(">I", zlib.crc32(packed[12:29]))
    return bytes(packed)


def _jpeg(pixels: np.ndarray) -> bytes:
    packed = bytearray(imagecodecs.jpeg8_encode(pixels))
    frame = packed.index(b"\xff\xc0")
    packed[frame + 5 : frame + 9] = struct.pack(">HH", 30_000, 30_000)
    return bytes(packed)


def _webp(pixels: np.ndarray) -> bytes:
    packed = bytearray(imagecodecs.webp_encode(pixels, lossless=True))
    place = packed.index(b"VP8L") + 9  # 14 bits of width and of height, less one
    (bits,) = struct.unpack_from("<I", packed, place)
    struct.pack_into("<I", packed, place, bits | (1 << 28) - 1)
    return bytes(packed)


_TIFFS: dict[str, Callable[[np.ndarray], bytes]] = {
    "zlib": lambda _: _deflated(15),
    "lzw": lambda _: imagecodecs.lzw_encode(bytes(1 << 26)),
    "zstd": lambda _: _zstd(),
    "jpeg2000": _jpeg2000,
    "png": _png,
    "webp": _webp,
    "jpeg": _jpeg,
}


@pytest.mark.parametrize("tiled", [True, False], ids=["tile", "strip"])
@pytest.mark.parametrize("compression", _TIFFS)
def test_a_piece_of_a_tiff(tmp_path: Path, compression: str, tiled: bool, visit: Callable[[Path], str]) -> None:
    path = tmp_path / "slide.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    shape = {"tile": (256, 256)} if tiled else {"rowsperstrip": 64}
    tifffile.imwrite(path, pixels, photometric="rgb", compression=compression, metadata=None, **shape)
    packed = _TIFFS[compression](pixels[:256, :256] if tiled else pixels[:64])
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page, size = tiff.pages[0], path.stat().st_size
        names = ("TileOffsets", "TileByteCounts") if tiled else ("StripOffsets", "StripByteCounts")
        for name, first in zip(names, (size, len(packed)), strict=True):
            page.tags[name].overwrite((first, *page.tags[name].value[1:]))
        tiff.filehandle.seek(size)
    with path.open("r+b") as file:
        file.seek(size)
        file.write(packed)
    visit(path)
    if compression in ("jpeg", "jpeg2000", "png", "webp"):  # the others are given as much room as a tile has
        with open_slide(path) as slide, pytest.raises(SlideError, match=r"a picture of .* pixels in a tile"):
            slide.read_level(0, 0, 0, 10, 10)
