"""A project of two slides with maps and one without, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_pbip import samples
from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.runs import run_identity
from napari_pbip.engine.sample_project import sample_project
from napari_pbip.project import Project, ProjectResult, ProjectSlide
from napari_pbip.results import ScoreStore, write_labels
from napari_pbip.results.places import result_folder
from napari_pbip.slides import SlideFacts, open_slide
from napari_pbip.taxonomy import Taxonomy
from tests.results import stores

HOSTILE = '<script>alert("x")</script>'
CLASSES = Taxonomy.from_names((HOSTILE, "stroma & 'co'"))
STRICT = ThresholdSettings(delta=0.5)


def add_map(results: Path, path: Path, taxonomy: Taxonomy, seed: int, **model: Any) -> ProjectSlide:
    """Write a map of a real slide with scores of no network, and return the slide."""
    with open_slide(path, None if path == samples.slide() else 1.0) as slide:
        entry, facts = ProjectSlide.of(slide), SlideFacts.from_slide(slide).model_dump(mode="json")
    entry = entry.model_copy(update={"name": f"{entry.name} <i>{seed}</i>"})
    facts["name"] = entry.name
    cell = 16
    shape = (-(-facts["height"] // cell), -(-facts["width"] // cell))
    grid = {**stores.facts(shape)["grid"], "model_mpp": facts["mpp"] * cell / 8}
    folder = result_folder(results, "slide", entry.identity)
    tissue = np.ones((shape[0] // 4, shape[1] // 4), bool)
    tissue[:3] = False
    made = stores.create(
        folder / "slide.ome.zarr",
        shape,
        tissue=tissue,
        slide=facts,
        grid=grid,
        model={"run": "skin", "hash": "w1", **model},
        taxonomy=taxonomy,
    )
    stores.segment(made, stores.network(stores.smooth_field(shape, len(taxonomy), seed)))
    write_labels(made, ThresholdSettings())
    return entry


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project of two slides with maps and one without; the model of the first map is there."""
    folder = tmp_path_factory.mktemp("reports") / "A <study> & more"
    run = folder / "models" / "skin"
    list(sample_project(folder / "tiles", folder / "bank", run))
    own = {"hash": run_identity(run), "folder": str(run), "method": "pbip", "backbone": "efficientnet-lite0"}
    skin = Taxonomy.from_names(("epidermis", "dermis", "keratin"))
    first = add_map(folder / "results", samples.slide(), skin, 1, **own)
    second = add_map(folder / "results", samples.tumour(), CLASSES, 2, method="cam", run="gone")
    third = ProjectSlide(path=samples.frozen_section(), name="frozen", identity="f" * 64)
    shown = ProjectResult(path=stores_of(folder)[1], thresholds=STRICT)
    Project(slides=(first, second, third), results=(shown,)).write(folder)
    return folder


def stores_of(project: Path) -> list[Path]:
    """Return the stores of the skin and of the tumour."""
    found = sorted(project.glob("results/*/*.ome.zarr"))
    return sorted(found, key=lambda path: ScoreStore.open(path).facts.slide.path == samples.tumour())
