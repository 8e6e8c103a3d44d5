from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_pbip.events import Epoch, Event, Step, Warned
from napari_pbip.gui.curves import Curves, thinned


def test_curves_grow_by_what_a_training_says() -> None:
    curves = Curves()
    events: list[Event] = [Step(1), Warned("no masks"), Epoch(1, 2, {})]
    assert not curves.add(events)  # of another phase, or nothing to draw
    assert curves.add([Step(1, {"loss": 2.0, "foreground": 1.0}), Step(2, {"loss": 1.0, "foreground": 0.5})])
    assert curves.add([Step(2), Epoch(1, 2, {"oracle/miou": 40.0, "predicted/miou": 30.0, "oracle/dice": 50.0})])
    assert len(curves) == 2
    assert {name: line[1].tolist() for name, line in curves.terms} == {"loss": [2.0, 1.0], "foreground": [1.0, 0.5]}
    assert {name: (x.tolist(), y.tolist()) for name, (x, y) in curves.scores} == {
        "oracle": ([2.0], [40.0]),
        "predicted": ([2.0], [30.0]),
    }


def test_a_term_that_comes_later_has_a_gap_before() -> None:
    curves = Curves()
    curves.add([Step(1, {"loss": 1.0}), Step(2, {"loss": 2.0, "sparsity": 3.0}), Step(3, {"loss": 4.0})])
    terms = {name: line[1] for name, line in curves.terms}
    np.testing.assert_array_equal(terms["sparsity"], [np.nan, 3.0, np.nan])
    assert list(terms) == ["loss", "sparsity"]


def test_what_is_kept_on_disk_comes_back_as_it_was_drawn() -> None:
    rows = [{"step": 1, "learning_rate": 0.1, "loss": 3.0}, {"step": 2, "learning_rate": 0.1, "loss": 2.0}]
    figures = {"miou": 20.0, "dice": 30.0}
    kept = Curves.from_run(rows, [{"epoch": 1, "step": 2, "oracle": figures, "predicted": figures}])
    said = Curves()
    said.add([Step(1, {"loss": 3.0}), Step(2, {"loss": 2.0})])
    said.add([Epoch(1, 1, {"oracle/miou": 20.0, "predicted/miou": 20.0})])
    for one, other in ((kept.terms, said.terms), (kept.scores, said.scores)):
        for (name, line), (same, as_said) in zip(one, other, strict=True):
            assert name == same
            np.testing.assert_array_equal(line, as_said)


@given(arrays(float, st.integers(0, 5000), elements=st.floats(-1e3, 1e3) | st.just(np.nan)))
def test_a_thinned_line_has_the_same_extremes_in_the_same_order(values: np.ndarray) -> None:
    steps = np.arange(1.0, len(values) + 1)
    kept_steps, kept = thinned((steps, values), points=100)
    assert len(kept) <= max(100, 0) + 100
    np.testing.assert_array_equal(kept, values[kept_steps.astype(int) - 1])
    assert (np.diff(kept_steps) >= 0).all()
    if (~np.isnan(values)).any():
        assert np.nanmax(kept) == np.nanmax(values)
        assert np.nanmin(kept) == np.nanmin(values)


@pytest.mark.parametrize("length", [0, 1, 2000, 2001, 100_000])
def test_however_long_a_training_is_few_points_are_drawn(length: int) -> None:
    line = (np.arange(length, dtype=float), np.ones(length))
    assert len(thinned(line)[0]) <= min(length, 4000)
