"""Refined labels in the window: the CRF is applied whenever labels are written, and only then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from qtpy.QtWidgets import QCheckBox

from napari_pbip import samples
from napari_pbip.config import SegmentSettings, ThresholdSettings
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.training.train import train
from napari_pbip.gui.docks.evaluate import EvaluateWidget
from napari_pbip.gui.docks.segment import SegmentWidget
from napari_pbip.gui.docks.tune import TuneWidget
from napari_pbip.gui.sessions import session_of
from napari_pbip.results import ScoreStore, open_labels
from tests.engine.conftest import settings_for
from tests.gui.qt_helpers import click

QUICK = SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=2)


@pytest.fixture
def results(tmp_path: Path, weak_data: Path) -> Path:
    """Return the project of a slide that was segmented without refinement."""
    project = tmp_path / "refined"
    settings = settings_for(weak_data, data={"mpp": 2.0}, train={"steps": 2})
    list(train(settings, project / "models" / "cam"))
    list(segment(samples.slide(), project / "models" / "cam", project / "results" / "one", QUICK, ThresholdSettings()))
    return project


def labels_of(path: Path) -> npt.NDArray[np.uint8]:
    labels: npt.NDArray[np.uint8] = open_labels(ScoreStore.open(path))[0][0][:]
    return labels


def tick(box: Any) -> None:
    """Click the box of a check box, rather than the space beside it."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    assert isinstance(box, QCheckBox)
    QTest.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(8, box.height() // 2))


def test_every_dock_that_makes_labels_refines_them(viewer: Any, settle: Any, results: Path) -> None:
    session = session_of(viewer)
    session.folder = results
    session.change(segment=QUICK)
    plain = labels_of(results / "results" / "one" / "CMU-1-Small-Region.ome.zarr")
    session.slides.open(samples.slide())

    dock = SegmentWidget(viewer)
    viewer.window.add_dock_widget(dock, name="Segment")
    settle(lambda: dock.segment_button.isEnabled())
    click(dock.more_button)
    tick(dock.refine_form.editor("crf"))
    assert session.settings.refine.crf
    click(dock.segment_button)
    settle(lambda: session.segmenting.slides and not session.segmenting.slides[0].status.active)
    path = session.segmenting.slides[0].store
    refined = labels_of(path)
    assert 0 < (refined != plain).mean() < 0.5
    result = session.results[0]
    settle(lambda: result.areas.exact)

    evaluate = EvaluateWidget(viewer)
    viewer.window.add_dock_widget(evaluate, name="Evaluate")
    um = result.store.cell_um
    viewer.add_labels(np.where(refined == 255, 0, refined), name="refined", scale=(um, um), units=("um", "um"))
    settle()
    evaluate.mask_box.setCurrentIndex(evaluate.mask_box.findText("refined"))

    def agreement() -> float:
        click(evaluate.compare_button)
        settle(lambda: evaluate.job_bar.job is not None and evaluate.job_bar.job.state.ended)
        rows = {evaluate.table.verticalHeaderItem(row).text(): row for row in range(evaluate.table.rowCount())}
        return float(evaluate.table.item(rows["mIoU"], 0).text())

    assert agreement() == 100.0
    evaluate.exports.export(results / "handed-on.ome.zarr", "ome-zarr")
    settle(lambda: evaluate.exports.bar.job.state.ended)
    np.testing.assert_array_equal(zarr.open_group(results / "handed-on.ome.zarr", mode="r")["0"][:], refined)

    tune = TuneWidget(viewer)
    viewer.window.add_dock_widget(tune, name="Tune")
    settle()
    session.change(refine=session.settings.refine.model_copy(update={"crf": False}))
    assert agreement() < 100.0
    click(tune.save_button)
    settle(lambda: tune.save_button.isEnabled())
    np.testing.assert_array_equal(labels_of(path), plain)
    session.change(refine=session.settings.refine.model_copy(update={"crf": True}))
    click(tune.save_button)
    settle(lambda: tune.save_button.isEnabled())
    np.testing.assert_array_equal(labels_of(path), refined)
