"""Results of jobs: the score store, labels from scores, areas, pictures and metrics. Nothing here imports torch."""

from napari_pbip.results.areas import Area, areas, write_areas
from napari_pbip.results.blend import Blender, Region
from napari_pbip.results.label_files import open_labels, write_labels
from napari_pbip.results.labels import label_region, labels_from_scores
from napari_pbip.results.largest import LargestScores
from napari_pbip.results.lattice import Lattice
from napari_pbip.results.lazy import LazyArray, lazy_labels, lazy_presence, lazy_scores
from napari_pbip.results.metrics import Metrics, SegmentationScores
from napari_pbip.results.overlay import overlay, write_overlay
from napari_pbip.results.store import ScoreStore

__all__ = [
    "Area",
    "Blender",
    "LargestScores",
    "Lattice",
    "LazyArray",
    "Metrics",
    "Region",
    "ScoreStore",
    "SegmentationScores",
    "areas",
    "label_region",
    "labels_from_scores",
    "lazy_labels",
    "lazy_presence",
    "lazy_scores",
    "open_labels",
    "overlay",
    "write_areas",
    "write_labels",
    "write_overlay",
]
