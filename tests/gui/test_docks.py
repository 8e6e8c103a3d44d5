"""The docks of the plugin's menu beside each other: the window stays as large as it was, and each has room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from npe2 import PluginManager
from qtpy.QtCore import Qt

from napari_pbip.gui.samples import PROJECT
from napari_pbip.gui.sessions import session_of
from tests.gui.napari_privates import main_window
from tests.gui.qt_helpers import Settle

SMALL, LARGE = (1366, 768), (1920, 1080)


def test_docks_are_tabs_and_the_window_keeps_its_size(viewer: Any, settle: Settle, store: Path) -> None:
    """With every dock of the menu, opened one after another, and a slide, tiles, a bank, a model and a map to show."""
    session, window = session_of(viewer), main_window(viewer)
    window.resize(*SMALL)
    viewer.open_sample("napari-pbip", "project")
    settle(lambda: session.folder.name == PROJECT and not session.jobs)
    session.results.open(store)
    docks = []
    for one in PluginManager.instance().get_manifest("napari-pbip").contributions.widgets:
        dock, widget = viewer.window.add_plugin_dock_widget("napari-pbip", one.display_name)
        docks.append(dock)
        settle(lambda: not session.jobs)
        settle()
        assert (window.width(), window.height()) == SMALL, one.display_name
        assert not widget.visibleRegion().isEmpty(), one.display_name  # it is in front
        settle(lambda shown=widget: shown.height() > SMALL[1] - 200)  # Qt moves docks gradually
    assert len(window.tabifiedDockWidgets(docks[0])) == len(docks) - 1
    window.resize(*LARGE)
    for dock in docks:
        dock.raise_()
        settle()
        assert (window.width(), window.height()) == LARGE, dock.name


def test_a_dock_stays_where_it_is_moved(viewer: Any, settle: Settle) -> None:
    window, left = main_window(viewer), Qt.DockWidgetArea.LeftDockWidgetArea
    docks = [viewer.window.add_plugin_dock_widget("napari-pbip", name)[0] for name in ("1 Slides", "Legend")]
    settle(lambda: window.tabifiedDockWidgets(docks[0]) == docks[1:])
    for dock in docks:
        window.addDockWidget(left, dock)
    settle()
    assert [window.dockWidgetArea(dock) for dock in docks] == [left, left]
    assert window.tabifiedDockWidgets(docks[0]) == []
