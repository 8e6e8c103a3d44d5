"""The errors a user can meet: one family, each message one sentence that ends with the way out.

None derives from :class:`RuntimeError`: Qt worker threads swallow that one without telling anybody,
and every torch error is one, so jobs turn what they cannot foresee into :class:`JobFailed`.
"""

from __future__ import annotations


class PbipError(Exception):
    """Base of everything this package raises on purpose; the command line answers it with exit code 2."""


class ConfigError(PbipError):
    """A setting has a value, or a settings file a key, that cannot be used."""


class SlideError(PbipError):
    """A slide cannot be opened or read, or lacks what the job needs (its microns per pixel, tissue)."""


class DamagedPlace(SlideError):
    """A part of a slide cannot be decoded; the rest of it can be read."""


class DataError(PbipError):
    """Labelled tiles, masks or their layout are not what they have to be."""


class BankError(PbipError):
    """An image bank is missing, damaged, or does not belong to the data or encoder at hand."""


class ModelError(PbipError):
    """A trained model is missing, damaged, or does not belong to the data at hand."""


class OutputError(PbipError):
    """An output folder exists already, cannot be written, or its disk is full."""


class FolderInUse(OutputError):
    """Somebody else writes the folder.

    Attributes
    ----------
    holder
        Who: ``process 4711 on myhost``, or ``another process``.
    """

    def __init__(self, message: str, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


class OtherResult(OutputError):
    """A result exists that was made from something else: it can be replaced, and not be resumed.

    Attributes
    ----------
    what
        What differs: ``slide``, ``model``, ``setting`` or ``grid``.
    """

    def __init__(self, message: str, what: str) -> None:
        super().__init__(message)
        self.what = what


class WeightsUnavailable(PbipError):
    """The weights of an encoder or backbone are not on this machine; the message says where to put them."""


class JobFailed(PbipError):
    """A job met an unexpected error; the original error is its ``__cause__``."""
