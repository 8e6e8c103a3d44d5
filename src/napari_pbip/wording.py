"""Sentences in the words of the interface where they are read.

A sentence that tells the user what to do names arguments and settings as a script or notebook gives them, in
backquotes: "choose another folder, or use `overwrite=True`"; "use a smaller `train.batch_size`". The command line and
the window put their own words in their place. The window names a setting as its form does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from enum import Enum
from functools import cache

from napari_pbip.config import JobSettings
from napari_pbip.config.labels import fields, label
from napari_pbip.errors import PbipError
from napari_pbip.events import Job, Noted, Warned

LAYOUTS = {
    "auto": "detected automatically",
    "folders": "a folder for each class",
    "bcss": "digits in file names, [101]",
    "luad": "digits in file names, [1 0 1]",
    "csv": "a table (CSV)",
}
"""What the window calls each layout of labelled tiles; it follows the label of the setting."""
_WORDS = {
    "`resume=True`": ("--resume", "Resume"),
    "`overwrite=True`": ("--overwrite", "Replace"),
    "choose another `out` to keep both": ("choose another --out to keep both", "press Keep both in 5 Segment"),
    "with `build_bank()`": ("with `napari-pbip bank build`", "in Image bank"),
    "with `build_bank(update=True)`": ("with `napari-pbip bank build --update`", "in Image bank"),
    "with `build_bank(overwrite=True)`": ("with `napari-pbip bank build --overwrite`", "in Image bank"),
    "with `pack()`": ("with `napari-pbip pack`",) * 2,
    "with `unpack()`": ("with `napari-pbip unpack`",) * 2,
    "with `push()`": ("with `napari-pbip push`",) * 2,
    "`public=True`": ("--public", "--public on the command line"),
    "leave `scheduler` out": ("leave --scheduler out", "empty “Scheduler”"),
    "`scheduler`": ("--scheduler", "“Scheduler”"),
    "`update=True`": ("--update", "Update image bank"),
    "with `mpp=0.5`": ("with --mpp 0.5", "in Slides"),
    "with `image_mpp`": ("with --image-mpp", "in the setting image_mpp"),
    "with `data.folder`": ("with --data or the setting data.folder", "in Label tiles"),
    "with `data.mpp`": ("with --set data.mpp=0.5", "in Label tiles"),
    "`data.white_fraction`": ("data.white_fraction", "“Largest share of white” in Image bank"),
    "`segment.tissue.threshold`": ("segment.tissue.threshold", "the darkness threshold of tissue in Slides"),
    "`segment.tissue.smallest_um`": ("segment.tissue.smallest_um", "segment.tissue.smallest_um of a settings file"),
    "`segment.tissue.mpp`": ("segment.tissue.mpp", "segment.tissue.mpp of a settings file"),
    "leave `regions` out": ("leave --regions out", "leave the regions as they are"),
    ", or give `thresholds`": (", or give thresholds with --set", ""),
    "(`segment.tissue_mask`)": ("(segment.tissue_mask)", "(painted with the brush in Slides)"),
    "`thresholds.class_delta`": ("thresholds.class_delta", "thresholds.class_delta of a settings file"),
    **{f"`data.layout={name}`": (f"data.layout={name}", f"“Labels are {words}”") for name, words in LAYOUTS.items()},
}
"""For each argument as Python names it: its name on the command line, and its place in the window. Settings that are
not among them are named as their form labels them."""
_FETCH = re.compile(r"run `napari-pbip encoders fetch [^`]+`")
"""A command for which the window has a button."""
_SETTING = re.compile(r"`([a-z_]+(?:\.[a-z_]+)+)`")
_DOCKS = {
    "data": "Label tiles",
    "bank": "Image bank",
    "method": "Train",
    "backbone": "Train",
    "train": "Train",
    "segment": "Segment",
    "refine": "Segment",
}
"""The dock with the form of each section of the settings."""


@cache
def _settings() -> Mapping[str, tuple[str, str]]:
    """For each setting that a form of the window shows: its name on the command line, and its place in the window."""
    return {
        name: (name, f"“{label(name, field)}” in {_DOCKS[section]}")
        for name, field in fields(JobSettings)
        if (section := name.partition(".")[0]) in _DOCKS
    }


class Interface(Enum):
    """Where a user reads a sentence, if not in Python; the value is the column of the table of words."""

    COMMAND_LINE = 0
    WINDOW = 1

    def sentence(self, said: object) -> str:
        """Return a sentence, or the message of an error, in the words of this interface."""
        text = str(said)
        for argument, words in _WORDS.items():
            text = text.replace(argument, words[self.value])
        if self is Interface.WINDOW:
            text = _FETCH.sub("press “Fetch…” beside the encoder", text)
        return _SETTING.sub(lambda found: _settings().get(found[1], (found[0],) * 2)[self.value], text)

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
