"""The microns per pixel of a slide: always shown, asked for if they are missing, and never guessed."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGroupBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_pbip.gui.layers.slides import SlideLayer
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.job_bar import Notice
from napari_pbip.gui.widgets.number_box import NumberBox
from napari_pbip.gui.widgets.words import PlainLabel
from napari_pbip.slides import Slide
from napari_pbip.slides.mpp import USUAL, is_usual, sidecar


class MppBox(NumberBox):
    """A number box for microns per pixel.

    Parameters
    ----------
    low, high
        Smallest and largest value; with ``empty``, the value 0 means that none is given.
    empty
        Text in the empty box.
    """

    def __init__(self, low: float = 0, high: float = 100, *, empty: str = "") -> None:
        super().__init__(low, high, decimals=6, step=0.05, empty=empty)


class MppPanel(QGroupBox):
    """Panel that shows the microns per pixel of a slide, and lets the user give them."""

    given = Signal(float)
    """Emitted with the microns per level-0 pixel that the user gave."""

    def __init__(self) -> None:
        super().__init__("Size of a pixel")
        self._slide: Slide | None = None
        self._confirmed = 0.0
        self.known = PlainLabel()
        self.known.setWordWrap(True)
        self.change_button = push_button("Change…", "Give other microns per pixel", lambda: self._ask(changing=True))
        self.note = PlainLabel()
        self.note.setWordWrap(True)
        self.value = MppBox(empty="unknown")  # no value is guessed
        self.value.setAccessibleName("Microns per pixel")
        self.value.setToolTip("Microns per pixel of the slide at full resolution; see the scanner's report")
        self.button = push_button("", clicked=self._give)
        self.cancel_button = push_button("Cancel", clicked=lambda: self._ask(changing=False))
        self.notice = Notice()
        self._shown, self._asked = QWidget(), QWidget()
        for widget, parts in (
            (self._shown, (self.known, self.change_button)),
            (self._asked, (self.value, QLabel("µm per pixel"), self.button, self.cancel_button)),
        ):
            row = QHBoxLayout(widget)
            row.setContentsMargins(0, 0, 0, 0)
            for part in parts:
                row.addWidget(part, 1 if part is self.known else 0)
            row.addStretch()
        layout = QVBoxLayout(self)
        layout.addWidget(self._shown)
        layout.addWidget(self.note)
        layout.addWidget(self._asked)
        layout.addWidget(self.notice)
        line = self.value.lineEdit()
        if line is not None:
            line.textEdited.connect(self._on_typed)
        self.value.valueChanged.connect(self._on_typed)
        self.value.problem.connect(self.notice.error)

    def show_for(self, slide: SlideLayer | None) -> None:
        """Show the microns per pixel of a slide, or ask for them if they are unknown."""
        changed = self._slide is not (None if slide is None else slide.slide)
        self._slide = None if slide is None else slide.slide
        self.setVisible(slide is not None)
        if slide is None:
            return
        mpp, square = slide.slide.mpp_xy, slide.slide.is_square()
        if changed or square:
            self._ask(changing=False)
        if mpp is not None:
            source = "given by you" if slide.slide.mpp_is_given else "as the slide says"
            size = f"{mpp[0]:.4g}" if square else f"{mpp[0]:.4g} x {mpp[1]:.4g}"
            self.known.setText(f"{size} µm per pixel, {source}")

    def _ask(self, *, changing: bool) -> None:
        """Show the box if the value is to be corrected or is missing; else show only the value."""
        slide = self._slide
        if slide is None:
            return
        mpp, usable = slide.mpp_xy, slide.is_square()
        self._shown.setVisible(mpp is not None and not changing)
        self.change_button.setVisible(usable)
        self._asked.setVisible(changing or not usable)
        self.note.setVisible(changing or not usable)
        self.cancel_button.setVisible(changing and usable)
        self.notice.clear()
        scans = "A 40x scan has about 0.25, a 20x scan about 0.5."
        kept = sidecar(slide.path)  # not the whole path, which would widen the dock because it does not wrap
        place = "beside the slide" if kept.parent == slide.path.parent else "in napari-pbip's folder in your user data"
        where = f"It is kept in {kept.name} {place}."
        if mpp is None:
            why = "This slide does not say its microns per pixel, which areas and models need."
        elif not usable:
            why = (
                f"The pixels of this slide are not square ({mpp[0]:.4g} x {mpp[1]:.4g} µm), so it cannot be analysed. "
                "If the slide is wrong, give the true microns per pixel; if it is right, convert it to square pixels."
            )
        else:
            why = "Areas change at once; earlier maps do not, so segment the slide again."
        self.note.setText(f"{why} {scans} {where}")
        self.value.setValue(slide.mpp if changing and slide.mpp is not None else 0)
        self._on_typed()
        if changing:
            self.value.setFocus()
            self.value.selectAll()

    def _on_typed(self, _: object = None) -> None:
        self._confirmed = 0.0
        self.button.setText("Remember")
        self.button.setToolTip("Keep this value in a small file")
        self.button.setEnabled(bool(self.value.bare_text()))
        self.notice.clear()

    def _give(self) -> None:
        if not self.value.commit() or self._slide is None:
            return
        mpp = self.value.value()
        if mpp <= 0:
            return
        if is_usual(mpp) or mpp == self._confirmed:
            self.given.emit(mpp)
            return
        self._confirmed = mpp
        width, height = (side * mpp / 1000 for side in (self._slide.width, self._slide.height))
        self.notice.warn(
            f"{mpp:g} µm per pixel is unusual: scans have {USUAL[0]:g} to {USUAL[1]:g}. The slide would be "
            f"{width:,.3g} x {height:,.3g} mm large. Is that so?"
        )
        self.button.setText(f"Yes, {mpp:g} µm")
