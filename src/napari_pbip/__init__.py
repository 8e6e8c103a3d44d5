"""napari-pbip: from image-level labels to a tissue map of a whole slide."""

from importlib.metadata import version

__version__ = version("napari-pbip")
