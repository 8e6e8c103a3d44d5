"""Labels of a DICOM slide as a DICOM segmentation: a label map for each level of the pyramid, placed on the slide."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from napari_pbip.errors import OutputError
from napari_pbip.events import Job, Started, Step
from napari_pbip.files import writing_folder
from napari_pbip.results.label_files import REWRITE, open_labels
from napari_pbip.results.store import ScoreStore
from napari_pbip.results.store_files import reading
from napari_pbip.taxonomy import Taxonomy

_TILE = 256
_SCHEME = "99PBIP"
"""Coding scheme of the classes, which are the user's own words and no terms of a dictionary."""
_LABEL_CHARACTERS = 64
"""Longest text of a label or meaning in DICOM."""


def is_dicom_seg(folder: Path) -> bool:
    """Return whether this is a folder with nothing but files that :func:`write_dicom_seg` writes."""
    return folder.is_dir() and all(one.name.startswith("level-") and one.suffix == ".dcm" for one in folder.iterdir())


def write_dicom_seg(path: Path, store: ScoreStore, folder: Path, classes: Taxonomy) -> Job:
    """Write a folder with a file for each level, ``level-0.dcm`` the finest, in the slide's frame of reference.

    Segment n + 1 is class n, and the last one is tissue that is not assigned. What the labels come from
    (:meth:`Provenance.values`) are the parameters of the algorithm of each segment. Parameters are those of
    :func:`~napari_pbip.results.geojson.write_geojson`.

    Raises
    ------
    OutputError
        If the library highdicom is not installed, the slide is no DICOM slide or does not exist, or the labels are
        damaged.
    """
    try:
        import highdicom as hd
        from pydicom.sr.codedict import codes
    except ImportError as error:
        raise OutputError(
            "DICOM segmentations need another library; run `pip install napari-pbip[dicom]`, and export again."
        ) from error
    levels, facts = open_labels(store, folder)
    image = facts.image.of_classes(classes)
    slide = _slide(store)
    algorithm = hd.AlgorithmIdentificationSequence(
        "napari-pbip",
        codes.DCM.ArtificialIntelligence,
        version("napari-pbip"),
        parameters={name: json.dumps(value) for name, value in facts.provenance(store).values(classes).items()},
    )
    numbers = np.zeros(256, np.uint8)
    segments = []
    for number, (value, name) in enumerate(image.names.items(), 1):
        numbers[value] = number
        label = name[:_LABEL_CHARACTERS]
        segments.append(
            hd.seg.SegmentDescription(
                number,
                label,
                codes.SCT.Tissue,
                hd.sr.CodedConcept(str(value), _SCHEME, label),
                hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm,
                display_color=hd.color.CIELabColor.from_rgb(*image.colours[value]),
            )
        )
    shared: dict[str, Any] = {
        "series_instance_uid": hd.UID(),
        "series_number": 1,
        "pyramid_uid": hd.UID(),
        "manufacturer": "napari-pbip",
        "manufacturer_model_name": "napari-pbip",
        "software_versions": version("napari-pbip"),
        "device_serial_number": store.facts.model.hash[:_LABEL_CHARACTERS] or "unknown",
        "content_label": "TISSUE",
        "content_description": f"{facts.corrected_mm2(store):.3g} mm2 corrected by hand",
        "tile_pixel_array": True,
        "tile_size": (_TILE, _TILE),
        "dimension_organization_type": hd.DimensionOrganizationTypeValues.TILED_FULL,
        "omit_empty_frames": False,
    }
    yield Started(f"Writing {path.name}", total=len(levels), unit="levels")
    with writing_folder(path) as begun:
        for n, level in enumerate(levels):
            with reading(folder, REWRITE):
                labels = numbers[np.asarray(level[:])]
            measures, position = _placement(slide, store.cell_um / store.facts.slide.mpp * 2**n)
            hd.seg.Segmentation(
                [slide],
                labels[None],
                hd.seg.SegmentationTypeValues.LABELMAP,
                segments,
                instance_number=n + 1,
                sop_instance_uid=hd.UID(),
                pixel_measures=measures,
                plane_positions=[position],
                **shared,
            ).save_as(begun / f"level-{n}.dcm")
            yield Step(n + 1)


def _slide(store: ScoreStore) -> Any:
    """Return the header of the finest level of the store's slide.

    Raises
    ------
    OutputError
        If the slide is gone, or no DICOM slide.
    """
    import pydicom
    from pydicom.misc import is_dicom

    facts = store.facts.slide
    path = facts.path
    files = sorted(path.iterdir()) if path.is_dir() else [path, *sorted(path.parent.iterdir())] if path.exists() else []
    series = None
    for file in files:
        if not file.is_file() or not is_dicom(file):
            if file == path:
                break  # the files beside it are of other slides
            continue
        header = pydicom.dcmread(file, stop_before_pixels=True)
        series = series or header.get("SeriesInstanceUID")
        size = header.get("TotalPixelMatrixColumns"), header.get("TotalPixelMatrixRows")
        if (
            header.get("SeriesInstanceUID") == series
            and "VOLUME" in header.ImageType
            and size == (facts.width, facts.height)
        ):
            return header
    raise OutputError(
        f"{path} is no DICOM slide, or is gone, so its labels have no place in DICOM; export them as OME-TIFF."
    )


def _placement(slide: Any, cell: float) -> tuple[Any, Any]:
    """Return the spacing of cells, whose side is given in pixels of the slide, and the position of the first one.

    In DICOM, that of an image is the position of the centre of its first pixel.
    """
    import highdicom as hd

    measures = slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    down, right = map(float, measures.PixelSpacing)
    origin = slide.TotalPixelMatrixOriginSequence[0]
    corner = [float(origin.get(f"{axis}OffsetInSlideCoordinateSystem") or 0) for axis in "XYZ"]
    along = np.array(slide.ImageOrientationSlide, float).reshape(2, 3)  # directions of a row and of a column
    first = corner + (cell - 1) / 2 * (right * along[0] + down * along[1])
    return (
        hd.PixelMeasuresSequence((down * cell, right * cell), measures.get("SliceThickness")),
        hd.PlanePositionSequence(hd.CoordinateSystemNames.SLIDE, first.tolist(), (1, 1)),
    )
