"""Sliders and boxes of the display settings of a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_pbip.config import ThresholdSettings
from napari_pbip.gui.layers.display import Display
from napari_pbip.gui.widgets.number_slider import NumberSlider
from napari_pbip.gui.widgets.swatch import Swatch
from napari_pbip.gui.widgets.tab_order import set_tab_order
from napari_pbip.gui.widgets.words import caption, tip
from napari_pbip.taxonomy import Taxonomy

_SCOPES = {"slide": "the whole slide", "tile": "each tile by itself"}


class DisplayControls(QGroupBox):
    """Widget that edits and follows a :class:`Display`: thresholds, opacity and hidden classes.

    The threshold of a class follows the common slider until its own slider is moved.
    """

    def __init__(self) -> None:
        super().__init__("Thresholds")
        self._display = Display()
        self.delta = NumberSlider(
            "threshold of all classes", "A class needs this share of its largest score; higher leaves more not assigned"
        )
        self.presence = NumberSlider(
            "class presence", "A class is drawn only in tiles that show it with this probability"
        )
        self.smoothing = NumberSlider(
            "smoothing, micrometres",
            "Scores are averaged over this width before they become labels, so that single cells do not stand out",
            high=200,
            step=5,
        )
        self.scope = QComboBox()
        self.scope.addItems(list(_SCOPES.values()))
        self.scope.setToolTip("Over what the largest score is taken; tile by tile is as published and leaves seams")
        self.opacity = NumberSlider("opacity", "How much the map covers the slide")
        self.delta.value_changed.connect(lambda delta: self._change(delta=delta))
        self.presence.value_changed.connect(lambda presence: self._change(presence=presence))
        self.smoothing.value_changed.connect(lambda width: self._change(smoothing_um=width))
        self.scope.currentIndexChanged.connect(lambda index: self._change(scope=list(_SCOPES)[index]))
        self.opacity.value_changed.connect(self._change_opacity)
        form = QFormLayout()
        form.addRow("All classes", self.delta)
        self.classes = QGridLayout()
        self.classes.setColumnStretch(2, 1)
        self.rows: list[ClassRow] = []
        below = QFormLayout()
        below.addRow("Class presence", self.presence)
        below.addRow("Smoothing, µm", self.smoothing)
        below.addRow("Largest score of", self.scope)
        below.addRow("Opacity", self.opacity)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addLayout(self.classes)
        layout.addLayout(below)
        self.destroyed.connect(self.unbind)

    def bind(self, display: Display, taxonomy: Taxonomy, title: Callable[[str], str]) -> None:
        """Edit and follow a display, of a result with these classes, which are shown by their titles."""
        self.unbind()
        self._display = display
        for row in self.rows:
            row.remove()
        self.rows = [
            ClassRow(self.classes, n, one.name, title(one.name), one.rgb, self._change_class, self._toggle)
            for n, one in enumerate(taxonomy)
        ]
        set_tab_order(self.delta.number, *(control for row in self.rows for control in row.controls))
        self._show_thresholds(display.thresholds)
        self._show_hidden(display.hidden)
        self.opacity.set_value(display.opacity)
        display.events.thresholds.connect(self._show_thresholds)
        display.events.hidden.connect(self._show_hidden)
        display.events.opacity.connect(self._show_opacity)

    def unbind(self) -> None:
        """Stop editing and following the display."""
        events, self._display = self._display.events, Display()
        for signal, slot in (
            (events.thresholds, self._show_thresholds),
            (events.hidden, self._show_hidden),
            (events.opacity, self._show_opacity),
        ):
            signal.disconnect(slot, missing_ok=True)

    # a user changes something --------------------------------------------------------------------------------

    def _change(self, **changes: Any) -> None:
        self._display.thresholds = self._display.thresholds.model_copy(update=changes)

    def _change_class(self, name: str, delta: float | None) -> None:
        """Give a class its own threshold; None removes it."""
        others = {one: own for one, own in self._display.thresholds.class_delta.items() if one != name}
        self._change(class_delta=others if delta is None else {**others, name: delta})

    def _toggle(self, value: int, shown: bool) -> None:
        hidden = self._display.hidden
        self._display.hidden = hidden - {value} if shown else hidden | {value}

    def _change_opacity(self, opacity: float) -> None:
        self._display.opacity = opacity

    # what there is -------------------------------------------------------------------------------------------

    def _show_thresholds(self, thresholds: ThresholdSettings) -> None:
        self.delta.set_value(thresholds.delta)
        self.presence.set_value(thresholds.presence)
        self.smoothing.set_value(thresholds.smoothing_um)
        with signals_blocked(self.scope):
            self.scope.setCurrentIndex(list(_SCOPES).index(thresholds.scope))
        for row in self.rows:
            row.show_delta(thresholds.class_delta.get(row.name), thresholds.delta)

    def _show_hidden(self, hidden: frozenset[int]) -> None:
        for row in self.rows:
            with signals_blocked(row.eye):
                row.eye.setChecked(row.value not in hidden)

    def _show_opacity(self, opacity: float) -> None:
        self.opacity.set_value(opacity)


class ClassRow:
    """The controls of one class: its visibility and its threshold."""

    def __init__(
        self,
        grid: QGridLayout,
        n: int,
        name: str,
        title: str,
        rgb: tuple[int, int, int],
        change: Callable[[str, float | None], None],
        toggle: Callable[[int, bool], None],
    ) -> None:
        self.name = name
        self.value = n + 1
        self.swatch = Swatch(rgb, title)
        self.eye = QCheckBox(caption(title))
        self.eye.setToolTip(tip(f"Show {title} on the slide"))
        self.eye.toggled.connect(lambda shown: toggle(self.value, shown))
        self.slider = NumberSlider(f"threshold of {title}", tip(f"A threshold of its own for {title}"))
        self.slider.value_changed.connect(lambda delta: change(name, delta))
        self.follow = QToolButton()
        self.follow.setText("↺")
        self.follow.setToolTip(tip(f"Let {title} follow the threshold of all classes again"))
        self.follow.setAccessibleName(f"{title} follows all classes")
        self.follow.clicked.connect(lambda: change(name, None))
        for column, part in enumerate(self._parts):
            grid.addWidget(part, n, column)

    @property
    def _parts(self) -> tuple[QWidget, ...]:
        return self.swatch, self.eye, self.slider, self.follow

    @property
    def controls(self) -> tuple[QWidget, ...]:
        """What can have the focus, from left to right."""
        return self.eye, self.slider.slider, self.slider.number, self.follow

    def show_delta(self, own: float | None, common: float) -> None:
        """Show the class's own threshold, or the common one if it has none."""
        self.follow.setEnabled(own is not None)
        self.slider.set_value(common if own is None else own)

    def remove(self) -> None:
        """Remove the controls from the grid."""
        for part in self._parts:
            part.setParent(None)
            part.deleteLater()
