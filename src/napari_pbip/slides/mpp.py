"""Microns per pixel: which values are accepted, and the sidecar file that supplies a missing one.

The value is taken from the caller (``mpp``), else from the sidecar ``<slide file name>.mpp.json`` beside the slide,
else from the slide's header. Magnification ("20x") is never converted to microns per pixel: what scanners call 20x
differs by a factor of two.
"""

from __future__ import annotations

import errno
import json
import math
import re
from pathlib import Path

import platformdirs

from napari_pbip import samples
from napari_pbip.errors import OutputError, SlideError
from napari_pbip.files import writing

SMALLEST, LARGEST = 0.01, 100.0
"""Microns per pixel outside this range are refused: light microscopes do not resolve less, and no cells can be seen
at more."""

USUAL = 0.1, 2.0
"""Usual microns per pixel of slides, from 100x oil to 5x objectives. A header with a value outside this range may be
right but causes a note, because converters have been wrong by factors of 10 and of 2.54."""

SIDECAR = ".mpp.json"
"""Suffix that is added to a slide's file name to name its sidecar."""

_MICRONS = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
    "inch": 25_400.0,
}
_SYMBOLS = {
    "å": "angstrom",
    "nm": "nanometer",
    "um": "micrometer",
    "\N{MICRO SIGN}m": "micrometer",
    "\N{GREEK SMALL LETTER MU}m": "micrometer",
    "micron": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "in": "inch",
}


def is_believable(mpp: float) -> bool:
    """Return whether a number can be the microns per pixel of a slide."""
    return math.isfinite(mpp) and SMALLEST <= mpp <= LARGEST


def require_believable(mpp: float, what: str) -> float:
    """Return ``mpp`` if it is believable; ``what`` names the value in the message.

    Raises
    ------
    SlideError
        If ``mpp`` lies outside 0.01 to 100.
    """
    if not is_believable(mpp):
        raise SlideError(
            f"{what} is {mpp:g} microns per pixel, which no slide has; give a value between {SMALLEST:g} and "
            f"{LARGEST:g}, such as 0.5 for a 20x scan."
        )
    return float(mpp)


def is_usual(mpp: float) -> bool:
    """Return whether slides usually have such microns per pixel (:data:`USUAL`)."""
    return USUAL[0] <= mpp <= USUAL[1]


def to_microns(value: float, unit: str) -> float | None:
    """Convert a length to micrometres; return None if the unit is not a length ("pixel", "reference frame", unknown).

    Units are the symbols of OME and the names of OME-Zarr, in either spelling (micrometer, micrometre).
    """
    name = unit.strip().lower().removesuffix("s").replace("metre", "meter")
    factor = _MICRONS.get(_SYMBOLS.get(name, name))
    return None if factor is None else value * factor


_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)


def number(text: object) -> float | None:
    """Parse a number from a header, with a decimal point or comma and perhaps an exponent; None if it is not one."""
    found = _NUMBER.fullmatch(str(text).strip())
    return float(found[0].replace(",", ".")) if found else None


def from_header(x: float | None, y: float | None) -> tuple[float, float] | None:
    """Return the microns per pixel in x and y of a header, or None if either is missing or unbelievable.

    Scanners and converters write 0, -1 or 1e6 for an unknown value; those count as missing.
    """
    if x is None or y is None or not is_believable(x) or not is_believable(y):
        return None
    return float(x), float(y)


def sidecar(path: Path) -> Path:
    """Return the path of the file that supplies the microns per pixel of a slide whose header has none.

    It lies beside the slide. For a sample slide of this package, which an upgrade replaces, it lies in the user's data
    folder.
    """
    if path.is_relative_to(samples.FOLDER):
        return platformdirs.user_data_path("napari-pbip", appauthor=False) / (path.name + SIDECAR)
    return path.with_name(path.name + SIDECAR)


def read_sidecar(path: Path) -> float | None:
    """Return the microns per pixel in the sidecar of the slide at ``path``, or None if it has no sidecar.

    Raises
    ------
    SlideError
        If the sidecar exists and cannot be used.
    """
    file = sidecar(path)
    try:
        mpp = float(json.loads(file.read_text(encoding="utf-8"))["mpp"])
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise SlideError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SlideError(f'{file} cannot be used; it should hold {{"mpp": 0.5}}, or be deleted.') from error
    return require_believable(mpp, f"The value in {file}")


_NOT_THERE = (errno.ENOENT, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOTDIR)
"""Error numbers that mean that there is no sidecar: its name would be too long, which Windows calls invalid."""


def save_mpp(path: Path | str, mpp: float) -> Path:
    """Write the sidecar that :func:`open_slide` reads, and return where it is.

    Raises
    ------
    SlideError
        If ``mpp`` is not between 0.01 and 100.
    OutputError
        If the slide's folder cannot be written.
    """
    file = sidecar(Path(path).absolute())
    text = json.dumps({"mpp": require_believable(mpp, "The given value")})
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with writing(file) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    except (OSError, OutputError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        raise OutputError(f"{file} cannot be written; give the microns per pixel with `mpp=0.5` instead.") from cause
    return file
