"""Random crops of tissue from slides and pictures without labels.

A crop depends only on seed, step and its position in the batch, so that a resumed pre-training gets the same crops as
an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_pbip.bank.left_out import LeftOut
from napari_pbip.config import PretrainSettings
from napari_pbip.errors import DataError, SlideError
from napari_pbip.events import Event, Noted, Started, Step, Warned
from napari_pbip.folders import Listing, is_result, listing
from napari_pbip.slides import Image, Slide, TissueMap, open_slide
from napari_pbip.slides.mpp import SIDECAR

_FINEST, _COARSEST = 0.5, 2.0
"""Range of the microns per pixel of a crop relative to those of the settings; they are never less than the image's."""
_KEPT_OPEN = 64
"""Largest number of images that stay open; if there are more, each is opened for every crop."""


@dataclass(frozen=True)
class Source:
    """Tissue of one slide or picture."""

    path: Path
    mpp: float
    points: npt.NDArray[np.float32] | None
    """Points with tissue, level-0 pixels (x, y), shape (T, 2); None if tissue is everywhere, as on a cut tile."""
    spacing: float
    """Level-0 pixels between two points."""
    area_mm2: float
    """Area of the tissue."""


def find_sources(settings: PretrainSettings) -> Generator[Event, None, tuple[Source, ...]]:
    """Find the tissue of all images in ``settings.images``; yields a ``Step`` per image, returns those with tissue.

    Raises
    ------
    DataError
        If a path does not exist, or no tissue is found.
    SlideError
        If neither an image nor the settings say its microns per pixel.
    """
    paths, left_out = _pictures(settings.images)
    yield Started("Looking for tissue", total=len(paths), unit="images")
    yield Noted(" ".join((f"Found {len(paths):,} slides and pictures.", *LeftOut.from_listing(left_out).sentences())))
    found: list[Source] = []
    for done, path in enumerate(paths, 1):
        with open_slide(path) as slide:
            source = _source(slide, _mpp(slide, settings.image_mpp), settings)
        if source is not None:
            found.append(source)
        yield Step(done)
    if not found:
        raise DataError("No tissue was found in the images; name slides or pictures of stained tissue.")
    if len(found) < len(paths):
        yield Warned(f"{len(paths) - len(found)} of {len(paths)} images show no tissue and are left out.")
    return tuple(found)


def _pictures(named: Sequence[Path]) -> tuple[list[Path], Listing]:
    """Return the slides and pictures among the named paths and in named folders, and what was left out.

    Raises
    ------
    DataError
        If a named path does not exist, is a result of this package, or is a file that cannot be read.
    """
    pictures: list[Path] = []
    others: list[Path] = []
    system: list[Path] = []
    results: list[Path] = []
    waiting, seen = list(reversed(named)), set[Path]()
    while waiting:
        path = waiting.pop()
        if not path.exists():
            if path in named:
                raise DataError(f"{path} is not there; name slides, pictures or folders of them.")
            others.append(path)  # a broken link
        elif path.is_dir() and is_result(path):
            if path in named:
                raise DataError(f"{path} is a result of napari-pbip; name slides, pictures or folders of them.")
            results.append(path)
        elif _opens(path):
            pictures.append(path)
        elif path.is_dir():
            if (real := path.resolve()) in seen:  # a link to a folder above
                continue
            seen.add(real)
            here = listing(path)
            waiting += sorted((*here.files, *here.folders, *here.results), reverse=True)
            system += here.system
        elif path in named:
            raise DataError(f"{path.name} is no slide or picture that can be read; leave it out.")
        elif not path.name.endswith(SIDECAR):
            others.append(path)
    return pictures, Listing(files=tuple(others), system=tuple(system), results=tuple(results))


def _opens(path: Path) -> bool:
    try:
        with open_slide(path) as slide:
            if slide.is_picture:  # decoded now, so that damage is found before the training
                slide.read_level(0, 0, 0, 1, 1)
            return True
    except SlideError:
        return False


def _mpp(slide: Slide, given: float | None) -> float:
    if slide.mpp_xy is None and given is not None:
        return given
    try:
        return slide.require_mpp()
    except SlideError:
        if slide.mpp_xy is not None:
            raise
        raise SlideError(
            f"{slide.path.name} does not say its microns per pixel; give those of such images with `image_mpp`."
        ) from None


def _source(slide: Slide, mpp: float, settings: PretrainSettings) -> Source | None:
    """Return the tissue of a slide, or None if it has none."""
    largest = settings.crop * settings.mpp * _COARSEST  # side of the largest crop in micrometres
    if max(slide.width, slide.height) * mpp <= 2 * largest:  # an image as small as this was cut out for its tissue
        return Source(slide.path, mpp, None, 0.0, slide.width * slide.height * (mpp / 1000) ** 2)
    with open_slide(slide.path, mpp) as known:
        measure = TissueMap.from_slide(known, settings.tissue)
    try:
        mask = measure.mask(settings.tissue)
    except SlideError:  # there is only glass
        return None
    rows, columns = np.nonzero(mask.array)
    points = np.stack([columns, rows], 1).astype(np.float32) * mask.scale
    return Source(slide.path, mpp, points, mask.scale, mask.area_mm2)


class Crops:
    """Draws batches of crops; it may be used from several threads, and must be closed.

    Parameters
    ----------
    sources
        The tissue of all images.
    settings
        Size, resolution, batch size and seed.
    """

    def __init__(self, sources: Sequence[Source], settings: PretrainSettings) -> None:
        self._sources = tuple(sources)
        # in proportion to the number of different crops, which is smaller for a coarse scan of the same area
        different = np.array([source.area_mm2 / max(source.mpp, settings.mpp) ** 2 for source in sources])
        self._share = different / different.sum()
        self._settings = settings
        self._open: list[Slide] = []
        if len(sources) <= _KEPT_OPEN:
            self._open = [open_slide(source.path, source.mpp) for source in sources]

    def close(self) -> None:
        """Close the slides."""
        for slide in self._open:
            slide.close()

    def batch(self, step: int) -> Image:
        """Return the crops of one step, RGB uint8, shape (B, side, side, 3).

        Raises
        ------
        SlideError
            If a slide cannot be read.
        """
        rng = np.random.default_rng((self._settings.seed, step))
        return np.stack([self._crop(rng) for _ in range(self._settings.batch_size)])

    def _crop(self, rng: np.random.Generator) -> Image:
        number = int(rng.choice(len(self._sources), p=self._share))
        source, side = self._sources[number], self._settings.crop
        finest, coarsest = np.maximum(self._settings.mpp * np.array([_FINEST, _COARSEST]), source.mpp)
        mpp = float(np.exp(rng.uniform(np.log(finest), np.log(coarsest))))
        with nullcontext(self._open[number]) if self._open else open_slide(source.path, source.mpp) as slide:
            sides = np.array([slide.width, slide.height])
            mpp = min(mpp, float(sides.min()) * source.mpp / side)  # a crop is no larger than its picture
            reach = side * mpp / source.mpp  # level-0 pixels
            if source.points is None:
                corner = rng.uniform(0, 1, 2) * np.maximum(sides - reach, 0)
            else:
                place = source.points[rng.integers(len(source.points))] + rng.uniform(0, source.spacing, 2)
                corner = np.clip(place - rng.uniform(0, reach, 2), 0, np.maximum(sides - reach, 0))
            return slide.read(float(corner[0]), float(corner[1]), side, side, mpp)
