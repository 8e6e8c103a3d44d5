"""The napari writer of labels: saves tissue maps and drawn masks as OME-Zarr with colours and class names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import napari
from napari.utils.notifications import show_error, show_info

from napari_pbip.engine.jobs import JobMaker
from napari_pbip.engine.outputs.export import export
from napari_pbip.engine.outputs.save_labels import save_labels
from napari_pbip.events import Job
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.layers.label_images import label_image
from napari_pbip.gui.layers.results import METADATA
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.session import Session


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a labels layer in the background; a notification says when it is saved or has failed.

    Parameters
    ----------
    path
        Path of the new folder, ``*.ome.zarr``.
    data
        Labels (H, W), or a list of levels, finest first.
    meta
        Attributes of the layer.

    Returns
    -------
    list of str
        The path.
    """
    target = Path(path)
    viewer = napari.current_viewer()
    session = None if viewer is None else session_of(viewer)
    make = _maker(target, data[0] if meta.get("multiscale") else data, meta, session)
    if session is None:  # without a window, nothing needs to stay responsive
        for _ in make():
            pass
        return [path]
    job = session.start(make, reads_maps=True)
    job.ended.connect(lambda state: _notify(state, job, target))
    return [path]


def _maker(target: Path, labels: Any, meta: dict[str, Any], session: Session | None) -> JobMaker:
    store = meta["metadata"].get(METADATA)
    result = next((one for one in session.results if str(one.store.path) == store), None) if session else None
    if result is not None and session is not None:
        path, thresholds, refine = result.store.path, result.thresholds, session.settings.refine
        shown = session.classes.display
        return lambda: export(path, target, "ome-zarr", thresholds, refine=refine, class_display=shown)

    def make() -> Job:
        return save_labels(labels, label_image(labels, meta), target)

    return make


def _notify(state: State, job: RunningJob, target: Path) -> None:
    if state is State.FINISHED:
        show_info(f"Saved {target}.")
    elif job.error is not None:
        show_error(str(job.error))
