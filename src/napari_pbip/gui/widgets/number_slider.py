"""A slider whose number can also be typed or changed with keys; superqt's slider does not support keys."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QSlider, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_pbip.gui.widgets.job_bar import Notice
from napari_pbip.gui.widgets.number_box import NumberBox

_NUMBER_WIDTH = 56
_WITHOUT_BUTTONS = """
QDoubleSpinBox::up-button, QDoubleSpinBox::down-button { width: 0px; border: none; }
QDoubleSpinBox::up-arrow, QDoubleSpinBox::down-arrow { width: 0px; image: none; }
"""
"""Style of a number without buttons. Qt 6.12 leaves no width to the text of a box with ``NoButtons`` and a style."""


class NumberSlider(QWidget):
    """A slider with a number box beside it.

    Parameters
    ----------
    name
        Name of the quantity, for screen readers.
    tip
        Tooltip.
    low, high
        Ends of the slider.
    step
        Step of the slider; finer values can be typed.
    """

    value_changed = Signal(float)
    """Emitted with the value when the user has changed it, and not by :meth:`set_value`."""

    def __init__(self, name: str, tip: str, *, low: float = 0, high: float = 1, step: float = 0.01) -> None:
        super().__init__()
        self._value = low
        self._step = step
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(round(low / step), round(high / step))
        self.slider.setPageStep(max(1, round((high - low) / step / 10)))
        self.number = NumberBox(low, high, decimals=4, step=step)
        self.number.setStyleSheet(_WITHOUT_BUTTONS)  # to leave more width to the slider
        self.number.setFixedWidth(_NUMBER_WIDTH)
        self.notice = Notice()
        self.number.problem.connect(self.notice.error)
        for part in (self.slider, self.number):
            part.setAccessibleName(name)
            part.setToolTip(tip)
        row = QHBoxLayout()
        row.addWidget(self.slider, 1)
        row.addWidget(self.number)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.notice)
        self.slider.valueChanged.connect(self._on_slider)
        self.number.valueChanged.connect(self._moved)

    def value(self) -> float:
        """Return the value, which is not rounded to the steps of the slider."""
        return self._value

    def set_value(self, value: float) -> None:
        """Show a value."""
        self._value = value
        with signals_blocked(self.slider), signals_blocked(self.number):
            self.slider.setValue(round(value / self._step))
            self.number.setValue(value)

    def _on_slider(self, steps: int) -> None:
        self._moved(round(steps * self._step, 4))

    def _moved(self, value: float) -> None:
        self.set_value(value)
        self.value_changed.emit(value)
