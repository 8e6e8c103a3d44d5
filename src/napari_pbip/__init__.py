"""napari-pbip: from image-level labels to a tissue map of a whole slide.

The public names stand in ``__init__.pyi``; each is imported when it is first asked for, so that ``import napari_pbip``
loads neither torch nor a window.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("napari-pbip")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
