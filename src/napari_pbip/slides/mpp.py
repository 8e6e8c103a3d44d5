"""Microns per pixel: which values are believed, and the sidecar file that supplies a missing one.

A value comes from, in this order: the caller (``--mpp``), the sidecar ``<slide file name>.mpp.json`` beside the
slide, the slide's own header. Magnification ("20x") is never turned into microns per pixel: scanners differ by a
factor of two in what they call 20x.
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
"""Microns per pixel outside this range are taken for a mistake: light microscopes do not resolve the one, and
tissue shows no cells at the other."""

USUAL = 0.1, 2.0
"""Microns per pixel of slides that are read: from 100x oil to 5x objectives. What a header says outside this range may
be right, and is worth a question: converters have been ten times, or 2.54 times, off."""

SIDECAR = ".mpp.json"
"""What the name of a sidecar adds to that of its slide."""

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
    """Whether a number can be the microns per pixel of a slide."""
    return math.isfinite(mpp) and SMALLEST <= mpp <= LARGEST


def require_believable(mpp: float, what: str) -> float:
    """``mpp`` itself.

    Raises
    ------
    SlideError
        If it lies outside 0.01 to 100.
    """
    if not is_believable(mpp):
        raise SlideError(
            f"{what} is {mpp:g} microns per pixel, which no slide has; give a value between {SMALLEST:g} and "
            f"{LARGEST:g}, such as 0.5 for a 20x scan."
        )
    return float(mpp)


def is_usual(mpp: float) -> bool:
    """Whether slides are scanned so (:data:`USUAL`)."""
    return USUAL[0] <= mpp <= USUAL[1]


def to_microns(value: float, unit: str) -> float | None:
    """A length in micrometres, or None if the unit is no length ("pixel", "reference frame", unknown).

    Units are OME's symbols and OME-Zarr's names, in either spelling (micrometer, micrometre).
    """
    name = unit.strip().lower().removesuffix("s").replace("metre", "meter")
    factor = _MICRONS.get(_SYMBOLS.get(name, name))
    return None if factor is None else value * factor


_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)


def number(text: object) -> float | None:
    """A number as headers have it, with a decimal point or comma and perhaps an exponent, or None if it is none."""
    found = _NUMBER.fullmatch(str(text).strip())
    return float(found[0].replace(",", ".")) if found else None


def from_header(x: float | None, y: float | None) -> tuple[float, float] | None:
    """Microns per pixel in x and y as a header has them, or None where either is missing or unbelievable.

    Headers hold 0, -1 or 1e6 where a scanner or a converter knew nothing; those count as missing.
    """
    if x is None or y is None or not is_believable(x) or not is_believable(y):
        return None
    return float(x), float(y)


def sidecar(path: Path) -> Path:
    """Where the microns per pixel of a slide are written when its header has none.

    Beside the slide; for one that comes with the package, which an upgrade replaces, among the user's own data.
    """
    if path.is_relative_to(samples.FOLDER):
        return platformdirs.user_data_path("napari-pbip", appauthor=False) / (path.name + SIDECAR)
    return path.with_name(path.name + SIDECAR)


def read_sidecar(path: Path) -> float | None:
    """Microns per pixel from the sidecar of the slide at ``path``, or None if it has no sidecar.

    Raises
    ------
    SlideError
        If the sidecar is there but cannot be used.
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
"""A sidecar whose name is longer than names can be is not there; Windows calls such a name invalid."""


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
