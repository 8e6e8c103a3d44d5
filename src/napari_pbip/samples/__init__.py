"""Real tissue that comes with the package, for the demo, the tests and a first look; README.md has the licences."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
"""Where they lie; nothing is written there."""
TILES_MPP = 0.5
"""Microns per pixel of :func:`tiles`."""


def slide() -> Path:
    """A small brightfield slide, H&E: Aperio SVS, 2220 x 2967 pixels at 0.499 microns per pixel (CC0)."""
    return FOLDER / "slides" / "CMU-1-Small-Region.svs"


def frozen_section() -> Path:
    """A squamous cell carcinoma of the head and neck: Aperio SVS, 4443 x 3567 pixels (TCGA, open access).

    Its file does not say its microns per pixel.
    """
    return FOLDER / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"


def tumour() -> Path:
    """A tumour of spindle-shaped cells: pyramidal TIFF, 5477 x 5154 pixels (CPTAC, CC BY 4.0).

    Its file does not say its microns per pixel.
    """
    return FOLDER / "slides" / "CPTAC_C3L-00601-26_pyramid.tif"


def tiles() -> Path:
    """A folder per class of colorectal tiles, H&E: 41 of 224 x 224 pixels at 0.5 microns per pixel (CC BY 4.0).

    ADI adipose, BACK background, DEB debris, LYM lymphocytes, MUC mucus, MUS smooth muscle, NORM normal colon
    mucosa, STR cancer-associated stroma, TUM colorectal adenocarcinoma epithelium. Five a class; BACK has one.
    """
    return FOLDER / "crc"


def project() -> Path:
    """What :func:`napari_pbip.engine.sample_project.sample_project` unpacks.

    Labels of tiles of :func:`slide`, an image bank of them, and a PBIP model trained on them
    (``tools/make_sample_project.py`` makes bank and model of the labels).
    """
    return FOLDER / "skin"
