"""Layers of ours: slides, tissue maps, labelled tiles."""
