"""All settings of the package, as validated and frozen models.

A settings file (YAML), the options ``--set key=value`` of the command line and the forms of the window all edit
:class:`JobSettings`, and show the descriptions of its fields as help texts.
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
    DeepLabSettings,
    LpdSettings,
    MethodSettings,
    PbipSettings,
    ProbeSettings,
    PyramidSettings,
    TrainedSettings,
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
    "DeepLabSettings",
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
    "TrainedSettings",
    "anchor_paths",
    "change_paths",
    "first_difference",
    "methods",
    "overlay",
    "override",
    "planned_runs",
]
