"""Jobs from labelled tiles to an image bank, and what a bank alone can tell of other tiles."""
