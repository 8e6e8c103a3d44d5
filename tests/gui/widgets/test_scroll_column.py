"""A scrolling column is never narrower than its content."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_pbip.gui.widgets.scroll_column import ScrollColumn


def test_it_grows_with_what_is_shown_later(application: Any, settle: Any) -> None:
    content = QWidget()
    layout = QVBoxLayout(content)
    layout.addWidget(QLabel("short"))
    late = QLabel("a line that is longer than all that was shown before it came")
    late.hide()
    layout.addWidget(late)
    column = ScrollColumn(content)
    column.resize(60, 40)
    column.show()
    settle()
    late.show()
    settle(lambda: column.minimumWidth() > late.sizeHint().width())
    column.resize(60, 40)
    settle()
    viewport = column.viewport()
    assert viewport is not None
    assert viewport.width() >= late.sizeHint().width()
    column.close()
