"""The job that unpacks the bundled project: labelled tiles of the bundled slide, their image bank and a model.

The package contains labels, features and weights (``samples.project()``). Tiles and thumbnails are cut out of the slide
by this job, so that all paths are those of this machine.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from napari_pbip import samples
from napari_pbip.bank import ImageBank, load_tiles
from napari_pbip.bank.features import FeatureFile
from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.bank.layouts.tile_table import write_tiles
from napari_pbip.config import DataSettings, JobSettings
from napari_pbip.engine.banks.cut_tiles import cut_tiles
from napari_pbip.engine.jobs import job, phase
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.errors import DataError
from napari_pbip.events import Finished, Job
from napari_pbip.files import writing

WEIGHTS = "best.safetensors"


def sample_labels() -> LabelledSlides:
    """Return the labels of the bundled project, with the path of the bundled slide on this machine.

    Raises
    ------
    DataError
        If they are missing or damaged.
    """
    labelled = LabelledSlides.read(samples.project())
    if labelled is None:
        raise DataError(f"{samples.project()} holds no labels; install napari-pbip again.")
    slides = tuple(slide.model_copy(update={"path": samples.slide()}) for slide in labelled.slides)
    return replace(labelled, slides=slides)


def sample_settings(tiles: Path) -> JobSettings:
    """Return the settings that make bank and model from tiles in this folder: all defaults."""
    return JobSettings(data=DataSettings(folder=tiles, mpp=sample_labels().size.mpp))


@job
def sample_project(tiles: Path, bank: Path, run: Path) -> Job:
    """Unpack the bundled project; yields the events of cutting its tiles, and ``Finished`` with the folder of the run.

    ``run.json`` is written last, so that the project is complete if it exists.

    Parameters
    ----------
    tiles
        Folder for the labelled tiles.
    bank
        Folder for the image bank.
    run
        Folder for the model.

    Raises
    ------
    OutputError
        If a folder cannot be written.
    """
    shipped = samples.project()
    yield from phase(cut_tiles(sample_labels(), tiles))
    made = ImageBank.read(shipped / "bank")
    there = tuple(replace(tile, path=str(tiles / tile.path)) for tile in made.tiles)
    replace(made, tiles=there).write(bank, FeatureFile.read(shipped / "bank"))
    facts = RunFacts.read(shipped / "model")
    data = facts.settings.data.model_copy(update={"folder": tiles})
    facts.settings = facts.settings.model_copy(update={"data": data, "bank_folder": bank})
    weights = load_file(shipped / "model" / WEIGHTS)  # in half precision, for the size of the package
    with writing(run / WEIGHTS) as temporary:
        temporary.write_bytes(
            save({n: w.astype(np.float32) if w.dtype == np.float16 else w for n, w in weights.items()})
        )
    labelled = load_tiles(tiles)
    write_tiles(bank, labelled.taxonomy, {"train": labelled.single_class})
    write_tiles(run, labelled.taxonomy, {"train": labelled})
    facts.write(run)
    yield Finished(run)
