"""Jobs from labelled tiles to an image bank, and classification by a bank alone."""
