"""Score maps and labels of single images of any size, for validation, evaluation and pseudo masks.

The network gets an image in one piece, as published, if it is no larger than the training tiles. It gets a larger image
in the windows that it gets a slide in (:mod:`.windows`), blended in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.ndimage import map_coordinates

from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.device import Precision, to_device
from napari_pbip.engine.encoding import chunks
from napari_pbip.engine.inference.windows import Windows, mirrored
from napari_pbip.engine.loading import Image, to_pixels, to_tensor
from napari_pbip.engine.network import Network
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.engine.torch_network import Outputs
from napari_pbip.models.dense_crf import refine_image
from napari_pbip.models.methods.base import Method
from napari_pbip.models.score_maps import fuse_per_tile
from napari_pbip.models.views import average_over_views
from napari_pbip.results.blend import Blender
from napari_pbip.results.smoothing import deviation, smooth
from napari_pbip.results.store_facts import GridFacts
from napari_pbip.slides import Tile

Label = npt.NDArray[np.uint8]
_WINDOWS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class ImageMaps:
    """The network's output for one image."""

    stages: tuple[torch.Tensor, ...]
    """Class maps of each stage, (1, N, h, w); of a calibrated method, only its scores, as on a slide."""
    presence: torch.Tensor
    """Probability that each class is present: (1, N, 1, 1), or (1, N, h, w) if windows were blended."""
    weights: tuple[float, ...] | None
    """Fusion weight of each stage; None for the scores of a calibrated method (:attr:`Method.calibrated`)."""
    smoothing: float = 0.0
    """Standard deviation, in pixels of the image, of the Gaussian that smooths fused scores."""


@dataclass(frozen=True)
class Predictor:
    """A network, and everything else that its maps of an image depend on.

    Changes of the method's weights after the first image are not noticed.
    """

    method: Method
    """The method, in evaluation mode, on :attr:`device`."""
    windows: Windows
    """The windows in which the network gets larger images."""
    device: torch.device
    precision: Precision = "float32"
    tta: bool = False
    """Whether to average over flips and quarter turns."""
    smoothing: float = 0.0
    """See :attr:`ImageMaps.smoothing`."""
    expected: float = 0
    """Number of pixels of the images, as far as it is known; see :class:`~napari_pbip.engine.network.Network`."""

    @cached_property
    def network(self) -> Network[Method]:
        """The method as a function of pictures."""
        outputs = fused_scores if self.method.calibrated else stage_maps
        return Network(self.method, outputs, self.device, self.precision, expected=self.expected)

    @classmethod
    def of_run(
        cls,
        method: Method,
        facts: RunFacts,
        device: torch.device,
        *,
        precision: Precision = "float32",
        thresholds: ThresholdSettings | None = None,
        tta: bool = False,
        mpp: float | None = None,
        expected: float = 0,
    ) -> Self:
        """Return the predictor of a method as it was trained.

        Parameters
        ----------
        method, device, precision, tta, expected
            The attributes.
        facts
            The facts of the training.
        thresholds
            How scores become labels; by default those of the training. Scores are smoothed if the microns per pixel
            are known.
        mpp
            Microns per pixel of the images, by default those of the training tiles.
        """
        trained = facts.settings
        mpp = mpp or trained.data.mpp
        width = (thresholds or trained.thresholds).smoothing_um
        smoothing = deviation(width, mpp) if mpp else 0.0
        windows = Windows.plan(facts.tile_size, trained.segment, trained.method.window)
        return cls(method, windows, device, precision, tta, smoothing, expected)

    def maps(self, images: Sequence[Image]) -> list[ImageMaps]:
        """Return the network's output for RGB images, uint8 (H, W, 3), all of one size."""
        if max(images[0].shape[:2]) > self.windows.tile:
            return [self._in_windows(image) for image in images]
        output = self._forward(images)
        return [
            replace(output, stages=tuple(m[i : i + 1] for m in output.stages), presence=output.presence[i : i + 1])
            for i in range(len(images))
        ]

    def _forward(self, images: Sequence[Image]) -> ImageMaps:
        """Return the maps of a batch, (B, N, h, w) for each stage, and presence (B, N, 1, 1)."""
        batch = to_device(to_pixels(images), self.device)
        *stages, presence = average_over_views(self.network, batch) if self.tta else self.network(batch)
        present = presence.sigmoid()[:, :, None, None]
        weights = None if self.method.calibrated else self.method.fusion_weights
        return ImageMaps(tuple(stages), present, weights, self.smoothing)

    def _in_windows(self, image: Image) -> ImageMaps:
        """Return the maps of a large image, blended from windows as on a slide, at the cells of the method."""
        (height, width), cell = image.shape[:2], self.method.cell
        grid = self.windows.grid(width, height)
        lattice = GridFacts.from_tiles(grid, 1, cell).lattice(-(-height // cell), -(-width // cell))
        every, none_written = np.ones((grid.rows, grid.columns), np.bool_), np.zeros((1, 1), np.bool_)
        blender = Blender(lattice, every, none_written, block=max(lattice.height, lattice.width))
        for places in chunks(iter(blender.order), _WINDOWS_AT_ONCE):
            output = self._forward([_window(image, grid.box(*place)) for place in places])
            cells = [F.interpolate(maps, (lattice.tile, lattice.tile), mode="bilinear") for maps in output.stages]
            scores, present = (values.cpu().numpy() for values in (torch.cat(cells, 1), output.presence[:, :, 0, 0]))
            for place, of_window, of_classes in zip(places, scores, present, strict=True):
                complete = blender.add(*place, of_window, of_classes)
        (whole,) = complete
        stages = torch.from_numpy(whole.scores.astype(np.float32))[None].to(self.device).chunk(len(output.stages), 1)
        rows, columns = (
            lattice.positions(np.arange(cells, dtype=np.float64), count)
            for cells, count in ((lattice.height, grid.rows), (lattice.width, grid.columns))
        )
        between = np.meshgrid(rows, columns, indexing="ij")
        of_tiles = whole.presence.T.reshape(-1, grid.rows, grid.columns)
        of_cells = [map_coordinates(one, between, order=1, mode="nearest") for one in of_tiles]
        return replace(output, stages=stages, presence=torch.from_numpy(np.stack(of_cells))[None].to(self.device))


def fused_scores(method: Method, images: torch.Tensor) -> Outputs:
    """Return the fused scores and the logits of presence of images, as :meth:`Method.scores` does."""
    scores = method.scores(images)
    return scores.maps, scores.presence


def stage_maps(method: Method, images: torch.Tensor) -> Outputs:
    """Return the class maps of each stage of images, and the logits of presence."""
    output = method(images)
    return (*output.class_maps, method.presence(output))


def _window(image: Image, tile: Tile) -> Image:
    y, x = tile.model_y, tile.model_x
    return mirrored(image[y : y + tile.size, x : x + tile.size], tile.size)


def segment_image(maps: ImageMaps, present: torch.Tensor, size: tuple[int, int]) -> Label:
    """Return the class of each pixel among the present ones.

    As in the released code, each map is scaled to 0 to 1 over the image, the stages are fused, and the argmax is taken.
    Calibrated scores are not scaled, which would give every class the same maximum in every image.

    Parameters
    ----------
    maps
        The network's output for the image.
    present
        The classes that may be chosen, bool, (1, N, 1, 1) or (1, N, h, w).
    size
        (H, W) of the image.

    Returns
    -------
    uint8 array
        Class indices, shape (H, W). Background is never chosen, as in the published evaluation. If all present
        classes score zero, the first of them is chosen; the released code may choose an absent one.
    """
    labels: Label = _best(_fused(maps, size), _at_pixels(present, size))[0]
    return labels


def probabilities(maps: ImageMaps, size: tuple[int, int]) -> npt.NDArray[np.float32] | None:
    """Return the probability of each class at each pixel, (N, H, W); None if the scores are no probabilities.

    Parameters are those of :func:`segment_image`.
    """
    return _fused(maps, size)[0].cpu().numpy() if maps.weights is None else None


def refined_image(image: Image, maps: ImageMaps, presences: Sequence[torch.Tensor]) -> list[Label]:
    """Return the class of each pixel, as :func:`segment_image` does, after a dense CRF in which background takes part.

    Parameters
    ----------
    image
        RGB uint8 (H, W, 3).
    maps
        The network's output for the image.
    presences
        One or more arrays of the classes that may be chosen, as in :func:`segment_image`.

    Returns
    -------
    list of uint8 arrays
        Class indices (H, W), one for each of ``presences``.
    """
    size = image.shape[:2]
    fused = _fused(maps, size)
    gates = torch.cat([_at_pixels(one, size).expand_as(fused) for one in presences])
    distinct, which = torch.unique(gates, dim=0, return_inverse=True)  # protocols often agree
    refined = refine_image(to_tensor(np.stack([image]))[0], fused * distinct)[which]
    return list(_best(refined[:, :-1], gates))


def label_with_margin(
    image: Image, maps: ImageMaps, present: torch.Tensor, *, crf: bool = False
) -> tuple[Label, npt.NDArray[np.float32]]:
    """Return the class of each pixel among the present ones, and how far it is ahead of the next one.

    Parameters
    ----------
    image
        RGB uint8 (H, W, 3).
    maps
        The network's output for the image.
    present
        The classes that may be chosen, bool, (1, N, 1, 1); N is two or more.
    crf
        Whether to refine with a dense CRF.

    Returns
    -------
    label
        Class indices, uint8 (H, W).
    margin
        Difference of the scores of the best and the second-best present class, 0 to 1, (H, W).
    """
    scores = _fused(maps, image.shape[:2])
    if crf:
        scores = refine_image(to_tensor(np.stack([image]))[0], scores * present)[:, :-1]
    first, second = scores.masked_fill(~present, 0).topk(2, 1).values[0]
    return _best(scores, present)[0], (first - second).cpu().numpy()


def _fused(maps: ImageMaps, size: tuple[int, int]) -> torch.Tensor:
    """Return the class scores at the pixels of an image, 0 to 1, (1, N, H, W); probabilities if calibrated."""
    if maps.weights is None:
        (scores,) = maps.stages
        fused = F.interpolate(scores, size, mode="bilinear")
    else:
        present = torch.ones(1, maps.stages[0].shape[1], device=maps.presence.device)
        fused = fuse_per_tile(maps.stages, present, maps.weights, size) / sum(maps.weights)
    if maps.smoothing:  # as scores, like those of slides
        smoothed = smooth(fused[0].cpu().numpy(), np.ones(size, np.bool_), maps.smoothing)
        fused = torch.from_numpy(smoothed)[None].to(fused.device)
    return fused.exp() / fused.shape[1] if maps.weights is None else fused


def _at_pixels(present: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return presence (1, N, h, w) at the pixels of the image, (1, N, H, W), or (1, N, 1, 1) unchanged."""
    return F.interpolate(present.float(), size, mode="nearest").bool() if present.shape[-1] > 1 else present


def _best(scores: torch.Tensor, present: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Return the present class with the largest score at each pixel, for S presences: (S, H, W)."""
    best: npt.NDArray[np.uint8] = scores.masked_fill(~present, -1).argmax(1).to(torch.uint8).cpu().numpy()
    return best


def predicted_presence(probability: torch.Tensor) -> torch.Tensor:
    """Return which classes count as present: those that reach 0.5, or else the most likely one; bool, same shape."""
    likeliest = probability == probability.amax(1, keepdim=True)
    reached = probability >= 0.5
    return reached | (likeliest & ~reached.any(1, keepdim=True))
