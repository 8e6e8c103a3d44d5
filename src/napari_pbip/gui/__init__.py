"""The window: everything that touches napari or Qt."""
