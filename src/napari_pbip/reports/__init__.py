"""Reports of results and projects for people who were not there when they were made."""

from napari_pbip.reports.job import REPORT, report

__all__ = ["REPORT", "report"]
