"""Text on a terminal, in a log or in a file, whatever a user's names hold and whatever the encoding lacks."""

from __future__ import annotations

import io
import sys
import warnings

from rich.console import Console
from rich.text import Text

from napari_pbip.plugins import PluginWarning
from napari_pbip.progress import console

output = Console(markup=False, emoji=False, highlight=False)
"""For the result proper."""


def say(text: str, on: Console = console) -> None:
    """Print a line as it is; in a log, too, it stays one line."""
    on.print(Text(text), soft_wrap=True)


def print_what_cannot_be_encoded() -> None:
    r"""Let output to a file or pipe of another encoding than UTF-8 show what that lacks as \xb2, as errors do."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_plugin_warnings_as_sentences() -> None:
    """Print what is wrong with somebody's plugin without the line of code that found it."""
    standard = warnings.formatwarning

    def formatted(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if issubclass(category, PluginWarning):
            return f"Note: {message}\n"
        return standard(message, category, filename, lineno, line)

    warnings.formatwarning = formatted
