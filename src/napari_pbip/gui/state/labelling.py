"""The state of labelling tiles on slides: labels are saved, drawn on the slide, and their tiles cut in the background.

The session owns it, so that labels outlive the widget. Nothing is read or drawn before :meth:`Labelling.open`.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.bank.labelled_slides import LABELS, LabelledSlides, Labels
from napari_pbip.bank.slide_labels import NONE, SlideLabels
from napari_pbip.claims import claim
from napari_pbip.engine.banks.cut_tiles import cut_tiles
from napari_pbip.errors import DataError, FolderInUse, OutputError, PbipError, SlideError
from napari_pbip.events import Finished
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.layers.slides import SlideLayer
from napari_pbip.gui.layers.tiles import TileOverlay
from napari_pbip.gui.timers import single_shot
from napari_pbip.slides import Position, SlideFacts, SquareGrid
from napari_pbip.taxonomy import Taxonomy

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session

_QUIET_MS = 800
"""Milliseconds without a change after which labels are saved and tiles are cut."""
_WAITING_MS = 2000
"""Milliseconds between two checks whether another window still has the labels open."""


@dataclass(frozen=True, slots=True)
class _Closing:
    """The remaining work for a project folder that the user has left."""

    labels: LabelledSlides | None
    """Labels to write, or None."""
    claim: ExitStack | None
    """The claim of the folder, which is released when they are written."""
    job: RunningJob | None
    """The job of this window that still writes there, or None."""


class Labelling:
    """The labels of a project, and the slide that is being labelled.

    Attributes
    ----------
    labels
        The labels; changes by their methods are saved and drawn.
    slide
        The slide whose tiles are labelled: the one that was selected last.
    problem
        Error that prevents all labelling: the labels on disk are damaged, or edited in another window. They are not
        changed then.
    refusal
        Error that prevents labelling the present slide.
    """

    changed = Signal()
    """Emitted when labels, classes or the slide have changed."""
    cutting = Signal(RunningJob)
    """Emitted with the job that saves labels and cuts tiles."""
    tool_taken = Signal(object)
    """Emitted with the dock whose tool for labels was switched on; that of any other dock is switched off."""
    tiles_cut = Signal()
    """Emitted when tiles have changed on disk in the folder that the settings name."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.labels = SlideLabels()
        self.slide: SlideLayer | None = None
        self.problem: DataError | None = None
        self.refusal: PbipError | None = None
        self._opened: Path | None = None
        self._claim: ExitStack | None = None
        self._facts: SlideFacts | None = None
        self._overlay = TileOverlay(session.viewer)
        self._lines = False
        self._docks: weakref.WeakSet[object] = weakref.WeakSet()
        self._preview: dict[Position, Labels] = {}
        self._classes: Taxonomy | None = None
        self._unsaved = self._adopt = False
        self._counts: tuple[int, ...] = ()
        self._job: RunningJob | None = None
        self._closing: dict[Path, _Closing] = {}
        self._quiet = single_shot(_QUIET_MS, self._save)
        self._soon = single_shot(0, self._refresh)
        self._waiting = single_shot(_WAITING_MS, self._read)
        session.classes.recoloured.connect(self._recolour)

    def open(self) -> None:
        """Read the labels of the project, unless that was done before, and start to follow the viewer."""
        session = self._session
        if self._opened is None:
            session.folder_changed.connect(self._read)
            session.slide_selected.connect(self._refresh_soon)
            session.slides.changed.connect(self._refresh_soon)
            session.results.changed.connect(self._refresh_soon)
            session.classes.changed.connect(self._draw)
        if self._opened != session.tiles_folder or self.problem is not None:
            self._read()
        self._refresh()

    def close(self) -> None:
        """Save unsaved labels; to be called when all jobs have ended."""
        self._quiet.stop()
        self._soon.stop()
        self._waiting.stop()
        self._leave()

    def use(self) -> None:
        """Make the bank and the training use these tiles instead of the present ones."""
        self._adopt = self._unsaved = True
        self._save()

    @property
    def saving(self) -> bool:
        """Whether labels are being saved and tiles cut, or will be soon."""
        return self._job is not None or self._quiet.isActive()

    # the slide -----------------------------------------------------------------------------------------------

    @property
    def facts(self) -> SlideFacts | None:
        """The facts of the slide, or None if it cannot be labelled."""
        return self._facts

    @property
    def grid(self) -> SquareGrid | None:
        """The grid of tiles of the slide, or None if it cannot be labelled."""
        return None if self._facts is None else self._facts.grid(self.labels.size)

    def place(self, world: Iterable[float]) -> tuple[float, float]:
        """Convert a position on the canvas to level-0 pixels (x, y) from the corner of the slide."""
        if self.slide is None:
            raise LookupError("there is no slide")
        y, x = self.slide.layer.world_to_data(tuple(world))[-2:]
        return float(x) + 0.5, float(y) + 0.5  # the origin of the layer is the centre of the first pixel

    def restart_slide(self) -> int:
        """Remove the labels of a slide whose microns per pixel have changed; return the number of removed labels."""
        if self.slide is None:
            return 0
        count = self.labels.restart_slide(_facts(self.slide))
        self._refresh()
        return count

    # what is drawn -------------------------------------------------------------------------------------------

    @property
    def lines(self) -> bool:
        """Whether the grid is shown."""
        return self._lines

    @lines.setter
    def lines(self, lines: bool) -> None:
        self._lines = lines
        self._draw()

    def show_in(self, dock: object, visible: bool) -> None:
        """Record whether a dock that labels is visible; else labelled tiles would cover the tissue map."""
        (self._docks.add if visible else self._docks.discard)(dock)
        self._draw()

    def outline(self, position: Position | None, label: int = 0) -> None:
        """Outline a tile in the colour of a class while the grid is shown; None outlines no tile."""
        self._overlay.outline(position, label)

    def preview(self, tiles: Mapping[Position, Labels], *, add: bool = False, taxonomy: Taxonomy | None = None) -> None:
        """Draw tiles as if they had these labels until the next change; a call without tiles ends it.

        Parameters
        ----------
        tiles
            Labels by the position of the tile.
        add
            Whether the tiles keep the labels that they have.
        taxonomy
            The classes of the project, followed by those that these labels would add; by default none are added.
        """
        given = self._given()
        self._classes = taxonomy
        self._preview = {p: (given.get(p, NONE) | labels) if add else labels for p, labels in tiles.items()}
        self._draw()

    def _given(self) -> Mapping[Position, Labels]:
        return {} if self._facts is None else self.labels.tiles(self._facts.identity)

    def _draw(self) -> None:
        tiles = {**self._given(), **self._preview}
        grid = self.grid
        if self.slide is None or grid is None:
            self._overlay.remove()
        elif not (self._docks and (tiles or self._lines)):
            self._overlay.conceal()
        else:
            taxonomy = self._session.classes.coloured(self._classes or self.labels.taxonomy)
            self._overlay.show(self.slide, grid, taxonomy, tiles, lines=self._lines)

    # following the viewer and the labels ---------------------------------------------------------------------

    def _refresh(self) -> None:
        """Find the present slide and whether it can be labelled, draw, and emit :attr:`changed`."""
        slide, grid = self._session.current_slide, self.grid
        if slide is None and self.slide in list(self._session.slides):
            slide = self.slide  # a layer without a slide was selected, so this slide stays
        before = self.slide
        if slide is not before:
            if self.slide is not None:
                self.slide.layer.events.scale.disconnect(self._refresh_soon)
            if slide is not None:
                slide.layer.events.scale.connect(self._refresh_soon)
            self.slide = slide
        self._facts, self.refusal = None, None
        if slide is not None and self.problem is None:
            try:
                facts = _facts(slide)
                self.labels.add_slide(facts)
                grid = facts.grid(self.labels.size)
                if not grid.columns or not grid.rows:
                    raise DataError(f"{facts.name} is smaller than one tile; choose smaller tiles.")
                self._facts = facts
            except PbipError as error:
                self.refusal = error
        if self.grid != grid or slide is not before:
            self._preview, self._classes = {}, None
        self._draw()
        self.changed.emit()

    def _refresh_soon(self, _: object = None) -> None:
        self._soon.start()  # once for all changes of layers, of the slide and of its microns per pixel

    def _on_labels(self) -> None:
        if self._claim is None and not self._begin_folder():
            return
        counts = tuple(filter(None, self.labels.counts))
        self._adopt |= counts != self._counts  # renaming a class is no reason to use these tiles
        self._counts = counts
        self._unsaved = True
        self._preview, self._classes = {}, None
        self._quiet.start()
        self._refresh()

    def _recolour(self, name: str, colour: str) -> None:
        """Give a labelled class the colour in which it is shown, so that image banks and models will have it."""
        if self._opened is None and (self._session.tiles_folder / LABELS).exists():
            self.open()
        if self.problem is None and name in self.labels.taxonomy.names:
            self.labels.recolour_class(self.labels.taxonomy.index(name), colour)

    def _on_step(self, labels: SlideLabels) -> None:
        if labels is self.labels:  # else another window was faster
            self._session.history.push("labels", labels.undo, labels.redo, about=self)

    def undo(self) -> None:
        """Undo the last change, of labels or of anything else."""
        self._session.history.undo()

    def redo(self) -> None:
        """Redo the last change that was undone."""
        self._session.history.redo()

    # on disk -------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        self._waiting.stop()
        self._leave()
        folder = self._session.tiles_folder
        self.problem = None
        labels = SlideLabels()
        closing = self._closing.pop(folder, None)
        unwritten = None if closing is None else closing.labels
        try:
            if closing is not None:  # it is not written yet, and is opened again
                self._claim, self._job = closing.claim, closing.job
            elif folder.exists():  # it is made when there is something to write
                self._claim_folder(folder)
            labelled = LabelledSlides.read(folder) if unwritten is None else unwritten
            if labelled is not None:
                labels = SlideLabels.from_labelled(labelled)
        except FolderInUse as error:
            self.problem = DataError(
                f"The labels of this project are edited in another window ({error.holder}); close that window, "
                "and you can label here."
            )
            self._waiting.start()
        except DataError as error:
            self.problem = error
        labels.changed.connect(self._on_labels)
        labels.stepped.connect(partial(self._on_step, labels))
        self._session.history.forget(self)
        self.labels, self._opened = labels, folder
        self._adopt, self._counts = False, tuple(filter(None, labels.counts))
        if len(labels) or unwritten is not None:  # an earlier session may have ended before its tiles were cut
            self._unsaved = True
            self._quiet.start()
        self._soon.start()

    def _claim_folder(self, folder: Path) -> None:
        """Claim the folder, because two windows would overwrite each other's labels.

        Raises
        ------
        FolderInUse
            If another window has claimed it.
        """
        with ExitStack() as claimed:
            with _unless_unwritable():
                claimed.enter_context(claim(folder, "labelling"))
            self._claim = claimed.pop_all()

    def _begin_folder(self) -> bool:
        """Claim the folder, which did not exist, at the first change; return False if another window was faster."""
        if self._opened is not None:
            try:
                self._claim_folder(self._opened)
            except FolderInUse:
                pass
            else:
                if not (self._opened / LABELS).exists():
                    return True
        self._read()  # read the labels of the other window, or find why that is not possible
        return False

    def _leave(self) -> None:
        """Write the labels and release the folder: at once, or when a running job has finished writing."""
        folder, job = self._opened, self._job
        if folder is None:
            return
        unsaved = (self._unsaved or job is not None) and self.problem is None
        self._closing[folder] = _Closing(self.labels.snapshot() if unsaved else None, self._claim, job)
        self._unsaved, self._claim, self._job, self._opened = False, None, None, None
        if job is None:
            self._release(folder)
        else:
            job.cancel()
            job.ended.connect(lambda _: self._release(folder, job))

    def _release(self, folder: Path, job: RunningJob | None = None) -> None:
        closing = self._closing.get(folder)
        if closing is None or closing.job is not job:
            return  # the user has come back to this folder
        del self._closing[folder]
        try:
            if closing.labels is not None:
                closing.labels.write(folder)
        except OutputError as error:
            warnings.warn(f"The last labels were not saved: {error}", stacklevel=2)
        finally:
            if closing.claim is not None:
                closing.claim.close()

    def _save(self) -> None:
        """Write labels and tiles in the background."""
        self._quiet.stop()  # else it would cancel what is begun here
        if self._job is not None:
            self._unsaved = True
            self._job.cancel()  # when it has ended, the newer labels are written
            return
        if self.problem is not None or self._opened is None:
            return
        labelled, folder = self.labels.snapshot(), self._opened
        self._unsaved = False
        self._job = self._session.start(lambda: cut_tiles(labelled, folder))
        job = self._job
        job.ended.connect(lambda state: self._on_end(job, state))
        self.cutting.emit(self._job)

    def _on_end(self, job: RunningJob, state: State) -> None:
        if job is not self._job:
            return  # the job is of another project folder
        self._job = None
        if state is State.FAILED:
            self._unsaved = True  # they are written with the next change, or when the folder is left
        elif self._unsaved:
            self._quiet.start()
        elif state is State.FINISHED and job.result is not None:
            self._use(job.result)

    def _use(self, result: Finished) -> None:
        """Make the bank and the training use these tiles, unless the user has chosen others meanwhile."""
        data, folder = self._session.settings.data, result.output
        adopt, self._adopt = self._adopt, False
        if not adopt and data.folder not in (None, folder):
            return
        chosen = folder if result.summary["tiles"] else None
        if chosen is None and data.folder != folder:
            return
        changes = {"folder": chosen, "layout": "auto", "classes": None, "mpp": self.labels.size.mpp}
        self._session.change(data=data.model_copy(update=changes))
        self.tiles_cut.emit()


def _facts(slide: SlideLayer) -> SlideFacts:
    """Return the facts of a slide that are saved with its labels.

    Raises
    ------
    SlideError
        If the slide's microns per pixel are not known, or its pixels are not square.
    """
    opened = slide.slide
    try:
        return SlideFacts.from_slide(opened)
    except SlideError:
        why = "does not say its microns per pixel" if opened.mpp is None else "has pixels that are not square"
        raise SlideError(f"{opened.name} {why}; set its microns per pixel in Slides.") from None


@contextmanager
def _unless_unwritable() -> Iterator[None]:
    """Ignore errors of a folder that cannot be written, which saving reports later."""
    try:
        yield
    except FolderInUse:
        raise
    except OutputError:
        return
