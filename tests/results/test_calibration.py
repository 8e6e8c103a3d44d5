"""Calibration, compared with scikit-learn and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import binary_calibration_error

from napari_pbip.results.calibration import Calibration


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_the_curve_is_that_of_scikit_learn_and_the_error_that_of_torchmetrics(power: float):
    rng = np.random.default_rng(0)
    probability = rng.random((50, 200))
    true = rng.random((50, 200)) < probability**power
    calibration = Calibration()
    for part in range(5):
        calibration.add(probability[part::5], true[part::5])
    report = calibration.report()
    observed, predicted = calibration_curve(true.ravel(), probability.ravel(), n_bins=10)
    assert [100 * share for share in observed] == pytest.approx([one["observed"] for one in report["bins"]])
    assert [100 * share for share in predicted] == pytest.approx([one["predicted"] for one in report["bins"]])
    error = binary_calibration_error(torch.from_numpy(probability.ravel()), torch.from_numpy(true.ravel()), n_bins=10)
    assert report["ece"] == pytest.approx(100 * float(error), abs=1e-3)
    assert (report["ece"] < 2) == (power == 1)


def test_certainty_and_nothing():
    calibration = Calibration()
    assert calibration.report() is None
    calibration.add(np.array([0.0, 1.0, 1.0, 1.0]), np.array([False, True, True, False]))
    assert calibration.report() == {
        "ece": 25,
        "bins": [
            {"predicted": 0, "observed": 0, "cases": 1},
            {"predicted": 100, "observed": pytest.approx(200 / 3), "cases": 3},
        ],
    }
