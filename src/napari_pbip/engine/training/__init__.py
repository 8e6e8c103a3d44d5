"""Jobs that train: a method on labelled tiles, a backbone and an encoder on unlabelled slides."""
