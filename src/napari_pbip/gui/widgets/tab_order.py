"""The order in which the Tab key visits controls that were made later than those below them."""

from __future__ import annotations

from itertools import pairwise

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget


def set_tab_order(first: QWidget, *others: QWidget) -> None:
    """Have the Tab key visit widgets one after another, right after the first, which may be a panel without focus."""
    policy = first.focusPolicy()
    first.setFocusPolicy(Qt.FocusPolicy.TabFocus)  # Qt orders no others
    for one, following in pairwise((first, *others)):
        QWidget.setTabOrder(one, following)
    first.setFocusPolicy(policy)
