"""Labels of a slide after a dense CRF, computed for one part at a time with the margin on which its labels depend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_pbip.config import RefineSettings, ThresholdSettings
from napari_pbip.results.labels import Labels, Refine, deltas, score_window
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import Slide, open_slide
from napari_pbip.taxonomy import NOT_ANALYSED, UNASSIGNED

if TYPE_CHECKING:
    import torch


@contextmanager
def refiner(
    store: ScoreStore,
    thresholds: ThresholdSettings,
    refine: RefineSettings | None,
    presence: npt.NDArray[np.floating] | None = None,
) -> Iterator[Refine | None]:
    """Open the slide and yield the function that refines a store's labels, or None if ``refine`` asks for no CRF.

    The other parameters are those of :func:`refined_labels`.

    Raises
    ------
    SlideError
        If the slide is needed and cannot be read.
    """
    if refine is None or not refine.crf:
        yield None
        return
    facts = store.facts.slide
    with open_slide(facts.path, facts.mpp) as slide:
        yield refined_labels(store, slide, thresholds, presence=presence)


def refined_labels(
    store: ScoreStore,
    slide: Slide,
    thresholds: ThresholdSettings,
    device: torch.device | None = None,
    *,
    presence: npt.NDArray[np.floating] | None = None,
) -> Refine:
    """Return a function that computes refined labels of any part of a slide; parts join without seams.

    The CRF starts from each class's score as a share of its largest, which is zero if the share or the class presence
    is below its threshold, and from the mean colour of each cell.

    Parameters
    ----------
    store
        The scores.
    slide
        The slide of these scores, open.
    thresholds
        Thresholds that turn scores into labels.
    device
        Device of the computation; the CPU by default.
    presence
        Probability that each class is present in each tile, (N, rows, columns); by default that of the store.
    """
    import torch  # here, because it takes seconds to load, and jobs have their own thread

    from napari_pbip.engine.loading import to_tensor
    from napari_pbip.models.dense_crf import reach, refine_cells

    delta = deltas(store.taxonomy, thresholds)
    _, height, width = store.scores[0].shape
    cell = store.facts.grid.cell
    margin = reach(cell)
    scale = store.cell_um / store.facts.slide.mpp  # level-0 pixels per cell

    def refine(largest: npt.NDArray[np.floating], y: slice, x: slice) -> Labels:
        (top, bottom), (left, right) = (
            (max(0, part.start - margin), min(length, part.stop + margin)) for part, length in ((y, height), (x, width))
        )
        seen = score_window(store, thresholds, largest, 0, slice(top, bottom), slice(left, right), presence)
        shares = seen.counted(delta, thresholds.presence)
        corner = left * scale, top * scale
        # Damaged places have no scores, so their colours do not matter.
        image = slide.read_scaled(*corner, right - left, bottom - top, scale, damage_is_white=True)
        known = torch.from_numpy(~np.isnan(shares[0]))
        maps = torch.from_numpy(np.nan_to_num(shares).clip(0, 1))[None].to(device or "cpu")
        classes = refine_cells(to_tensor(image[None])[0], maps, known, cell)[0].argmax(0).cpu()
        labels = torch.where(classes == len(store.taxonomy), UNASSIGNED, classes + 1)
        labels[~known] = NOT_ANALYSED
        return labels.to(torch.uint8).numpy()[y.start - top : y.stop - top, x.start - left : x.stop - left]

    return refine
