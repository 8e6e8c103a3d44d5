"""Text on a terminal, in a log or in a file, whatever a user's names hold and whatever the encoding lacks."""

from __future__ import annotations

import io
import sys

from rich.console import Console
from rich.text import Text

# Names, paths and messages of libraries hold brackets and colons: nothing that is printed is read as markup.
console = Console(stderr=True, markup=False, emoji=False, highlight=False)
"""For what is said beside the result."""
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
