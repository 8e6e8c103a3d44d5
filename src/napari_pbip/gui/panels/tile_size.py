"""The panel for the size of tiles: its numbers, an example from the slide, and the size that is proposed for it."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QPixmap, QShowEvent
from qtpy.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_pbip.bank.tile_sizes import SizeAdvice, advise
from napari_pbip.errors import DataError, SlideError
from napari_pbip.gui.connections import listen
from napari_pbip.gui.panels.mpp_panel import MppBox
from napari_pbip.gui.pixmaps import pixmap
from napari_pbip.gui.state.lazy import LazyValues
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.job_bar import Notice
from napari_pbip.gui.widgets.number_box import NumberBox
from napari_pbip.slides import SlideFacts, TileSize
from napari_pbip.slides.mpp import is_usual
from napari_pbip.slides.regions import Regions

_SIDE = 84
"""Side of the example in points."""


class TileSizePanel(QWidget):
    """Panel that shows and changes the size of the tiles of the session's labels."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._labelling = session.labelling
        self._proposed = TileSize()
        self._advice: LazyValues[SizeAdvice | SlideError, tuple[SizeAdvice, QPixmap] | SlideError] = LazyValues(
            session.start, _with_picture, kept=100
        )
        self.pixels = NumberBox(32, 2048, step=32)
        self.pixels.setAccessibleName("Side of a tile in pixels")
        self.pixels.setToolTip("Side of a tile in pixels, as the network sees it")
        self.mpp = MppBox(0.05, 20)
        self.mpp.setAccessibleName("Microns per pixel of tiles")
        self.mpp.setToolTip(
            "Microns per pixel at which tiles are cut; a model then reads slides at the same resolution"
        )
        self.pixels.valueChanged.connect(lambda pixels: self._resize({"pixels": int(pixels)}))
        self.mpp.valueChanged.connect(lambda mpp: self._resize({"mpp": mpp}))
        self.side = QLabel()
        self.side.setToolTip("Side of a tile on the slide")
        self.example = QLabel()
        self.example.setAccessibleName("Example of a tile")
        self.example.setToolTip("A tile of this size from the tissue of the slide")
        self.room = QLabel()
        self.room.setWordWrap(True)
        self.propose_button = push_button(
            "", "Change the size of tiles to the one that suits this slide", self._propose
        )
        self.notice, self.number_notice = Notice(), Notice()
        for box in (self.pixels, self.mpp):
            box.problem.connect(self.number_notice.error)
        self._lay_out()
        listen(
            self,
            (self._labelling.changed, self._show),
            (session.regions.changed, self._show),
            (self._advice.arrived, self._show),
        )

    def _lay_out(self) -> None:
        numbers = QHBoxLayout()
        numbers.addWidget(self.pixels, 1)
        numbers.addWidget(QLabel("px at"))
        numbers.addWidget(self.mpp, 1)
        numbers.addWidget(QLabel("µm/px"))
        facts = QVBoxLayout()
        for part in (self.side, self.room, self.propose_button):
            facts.addWidget(part)
        facts.addStretch(1)
        below = QHBoxLayout()
        below.addWidget(self.example, 0, Qt.AlignmentFlag.AlignTop)
        below.addLayout(facts, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(numbers)
        layout.addLayout(below)
        layout.addWidget(self.number_notice)
        layout.addWidget(self.notice)

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        self._show()

    def _show(self) -> None:
        labels = self._labelling.labels
        self.setEnabled(self._labelling.problem is None)
        blocked = [QSignalBlocker(self.pixels), QSignalBlocker(self.mpp)]
        self.pixels.setValue(labels.size.pixels)
        self.mpp.setValue(labels.size.mpp)
        del blocked
        self.side.setText(f"{labels.size} = {labels.size.microns:.4g} µm")
        facts = self._labelling.facts
        found = self._find(facts) if facts is not None and self.isVisible() else None
        for part in (self.example, self.room, self.propose_button):
            part.setVisible(isinstance(found, tuple))
        if isinstance(found, tuple):
            self._show_advice(*found)

    def _find(self, facts: SlideFacts) -> tuple[SizeAdvice, QPixmap] | SlideError | None:
        """Return what a tile looks like on the slide, or None while it is looked for."""
        size, settings = self._labelling.labels.size, self._session.settings.segment.tissue
        slide = self._labelling.slide
        regions = Regions() if slide is None else self._session.regions.of(slide)

        def read() -> SizeAdvice | SlideError:
            try:
                return advise(facts, size, settings, regions)
            except SlideError as error:  # which other steps report; without tissue there is no advice
                return error

        return self._advice.get((facts.identity, facts.mpp, size, settings, regions.identity), read)

    def _show_advice(self, advice: SizeAdvice, picture: QPixmap) -> None:
        labels = self._labelling.labels
        self._proposed = advice.proposed
        self.example.setPixmap(picture)
        offered = advice.proposed != labels.size and not len(labels)
        reason = f" {_reason(labels.size, advice.proposed)}" if offered else ""
        self.room.setText(f"The tissue has room for about {advice.room:,} tiles.{reason}")
        self.propose_button.setVisible(offered)
        self.propose_button.setText(f"Use {advice.proposed} = {advice.proposed.microns:.4g} µm")

    def _propose(self) -> None:
        self._resize(self._proposed.model_dump())

    def _resize(self, changes: dict[str, Any]) -> None:
        self.notice.clear()
        try:
            size = self._labelling.labels.size.model_copy(update=changes)  # the other box may show a rounded value
            self._labelling.labels.resize(size)
        except DataError as error:
            self.notice.error(error)
            self._show()
            return
        if not is_usual(size.mpp):
            self.notice.warn(f"{size.mpp:g} µm per pixel is unusual for tiles: most models see 0.25 to 2.")


def _with_picture(found: SizeAdvice | SlideError) -> tuple[SizeAdvice, QPixmap] | SlideError:
    if isinstance(found, SlideError):
        return found
    return found, pixmap(found.example, _SIDE)


def _reason(size: TileSize, proposed: TileSize) -> str:
    """Return why a size is proposed instead of the present one, as a sentence."""
    if proposed.mpp > size.mpp:
        return f"The slide has no more detail than at {proposed.mpp:g} µm per pixel."
    if proposed.microns < size.microns:
        return "Smaller tiles show a single class more often."
    return "Larger tiles show more of what surrounds a cell, and there are enough."
