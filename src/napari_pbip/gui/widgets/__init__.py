"""Qt widgets that know neither napari nor the session: each shows and edits what it is given."""
