"""Every setting of the package, written once, as validated and frozen models.

A settings file (YAML), the ``--set key=value`` options of the command line and the panels of the window
are views of :class:`JobSettings`. Field descriptions are the help texts of all three.
"""

from napari_pbip.config.base import Settings, override
from napari_pbip.config.job import (
    BackboneSettings,
    BankSettings,
    DataSettings,
    JobSettings,
    SegmentSettings,
    ThresholdSettings,
    TissueSettings,
    TrainSettings,
)
from napari_pbip.config.methods import CamSettings, MethodSettings, PbipSettings

__all__ = [
    "BackboneSettings",
    "BankSettings",
    "CamSettings",
    "DataSettings",
    "JobSettings",
    "MethodSettings",
    "PbipSettings",
    "SegmentSettings",
    "Settings",
    "ThresholdSettings",
    "TissueSettings",
    "TrainSettings",
    "override",
]
