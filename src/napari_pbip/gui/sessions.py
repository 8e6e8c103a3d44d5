"""The sessions of viewers, and what a session adds to the window of its viewer."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import napari
from qtpy.QtCore import QCoreApplication

from napari_pbip.gui import imports
from napari_pbip.gui.closing import AskBeforeClosing
from napari_pbip.gui.compat import plugin_preferences
from napari_pbip.gui.dock_tabs import DockTabs
from napari_pbip.gui.focus_frame import FocusFrames
from napari_pbip.gui.overview import Overview
from napari_pbip.gui.readable_texts import ReadableTexts
from napari_pbip.gui.shortcuts import Shortcuts
from napari_pbip.gui.state.session import Session
from napari_pbip.provenance import prefer_operator

if TYPE_CHECKING:
    from napari.viewer import ViewerModel

_CLOSES = "napari-pbip closes its sessions"
_sessions: weakref.WeakKeyDictionary[ViewerModel, Session] = weakref.WeakKeyDictionary()


def begin_session() -> Session | None:
    """Return the session of the current viewer, or None without a viewer.

    The reader and the samples call it before they return layers, because the session redraws them when decoded.
    """
    viewer = napari.current_viewer()
    return None if viewer is None else session_of(viewer)


def session_begun() -> Session | None:
    """Return the session of the current viewer if it has one already, or None."""
    viewer = napari.current_viewer()
    return None if viewer is None else _sessions.get(viewer)


def session_of(viewer: ViewerModel) -> Session:
    """Return the session of a viewer, which the first call makes.

    napari passes a proxy of the viewer to plugin widgets; all of them share the session of the viewer itself.
    """
    viewer = getattr(viewer, "__wrapped__", viewer)
    session = _sessions.get(viewer)
    if session is None:
        session = _sessions[viewer] = Session(viewer)
        application, window = QCoreApplication.instance(), getattr(viewer, "window", None)
        if application is not None and not application.property(_CLOSES):
            application.setProperty(_CLOSES, True)
            application.aboutToQuit.connect(_close_all)
            atexit.register(_close_all)  # a script that ends without having run Qt; Qt deletes timers after that
        if window is not None:
            imports.begin()
            _follow_preferences()
            session.garbage.begin()
            _furnish(window, session)
    return session


def _furnish(window: napari.viewer.Window, session: Session) -> None:
    """Add to a window what belongs to no dock; a strong reference to the session would keep viewer and threads."""
    main, reference = window._qt_window, weakref.ref(session)
    main.destroyed.connect(_closing(reference))
    AskBeforeClosing(main, partial(_running, reference))
    Shortcuts(main, reference)
    DockTabs(main)
    FocusFrames(main)
    ReadableTexts(main, session.viewer)
    Overview(window._qt_viewer.canvas.native, session)


def _follow_preferences() -> None:
    """Record the name that is given in napari's preferences with what is made."""
    preferences = plugin_preferences()
    if preferences is not None:
        records = preferences.records
        prefer_operator(records.operator)
        records.events.operator.connect(_name_operator)


def _name_operator(event: Any) -> None:
    prefer_operator(event.value)


def _close_all() -> None:
    imports.stop()
    for session in list(_sessions.values()):
        session.close()


def _running(session: weakref.ref[Session]) -> list[str]:
    """Return what the running jobs of a session do, for the question before its window is closed."""
    there = session()
    return [] if there is None else there.activity.running


def _closing(session: weakref.ref[Session]) -> Callable[[], None]:
    """Return a function that closes a session if it still exists."""

    def close() -> None:
        if (there := session()) is not None:
            there.close()

    return close
