"""Opening slides and results as layers: they are read in threads, and added on the main thread."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import MissingSlide, PbipError, SlideError
from napari_pbip.gui.announcing import announce, announce_warning
from napari_pbip.gui.layers.results import ResultLayer, open_store
from napari_pbip.gui.layers.selection import selection_kept
from napari_pbip.gui.layers.slides import SlideLayer
from napari_pbip.gui.state.regions import RegionsOfSlide
from napari_pbip.gui.state.turns import Turns, Work
from napari_pbip.project import ProjectSlide, slide_of_result
from napari_pbip.results.view import ViewedStore
from napari_pbip.slides import Slide, SlideFacts, open_slide

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


class Opening:
    """The way in for whatever the window opens: dropped, chosen, double-clicked, or open when a project was left.

    Attributes
    ----------
    paths
        The paths of the slides and results that are being opened, or wait for it.
    """

    changed = Signal()
    """Emitted when :attr:`paths` has changed."""

    def __init__(self, session: Session) -> None:
        self._session: Session = weakref.proxy(session)
        self.paths: tuple[Path, ...] = ()
        self._turns = Turns(self._session)  # of reading slides; another one when what is being read is wanted no more

    def slide(
        self,
        path: Path,
        then: Callable[[SlideLayer], object] = lambda slide: None,
        otherwise: Callable[[PbipError], None] = announce,
        *,
        pictures: bool = True,
        of: SlideFacts | None = None,
    ) -> None:
        """Open a slide as a layer and bring it into view, or the layer that it has already.

        Slides are read in threads, one after another, in the order in which they were asked for. None of the functions
        is called if another project is opened, or the window closed, before the slide is there.

        Parameters
        ----------
        path
            The slide.
        then
            Function that takes the slide.
        otherwise
            Function that takes the error. By default napari shows it.
        pictures
            Whether a plain picture counts as a slide.
        of
            The slide as a result knows it, if it is opened for one. Another slide at the path is an error then, and
            microns per pixel that the user gave it at that time count, unless others were given since.
        """
        path, turns = path.absolute(), self._turns

        def make() -> Work | None:
            if turns is not self._turns:
                return None
            if (there := self._session.slides.of_path(path)) is not None:
                if of is None or of.identity == there.slide.identity:
                    arrive()
                else:
                    fail(_another_slide(path))
                return None
            known = self._session.project.of_path(path)
            return partial(read_slide, path, known, self._session.results_folder, pictures=pictures, of=of)

        def take(read: tuple[Slide, RegionsOfSlide]) -> None:
            slide, regions = read
            wanted = turns is self._turns
            if wanted and self._session.slides.of_path(path) is None:
                self._session.regions.take(path, regions)
                self._session.slides.add(slide)
            else:
                slide.close()
            if wanted:
                arrive()

        def arrive() -> None:
            self._end(path)
            if (slide := self._session.slides.of_path(path)) is not None:
                self._session.slides.show_soon(slide)
                then(slide)

        def fail(error: PbipError) -> None:
            if turns is self._turns:
                self._end(path)
                otherwise(error)

        self._begin(path)
        turns.add(make, take, fail, f"Opening {path.name}")

    def result(
        self,
        path: Path,
        then: Callable[[ResultLayer], object] = lambda result: None,
        otherwise: Callable[[PbipError], None] = announce,
        thresholds: ThresholdSettings | None = None,
        *,
        select: bool = True,
    ) -> None:
        """Open a result as a layer, or find the layer that it has already; its store is read in a thread.

        None of the functions is called if another project is opened, or the window closed, before the result is there.

        Parameters
        ----------
        path
            Folder of the score store.
        then
            Function that takes the result.
        otherwise
            Function that takes the error. By default napari shows it.
        thresholds
            Thresholds for a store without labels; by default the present ones.
        select
            Whether its layer is selected.
        """
        path, turns = path.absolute(), self._turns

        def take(store: ViewedStore) -> None:
            if turns is not self._turns:
                store.close()
                return
            self._end(path)
            result = self._session.results.of_store(path)
            if result is None:
                with nullcontext() if select else selection_kept(self._session.viewer):
                    result = self._session.results.add(store, thresholds or self._session.settings.thresholds)
                slide = self._session.slides.of_layer(result.layer)
                if slide is not None and not slide.layer.visible:
                    self._session.slides.put_away(result.layer)  # all slides lie at the same place
            else:  # it was opened meanwhile
                store.close()
            then(result)

        def fail(error: PbipError) -> None:
            if turns is self._turns:
                self._end(path)
                otherwise(error)

        if (result := self._session.results.of_store(path)) is not None:
            then(result)
        else:
            self._begin(path)
            self._session.in_thread(lambda: open_store(path), take, fail, f"Opening {path.name}")

    def result_with_slide(
        self,
        path: Path,
        then: Callable[[ResultLayer], object] = lambda result: None,
        otherwise: Callable[[PbipError], None] = announce,
        without_slide: Callable[[PbipError], None] = announce_warning,
    ) -> None:
        """Open a result above its slide, as :meth:`slide` and :meth:`result` do, and bring the slide into view.

        The slide is where this project has it, else where the project of the result has it, else where it was when the
        result was made. If it cannot be opened, the result is shown without it; if it is not there, it becomes one of
        the missing slides of the project, and is opened when it is found.

        Parameters
        ----------
        path
            Folder of the score store.
        then
            Function that takes the result.
        otherwise
            Function that takes the error if the result cannot be opened. By default napari shows it.
        without_slide
            Function that takes the error if its slide cannot, after ``then``. By default napari shows it as a warning.
        """
        path, turns = path.absolute(), self._turns

        def take(slide: SlideFacts) -> None:
            if turns is not self._turns:
                return
            self._end(path)
            if _is_array(slide):
                alone(SlideError(f"This map of {slide.name} was made from an array, so no slide is opened with it."))
                return
            slide = slide.model_copy(update={"path": self._session.project.path_of(slide)})
            self.slide(slide.path, partial(arrive, slide), partial(fail, slide), of=slide)

        def arrive(slide: SlideFacts, layer: SlideLayer) -> None:
            if layer.slide.mpp is None:  # the user gave them when the map was made
                self._session.slides.give_mpp(layer, slide.mpp)
            self.result(path, then, otherwise)

        def fail(slide: SlideFacts, error: PbipError) -> None:
            if isinstance(error, MissingSlide):
                self._session.project.miss(slide)
                error = MissingSlide(
                    f"{slide.path.name}, the slide of this map, is not at {slide.path.parent}; Find them… in Project "
                    "looks for it where you say."
                )
            alone(error)

        def alone(error: PbipError) -> None:
            def shown(result: ResultLayer) -> None:
                then(result)
                without_slide(error)

            self.result(path, shown, otherwise)

        def fail_to_look(error: PbipError) -> None:
            if turns is self._turns:
                self._end(path)
                otherwise(error)

        def look() -> Work | None:
            return partial(slide_of_result, path) if turns is self._turns else None

        self._begin(path)
        # after the slides that are being opened, because one of them may be this one, at another path
        turns.add(look, take, fail_to_look, f"Opening {path.name}")

    def stop(self) -> None:
        """Open none of the slides and results that are being read, because they are wanted no more."""
        self._turns = Turns(self._session)
        self._session.segmenting.stop_opening()
        if self.paths:
            self.paths = ()
            self.changed.emit()

    def _begin(self, path: Path) -> None:
        self.paths += (path,)
        self.changed.emit()

    def _end(self, path: Path) -> None:
        place = self.paths.index(path)
        self.paths = self.paths[:place] + self.paths[place + 1 :]
        self.changed.emit()


def read_slide(
    path: Path, known: ProjectSlide | None, results: Path, *, pictures: bool, of: SlideFacts | None = None
) -> tuple[Slide, RegionsOfSlide]:
    """Open a slide with everything that the main thread asks it for, and read its regions; called in a thread.

    Parameters
    ----------
    path
        The slide.
    known
        What the project remembers of it, whose microns per pixel it gets if the user gave them.
    results
        Folder of all results of the project.
    pictures
        Whether a plain picture counts as a slide.
    of
        The slide as a result knows it, if it is opened for one.

    Raises
    ------
    SlideError
        If it cannot be opened, or is another one than that of the result.
    """
    opened = open_slide(path)
    if opened.is_picture and not pictures:
        opened.close()
        raise SlideError(f"{path.name} is a picture, not a slide.")
    identity = opened.identity  # kept from now on; it reads the file
    if of is not None and of.identity != identity:
        opened.close()
        raise _another_slide(path)
    if known is not None:
        known.give_mpp(opened)
    if of is not None and of.mpp_from == "user" and not opened.mpp_is_given:
        opened.give_mpp(of.mpp)
    return opened, RegionsOfSlide.read(opened, results)


def _another_slide(path: Path) -> SlideError:
    return SlideError(f"{path} is another slide than the one of this map, which is shown without its slide.")


def _is_array(slide: SlideFacts) -> bool:
    """Return whether a slide was no file: its path is a name alone, on the system that recorded it, too."""
    return PureWindowsPath(slide.path).name == str(slide.path)
