"""What the project remembers of the window: the place in view, the page of *Workflow*, and the table of slides."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_pbip.gui.compat import camera_of
from napari_pbip.project import ProjectView

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


class RememberedView:
    """The view of a project as it was left, and as it is now.

    Attributes
    ----------
    returning_to
        The slide that is to be seen at the place where it was left, until it is shown; or None.
    """

    def __init__(self, session: Session) -> None:
        self._session: Session = weakref.proxy(session)
        self._camera: Any = camera_of(session.viewer)
        self._left = ProjectView()
        self.returning_to: Path | None = None

    def remember(self, view: ProjectView) -> None:
        """Take the view of a project that is being opened; nothing is shown."""
        self._left, self.returning_to = view, None

    def show_page(self) -> None:
        """Show the page of the panel, and the table, as they were left."""
        session, left = self._session, self._left
        session.cohort.arrange((left.sorted_by, left.descending), left.filter)
        session.steps.show(left.step)

    def show_place(self, slide: Path | None) -> None:
        """Show the place that was left, if this slide is the one that was in view."""
        if slide is not None and slide == self.returning_to:
            if self._left.zoom is not None:
                self._camera.zoom = self._left.zoom
            if self._left.centre is not None:
                self._camera.center = self._left.centre
        self.returning_to = None

    def now(self) -> ProjectView:
        """Return the present view; the place is that of before until a slide is there."""
        session, camera, left = self._session, self._camera, self._left
        there = len(session.slides) > 0 and self.returning_to is None
        (column, descending), (y, x) = session.cohort.order, camera.center[-2:]
        return ProjectView(
            centre=(float(y), float(x)) if there else left.centre,
            zoom=float(camera.zoom) if there else left.zoom,
            step=session.steps.shown.name.lower(),
            sorted_by=column,
            descending=descending,
            filter=session.cohort.filter,
        )
