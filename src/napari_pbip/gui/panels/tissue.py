"""The panel that finds the tissue of the current slide and adjusts its threshold."""

from __future__ import annotations

from qtpy.QtWidgets import QGroupBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_pbip.gui.connections import listen, while_alive
from napari_pbip.gui.layers.slides import SlideLayer
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.timers import single_shot
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.job_bar import Notice
from napari_pbip.gui.widgets.number_slider import NumberSlider

_SETTLE_MS = 150
"""Milliseconds without a move of the slider after which tissue is searched for."""


class TissuePanel(QGroupBox):
    """Panel that finds tissue; a mask that was corrected by hand is replaced only after the user has agreed."""

    def __init__(self, session: Session) -> None:
        super().__init__("Tissue")
        self._session = session
        self._tissue = session.tissue
        self._slide: SlideLayer | None = None
        self._threshold: float | None = None
        self.button = push_button(
            "Find tissue",
            "Only tissue is analysed; paint or erase it with the brush of the layer 'tissue of …'",
            self._ask_or_find,
        )
        self.slider = NumberSlider(
            "darkness threshold of tissue",
            "How dark a place must be to count as tissue; lower finds paler tissue",
            low=0.01,
            high=0.4,
            step=0.001,
        )
        self.slider.value_changed.connect(self._threshold_moved)
        self.text = QLabel()
        self.question = QWidget()
        self.replace_button = push_button("Replace it", clicked=self._replace)
        self.keep_button = push_button("Keep it", clicked=self._keep)
        sentence = Notice()
        sentence.warn("The tissue was corrected by hand. Finding it again replaces that.")
        answers = QHBoxLayout()
        answers.addWidget(self.replace_button)
        answers.addWidget(self.keep_button)
        answers.addStretch()
        question = QVBoxLayout(self.question)
        question.setContentsMargins(0, 0, 0, 0)
        question.addWidget(sentence)
        question.addLayout(answers)
        self.question.hide()
        self.notice = Notice()
        row = QHBoxLayout()
        row.addWidget(self.button)
        row.addWidget(self.slider, 1)
        layout = QVBoxLayout(self)
        layout.addLayout(row)
        layout.addWidget(self.text)
        layout.addWidget(self.question)
        layout.addWidget(self.notice)
        self._rest = single_shot(_SETTLE_MS, self._ask_or_find, self)
        # later, because a layer must not be added while napari is selecting one
        self._restore = single_shot(0, self._show_earlier_mask, self)
        listen(self, (self._tissue.changed, self._show), (session.folder_changed, self._show_earlier_mask))

    def show_for(self, slide: SlideLayer | None) -> None:
        """Show and change the tissue of this slide."""
        if slide is not self._slide:
            self._rest.stop()
            self._keep()
        self._slide = slide
        self._show()
        self._restore.start()

    def _show_earlier_mask(self, _: object = None) -> None:
        if self._slide is not None and self.isEnabled():
            self._tissue.show(self._slide)

    def _show(self) -> None:
        slide = self._slide
        self.setEnabled(slide is not None and slide.slide.is_square())
        mask = None if slide is None else self._tissue.mask(slide)
        searched = slide is not None and self._tissue.is_searched(slide)
        problem = None if slide is None else self._tissue.problems.get(slide.slide.path)
        self.notice.error("" if problem is None else problem)
        if searched:
            self.text.setText("Looking for tissue…")
        elif mask is None:
            self.text.clear()
        else:
            self.text.setText(f"{mask.area_mm2:.2f} mm² of tissue{', corrected by hand' if mask.by_hand else ''}")
        self.slider.setEnabled(mask is not None)
        # while it is searched for, the mask is that of an earlier threshold, from which keys must not go on
        if mask is not None and mask.threshold is not None and self._threshold is None and not searched:
            self.slider.set_value(mask.threshold)

    # finding -------------------------------------------------------------------------------------------------

    def _threshold_moved(self, value: float) -> None:
        self._threshold = value
        self._rest.start()

    def _ask_or_find(self) -> None:
        """Find tissue, or ask first if the mask was corrected by hand."""
        if (slide := self._slide) is not None:
            self._tissue.when_read(slide, while_alive(self._ask_or_find_for))

    def _ask_or_find_for(self, slide: SlideLayer) -> None:
        if slide is not self._slide:
            return
        mask = self._tissue.mask(slide)
        if mask is not None and mask.by_hand:
            self.question.show()
        else:
            self._find(slide)

    def _find(self, slide: SlideLayer) -> None:
        if self._threshold is not None:
            settings = self._session.settings
            tissue = settings.segment.tissue.model_copy(update={"threshold": self._threshold})
            self._session.change(segment=settings.segment.model_copy(update={"tissue": tissue}))
        self._threshold = None
        self._tissue.find(slide)

    def _replace(self) -> None:
        self.question.hide()
        if self._slide is not None:
            self._find(self._slide)

    def _keep(self) -> None:
        self.question.hide()
        self._threshold = None
        self._show()
