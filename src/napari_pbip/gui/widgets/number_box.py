"""The box for numbers, in which decimal point and comma mean the same, independent of the computer's language."""

from __future__ import annotations

import math
import re

from qtpy.QtCore import QLocale, Qt, Signal
from qtpy.QtGui import QValidator, QWheelEvent
from qtpy.QtWidgets import QDoubleSpinBox

_NUMBER = re.compile(r"[+-]?(\d+[.,\u066b]?\d*|[.,\u066b]\d+)([eE][+-]?\d+)?")
"""A number with digits of any script, whose decimal mark is a point, a comma or the Arabic decimal separator. Thousands
separators are not allowed: ``1.000`` and ``1,000`` are one, and ``1.000,5`` is not a number."""


def read_number(text: str) -> float | None:
    """Parse a number; return None if the text is not one. White space around it is ignored."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return None
    number = float(re.sub("[,\u066b]", ".", text))
    return number if math.isfinite(number) else None


def read_whole_number(text: str) -> int | None:
    """Parse an integer; return None for any other text, also with a point or comma, which might mean thousands."""
    text = text.strip()
    return int(text) if text.removeprefix("-").removeprefix("+").isdecimal() else None


class NumberBox(QDoubleSpinBox):
    """A box for a number that is typed, pasted, or stepped with the arrow keys.

    A typed number counts when Return is pressed or the box loses the focus. Until then the text is not changed, because
    a rejected key would turn the remaining ones into another number. An invalid number is then replaced by the previous
    one, and :attr:`problem` is emitted with the reason.

    Parameters
    ----------
    low, high
        The smallest and the largest number.
    decimals
        Largest number of decimals; 0 allows integers only.
    step
        Difference that an arrow key makes.
    empty
        Grey text of the empty box, which means no number and has the value ``low``. By default, a number is needed.
    """

    problem = Signal(str)
    """Emitted with a sentence on why a number is refused, or with an empty text once a number is accepted."""

    def __init__(self, low: float, high: float, *, decimals: int = 0, step: float = 1, empty: str = "") -> None:
        super().__init__()
        self._empty = empty
        self._typed: str | None = None
        self.setLocale(QLocale.c())  # numbers look as in the rest of the window, also in right-to-left languages
        self.setDecimals(decimals)
        self.setRange(low, high)
        self.setSingleStep(step)
        self.setKeyboardTracking(False)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        line = self.lineEdit()
        if line is not None:
            line.setPlaceholderText(empty)
            line.textEdited.connect(self._on_typed)
        self.editingFinished.connect(self._report)

    def commit(self) -> bool:
        """Accept the typed number, as when the box loses the focus; return whether it is valid."""
        self.interpretText()
        return self._report()

    def bare_text(self) -> str:
        """Return the text in the box without its unit."""
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
        """Accept every text while it is typed."""
        text = text or ""
        states = QValidator.State
        return (states.Intermediate if self._fault(self._bare(text)) else states.Acceptable), text, position

    def fixup(self, text: str | None) -> str:
        """Return the text unchanged, because Qt would remove commas and so turn 1,000 into 1000."""
        return text or ""

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        """Ignore the wheel unless the box has the focus, so that scrolling the panel does not change numbers."""
        if event is not None and not self.hasFocus():
            event.ignore()
        else:
            super().wheelEvent(event)

    # what was typed ----------------------------------------------------------------------------------------------

    def _bare(self, text: str) -> str:
        return text.removesuffix(self.suffix()).strip()

    def _fault(self, text: str) -> str:
        """Return what is wrong with a text, as the main clause of a sentence; empty if nothing is."""
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

    def _report(self) -> bool:
        typed, self._typed = self._typed, None
        fault = "" if typed is None else self._fault(self._bare(typed))
        kept = self.bare_text()
        self.problem.emit(f"{fault}; {kept or 'no number'} is kept." if fault else "")
        return not fault


def _plain(number: float) -> str:
    return f"{number:g}"
