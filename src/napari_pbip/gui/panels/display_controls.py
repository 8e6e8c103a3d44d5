"""Sliders and boxes of the display settings of a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtWidgets import (
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
from napari_pbip.gui.widgets.buttons import folding_button
from napari_pbip.gui.widgets.number_slider import NumberSlider
from napari_pbip.gui.widgets.swatch import Swatch
from napari_pbip.gui.widgets.tab_order import set_tab_order
from napari_pbip.gui.widgets.words import PlainLabel, tip
from napari_pbip.taxonomy import Taxonomy

_SCOPES = {"slide": "on the whole slide", "tile": "in each tile"}


class DisplayControls(QGroupBox):
    """Widget that edits and follows a :class:`Display`: its thresholds and its opacity.

    The threshold of a class follows the common slider until its own slider is moved.
    """

    def __init__(self) -> None:
        super().__init__("Thresholds")
        self._display = Display()
        self.delta = NumberSlider(
            "threshold of all classes",
            "How clearly a place must look like a class to get it; higher leaves more tissue not assigned",
        )
        self.presence = NumberSlider(
            "class presence",
            "How sure the model must be that a tile contains a class at all; higher leaves more tissue not assigned",
        )
        self.smoothing = NumberSlider(
            "smoothing, micrometres",
            "Scores are averaged over this width before they become labels, so that single cells do not stand out",
            high=200,
            step=5,
        )
        self.scope = QComboBox()
        self.scope.addItems(list(_SCOPES.values()))
        self.scope.setToolTip(
            "Places are compared with the clearest one of the class; in each tile is as published, and leaves visible "
            "borders between tiles"
        )
        self.opacity = NumberSlider("opacity", "How much the map covers the slide")
        self.delta.value_changed.connect(lambda delta: self._change(delta=delta))
        self.presence.value_changed.connect(lambda presence: self._change(presence=presence))
        self.smoothing.value_changed.connect(lambda width: self._change(smoothing_um=width))
        self.scope.currentIndexChanged.connect(lambda index: self._change(scope=list(_SCOPES)[index]))
        self.opacity.value_changed.connect(self._change_opacity)
        form = QFormLayout()
        form.addRow("All classes", self.delta)
        form.addRow("Class presence", self.presence)
        form.addRow("Opacity", self.opacity)
        more = QWidget()
        self.classes = QGridLayout()
        self.classes.setColumnStretch(2, 1)
        self.rows: list[ClassRow] = []
        seldom = QFormLayout()
        seldom.addRow("Smoothing, µm", self.smoothing)
        seldom.addRow("Clearest place", self.scope)
        below = QVBoxLayout(more)
        below.setContentsMargins(0, 0, 0, 0)
        below.addLayout(self.classes)
        below.addLayout(seldom)
        self.more_button = folding_button("More", "A threshold of its own for each class, and smoothing", more)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.more_button)
        layout.addWidget(more)
        self.destroyed.connect(self.unbind)

    def bind(self, display: Display, taxonomy: Taxonomy, title: Callable[[str], str]) -> None:
        """Edit and follow a display, of a result with these classes, which are shown by their titles."""
        self.unbind()
        self._display = display
        for row in self.rows:
            row.remove()
        self.rows = [
            ClassRow(self.classes, n, one.name, title(one.name), one.rgb, self._change_class)
            for n, one in enumerate(taxonomy)
        ]
        set_tab_order(self.more_button, *(control for row in self.rows for control in row.controls))
        self._show_thresholds(display.thresholds)
        if display.thresholds.class_delta:
            self.more_button.setChecked(True)
        self.opacity.set_value(display.opacity)
        display.events.thresholds.connect(self._show_thresholds)
        display.events.opacity.connect(self._show_opacity)

    def unbind(self) -> None:
        """Stop editing and following the display."""
        events, self._display = self._display.events, Display()
        for signal, slot in (
            (events.thresholds, self._show_thresholds),
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

    def _show_opacity(self, opacity: float) -> None:
        self.opacity.set_value(opacity)


class ClassRow:
    """The threshold of one class."""

    def __init__(
        self,
        grid: QGridLayout,
        n: int,
        name: str,
        title: str,
        rgb: tuple[int, int, int],
        change: Callable[[str, float | None], None],
    ) -> None:
        self.name = name
        self.swatch = Swatch(rgb, title)
        self.title = PlainLabel(title)
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
        return self.swatch, self.title, self.slider, self.follow

    @property
    def controls(self) -> tuple[QWidget, ...]:
        """What can have the focus, from left to right."""
        return self.slider.slider, self.slider.number, self.follow

    def show_delta(self, own: float | None, common: float) -> None:
        """Show the class's own threshold, or the common one if it has none."""
        self.follow.setEnabled(own is not None)
        self.slider.set_value(common if own is None else own)

    def remove(self) -> None:
        """Remove the controls from the grid."""
        for part in self._parts:
            part.setParent(None)
            part.deleteLater()
