"""The caches of arrays on disk: exact, of limited size, checked when they are read; nothing is computed twice."""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save

from napari_pbip import samples
from napari_pbip.engine.array_cache import ArrayCache
from napari_pbip.engine.dense import DenseFeatures
from napari_pbip.engine.loading import to_tensor
from napari_pbip.models import encoders
from napari_pbip.models.encoders.base import Encoder

LIMIT = 1 << 20


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return encoders.load("efficientnet-lite0")


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    paths = sorted(samples.tiles().glob("*/*.png"))[:3]
    return [np.asarray(Image.open(path).convert("RGB"))[:64, :96] for path in paths]


def count_calls(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    dense = encoder.dense

    def counting(batch: torch.Tensor) -> torch.Tensor:
        seen.append(len(batch))
        return dense(batch)

    monkeypatch.setattr(encoder, "dense", counting)
    return seen


def test_nothing_is_computed_twice(
    encoder: Encoder, images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = encoder.dense(to_tensor(np.stack(images))).numpy()
    calls = count_calls(encoder, monkeypatch)
    dense = DenseFeatures(encoder, ArrayCache(tmp_path, np.float16, LIMIT))
    dense([images[2][:32, :32]])  # the first picture is computed several times to prepare the network
    calls.clear()
    first = dense([*images, images[0], images[1][:32, :32]])
    assert sorted(calls) == [1, 3]  # pictures of one size go together, the same picture once
    assert first[4].shape[1:] == (4, 4)
    for features, wanted in zip(first, expected, strict=False):
        assert np.allclose(features, wanted, atol=1e-3)
    again = DenseFeatures(encoder, ArrayCache(tmp_path, np.float16, LIMIT))(images[::-1])
    assert sorted(calls) == [1, 3]
    assert all(np.array_equal(a, b) for a, b in zip(again, first[2::-1], strict=True))


def test_other_weights_or_pixels_are_not_taken_for_the_same(images: list[np.ndarray], tmp_path: Path) -> None:
    cache, one, other = (
        ArrayCache(tmp_path, np.float16, LIMIT),
        encoders.load("efficientnet-lite0"),
        encoders.load("efficientnet-lite0"),
    )
    other.weights_hash = "0" * 16
    changed = images[0].copy()
    changed[0, 0, 0] ^= 1
    DenseFeatures(one, cache)([images[0]])
    DenseFeatures(one, cache)([changed])
    DenseFeatures(other, cache)([images[0]])
    assert len(list(tmp_path.glob("*/*"))) == 3


@pytest.mark.parametrize(
    "fault", ["cut short", "one bit", "another format", "of another kind", "of another type", "empty"]
)
def test_damaged_and_foreign_files_count_as_missing(tmp_path: Path, fault: str) -> None:
    cache, features = ArrayCache(tmp_path, np.float16, LIMIT), np.linspace(0, 1, 60, dtype=np.float16).reshape(3, 4, 5)
    cache.put("net", "picture", features)
    kept = cache.get("net", "picture")
    assert kept is not None
    assert np.array_equal(kept, features)
    (path,) = tmp_path.glob("*/*")
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    wide = features.astype(np.float32)
    path.write_bytes(
        {
            "cut short": bytes(content[:-20]),
            "one bit": bytes(content),
            "another format": b"\x89PNG" * 40,
            "of another kind": save({"features": features, "checksum": np.zeros(1, np.uint32)}),
            "of another type": save({"array": wide, "checksum": np.array([zlib.crc32(wide.tobytes())], np.uint32)}),
            "empty": b"",
        }[fault]
    )
    assert cache.get("net", "picture") is None
    cache.put("net", "picture", features)
    assert cache.get("net", "picture") is not None


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    features = np.zeros((10, 10, 10), np.float16)
    cache = ArrayCache(tmp_path, np.float16, 23_000)
    for n in range(10):
        cache.put("net", str(n), features)
        os.utime(tmp_path / "net" / f"{n}.safetensors", (n, n))
    assert cache.get("net", "0") is not None  # used just now
    cache.put("other", "10", features)
    held = {path.stem for path in tmp_path.glob("*/*")}
    assert {"0", "10", "9"} <= held
    assert "1" not in held
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= 23_000


def test_several_writers_of_the_same(tmp_path: Path) -> None:
    features = np.random.default_rng(0).random((30, 20, 20)).astype(np.float16)

    def work() -> None:
        cache = ArrayCache(tmp_path, np.float16, LIMIT)
        for n in range(20):
            cache.put("net", str(n % 3), features)
            kept = cache.get("net", str(n % 3))
            assert kept is None or np.array_equal(kept, features)

    failed: list[threading.ExceptHookArgs] = []
    before, threading.excepthook = threading.excepthook, failed.append
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = before
    assert not failed
    assert all(np.array_equal(ArrayCache(tmp_path, np.float16, LIMIT).get("net", str(n)), features) for n in range(3))


def test_a_folder_that_cannot_be_written_costs_time_only(
    encoder: Encoder, images: list[np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    dense = DenseFeatures(encoder, ArrayCache(tmp_path / "file", np.float16, LIMIT))
    assert np.array_equal(dense(images[:1])[0], dense(images[:1])[0])
