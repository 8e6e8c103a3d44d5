"""Batches of labelled tiles, which threads read and augment ahead of the network.

The order of an epoch and the augmentation of a tile are functions of (seed, epoch, position in the epoch) and not of a
random state, so that a resumed training gets the same batches as an uninterrupted one.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import TypeVar

import cachetools
import numpy as np
import numpy.typing as npt
import torch
from skimage.color import hed_from_rgb, rgb_from_hed

from napari_pbip.bank import LabelledTile
from napari_pbip.config import TrainSettings
from napari_pbip.errors import DataError

Image = npt.NDArray[np.uint8]
In = TypeVar("In")
Out = TypeVar("Out")

_CACHE_BYTES = 1 << 30
_READERS = max(2, min(8, (os.cpu_count() or 2) // 2))
"""Number of threads that read and decode: half of the cores, because without a GPU the network uses the rest."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of tiles for a network."""

    images: torch.Tensor
    """RGB in [0, 1], shape (B, 3, H, W), float32."""
    labels: torch.Tensor
    """Image-level labels, 0 or 1, shape (B, N), float32."""
    masks: torch.Tensor | None = None
    """Class index of each pixel, shape (B, H, W), int64, :data:`LEFT_OUT` for ignored pixels; None without masks."""


class TileReader:
    """A reader of tiles with a cache of up to 1 GiB of decoded ones, which may be used from several threads."""

    def __init__(self) -> None:
        self._cache: cachetools.LRUCache[LabelledTile, Image] = cachetools.LRUCache(
            _CACHE_BYTES, getsizeof=lambda image: image.nbytes
        )
        self._lock = threading.Lock()

    def __call__(self, tile: LabelledTile) -> Image:
        """Read a tile as RGB, shape (H, W, 3), uint8, which must not be changed in place.

        Raises
        ------
        DataError
            If the file cannot be read.
        """
        with self._lock:
            if (image := self._cache.get(tile)) is not None:
                return image
        image = tile.read()
        with self._lock:
            if image.nbytes <= self._cache.maxsize:
                self._cache[tile] = image
        return image


def ahead(work: Callable[[In], Out], items: Iterable[In], depth: int = 4) -> Generator[Out, None, None]:
    """Yield ``map(work, items)`` in order, with results computed by threads up to ``depth`` items ahead."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="napari-pbip-reader") as pool:
        waiting: deque[Future[Out]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def batches_of_one_kind(items: Iterable[In], kind: Callable[[In], object], size: int) -> Iterator[list[In]]:
    """Yield items in order in batches of up to ``size``; all items of a batch have the same value of ``kind``."""
    for _, alike in groupby(items, kind):
        while batch := list(islice(alike, size)):
            yield batch


def training_batches(
    tiles: Sequence[LabelledTile],
    classes: int,
    settings: TrainSettings,
    read: TileReader,
    first_step: int,
    last_step: int,
    *,
    masks: bool = False,
) -> Generator[Batch, None, None]:
    """Yield the batches of steps ``first_step`` to ``last_step - 1``; each epoch has another order.

    Raises
    ------
    DataError
        If a tile cannot be read, or tiles of one batch differ in size.
    """
    size = settings.batch_size
    per_epoch = steps_per_epoch(len(tiles), size)

    def make(step: int) -> Batch:
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((settings.seed, epoch)).permutation(len(tiles))
        chosen = [int(i) for i in order[place * size : (place + 1) * size]]
        rng = np.random.default_rng((settings.seed, epoch, place))
        images = []
        for i in chosen:
            image = read(tiles[i])
            if masks:  # as a fourth channel, so that image and mask are flipped and turned together
                image = np.dstack([image, tiles[i].read_mask(classes)])
            images.append(flip_and_turn(image, rng) if settings.flip_and_turn else image)
        batch = to_batch(images, [tiles[i] for i in chosen], classes)
        if settings.stain_augmentation:
            changed = change_stain(batch.images, settings.stain_augmentation, rng, white_point=True)
            batch = replace(batch, images=changed)
        return batch

    return ahead(make, range(first_step, last_step))


def steps_per_epoch(tiles: int, batch_size: int) -> int:
    """Return the number of full batches in an epoch, at least one; remaining tiles are left out of the epoch."""
    return max(1, tiles // batch_size)


def to_batch(images: Sequence[Image], tiles: Sequence[LabelledTile], classes: int) -> Batch:
    """Stack tiles and their labels, and their masks if the images have them as a fourth channel.

    Raises
    ------
    DataError
        If the tiles differ in size.
    """
    require_one_size(images, tiles)
    labels = torch.zeros(len(tiles), classes)
    for row, tile in zip(labels, tiles, strict=True):
        row[list(tile.labels)] = 1
    pixels = np.stack(images)
    masks = torch.from_numpy(pixels[..., 3].astype(np.int64)) if pixels.shape[3] > 3 else None
    return Batch(to_tensor(pixels[..., :3]), labels, masks)


def require_one_size(images: Sequence[Image], tiles: Sequence[LabelledTile]) -> None:
    """Check that tiles have the same size.

    Raises
    ------
    DataError
        If they differ in size.
    """
    if len({image.shape for image in images}) > 1:
        by_size = {f"{i.shape[1]}x{i.shape[0]}": t.path.name for i, t in zip(images, tiles, strict=True)}
        found = " and ".join(f"{size} ({name})" for size, name in list(by_size.items())[:2])
        raise DataError(f"Training tiles must all have one size, but {found} differ; cut them to one size.")


def to_tensor(images: Image) -> torch.Tensor:
    """Convert RGB uint8, (B, H, W, 3), to float32 in [0, 1], (B, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255)


def to_pixels(images: Sequence[Image]) -> torch.Tensor:
    """Stack pictures of one size, RGB uint8, (H, W, 3) each, to a tensor of uint8, (B, 3, H, W)."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def flip_and_turn(image: Image, rng: np.random.Generator) -> Image:
    """Apply one of the eight flips and rotations by 90 degrees at random; only flips if the tile is not square."""
    turns = int(rng.integers(4))
    if image.shape[0] != image.shape[1]:
        turns -= turns % 2
    turned = np.rot90(image, turns)
    return turned[:, ::-1] if rng.random() < 0.5 else turned


_TO_HED = torch.tensor(hed_from_rgb, dtype=torch.float32)
_FROM_HED = torch.tensor(rgb_from_hed, dtype=torch.float32)

_WHITE_POINT = 0.5
"""Largest change of the logarithm of red, green or blue, as a share of the strength."""


def change_stain(
    images: torch.Tensor, strength: float, rng: np.random.Generator, *, white_point: bool = False
) -> torch.Tensor:
    """Change the stains of each image at random, and the white point if that is asked for.

    The amounts of haematoxylin, eosin and the residual are those of the colour deconvolution of Ruifrok & Johnston
    (2001); each is multiplied by 1 + u and shifted by 0.05 v with u, v uniform in [-strength, strength], as by Tellez
    et al. (2018, "Whole-slide mitosis detection"), whose shifts are larger. Red, green and blue are each multiplied by
    exp(w), w uniform in [-strength / 2, strength / 2], which is what another scanner does to all pixels, glass
    included. No pixel becomes brighter than white, so that white glass is only darkened.

    Parameters
    ----------
    images
        RGB in [0, 1], shape (B, 3, H, W).
    strength
        Strength of the change of the stains, 0 to 1; 0.2 is moderate.
    rng
        Random generator.
    white_point
        Whether the white point is changed too.
    """
    return with_stain(images, *stain_change(len(images), strength, rng, white_point=white_point))


def stain_change(
    count: int, strength: float, rng: np.random.Generator, *, white_point: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the random factors and shifts of :func:`change_stain` for some images, (B, 3, 1, 1) each."""
    shape = (count, 3, 1, 1)
    factor = torch.from_numpy(rng.uniform(1 - strength, 1 + strength, shape)).float()
    shift = torch.from_numpy(rng.uniform(-0.05 * strength, 0.05 * strength, shape)).float()
    if white_point:
        # a factor of a colour is a shift of its optical density, and thereby of the stains
        most = _WHITE_POINT * strength
        white = torch.from_numpy(rng.uniform(-most, most, (count, 3))).float()
        shift -= (white @ _TO_HED)[:, :, None, None]
    return factor, shift


def with_stain(images: torch.Tensor, factor: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return images (B, 3, H, W) with other amounts of stain, multiplied and shifted for each image or each pixel."""
    density = -torch.log(images.clamp(min=1 / 255))
    amounts = torch.einsum("bchw,cs->bshw", density, _TO_HED)
    changed = torch.einsum("bshw,sc->bchw", amounts * factor + shift, _FROM_HED)
    return torch.exp(-changed).clamp(0, 1)
