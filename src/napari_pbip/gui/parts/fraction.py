"""A number from 0 to 1, by slider, keys or typing; superqt's sliders for fractions do not answer keys."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QSlider, QWidget
from superqt.utils import signals_blocked

_STEPS = 100
_NUMBER_WIDTH = 56


class FractionSlider(QWidget):
    """A slider with its number beside it.

    Parameters
    ----------
    name
        What it is of, for screen readers.
    tip
        What it does, for everybody.
    """

    changed = Signal(float)
    """A user moved it; not emitted by :meth:`show_value`."""

    def __init__(self, name: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._value = 0.0
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, _STEPS)
        self.slider.setPageStep(_STEPS // 10)
        self.number = QDoubleSpinBox()
        self.number.setRange(0, 1)
        self.number.setSingleStep(1 / _STEPS)
        self.number.setKeyboardTracking(False)
        self.number.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)  # the slider needs the room
        self.number.setFixedWidth(_NUMBER_WIDTH)
        for part in (self.slider, self.number):
            part.setAccessibleName(name)
            part.setToolTip(tip)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.slider, 1)
        layout.addWidget(self.number)
        self.slider.valueChanged.connect(self._on_slider)
        self.number.valueChanged.connect(self._on_number)

    @property
    def value(self) -> float:
        """As shown last or as moved since, not rounded to what the slider can show."""
        return self._value

    def show_value(self, value: float) -> None:
        """Show a value."""
        self._value = value
        with signals_blocked(self.slider), signals_blocked(self.number):
            self.slider.setValue(round(value * _STEPS))
            self.number.setValue(value)

    def _on_slider(self, steps: int) -> None:
        self._moved(steps / _STEPS)

    def _on_number(self, value: float) -> None:
        self._moved(round(value, 4))

    def _moved(self, value: float) -> None:
        self.show_value(value)
        self.changed.emit(value)
