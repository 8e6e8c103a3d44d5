"""The dock *Image bank*: builds the image bank, and shows and corrects its clusters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import napari.viewer
from qtpy.QtCore import QModelIndex, QPoint, Qt
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QMenu,
    QSizePolicy,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from napari_pbip.bank.cluster_counts import check_enough_tiles
from napari_pbip.config import BankSettings, DataSettings, JobSettings
from napari_pbip.errors import DataError, PbipError
from napari_pbip.gui.clicks import on_click
from napari_pbip.gui.connections import listen
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.keys import Key, bind
from napari_pbip.gui.panels.cluster_view import ClusterView
from napari_pbip.gui.panels.encoder_choice import EncoderChoice
from napari_pbip.gui.panels.scatter import Scatter
from napari_pbip.gui.panels.undo import UndoButtons
from napari_pbip.gui.panels.zero_shot import ZeroShotDialog
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.bank import NO_TILES, BankWork
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import folding_button, push_button
from napari_pbip.gui.widgets.job_bar import JobBar, Notice
from napari_pbip.gui.widgets.question import ask
from napari_pbip.gui.widgets.scroll_column import scrolling_layout
from napari_pbip.gui.widgets.settings_form import SettingsForm
from napari_pbip.gui.widgets.words import caption, rich, tip

_VIEWS = 340
"""Least height in pixels of clusters and scatter; the dock scrolls where there is less."""


class BankWidget(QWidget):
    """Widget that builds and corrects the image bank of the project.

    Parameters
    ----------
    viewer
        The viewer, whose session is shown and changed.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._session: Session = session_of(viewer)
        self._work: BankWork = self._session.bank
        settings = self._session.settings

        self.tiles_label = QLabel()
        self.tiles_label.setWordWrap(True)
        self.tiles_notice = Notice()
        self.encoder = EncoderChoice(self._session)
        others = [name for name in BankSettings.model_fields if name not in ("encoder", "weights")]
        self.form: SettingsForm[BankSettings] = SettingsForm(settings.bank, only=others, main=("k",))
        self.white_form: SettingsForm[DataSettings] = SettingsForm(settings.data, only=("white_fraction",))
        self.scheduler_form: SettingsForm[JobSettings] = SettingsForm(settings, only=("scheduler",))
        self.form.value_changed.connect(lambda bank: self._session.change(bank=bank))
        self.white_form.value_changed.connect(lambda data: self._session.change(data=data))
        self.scheduler_form.value_changed.connect(lambda job: self._session.change(scheduler=job.scheduler))
        self.settings_button = folding_button(
            "Settings",
            "Encoder, clusters and other settings of the bank",
            self.encoder,
            self.form,
            self.white_form,
            self.scheduler_form,
        )
        self.settings_button.setChecked(True)
        self.k_notice = Notice()
        self.build_button = push_button(
            "Build image bank", "Compute features, clusters and prototypes of the tiles", self.build
        )
        self.build_bar = JobBar(keeps=True)
        self.zero_shot_button = push_button(
            "Test without training…",
            "How well tiles are classified by a sentence per class, or by the nearest prototype",
            self.test_without_training,
        )
        self.bank_notice = Notice()

        self.warnings = Notice()
        self.impure_button = push_button("Next ⚠", "Show the next cluster to look at, and why", self._show_impure)
        self.duplicates_button = push_button(
            "Select near-duplicates", "One of each pair of tiles that look the same", self._pick_duplicates
        )
        self.impure_notice = Notice()
        self.legend = QLabel()
        self.legend.setWordWrap(True)
        self.clusters = ClusterView(viewer, self._work, self._session.classes)
        self.clusters.k_changed.connect(self._change_k)
        self.clusters.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.clusters.customContextMenuRequested.connect(self._open_menu)
        self.clusters.doubleClicked.connect(self._show_on_slide)
        self.scatter = Scatter(viewer, self._work, self._session.classes)
        self.picked_label = QLabel()
        self.picked_label.setWordWrap(True)
        self.remove_button = push_button("Remove", "Take the selected tiles out of the bank (Delete)", self.remove)
        self.move_button = push_button("Move to class…", "Give the selected tiles another class (M)")
        self.move_menu = QMenu("Move to class", self)
        self.move_button.setMenu(self.move_menu)
        self.correct_notice = Notice()
        self.clusters.k_refused.connect(self.correct_notice.error)

        self._corrections = QWidget()
        self._corrections.hide()
        self.undo = UndoButtons(self._session, self._corrections)
        self._callbacks, self._on_click = viewer.mouse_drag_callbacks, on_click(self._select_at)
        self._lay_out()
        bind(Key.REMOVE_TILES, self._corrections, self.remove, inside=True)
        bind(Key.MOVE_TILES, self._corrections, self.move_button.showMenu, inside=True)
        work = self._work
        listen(
            self,
            (self._session.settings_changed, self._show_settings),
            (self._session.labelling.tiles_cut, self._find_tiles),
            (work.tiles_changed, self._show_tiles),
            (work.changed, self._show_bank),
            (self._session.classes.changed, self._show_bank),
            (work.selection_changed, self._show_picked),
            (work.building, self._follow_build),
            (work.refused, self.correct_notice.error),
        )
        self._show_settings(settings)
        self._show_bank()
        self._show_picked()
        if self._work.job is not None:
            self._follow_build(self._work.job)
        self._work.load()

    def _lay_out(self) -> None:
        top = scrolling_layout(self)
        for part in (
            self.tiles_label,
            self.tiles_notice,
            self.settings_button,
            self.encoder,
            self.form,
            self.k_notice,
            self.white_form,
            self.scheduler_form,
        ):
            top.addWidget(part)
        act = QHBoxLayout()
        act.addWidget(self.build_button)
        act.addWidget(self.zero_shot_button)
        top.addLayout(act)
        top.addWidget(self.build_bar)
        top.addWidget(self.bank_notice)
        top.addWidget(self._corrections, 1)
        top.addStretch()  # while there is no bank

        views = QSplitter(Qt.Orientation.Vertical)
        views.addWidget(self.clusters)
        views.addWidget(self.scatter)
        views.setStretchFactor(0, 3)
        views.setStretchFactor(1, 2)
        views.setSizes([300, 200])
        views.setMinimumHeight(_VIEWS)
        views.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Ignored)  # they take what is left
        views.setChildrenCollapsible(False)
        correct = QHBoxLayout()
        for button in (self.remove_button, self.move_button, self.undo):
            correct.addWidget(button)
        below = QVBoxLayout(self._corrections)
        below.setContentsMargins(0, 0, 0, 0)
        below.addWidget(self.warnings)
        looking = QHBoxLayout()
        looking.addWidget(self.impure_button)
        looking.addWidget(self.duplicates_button)
        below.addLayout(looking)
        below.addWidget(self.impure_notice)
        below.addWidget(views, 1)
        below.addWidget(self.legend)
        below.addWidget(self.picked_label)
        below.addLayout(correct)
        below.addWidget(self.correct_notice)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Look for tiles again, because other widgets may have made some."""
        super().showEvent(event)
        self._find_tiles()
        self._session.labelling.open()
        self._session.labelling.show_in(self, True)
        if self._on_click not in self._callbacks:
            self._callbacks.append(self._on_click)

    def hideEvent(self, event: QHideEvent | None) -> None:
        super().hideEvent(event)
        self._session.labelling.show_in(self, False)
        if self._on_click in self._callbacks:
            self._callbacks.remove(self._on_click)

    # settings ------------------------------------------------------------------------------------------------

    def _show_settings(self, settings: JobSettings) -> None:
        self.form.set_value(settings.bank)
        self.white_form.set_value(settings.data)
        self.scheduler_form.set_value(settings)
        self._find_tiles()
        self._check_k()

    def _find_tiles(self) -> None:
        if self.isVisible():  # else showEvent does it
            self._work.find_tiles()

    def _show_tiles(self) -> None:
        tiles = self._work.tiles
        self.tiles_notice.clear()
        self.tiles_label.clear()
        if self._session.settings.data.folder is None:
            self.tiles_notice.info(NO_TILES)
        elif tiles is None:
            self.tiles_notice.error(self._work.tiles_problem)
        else:
            names = map(self._session.classes.title, tiles.taxonomy.names)
            counted = ", ".join(f"{n} {c:,}" for n, c in zip(names, tiles.counts, strict=True))
            single = len(tiles.single_class)
            several = f", {len(tiles) - single:,} with several are not used" if single < len(tiles) else ""
            classes = len(tiles.taxonomy)
            self.tiles_label.setText(f"Tiles: {single:,} of one class each ({classes} classes{several})")
            self.tiles_label.setToolTip(tip(f"{tiles.folder}\n{counted}"))
            bank = self._work.bank
            if bank is not None and bank.taxonomy.names != tiles.taxonomy.names:
                self.tiles_notice.warn(
                    f"The classes of the tiles are {', '.join(tiles.taxonomy.names)}, and those of the bank "
                    f"{', '.join(bank.taxonomy.names)}: bring it up to date with {self.build_button.text()}."
                )
        self._check_k()

    def _check_k(self) -> bool:
        """Show below the number of clusters whether there are enough tiles; return whether there are."""
        self.k_notice.clear()
        tiles = self._work.tiles
        if tiles is not None and not self._work.curation:
            labels = [t.class_index for t in tiles.single_class]
            try:
                check_enough_tiles(tiles.taxonomy, self._session.settings.bank, labels)
            except PbipError as error:
                self.k_notice.error(error)
                return False
        return True

    # building ------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Build the bank or bring it up to date; ask before one of another encoder is replaced."""
        work = self._work
        build_again = partial(work.build, overwrite=True)
        if self.form.problems() or self.white_form.problems() or self.scheduler_form.problems():
            self.settings_button.setChecked(True)
            return
        if self._session.settings.data.folder is None:
            self.tiles_notice.warn(NO_TILES)
            return
        if work.tiles is None:
            if work.tiles_problem:
                self.tiles_notice.error(work.tiles_problem)
            else:
                self.tiles_notice.info("The tiles are still being read; try again in a moment.")
            return
        if not (self.encoder.usable() and self._check_k()):
            self.settings_button.setChecked(True)
            return
        if work.problem:
            question = f"{work.problem} What should be done?"
            ask(self, "Image bank", question, {"Repair it": work.build, "Build it again": build_again})
        elif work.would_replace() and work.bank is not None:
            question = (
                f"The image bank was made with the encoder {work.bank.encoder['name']}. With another encoder all "
                "features are computed again; removed and moved tiles stay so."
            )
            ask(self, "Image bank", question, {"Replace it": build_again})
        else:
            work.build()

    def test_without_training(self) -> None:
        """Open the window that classifies tiles by sentences and prototypes."""
        ZeroShotDialog(self._session, self).show()

    def _follow_build(self, job: RunningJob) -> None:
        self.correct_notice.clear()
        self.build_bar.follow(job)
        self.build_button.setEnabled(False)
        job.ended.connect(self._end_build)

    def _end_build(self) -> None:
        self.build_button.setEnabled(self._work.job is None)

    def _show_bank(self) -> None:
        work = self._work
        bank = work.bank
        if (bank is None) is not self._corrections.isHidden():  # once there is a bank, its clusters need the room
            self._corrections.setVisible(bank is not None)
            self.settings_button.setChecked(bank is None)
        self.build_button.setText("Build image bank" if bank is None else "Update image bank")
        if work.tiles is not None:
            self._show_tiles()  # whose classes may differ from those of the bank
        self.warnings.clear()
        self.bank_notice.clear()
        if self.build_bar.job is not None and self.build_bar.job.state is State.FINISHED:
            self.build_bar.notice.clear()  # its warnings are shown above the clusters now
        if work.problem:
            self.bank_notice.error(work.problem)
        if bank is None:
            return
        classes = self._session.classes
        self.legend.setText(
            " &nbsp; ".join(
                f'<font color="{c.colour}">●</font>&nbsp;{rich(classes.title(c.name))}'
                for c in classes.coloured(bank.taxonomy)
            )
        )
        impure = sum(bool(c.warning) for c in work.clusters)
        sentences = list(work.warnings)
        if impure:
            sentences.append(f"{impure} cluster{'s' * (impure > 1)} to look at (⚠).")
        if sentences:
            self.warnings.warn(" ".join(sentences))
        self.impure_notice.clear()
        self.impure_button.setVisible(impure > 0)
        self.duplicates_button.setVisible(bool(work.duplicates))
        self.move_menu.clear()
        for tissue in bank.taxonomy:
            action = self.move_menu.addAction(caption(self._session.classes.title(tissue.name)))
            if action is not None:
                action.triggered.connect(lambda _, name=tissue.name: self.move_to(name))
        self._show_picked()

    # correcting ----------------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Remove the selected tiles from the bank."""
        self._work.remove(self._work.selected)

    def move_to(self, class_name: str) -> None:
        """Give the selected tiles another class."""
        self._work.move(self._work.selected, class_name)

    def _change_k(self, class_name: str, k: int) -> None:
        self._work.change_k(class_name, k)

    def _show_impure(self) -> None:
        self.impure_notice.info(self.clusters.next_warned())

    def _pick_duplicates(self) -> None:
        self._work.select({pair.second.hash for pair in self._work.duplicates})

    def _show_picked(self) -> None:
        count = len(self._work.selected)
        self.picked_label.setText(
            f"{count:,} tile{'s' * (count != 1)} selected"
            if count
            else "Click tiles or draw around points to select; a double-click shows a tile on its slide."
        )
        for button in (self.remove_button, self.move_button):
            button.setEnabled(count > 0)

    # places on slides ----------------------------------------------------------------------------------------

    def _show_on_slide(self, index: QModelIndex) -> None:
        """Bring the place of a tile into view."""
        tile = self.clusters.clusters.tile(index)
        if tile is None:
            return
        self.correct_notice.clear()
        try:
            self._session.places.show(tile)
        except DataError as error:
            self.correct_notice.error(error)

    def _select_at(self, position: Sequence[float]) -> None:
        """Select the tile that was cut at a place on the slide, unless a click labels it."""
        labelling = self._session.labelling
        place = None if labelling.grid is None or labelling.lines else labelling.grid.at(*labelling.place(position))
        if place is None or labelling.facts is None or place not in labelling.labels.tiles(labelling.facts.identity):
            return
        self.correct_notice.clear()
        tile = self._session.places.tile_at(place)
        if tile is None:
            self.correct_notice.info(
                f"This tile is not in the image bank, which has tiles of one class each; {self.build_button.text()} "
                "adds those that were labelled since."
            )
        else:
            self._work.select({tile.hash})

    def _open_menu(self, place: QPoint) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        index = self.clusters.indexAt(place)
        there = menu.addAction("Show on the slide", lambda: self._show_on_slide(index))
        if there is not None:
            there.setEnabled(self.clusters.clusters.tile(index) is not None)
        for action in (menu.addAction("Remove", self.remove), menu.addMenu(self.move_menu)):
            if action is not None:
                action.setEnabled(bool(self._work.selected))
        undo = menu.addAction("Undo", self._session.history.undo)
        if undo is not None:
            undo.setEnabled(bool(self._session.history.last))
        menu.popup(self.clusters.pane.mapToGlobal(place))
