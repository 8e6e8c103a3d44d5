"""Every setting of the package, written once, as validated and frozen models.

A settings file (YAML), the ``--set key=value`` options of the command line and the panels of the window
are views of :class:`JobSettings`. Field descriptions are the help texts of all three.
"""

from napari_pbip.config.base import Settings, anchor_paths, change_paths, first_difference, overlay, override
from napari_pbip.config.compare import CompareJob, CompareSettings, PlannedRun, planned_runs
from napari_pbip.config.job import (
    BackboneSettings,
    BankSettings,
    DataSettings,
    JobSettings,
    RefineSettings,
    SegmentSettings,
    ThresholdSettings,
    TissueSettings,
    TrainSettings,
)
from napari_pbip.config.methods import (
    CamSettings,
    ConstructSettings,
    LpdSettings,
    MethodSettings,
    PbipSettings,
    ProbeSettings,
    PyramidSettings,
    methods,
)
from napari_pbip.config.pretrain import PretrainSettings

__all__ = [
    "BackboneSettings",
    "BankSettings",
    "CamSettings",
    "CompareJob",
    "CompareSettings",
    "ConstructSettings",
    "DataSettings",
    "JobSettings",
    "LpdSettings",
    "MethodSettings",
    "PbipSettings",
    "PlannedRun",
    "PretrainSettings",
    "ProbeSettings",
    "PyramidSettings",
    "RefineSettings",
    "SegmentSettings",
    "Settings",
    "ThresholdSettings",
    "TissueSettings",
    "TrainSettings",
    "anchor_paths",
    "change_paths",
    "first_difference",
    "methods",
    "overlay",
    "override",
    "planned_runs",
]
