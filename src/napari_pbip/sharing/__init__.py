"""What leaves a project for people who were not there: reports, packed models, and the description of a project."""

from napari_pbip.sharing.write_report import REPORT, report

__all__ = ["REPORT", "report"]
