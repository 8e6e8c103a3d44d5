"""Sentences in the words of the interface where they are read.

A sentence that tells the user what to do names arguments as a script or notebook gives them, in backquotes:
"choose another folder, or use `overwrite=True`". The command line and the window put their own words in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from enum import Enum

from napari_pbip.errors import PbipError
from napari_pbip.events import Job, Noted, Warned

_WORDS = {
    "`resume=True`": ("--resume", "Resume"),
    "`overwrite=True`": ("--overwrite", "Replace"),
    "with `build_bank()`": ("with `napari-pbip bank build`", "in Image bank"),
    "with `build_bank(update=True)`": ("with `napari-pbip bank build --update`", "in Image bank"),
    "with `build_bank(overwrite=True)`": ("with `napari-pbip bank build --overwrite`", "in Image bank"),
    "`update=True`": ("--update", "Update image bank"),
    "with `mpp=0.5`": ("with --mpp 0.5", "in the Slides widget"),
    "with `image_mpp`": ("with --image-mpp", "in the setting image_mpp"),
    "with `data.folder`": ("with --data or the setting data.folder", "in Label tiles"),
    "with `data.mpp`": ("with --set data.mpp=0.5", "in Label tiles"),
}
"""For each argument as Python names it: its name on the command line, and its place in the window."""


class Interface(Enum):
    """Where a user reads a sentence, if not in Python; the value is the column of the table of words."""

    COMMAND_LINE = 0
    WINDOW = 1

    def sentence(self, said: object) -> str:
        """Return a sentence, or the message of an error, in the words of this interface."""
        text = str(said)
        for argument, words in _WORDS.items():
            text = text.replace(argument, words[self.value])
        return text

    def job(self, make: Callable[[], Job]) -> Job:
        """Yield the events of a job, with its notes, its warnings and its error in the words of this interface.

        Parameters
        ----------
        make
            Makes the job's generator.

        Raises
        ------
        PbipError
            The error that the job raises, with its message changed.
        """
        try:
            with closing(make()) as job:
                for event in job:
                    yield (
                        replace(event, message=self.sentence(event.message))
                        if isinstance(event, Noted | Warned)
                        else event
                    )
        except PbipError as error:
            error.args = (self.sentence(error),)
            raise
