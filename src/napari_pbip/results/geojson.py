"""Labels of a store as GeoJSON: a polygon for each patch of a class, in the form that QuPath reads and writes.

Patches end at the borders of regions. While patches are found, a cell has the value of its label plus ``_STEP`` times
the number of its region, 0 for none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely

from napari_pbip.events import Job, Started, Step
from napari_pbip.files import writing
from napari_pbip.results.label_files import REWRITE, open_labels
from napari_pbip.results.label_image import CHUNK
from napari_pbip.results.labels import Labels
from napari_pbip.results.lazy import analysed_blocks
from napari_pbip.results.polygons import Patches, Polygons
from napari_pbip.results.store import ScoreStore
from napari_pbip.results.store_files import reading
from napari_pbip.slides.regions import WHOLE
from napari_pbip.taxonomy import NOT_ANALYSED, Taxonomy

_STEP = 256
_DECIMALS = 2
"""Of coordinates in level-0 pixels. All corners of a row or column of cells are rounded alike, so no gaps arise."""


def write_geojson(path: Path, store: ScoreStore, folder: Path, classes: Taxonomy) -> Job:
    """Write a feature for each patch of a class, and of tissue that is not assigned, in level-0 pixels of the slide.

    The feature of a patch in a region has the region's name; where regions overlap, the first one counts. The member
    ``napari_pbip`` of the collection is :meth:`Provenance.values`.

    Patches are written when they are found; only those that reach the border of a block are kept in memory to the end.

    Parameters
    ----------
    path
        The file to write.
    store
        The store that the labels belong to.
    folder
        The label image.
    classes
        The classes of the store as they are called and coloured in the file.

    Raises
    ------
    OutputError
        If the labels are damaged.
    """
    (labels, *_), facts = open_labels(store, folder)
    image = facts.image.of_classes(classes)
    places = analysed_blocks(store)
    cell = store.cell_um / store.facts.slide.mpp
    properties = {
        number * _STEP + value: {
            "objectType": "annotation",
            "classification": {"name": name, "color": image.colours[value]},
            **({"name": region} if region else {}),
        }
        for number, region in enumerate((WHOLE, *store.regions.shapes))
        for value, name in image.names.items()
    }
    patches = Patches()
    separator = "\n"
    yield Started(f"Writing {path.name}", total=len(places), unit="parts")
    with writing(path) as begun, begun.open("w", encoding="utf-8") as file:

        def write(found: Iterable[tuple[int, Polygons]]) -> None:
            nonlocal separator
            for value, polygons in found:
                ending = f', "properties": {json.dumps(properties[value])}}}'
                scaled = shapely.transform(polygons, lambda corners: np.round(corners * cell, _DECIMALS))
                for geometry in shapely.to_geojson(shapely.orient_polygons(scaled)):
                    file.write(f'{separator}{{"type": "Feature", "geometry": {geometry}{ending}')
                    separator = ",\n"

        file.write('{"type": "FeatureCollection", "features": [')
        for done, (row, column) in enumerate(places, 1):
            y, x = row * CHUNK, column * CHUNK
            with reading(folder, REWRITE):
                block = np.asarray(labels[y : y + CHUNK, x : x + CHUNK])
            write(patches.add(y, x, _by_region(store, y, x, block)))
            yield Step(done)
        for found in patches.finish():
            write([found])
            yield Step(len(places))
        file.write(f'\n], "napari_pbip": {json.dumps(facts.provenance(store).values(classes))}}}\n')


def _by_region(store: ScoreStore, y: int, x: int, labels: Labels) -> npt.NDArray[np.int32]:
    """Return labels, whose first cell is (y, x), with the number of the region in each value."""
    place = slice(y, y + labels.shape[0]), slice(x, x + labels.shape[1])
    values = labels.astype(np.int32)
    for number, name in enumerate(store.regions.shapes, 1):
        inside = store.cells_in(name, 0, *place) & (labels != NOT_ANALYSED) & (values < _STEP)
        values[inside] += number * _STEP
    return values
