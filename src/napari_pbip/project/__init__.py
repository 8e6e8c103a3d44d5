"""The project: what is remembered of a project folder beside its tiles, image bank, models and results.

The file ``project.json`` names the slides, the settings of the jobs, and how each result is shown, so that a project
opens as it was left, also on another machine.
"""

from napari_pbip.project.file import (
    BANK,
    FILE,
    MODELS,
    RESULTS,
    TILES,
    Project,
    ProjectResult,
    ProjectSlide,
    ProjectView,
    SkippedTiles,
    SlidesToSegment,
    counted_stores,
    shown_classes,
)
from napari_pbip.project.recent import last_project, remember
from napari_pbip.project.relocate import find_slides, slide_of_result

__all__ = [
    "BANK",
    "FILE",
    "MODELS",
    "RESULTS",
    "TILES",
    "Project",
    "ProjectResult",
    "ProjectSlide",
    "ProjectView",
    "SkippedTiles",
    "SlidesToSegment",
    "counted_stores",
    "find_slides",
    "last_project",
    "remember",
    "shown_classes",
    "slide_of_result",
]
