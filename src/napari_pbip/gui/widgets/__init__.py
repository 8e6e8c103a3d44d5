"""Qt widgets that depend neither on napari nor on the session."""
