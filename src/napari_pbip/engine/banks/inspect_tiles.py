"""The job that inspects a folder of labelled tiles."""

from __future__ import annotations

from napari_pbip.bank import find_splits, load_tiles
from napari_pbip.config import DataSettings
from napari_pbip.engine.jobs import job
from napari_pbip.errors import ConfigError
from napari_pbip.events import Finished, Job, Started, Step, Warned


@job
def inspect_tiles(data: DataSettings) -> Job:
    """Read the labels of all splits of a data set.

    Yields
    ------
    Event
        ``Started``; a ``Step`` per split; ``Warned`` for what is probably wrong; ``Finished`` with ``layout``,
        ``classes`` (from ``Taxonomy.to_json``), ``splits`` (for each, the number of ``tiles`` and the ``counts`` of
        tiles per class), and ``notes``, sentences on what was recognised and left out.

    Raises
    ------
    ConfigError
        If ``data`` names no folder.
    DataError
        If the folder contains no labelled tiles, or they are invalid.
    """
    if data.folder is None:
        raise ConfigError("No labelled tiles are given; choose the folder (or CSV file) with the labelled tiles.")
    splits = find_splits(data.folder, data)
    yield Started("Reading labels", total=len(splits), unit="splits")
    found, descriptions, notes = {}, list[str](), dict[str, None]()
    for done, split in enumerate(splits, 1):
        tiles = load_tiles(data.folder, split, data)
        found[split] = {"tiles": len(tiles), "counts": list(tiles.counts)}
        descriptions.append(tiles.description)
        notes.update(dict.fromkeys(tiles.notes))
        yield from map(Warned, tiles.warnings)
        yield Step(done)
    if not found:
        raise ConfigError(f"{data.folder} lists no tiles of the splits train, val or test; correct its column 'split'.")
    summary = {
        "layout": tiles.layout,
        "classes": tiles.taxonomy.to_json(),
        "splits": found,
        "notes": [*descriptions, *notes],
    }
    yield Finished(data.folder, summary)
