"""Somebody who does what a page of the documents says, with the names that it gives the controls."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QAbstractButton

from tests.gui.qt_helpers import click

DOCS = Path(__file__).parents[2] / "docs"


class Reader:
    """A reader of a page, who ticks off each name of a control, and does the numbered steps in their order.

    Parameters
    ----------
    page
        The page, in the folder of the documents.
    steps_done
        Number of numbered steps that were done before.
    """

    def __init__(self, page: str, steps_done: int = 0) -> None:
        text = (DOCS / page).read_text(encoding="utf-8")
        self.page = " ".join(text.split())
        self.read: set[str] = set()
        self.steps = [" ".join(step.split()) for step in re.findall(r"^\d+\. +(.*\n(?: .*\n)*)", text, re.MULTILINE)]
        self.steps_done = steps_done

    @property
    def names(self) -> set[str]:
        """The names that the page has."""
        return set(re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", self.page))

    def step(self, begins: str) -> str:
        """Go on to the next numbered step, which begins with these words; return it."""
        step = self.steps[self.steps_done]
        assert step.startswith(begins), f"the next step is {step!r}"
        self.steps_done += 1
        return step

    def named(self, name: str) -> str:
        assert f"*{name}*" in self.page, f"the page does not say {name!r}"
        self.read.add(name)
        return name

    def press(self, place: Any, name: str) -> None:
        """Press the visible button with the name that the page gives it."""
        self.named(name)
        buttons = [one for one in place.findChildren(QAbstractButton) if one.text().rstrip(" ✓") == name]
        [button] = buttons if len(buttons) == 1 else [one for one in buttons if one.isVisible()]
        click(button)
