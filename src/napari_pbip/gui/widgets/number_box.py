"""The one box for numbers: a point or a comma means the same, whatever the language of the computer."""

from __future__ import annotations

import math
import re

from qtpy.QtCore import QLocale, Qt, Signal
from qtpy.QtGui import QValidator, QWheelEvent
from qtpy.QtWidgets import QDoubleSpinBox

_NUMBER = re.compile(r"[+-]?(\d+[.,\u066b]?\d*|[.,\u066b]\d+)([eE][+-]?\d+)?")
"""Digits of any script; a point, a comma or the Arabic decimal separator is the decimal mark. There is no mark for
thousands: ``1.000`` and ``1,000`` are one, and ``1.000,5`` is no number."""


def read_number(text: str) -> float | None:
    """The number that a text says, or None if it says none; white space around it does not matter."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return None
    number = float(re.sub("[,\u066b]", ".", text))
    return number if math.isfinite(number) else None


def read_whole_number(text: str) -> int | None:
    """The whole number that a text says, or None: with a point or a comma it might mean thousands as well."""
    text = text.strip()
    return int(text) if text.removeprefix("-").removeprefix("+").isdecimal() else None


class NumberBox(QDoubleSpinBox):
    """A number that is typed, pasted, or stepped with the arrow keys; it counts when Return is pressed or it is left.

    Whatever is typed stays as it is until then, so that no key is lost on the way and makes another number of the rest.
    What cannot be used is then replaced by the number from before, and :attr:`problem` says why.

    Parameters
    ----------
    low, high
        The smallest and the largest number.
    decimals
        How many decimals it may have; with 0, whole numbers only.
    step
        What an arrow key adds.
    empty
        What stands in the empty box, grey, for "no number": the value is then ``low``. By default there has to be one.
    """

    problem = Signal(str)
    """Why what was typed is not taken, as a sentence; an empty text once a number was."""

    def __init__(self, low: float, high: float, *, decimals: int = 0, step: float = 1, empty: str = "") -> None:
        super().__init__()
        self._empty = empty
        self._typed: str | None = None
        self.setLocale(QLocale.c())  # also for right-to-left languages: numbers look as in the rest of the window
        self.setDecimals(decimals)
        self.setRange(low, high)
        self.setSingleStep(step)
        self.setKeyboardTracking(False)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        line = self.lineEdit()
        if line is not None:
            line.setPlaceholderText(empty)
            line.textEdited.connect(self._on_typed)
        self.editingFinished.connect(self._tell)

    def commit(self) -> bool:
        """Take what is typed, as if the box was left; whether it could be taken."""
        self.interpretText()
        return self._tell()

    def bare_text(self) -> str:
        """What is written in the box, without its unit; empty if nothing is."""
        return self._bare(self.text())

    # what Qt asks ------------------------------------------------------------------------------------------------

    def textFromValue(self, value: float) -> str:
        if self._empty and value <= self.minimum():
            return ""
        text = f"{value:.{self.decimals()}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text

    def valueFromText(self, text: str | None) -> float:
        number = read_number(self._bare(text or ""))
        return self.minimum() if number is None else number

    def validate(self, text: str | None, position: int) -> tuple[QValidator.State, str, int]:
        """Nothing that is typed is refused before it is finished."""
        text = text or ""
        states = QValidator.State
        return (states.Intermediate if self._fault(self._bare(text)) else states.Acceptable), text, position

    def fixup(self, text: str | None) -> str:
        """Nothing is mended: Qt would take commas out and so make 1000 of 1,000."""
        return text or ""

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        """Leave the wheel to the panel around, unless the box is being used: scrolling should not change numbers."""
        if event is not None and not self.hasFocus():
            event.ignore()
        else:
            super().wheelEvent(event)

    # what was typed ----------------------------------------------------------------------------------------------

    def _bare(self, text: str) -> str:
        return text.removesuffix(self.suffix()).strip()

    def _fault(self, text: str) -> str:
        """What is wrong with a text, as the main clause of a sentence; empty if nothing is."""
        if not text and self._empty:
            return ""
        number = read_number(text)
        if number is None:
            return f"“{text}” is not a number" if text else "There is no number"
        if not self.minimum() <= number <= self.maximum():
            return f"{text} is not between {_plain(self.minimum())} and {_plain(self.maximum())}"
        if not self.decimals() and read_whole_number(text) is None:
            return f"“{text}” is not a whole number; write it without a point or comma"
        if round(number, self.decimals()) != number:
            return f"{text} has more than {self.decimals()} decimals"
        return ""

    def _on_typed(self, text: str) -> None:
        self._typed = text

    def _tell(self) -> bool:
        typed, self._typed = self._typed, None
        fault = "" if typed is None else self._fault(self._bare(typed))
        kept = self.bare_text()
        self.problem.emit(f"{fault}; {kept or 'no number'} is kept." if fault else "")
        return not fault


def _plain(number: float) -> str:
    return f"{number:g}"
