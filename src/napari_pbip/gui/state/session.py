"""The state of the user's work in one viewer. It outlives the widgets, so that closing a dock loses nothing.

Widgets read the session, change it through its methods, and redraw on its signals; they do not know each other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import platformdirs
from psygnal import Signal

from napari_pbip.config import JobSettings
from napari_pbip.engine.jobs import JobMaker
from napari_pbip.errors import PbipError
from napari_pbip.gui.announcing import announce
from napari_pbip.gui.jobs import RunningJob, State, returning
from napari_pbip.gui.layers.copies import Copies
from napari_pbip.gui.layers.display import Display
from napari_pbip.gui.layers.results import ResultLayer, ResultLayers
from napari_pbip.gui.layers.slides import SlideLayer, SlideLayers
from napari_pbip.gui.state.activity import Activity
from napari_pbip.gui.state.bank import BankWork
from napari_pbip.gui.state.cohort import Cohort
from napari_pbip.gui.state.correcting import Correcting
from napari_pbip.gui.state.encoders import Encoders
from napari_pbip.gui.state.garbage import ModulesLeftOut
from napari_pbip.gui.state.history import History
from napari_pbip.gui.state.labelling import Labelling
from napari_pbip.gui.state.live_map import LiveMap
from napari_pbip.gui.state.maps import Maps
from napari_pbip.gui.state.method_advice import MethodAdvice
from napari_pbip.gui.state.opening import Opening
from napari_pbip.gui.state.project import ProjectWork
from napari_pbip.gui.state.regions import DrawnRegions
from napari_pbip.gui.state.remembered_results import RememberedResults
from napari_pbip.gui.state.segmenting import SegmentQueue
from napari_pbip.gui.state.shown_classes import ShownClasses
from napari_pbip.gui.state.steps import Steps
from napari_pbip.gui.state.suggestions import Suggestions
from napari_pbip.gui.state.tile_places import TilePlaces
from napari_pbip.gui.state.tissue import Tissue
from napari_pbip.gui.state.training import Training
from napari_pbip.gui.state.whole_map import WholeMap
from napari_pbip.gui.state.zero_shot import ZeroShot
from napari_pbip.project import BANK, MODELS, RESULTS, TILES
from napari_pbip.results.places import TISSUE, result_folder
from napari_pbip.slides import Slide

if TYPE_CHECKING:
    from napari.viewer import ViewerModel

Value = TypeVar("Value")


class Session:
    """The state of the user's work in one viewer, made by :func:`napari_pbip.gui.sessions.session_of`.

    Attributes
    ----------
    slides
        The slides that are layers of the viewer.
    opening
        The opening of slides and results.
    results
        The results that are layers of the viewer.
    correcting
        The corrections of a result by hand.
    segmenting
        The queue of slides to be segmented.
    training
        The models of the project, and the running training.
    method_advice
        The method that is recommended for the labelled tiles.
    bank
        The image bank of the project.
    encoders
        The encoders that can be used on this machine.
    zero_shot
        The classification of tiles without training.
    jobs
        Jobs that have not ended, oldest first.
    activity
        Those of them that napari's activity dock shows.
    labelling
        The labels of tiles on slides.
    live_map
        The map that follows the labels.
    whole_map
        The map of a whole slide that is made from the labels.
    tissue
        The tissue masks of the slides.
    regions
        The regions of the slides, which are drawn.
    remembered
        How the results of the project are shown, and what was done with them.
    project
        The slides of the project, and what is remembered of it.
    maps
        The maps of the slides of the project: which is counted, and deleting them.
    places
        The places of tiles on the slides of the project.
    suggestions
        The tiles that are suggested for labels.
    cohort
        The slides of the project as a table.
    steps
        Which steps of the work are done.
    history
        What the user has changed by hand and can undo, since the project was opened.
    classes
        The titles and colours in which classes are shown.
    garbage
        What garbage collections look through.
    """

    settings_changed = Signal(JobSettings)
    """Emitted with the new settings; a changed threshold is an event of :attr:`Session.display` only."""
    folder_changed = Signal(Path)
    """Emitted when the project folder has changed."""
    job_started = Signal(RunningJob)
    """Emitted when a job has started."""
    slide_selected = Signal(object)
    """Emitted with the current :class:`SlideLayer`, or None, when it changes."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._settings = JobSettings()
        self._display = Display()
        self._folder = platformdirs.user_documents_path() / "napari-pbip"
        self.jobs: list[RunningJob] = []
        self.activity = Activity(self.job_started)
        self.history = History()
        self.classes = ShownClasses(self.history)
        self.slides = SlideLayers(viewer)
        self.opening = Opening(self)
        self._closed = False
        self.tissue = Tissue(self)
        self.labelling = Labelling(self)
        self.results = ResultLayers(viewer)
        self.results.selected.connect(self._on_result)
        self._on_result(self.results.current)
        self.correcting = Correcting(self)
        self.regions = DrawnRegions(self)
        self.segmenting = SegmentQueue(self)
        self.training = Training(self)
        self.method_advice = MethodAdvice(self)
        self.bank = BankWork(self)
        self.encoders = Encoders(self)
        self.zero_shot = ZeroShot(self)
        self.live_map = LiveMap(self)
        self.whole_map = WholeMap(self)
        self.suggestions = Suggestions(self)
        self.remembered = RememberedResults(self)
        self.project = ProjectWork(self)
        self.maps = Maps(self)
        self.places = TilePlaces(self)
        self.cohort = Cohort(self)
        self.steps = Steps(self)
        self.garbage = ModulesLeftOut(viewer)
        self._copies = Copies(viewer)
        self.project.read(self._folder)
        for signal in (self.results.changed, self.classes.changed):
            signal.connect(self._show_classes)
        viewer.layers.selection.events.active.connect(self._on_active)

    @property
    def viewer(self) -> ViewerModel:
        """The viewer.

        Raises
        ------
        ReferenceError
            If it was closed.
        """
        return self.slides.viewer

    # settings ------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> JobSettings:
        """All settings, as in a settings file. Set the property, or replace sections with :meth:`change`.

        The thresholds are those of :attr:`display`; replacing them changes what is shown.
        """
        thresholds = self._display.thresholds
        if thresholds == self._settings.thresholds:
            return self._settings
        return self._settings.model_copy(update={"thresholds": thresholds})

    @settings.setter
    def settings(self, settings: JobSettings) -> None:
        if settings != self.settings:
            self._settings = settings
            self._display.thresholds = settings.thresholds
            self.settings_changed.emit(settings)

    @property
    def display(self) -> Display:
        """Display settings of the current result, else of the last one, else for the first one to come."""
        return self._display

    def _on_result(self, result: ResultLayer | None) -> None:
        if result is not None:
            self._display = result.display

    def _show_classes(self) -> None:
        for result in self.results:
            result.show_classes(self.classes.title, self.classes.coloured)

    def change(self, **sections: object) -> None:
        """Replace sections of the settings: ``session.change(train=TrainSettings(epochs=4))``."""
        self.settings = self.settings.model_copy(update=sections)

    # the project folder --------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """The project folder, in which the widgets save everything. It is created when it is first needed.

        Setting the property closes what is open of the present project, and opens the other one as it was left.
        """
        return self._folder

    @folder.setter
    def folder(self, folder: Path) -> None:
        if folder != self._folder or not self.project.chosen:
            self.project.leave(folder)
            self._folder = folder
            self.project.read(folder)
            self.history.clear()
            self.folder_changed.emit(folder)
            self.project.restore()

    @property
    def tiles_folder(self) -> Path:
        """Tiles that were labelled on slides, as pictures with a ``tiles.csv``."""
        return self._folder / TILES

    @property
    def bank_folder(self) -> Path:
        """The image bank."""
        return self._folder / BANK

    @property
    def models_folder(self) -> Path:
        """Folder with one run per training."""
        return self._folder / MODELS

    @property
    def results_folder(self) -> Path:
        """Folder with one folder per slide, which contains its score store."""
        return self._folder / RESULTS

    def result_folder(self, slide: Slide) -> Path:
        """Return the folder of a slide's results, by the slide's identity because names repeat and files are moved."""
        return result_folder(self.results_folder, slide.name, slide.identity)

    def tissue_file(self, slide: Slide) -> Path:
        """Return the file of a slide's tissue mask, found or drawn, which segmentation uses if it exists."""
        return self.result_folder(slide) / TISSUE

    # slides --------------------------------------------------------------------------------------------------

    @property
    def current_slide(self) -> SlideLayer | None:
        """The slide that the active layer shows or belongs to, else the only slide if there is just one, else None."""
        active = self.viewer.layers.selection.active
        if active is not None and (slide := self.slides.of_layer(active)) is not None:
            return slide
        return self.slides[0] if len(self.slides) == 1 else None

    @property
    def slide_in_view(self) -> SlideLayer | None:
        """The current slide, else the first one that is visible, or None."""
        return self.current_slide or next((slide for slide in self.slides if slide.layer.visible), None)

    def _on_active(self) -> None:
        self.slide_selected.emit(self.current_slide)

    # jobs ----------------------------------------------------------------------------------------------------

    def start(self, make: JobMaker, *, reads_maps: bool = False) -> RunningJob:
        """Start a job in a thread; it stays in :attr:`jobs` until it ends, even if the widget is closed.

        Parameters
        ----------
        make
            Makes the job's generator.
        reads_maps
            Whether it reads maps of the project, none of which can be deleted until it ends.
        """
        self.tissue.flush()  # a job may read the mask
        self.correcting.flush()
        self.regions.flush()
        job = RunningJob(make)
        job.reads_maps = reads_maps
        self.jobs.append(job)
        job.ended.connect(lambda _: self.jobs.remove(job))
        self.job_started.emit(job)
        return job

    def in_thread(
        self,
        work: Callable[[], Value],
        then: Callable[[Value], None],
        otherwise: Callable[[PbipError], None] = announce,
        name: str = "",
    ) -> RunningJob:
        """Call a function in a thread, and then another one with its value on the main thread.

        Parameters
        ----------
        work
            Slow function, which must use neither widgets nor the viewer.
        then
            Function that takes the value; not called after an error or when cancelled.
        otherwise
            Function that takes the error. By default napari shows it.
        name
            What napari's activity dock says of it if it takes a while; by default nothing.
        """
        job = self.start(lambda: returning(work, name))

        def ended(state: State) -> None:
            if state is State.FINISHED and job.result is not None:
                then(job.result.summary["value"])
            elif state is State.FAILED and job.error is not None:
                otherwise(job.error)

        job.ended.connect(ended)
        return job

    def close(self) -> None:
        """Stop all jobs, which save what is finished, and close all slides. Further calls do nothing."""
        if self._closed:  # the signal of the window comes late, when Qt has deleted timers
            return
        self._closed = True
        self.opening.stop()
        self.activity.close()
        self.segmenting.close()
        self.live_map.close()
        self.garbage.close()
        self.maps.delete_for_good()
        stopped: set[RunningJob] = set()
        while running := [job for job in self.jobs if job not in stopped]:  # the end of one may start another
            for job in running:
                job.cancel()
            for job in running:
                job.wait()
            stopped.update(running)
        self.project.close()
        self.correcting.close()
        self.tissue.close()
        self.regions.close()
        self.labelling.close()
        self.results.close()
        self.slides.close()
