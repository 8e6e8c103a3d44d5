"""The errors that users can meet. Each message is one sentence that ends with what to do.

Messages name arguments in the words of Python, in backquotes (:mod:`napari_pbip.wording`). No class derives from
:class:`RuntimeError`, because Qt worker threads swallow that silently. All errors of torch are RuntimeErrors; jobs
raise :class:`JobFailed` instead of them.
"""

from __future__ import annotations

from typing import Any


class PbipError(Exception):
    """Base class of all errors for users; the command line prints them and exits with code 2."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process makes the same error; classes may take more than a message."""
        return _again, (type(self), self.args, dict(self.__dict__))


def _again(kind: type[PbipError], args: tuple[Any, ...], attributes: dict[str, Any]) -> PbipError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class ConfigError(PbipError):
    """A value of a setting is invalid, or a key of a settings file is unknown."""


class SlideError(PbipError):
    """A slide cannot be opened or read, or lacks microns per pixel or tissue."""


class MissingSlide(SlideError):
    """There is nothing at the path of a slide."""


class DamagedPlace(SlideError):
    """A part of a slide cannot be decoded; the rest of it can be read."""


class DataError(PbipError):
    """Labelled tiles, masks or their layout are invalid."""


class BankError(PbipError):
    """An image bank is missing or damaged, or does not belong to the data or the encoder."""


class ModelError(PbipError):
    """A trained model is missing or damaged, or does not belong to the data."""


class ProjectError(PbipError):
    """A project file is damaged, of a newer version, or in use by another window."""


class OutputError(PbipError):
    """An output folder exists already or cannot be written, or the disk is full."""


class FolderInUse(OutputError):
    """Another process writes the folder.

    Attributes
    ----------
    holder
        Description of that process: ``process 4711 on myhost``, or ``another process``.
    """

    def __init__(self, message: str, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


class OtherResult(OutputError):
    """A result exists that was made from something else; it can be replaced but not resumed.

    Attributes
    ----------
    what
        What differs: ``slide``, ``model``, ``setting`` or ``grid``.
    difference
        The first entry that differs, with both values, in words; settings are named as Python does.
    """

    def __init__(self, message: str, what: str, difference: str) -> None:
        super().__init__(message)
        self.what, self.difference = what, difference


class UnreadableResult(OutputError):
    """A result on disk is damaged or of another version; it can be replaced but neither read nor resumed.

    Attributes
    ----------
    reason
        What is wrong, without what to do: the first part of the message.
    """

    def __init__(self, reason: str, way_out: str) -> None:
        super().__init__(f"{reason}; {way_out}.")
        self.reason = reason


class ClusterError(PbipError):
    """The scheduler or the workers of a cluster cannot be reached or used, or were lost."""


class WeightsUnavailable(PbipError):
    """The weights of an encoder or backbone are not on this machine; the message says where to put them."""


class JobFailed(PbipError):
    """A job raised an unexpected error, which is the ``__cause__`` of this one."""
