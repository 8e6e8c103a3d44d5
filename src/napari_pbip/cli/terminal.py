"""Output to a terminal, log or file, with any characters in users' names and any encoding."""

from __future__ import annotations

import io
import sys
import warnings

from rich.console import Console
from rich.text import Text

from napari_pbip.plugins import PluginWarning
from napari_pbip.progress import console

output = Console(markup=False, emoji=False, highlight=False)
"""Console for results: the standard output."""


def say(text: str, on: Console = console) -> None:
    """Print a line without markup or wrapping."""
    on.print(Text(text), soft_wrap=True)


def print_what_cannot_be_encoded() -> None:
    r"""Show characters that the encoding of a file or pipe lacks as escapes such as \xb2, as errors do."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_plugin_warnings_as_sentences() -> None:
    """Print warnings about plugins without the line of code that raised them."""
    standard = warnings.formatwarning

    def formatted(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if issubclass(category, PluginWarning):
            return f"Note: {message}\n"
        return standard(message, category, filename, lineno, line)

    warnings.formatwarning = formatted
