"""Comparison of two project folders by what their files hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import zarr
from PIL import Image
from safetensors.numpy import load_file

_OF_MAPS = ("0", "pbip/presence", "pbip/peak", "pbip/tissue", "labels/tissue/0")


def assert_same(project: Path, again: Path) -> None:
    """Check that the bank, the models, the scores and the labels are equal, bit for bit."""
    compared = 0
    for file in sorted((project / "bank").glob("*.safetensors")) + sorted(project.glob("models/*/*st.safetensors")):
        arrays, others = load_file(file), load_file(again / file.relative_to(project))
        assert arrays.keys() == others.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(others[name], array, err_msg=f"{file.name}: {name}")
        compared += 1
    for store in project.glob("results/*/*.ome.zarr"):
        group, other = (zarr.open_group(folder / store.relative_to(project), mode="r") for folder in (project, again))
        for name in _OF_MAPS:
            np.testing.assert_array_equal(other[name][:], group[name][:], err_msg=name)
        assert (np.asarray(group["labels/tissue/0"]) > 0).any()
        there = again / store.parent.relative_to(project)  # both files say when they were made, too
        np.testing.assert_array_equal(*(Image.open(folder / "overlay.png") for folder in (there, store.parent)))
        tables = (pd.read_csv(folder / "areas.csv") for folder in (there, store.parent))
        differ = ["scores_made", "labels_made", "mpp_from"]  # the commands give the microns per pixel of every slide
        pd.testing.assert_frame_equal(*(table.drop(columns=differ) for table in tables))
        compared += 1
    assert compared == 5, "a bank (of two files), a model (of two) and a map"
