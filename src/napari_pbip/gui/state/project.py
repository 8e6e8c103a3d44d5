"""The project of a session: its slides, and the file by which it opens as it was left.

What is open in the viewer, the settings and the display of results are written a moment after they change, and when the
project is left. A folder is not made for that: a project begins with the first thing that is saved in it.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.errors import OutputError, PbipError, ProjectError, SlideError
from napari_pbip.events import Finished, Job, Started, Step
from napari_pbip.gui.compat import batched_update
from napari_pbip.gui.jobs import RunningJob
from napari_pbip.gui.layers.slides import METADATA as SLIDE
from napari_pbip.gui.layers.slides import SlideLayer
from napari_pbip.gui.state.opening_queue import OpeningQueue
from napari_pbip.gui.state.project_claim import ProjectClaim
from napari_pbip.gui.state.remembered_view import RememberedView
from napari_pbip.gui.timers import single_shot
from napari_pbip.project import (
    FILE,
    Project,
    ProjectSlide,
    SlidesToSegment,
    find_slides,
    last_project,
    remember,
)
from napari_pbip.slides import Slide, SlideFacts, open_slide, save_mpp, slides_in
from napari_pbip.slides.mpp import require_believable
from napari_pbip.wording import Interface

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session

_QUIET_MS = 500
"""Milliseconds without a change after which the project is saved."""


class ProjectWork:
    """The slides of a session's project, and what is remembered of it.

    Attributes
    ----------
    chosen
        Whether the user has chosen the project; else the session began with it, and nothing of it was opened.
    offered
        The project of the last time, while none is chosen; or None.
    missing
        Slides that are not where they were.
    problem
        Why the project is not saved, or None.
    faults
        Why slides and results could not be opened as they were left, or maps not be deleted, as sentences.
    """

    changed = Signal()
    """Emitted when the slides of the project, or an attribute, have changed."""

    def __init__(self, session: Session) -> None:
        self._session: Session = weakref.proxy(session)
        self.chosen = False
        self.offered = last_project()
        self.missing: tuple[ProjectSlide, ...] = ()
        self.problem: PbipError | None = None
        self.faults: tuple[str, ...] = ()
        self._slides: dict[Path, ProjectSlide] = {}
        self._current: Path | None = None
        self._asked: Path | None = None
        self._written = Project()
        self._queue: tuple[SlidesToSegment, ...] = ()
        self._view = RememberedView(session)
        self._seen: weakref.WeakSet[SlideLayer] = weakref.WeakSet()
        self._claim = ProjectClaim()
        self._claim.freed.connect(self._on_freed)
        self._quiet = single_shot(_QUIET_MS, self.save)
        self._opening = OpeningQueue(session)
        self._opening.missing.connect(self._on_missing)
        self._opening.failed.connect(self._on_failed)
        self._opening.emptied.connect(self._show_current)
        self._opening.advanced.connect(self._on_advanced)
        session.slides.changed.connect(self._on_slides)
        session.results.changed.connect(self._save_soon)
        session.remembered.changed.connect(self._save_soon)
        session.settings_changed.connect(self._save_soon)
        session.classes.changed.connect(self._save_soon)
        session.suggestions.skipped_changed.connect(self._save_soon)
        session.segmenting.changed.connect(self._on_queue)
        session.segmenting.updated.connect(self._on_queue)
        session.slide_selected.connect(self._on_selected)

    @property
    def slides(self) -> tuple[ProjectSlide, ...]:
        """The slides of the project, open or not."""
        return tuple(self._slides.values())

    @property
    def opening(self) -> bool:
        """Whether slides or results are still to be opened as they were left."""
        return bool(self._opening)

    @property
    def asked(self) -> Path | None:
        """The slide that was asked for last, until it is selected: it may still be opening, or could not be opened."""
        return self._asked

    def given_mpp(self, path: Path) -> float | None:
        """Return the microns per pixel that the user gave a slide in this project, or None."""
        slide = self._slides.get(path)
        return slide.mpp if slide is not None and slide.mpp_from == "user" else None

    @property
    def claimed(self) -> bool:
        """Whether this window has the project, and no other one."""
        return self._claim.held

    def claim(self) -> bool:
        """Claim the project if it is not yet; return whether no other window has it."""
        refused = self._claim.take(self._session.folder)
        if refused is not None:
            self.problem = refused
        return refused is None

    def path_of(self, slide: SlideFacts) -> Path:
        """Return the present path of the slide of a result, which may have been moved since."""
        same = [one.path for one in self.slides if one.identity == slide.identity]
        return slide.path if slide.path in same or not same else same[0]

    def of_path(self, path: Path) -> ProjectSlide | None:
        """Return what the project remembers of a slide, or None."""
        return self._slides.get(path)

    def replace(self, slide: ProjectSlide) -> None:
        """Remember other things of a slide of the project."""
        self._slides[slide.path] = slide
        self._save_soon()
        self.changed.emit()

    def open(self, these: Iterable[ProjectSlide | Path]) -> None:
        """Open slides, and stores of results by their paths, in a thread, one after another."""
        self._opening.add(these)

    def tell(self, fault: object) -> None:
        """Add a sentence to the faults."""
        self.faults += (str(fault),)
        self.changed.emit()

    def forget_faults(self) -> None:
        """Tell no faults any more."""
        self.faults = ()
        self.changed.emit()

    def add(self, paths: Sequence[Path]) -> RunningJob:
        """Add slides, and those directly in folders, without opening them in the viewer; return the job that does."""
        found: list[ProjectSlide] = []
        faults: list[str] = []

        def make() -> Job:
            slides = [slide for path in paths for slide in slides_in(path)]
            yield Started("Looking at slides", len(slides), "slides")
            for done, path in enumerate(slides, 1):
                try:
                    with open_slide(path) as slide:
                        found.append(ProjectSlide.of(slide))
                except SlideError as error:
                    faults.append(Interface.WINDOW.sentence(error))
                yield Step(done)
            yield Finished(None)

        def ended(_: object) -> None:
            if folder == self._session.folder:
                self._slides = self._slides | {one.path: one for one in found if one.path not in self._slides}
                self.faults = tuple(faults)
                self._save_soon()
                self.changed.emit()

        folder = self._session.folder
        job = self._session.start(make)
        job.ended.connect(ended)
        return job

    def show(self, path: Path) -> None:
        """Bring a slide of the project and its result, if there is one, into view; they are opened in a thread."""
        slide = self._slides[path]
        store = self._session.maps.store_of(slide)
        self._current, self._asked, self.faults = path, path, ()
        self._opening.show(slide, store if store.exists() else None)

    def turn_to(self, path: Path) -> None:
        """Bring a slide of the project into view: at once if it is open, else as :meth:`show` does."""
        opened = self._session.slides.of_path(path)
        if opened is None:
            self.show(path)
        else:
            self._opening.show_none()
            self._current = self._asked = path
            self._session.slides.show(opened)

    def give_mpp(self, path: Path, mpp: float) -> None:
        """Set the microns per pixel of a slide that the user gave, open or not, and keep them beside the slide, too.

        Raises
        ------
        SlideError
            If the value is impossible.
        OutputError
            If the file beside the slide cannot be written; the project keeps the value all the same.
        """
        layer = self._session.slides.of_path(path)
        if layer is not None:
            self._session.slides.give_mpp(layer, mpp)
        elif path in self._slides:
            mpp = require_believable(mpp, "The given value")
            self._slides[path] = self._slides[path].model_copy(update={"mpp": mpp, "mpp_from": "user"})
            self._save_soon()
            self.changed.emit()
        save_mpp(path, mpp)

    def remove(self, paths: Collection[Path]) -> None:
        """Remove slides from the project and close their layers; their labels and results stay on disk."""
        before, paths = self._slides, frozenset(paths)
        opened = [path for path in paths if self._session.slides.of_path(path) is not None]
        stores = [result.store.path for result in self._session.results if Path(result.layer.metadata[SLIDE]) in opened]

        def undo() -> None:
            self._slides = before | self._slides
            self._opening.add([*(self._slides[path] for path in opened), *stores])
            self._check()
            self._save_soon()
            self.changed.emit()

        self._session.history.push("removal of slides", undo, lambda: self.remove(paths), about=self)
        self._slides = {path: slide for path, slide in self._slides.items() if path not in paths}
        self.missing = tuple(slide for slide in self.missing if slide.path not in paths)
        self._close_layers({str(path) for path in paths})
        self._save_soon()
        self.changed.emit()

    def miss(self, slide: SlideFacts) -> None:
        """Add the slide of a result to the missing ones, and to the project; it is opened when it is found."""
        known = self._slides.get(slide.path) or ProjectSlide(
            path=slide.path, name=slide.name, identity=slide.identity, mpp=slide.mpp, mpp_from=slide.mpp_from
        )
        if known.identity != slide.identity:
            return  # another slide of the project has the path now
        self._slides[slide.path] = missing = known.model_copy(update={"open": True})
        self._on_missing(missing)
        self._save_soon()
        self.changed.emit()

    def find_missing(self, folder: Path) -> None:
        """Look for the missing slides in a folder and those below it, in a thread, and open those that were open."""
        missing = self.missing

        def then(found: dict[Path, Path]) -> None:
            for earlier, path in found.items():
                self._move(earlier, path)
            self._check()
            self._opening.add([slide for slide in self.slides if slide.open and slide.path in found.values()])

        self._session.in_thread(lambda: find_slides(missing, folder), then)

    # opening and leaving a project ---------------------------------------------------------------------------

    def leave(self, following: Path) -> None:
        """Save the project and close what is open of it.

        Slides that were opened before a project was chosen come along into a new one.
        """
        self.save()
        self._session.maps.delete_for_good()
        self._claim.release()
        self._quiet.stop()
        self._opening.clear()
        if self.chosen or (following / FILE).exists():
            self._session.opening.stop()
            self._close_layers()

    def read(self, folder: Path) -> None:
        """Read what is remembered of a project folder; nothing is opened in the viewer."""
        self.problem = None
        if folder.exists():
            self.claim()
        try:
            project = Project.open(folder)
        except ProjectError as error:
            project, self.problem = Project(), error
        self._written = project
        self._slides = {slide.path: slide for slide in project.slides}
        self._session.remembered.remember(project.results)
        self._current, self._asked = project.current, None
        self._view.remember(project.view)
        self._session.segmenting.run = project.model
        self._session.settings = project.settings
        self._session.classes.display = project.classes
        self._session.suggestions.skipped = project.skipped
        self._session.segmenting.restore(project.queue, self._session.results_folder)
        self._on_slides()
        self._check()

    def restore(self) -> None:
        """Open the slides and results that were open when the project was left."""
        self.chosen, self.offered, self.faults = True, None, ()
        self._view.show_page()
        if self._session.folder.exists():
            remember(self._session.folder)
        results = [result.path for result in self._session.remembered if result.open]
        self._view.returning_to = next(
            (one.path for one in self.slides if one.open and one.path == self._current), None
        )
        self._opening.add([*(slide for slide in self.slides if slide.open), *results])
        self.changed.emit()

    def close(self) -> None:
        """Save the project and let other windows have it."""
        self.save()
        self._claim.release()
        self._quiet.stop()
        self._opening.stop()

    def _close_layers(self, slides: Collection[str] | None = None) -> None:
        """Remove the layers that belong to slides: of these, or all."""
        layers = self._session.viewer.layers
        with batched_update(layers):
            for layer in list(layers):
                slide = layer.metadata.get(SLIDE)
                # one may have taken another along
                if slide is not None and (slides is None or slide in slides) and layer in layers:
                    layers.remove(layer)

    def _on_freed(self) -> None:
        self.read(self._session.folder)

    def _check(self) -> None:
        """Find the slides that are not where they were, in a thread."""
        paths = tuple(self._slides)

        def then(gone: list[Path]) -> None:
            self.missing = tuple(self._slides[path] for path in gone if path in self._slides)
            self.changed.emit()

        self.missing = ()
        self._session.in_thread(lambda: [path for path in paths if not path.exists()], then)

    def _move(self, earlier: Path, path: Path) -> None:
        """Record that a slide lies elsewhere now."""
        moved = self._slides[earlier].model_copy(update={"path": path})
        self._slides = {slide.path: slide for slide in (moved if s.path == earlier else s for s in self.slides)}
        self._session.segmenting.move(earlier, path)
        if self._current == earlier:
            self._current = path
        for layer in self._session.viewer.layers:
            if layer.metadata.get(SLIDE) == str(earlier):  # such as its result
                layer.metadata[SLIDE] = str(path)
        self._save_soon()

    # what is open --------------------------------------------------------------------------------------------

    def _on_missing(self, slide: ProjectSlide) -> None:
        self.missing = (*(one for one in self.missing if one.path != slide.path), slide)

    def _on_failed(self, sentence: str) -> None:
        self.faults += (sentence,)

    def _on_advanced(self) -> None:
        """Go back to the slide that was asked for last if it is open, because each one that is opened is shown."""
        asked = None if self._asked is None else self._session.slides.of_path(self._asked)
        if asked is not None:
            self._session.slides.show(asked)
        self.changed.emit()

    def _show_current(self) -> None:
        slides = self._session.slides
        current = None if self._current is None else slides.of_path(self._current)
        if current is None and len(slides) and self._session.slide_in_view is None:
            current = slides[-1]
        if current is not None:
            slides.show(current)
        self._view.show_place(None if current is None else current.slide.path)

    def _on_slides(self) -> None:
        for layer in self._session.slides:
            slide = layer.slide
            if layer not in self._seen:
                self._seen.add(layer)
                earlier = self._slides.get(slide.path) or self._moved(slide)
                if earlier is not None:
                    earlier.give_mpp(slide)
                    layer.place()
            known = self._slides.get(slide.path)
            counted = None if known is None else known.map
            self._slides[slide.path] = ProjectSlide.of(slide, is_open=True).model_copy(update={"map": counted})
        self._save_soon()
        self.changed.emit()

    def _moved(self, slide: Slide) -> ProjectSlide | None:
        """Return the missing slide of the project that this one is, after recording where it lies now."""
        same = next((one for one in self.missing if one.identity == slide.identity), None)
        if same is not None and same.path in self._slides:
            self._move(same.path, slide.path)
            self.missing = tuple(one for one in self.missing if one is not same)
        return same

    def _on_queue(self, _: object = None) -> None:
        """Save which slides are not done, if others are; a running one emits much more often."""
        queue = self._session.segmenting.unfinished(self._session.results_folder)
        if queue != self._queue:
            self._queue = queue
            self._save_soon()

    def _on_selected(self, slide: SlideLayer | None) -> None:
        if slide is not None and not self._opening:
            self._current, self._asked = slide.slide.path, None
            self._save_soon()

    # the file ------------------------------------------------------------------------------------------------

    def _save_soon(self, _: object = None) -> None:
        self._quiet.start()

    def save(self) -> None:
        """Write the file of the project if something has changed and the folder exists."""
        self._quiet.stop()
        folder, project = self._session.folder, self._now()
        if isinstance(self.problem, ProjectError) or project == self._written or not folder.exists():
            return
        looked = project.model_copy(update={"view": self._written.view}) == self._written
        if looked and not (folder / FILE).exists():
            return  # a folder without the file is only looked at
        before = self.problem
        try:
            if not self.claim():
                self.read(folder)  # another window has begun this project meanwhile
                return
            project.write(folder)
        except OutputError as error:
            self.problem = error
        else:
            self.problem, self._written = None, project
            remember(folder)
        if (self.problem is None) is not (before is None):
            self.changed.emit()

    def _now(self) -> Project:
        """Return the present state, in which what is still to be opened counts as open."""
        session = self._session
        waiting = self._opening.paths | {slide.path for slide in self.missing if slide.open}
        slides = waiting | {one.slide.path for one in session.slides}
        results = waiting | {one.store.path for one in session.results}
        return Project(
            slides=tuple(one.model_copy(update={"open": one.path in slides}) for one in self.slides),
            current=self._current,
            results=tuple(one.model_copy(update={"open": one.path in results}) for one in session.remembered),
            model=session.segmenting.run,
            settings=session.settings,
            titles=session.classes.display.titles,
            colours=session.classes.display.colours,
            skipped=session.suggestions.skipped,
            queue=session.segmenting.unfinished(session.results_folder),
            view=self._view.now(),
        )
