"""The legend of a map: the colours of its classes, and the area of each, on the slide and in its regions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeyEvent, QMouseEvent
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QLabel, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_pbip.gui.area_text import percent, square_millimetres
from napari_pbip.gui.connections import listen
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.panels.class_title import ask_title
from napari_pbip.gui.state.live_map import LiveMap
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.unassigned import why_unassigned
from napari_pbip.gui.widgets.job_bar import Notice
from napari_pbip.gui.widgets.swatch import Swatch, SwatchButton
from napari_pbip.gui.widgets.tab_order import set_tab_order
from napari_pbip.gui.widgets.words import PlainLabel, caption, rich, tip
from napari_pbip.results.areas import NOT_ANALYSED_NAME
from napari_pbip.slides.regions import WHOLE
from napari_pbip.taxonomy import NOT_ANALYSED, UNASSIGNED, UNASSIGNED_NAME, UNASSIGNED_RGB, Taxonomy

_NOTHING = "No tissue map is open. Segment a slide, open a result, or switch the live map on: its classes appear here."
_ALL = "All that counts"
_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


class LegendPanel(QWidget):
    """Widget with colour, name and area of every class of the selected result or live map; classes can be hidden.

    Parameters
    ----------
    session
        The session, which is shown and changed.
    in_tune
        Whether it is a part of the dock *Tune*, which names the result and says how one is made.
    """

    def __init__(self, session: Session, *, in_tune: bool = False) -> None:
        super().__init__()
        self._session = session
        self._in_tune = in_tune
        self._shown: ResultLayer | LiveMap | None = None
        self._taxonomy: Taxonomy | None = None
        self.title = QLabel()
        self.title.setWordWrap(True)
        self.region = QComboBox()
        self.region.setAccessibleName("Region whose areas are shown")
        self.region.currentIndexChanged.connect(self._show_areas)
        self.exactness = QLabel()
        self.exactness.setWordWrap(True)
        self.left_out = QLabel()
        self.left_out.setWordWrap(True)
        self.advice = Notice()
        self.table = QWidget()
        self.rows: dict[int, _Row] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self.title, self.region, self.table, self.exactness, self.left_out, self.advice):
            layout.addWidget(part)
        listen(
            self,
            (session.results.selected, self._select),
            (session.live_map.changed, self._select),
            (session.classes.changed, self._make_rows),
        )
        self.destroyed.connect(self._forget)
        self._select()

    def _forget(self) -> None:
        if self._shown is not None:
            self._shown.display.events.hidden.disconnect(self._show_hidden)
        if isinstance(self._shown, ResultLayer):
            self._shown.areas.changed.disconnect(self._show_areas)
        self._shown = None

    def _select(self, _: object = None) -> None:
        live = self._session.live_map
        shown = live if live.layer is not None else self._session.results.current
        taxonomy = None if shown is None else shown.taxonomy
        if shown is self._shown and taxonomy == self._taxonomy and shown is not None:
            return
        self._forget()
        self._shown, self._taxonomy = shown, taxonomy
        self.title.setText(_NOTHING if shown is None else f"<b>{rich(shown.title)}</b>")
        self.title.setVisible(not self._in_tune or shown is live)
        self.setVisible(not self._in_tune or shown is not None)
        self.exactness.setText("")
        self.advice.clear()
        self._show_regions()
        self._make_rows()
        if shown is not None:
            shown.display.events.hidden.connect(self._show_hidden)
        if isinstance(shown, ResultLayer):
            shown.areas.changed.connect(self._show_areas)

    def _make_rows(self) -> None:
        fresh = QWidget()
        grid = QGridLayout(fresh)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setColumnStretch(1, 1)
        self.rows = {}
        if self._shown is not None:  # its colours may have changed
            self._taxonomy = self._shown.taxonomy
        taxonomy = self._taxonomy or ()
        for n, one in enumerate(taxonomy, 1):
            rename, recolour = partial(self._rename, one.name), partial(self._session.classes.recolour, one.name)
            self.rows[n] = _Row(grid, n, self._session.classes.title(one.name), one.rgb, self._toggle, rename, recolour)
        if isinstance(self._shown, ResultLayer):  # of a whole slide, so that there are areas
            self.rows[UNASSIGNED] = _Row(grid, len(taxonomy) + 1, UNASSIGNED_NAME, UNASSIGNED_RGB, self._toggle)
            self.rows[NOT_ANALYSED] = _Row(grid, len(taxonomy) + 2, NOT_ANALYSED_NAME, None, self._toggle)
            for column, heading in ((2, "mm²"), (3, "% of tissue")):
                grid.addWidget(QLabel(heading), 0, column, _RIGHT)
            for line, row in enumerate(self.rows.values(), 1):
                row.add_areas(grid, line)
        layout = self.layout()
        if layout is not None:
            layout.replaceWidget(self.table, fresh)
        self.table.hide()  # or Qt shows it as a window, if its layout has not shown it yet
        self.table.setParent(None)
        self.table.deleteLater()
        self.table = fresh
        set_tab_order(self, *(part for row in self.rows.values() for part in row.controls))
        self._show_hidden()
        self._show_areas()

    def _rename(self, name: str) -> None:
        if self._taxonomy is not None:
            ask_title(self, self._session.classes, name, self._taxonomy.names)

    def _toggle(self) -> None:
        if self._shown is not None:
            hidden = {value for value, row in self.rows.items() if row.eye is not None and not row.eye.isChecked()}
            self._shown.display.hidden = frozenset(hidden)

    def _show_hidden(self) -> None:
        if self._shown is not None:
            for value, row in self.rows.items():
                if row.eye is not None:
                    with signals_blocked(row.eye):
                        row.eye.setChecked(value not in self._shown.display.hidden)

    def _show_regions(self) -> None:
        """Offer the regions of the slide, and say how much tissue does not count."""
        store = self._shown.store if isinstance(self._shown, ResultLayer) else None
        names = [] if store is None else [WHOLE, *store.regions.shapes]
        if names != [self.region.itemData(n) for n in range(self.region.count())]:
            with signals_blocked(self.region):
                self.region.clear()
                for name in names:
                    self.region.addItem(name or _ALL, name)
        self.region.setVisible(len(names) > 1)
        left_out = 0.0 if store is None else store.left_out_mm2
        self.left_out.setText(f"{left_out:.3f} mm² of tissue do not count, because of the regions." if left_out else "")
        self.left_out.setVisible(bool(left_out))

    def _show_areas(self, _: object = None) -> None:
        result = self._shown
        if not isinstance(result, ResultLayer):
            return
        self._show_regions()
        about = "" if result.areas.exact else "≈ "
        areas = [area for area in result.areas.rows if area.region == self.region.currentData()]
        for area in areas:
            row = self.rows[area.label]
            row.area.setText(about + square_millimetres(area.area_mm2))
            row.share.setText(about + percent(area.percent_of_tissue))
        by_hand = sum(area.corrected_mm2 for area in areas)
        said = [f"{about}{by_hand:.3f} mm² corrected by hand"] if by_hand else []
        said += [] if result.areas.exact else ["≈ approximate; every cell is being counted…"]
        if result.areas.rows:
            self.exactness.setText("\n".join(said))
        self.advice.info(why_unassigned(areas))


class _Eye(QCheckBox):
    """The check box of a class, whose title can be changed."""

    rename_asked = Signal()
    """Emitted at a double click, or the key F2."""

    def mouseDoubleClickEvent(self, event: QMouseEvent | None) -> None:
        if event is not None and self.hitButton(event.position().toPoint()):
            self.toggle()  # back, because the first click has switched it
            self.rename_asked.emit()

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        if event is not None and event.key() == Qt.Key.Key_F2:
            self.rename_asked.emit()
        else:
            super().keyPressEvent(event)


class _Row:
    """One line of the table; without ``rename`` and ``recolour``, it is not that of a class."""

    def __init__(
        self,
        grid: QGridLayout,
        line: int,
        name: str,
        rgb: tuple[int, int, int] | None,
        toggle: Callable[[], None],
        rename: Callable[[], None] | None = None,
        recolour: Callable[[str], None] | None = None,
    ) -> None:
        self.eye: _Eye | None = None
        self.swatch: SwatchButton | None = None
        if rgb is None:
            grid.addWidget(PlainLabel(name), line, 1)
        else:
            self.eye = _Eye(caption(name))
            self.eye.setToolTip(tip(f"Show {name} on the slide"))
            self.eye.toggled.connect(toggle)
            if rename is not None:
                self.eye.setToolTip(tip(f"Show {name} on the slide; double-click (F2) to give the class another title"))
                self.eye.rename_asked.connect(rename)
            if recolour is not None:
                self.swatch = SwatchButton(rgb, name, recolour)
            grid.addWidget(self.swatch or Swatch(rgb, name), line, 0, Qt.AlignmentFlag.AlignCenter)
            grid.addWidget(self.eye, line, 1)
        self.area, self.share = QLabel("–"), QLabel("–")
        self.area.setAccessibleName(f"area of {name} in square millimetres")
        self.share.setAccessibleName(f"share of {name} in the tissue, percent")

    @property
    def controls(self) -> list[QWidget]:
        """What can have the focus, from left to right."""
        return [part for part in (self.swatch, self.eye) if part is not None]

    def add_areas(self, grid: QGridLayout, line: int) -> None:
        """Show the figures, too."""
        grid.addWidget(self.area, line, 2, _RIGHT)
        grid.addWidget(self.share, line, 3, _RIGHT)
