"""``python -m napari_pbip``: the command line."""

from napari_pbip.cli import main

if __name__ == "__main__":
    main()
