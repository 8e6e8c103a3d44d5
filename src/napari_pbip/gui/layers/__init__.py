"""The napari layers of this plugin: slides, tissue maps and labelled tiles."""
