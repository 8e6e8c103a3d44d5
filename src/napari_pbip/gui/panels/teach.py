"""The part of *Tune* in which a model learns what was corrected: corrected places become labelled tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_pbip.bank.labelled_slides import Origin
from napari_pbip.bank.slide_labels import NONE, SlideLabels
from napari_pbip.errors import DataError
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.job_bar import Notice
from napari_pbip.results import ScoreStore
from napari_pbip.results.corrected_tiles import corrected_tiles
from napari_pbip.slides import Position, TileSize
from napari_pbip.taxonomy import Taxonomy

_TAUGHT = "The live map follows at once; "
_RESUME = "Resume in Train, with more epochs, goes on from the present model."
_FIT_AGAIN = "Train fits a probe like the present one again, with these tiles, in seconds."
Tiles = Mapping[str, Sequence[Position]]


class TeachPanel(QWidget):
    """Widget that shows the tiles which corrections tell the class of, and labels them if the user agrees."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session, self._labelling = session, session.labelling
        self._result: ResultLayer | None = None
        self._tiles: Tiles = {}
        self._labels: tuple[SlideLabels, TileSize] | None = None  # that the proposal is for
        self.find_button = push_button(
            "Teach the model…",
            "Find the tiles that mostly show one class since you corrected them, as labelled tiles for the next "
            "training",
            self._find,
        )
        self.label_button = push_button("", "Label the tiles that are drawn on the slide", self._label)
        self.cancel_button = push_button("Cancel", "Label none of them", self._forget)
        self.notice = Notice()
        answers = QHBoxLayout()
        answers.addWidget(self.label_button)
        answers.addWidget(self.cancel_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.find_button)
        layout.addWidget(self.notice)
        layout.addLayout(answers)
        self._propose({})

    def show_result(self, result: ResultLayer) -> None:
        """Learn from this result from now on."""
        if result is not self._result:
            self._result = result
            self._forget()

    def _forget(self) -> None:
        self.notice.clear()
        self._propose({})

    def _find(self) -> None:
        result, labelling = self._result, self._labelling
        if result is None:
            return
        self._forget()
        self._session.correcting.flush()
        labelling.open()
        grid, facts = labelling.grid, labelling.facts
        if facts is None or grid is None or facts.identity != result.store.facts.slide.identity:
            self.notice.error(labelling.refusal or "The slide of this map is not open; open it, and try again.")
            return
        path, thresholds, largest = result.store.path, result.thresholds, result.view.largest
        labels, size = self._labels = labelling.labels, labelling.labels.size

        def then(tiles: Tiles) -> None:
            if result is self._result and self._is_current:
                known, names = labels.tiles(facts.identity), labels.taxonomy.names
                alone = {name: frozenset({names.index(name)}) for name in tiles if name in names}
                self._propose(
                    {name: [p for p in some if known.get(p, NONE) != alone.get(name)] for name, some in tiles.items()}
                )
                if not any(self._tiles.values()):
                    self.notice.info(
                        f"No further tile of {size.microns:g} µm shows one class since you corrected "
                        "it; correct a larger area, or choose smaller tiles in Label tiles."
                    )

        self._session.in_thread(
            lambda: corrected_tiles(ScoreStore.open(path), thresholds, largest, grid), then, self.notice.error
        )

    @property
    def _is_current(self) -> bool:
        """Whether the labels and the size of tiles are those that the proposal is for."""
        return self._labels == (self._labelling.labels, self._labelling.labels.size)

    def _propose(self, tiles: Tiles) -> None:
        """Draw tiles on the slide as they would be labelled, and ask; none ends it."""
        self._tiles = {name: some for name, some in tiles.items() if some}
        count = sum(map(len, self._tiles.values()))
        for button in (self.label_button, self.cancel_button):
            button.setVisible(bool(count))
        self._labelling.show_in(self, bool(count))
        if not count or self._result is None:
            self._labelling.preview({})
        else:
            known = self._labelling.labels.taxonomy
            new = [one for one in self._result.taxonomy if one.name in self._tiles and one.name not in known.names]
            taxonomy = Taxonomy(classes=(*known.classes, *new))
            drawn = {p: frozenset({taxonomy.index(name)}) for name, some in self._tiles.items() for p in some}
            self._labelling.preview(drawn, taxonomy=taxonomy)
            self.label_button.setText(f"Label {count:,} tiles")
            counts = ", ".join(f"{len(some):,} of {name}" for name, some in self._tiles.items())
            self.notice.info(f"They are drawn on the slide: {counts}.")

    def _label(self) -> None:
        result, labelling, tiles = self._result, self._labelling, self._tiles
        self._forget()
        if result is None:
            return
        if not self._is_current:
            self.notice.error("The project or the size of tiles has changed meanwhile; find the tiles again.")
            return
        identity, colours = result.store.facts.slide.identity, {one.name: one.colour for one in result.taxonomy}
        try:
            labelled = labelling.labels.annotate(identity, tiles, colours, Origin.CORRECTED, add=False)
        except DataError as error:
            self.notice.error(error)
        else:
            how = _FIT_AGAIN if result.store.facts.model.model_dump().get("method") == "probe" else _RESUME
            self.notice.info(f"{labelled:,} tiles are labelled. {_TAUGHT}{how}")
