"""Samples of real tissue for the demo and the tests; their licences are in README.md."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
"""Folder of the samples, which is never written to."""
TILES_MPP = 0.5
"""Microns per pixel of :func:`tiles`."""


def slide() -> Path:
    """Return a small brightfield slide, H&E: Aperio SVS, 2220 x 2967 pixels at 0.499 microns per pixel (CC0)."""
    return FOLDER / "slides" / "CMU-1-Small-Region.svs"


def frozen_section() -> Path:
    """Return a squamous cell carcinoma of the head and neck: Aperio SVS, 4443 x 3567 pixels (TCGA, open access).

    Its file does not contain its microns per pixel.
    """
    return FOLDER / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"


def tumour() -> Path:
    """Return a tumour of spindle-shaped cells: pyramidal TIFF, 5477 x 5154 pixels (CPTAC, CC BY 4.0).

    Its file does not contain its microns per pixel.
    """
    return FOLDER / "slides" / "CPTAC_C3L-00601-26_pyramid.tif"


def tiles() -> Path:
    """Return class folders of 41 colorectal tiles, H&E, 224 x 224 pixels at 0.5 microns per pixel (CC BY 4.0).

    ADI adipose, BACK background, DEB debris, LYM lymphocytes, MUC mucus, MUS smooth muscle, NORM normal colon
    mucosa, STR cancer-associated stroma, TUM colorectal adenocarcinoma epithelium. There are five tiles per class, but
    one of BACK.
    """
    return FOLDER / "crc"


def project() -> Path:
    """Return the project that :func:`napari_pbip.engine.sample_project.sample_project` unpacks.

    It contains labels of tiles of :func:`slide`, an image bank of these tiles, and a PBIP model trained on them;
    ``tools/make_sample_project.py`` makes bank and model from the labels.
    """
    return FOLDER / "skin"
