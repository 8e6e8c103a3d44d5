"""The dialog that shows each prototype of a model with the real tiles nearest to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QLabel, QVBoxLayout, QWidget

from napari_pbip.gui.connections import listen
from napari_pbip.gui.panels.cluster_view import ClusterView
from napari_pbip.gui.state.prototypes import ModelPrototypes
from napari_pbip.gui.state.shown_classes import ShownClasses
from napari_pbip.gui.widgets.job_bar import JobBar

if TYPE_CHECKING:
    from napari.viewer import ViewerModel

_ABOUT = (
    "Each row is a prototype of the model <b>{name}</b>, shown by the labelled tiles that are nearest to it, whatever "
    "their class. A low purity means that it looks like another class, too."
)


class PrototypesDialog(QDialog):
    """Dialog that shows the prototypes of a model.

    Parameters
    ----------
    viewer
        The viewer, whose theme is used.
    prototypes
        The prototypes of the model.
    classes
        The titles and colours of its classes.
    parent
        Qt parent.
    """

    def __init__(
        self, viewer: ViewerModel, prototypes: ModelPrototypes, classes: ShownClasses, parent: QWidget
    ) -> None:
        super().__init__(parent)
        self._prototypes = prototypes
        self.setWindowTitle(f"Prototypes of {prototypes.run.name}")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.about = QLabel(_ABOUT.format(name=prototypes.run.name))
        self.about.setWordWrap(True)
        self.bar = JobBar()
        self.clusters = ClusterView(viewer, prototypes, classes, editable=False)
        self.clusters.setAccessibleName("Prototypes of the model")
        layout = QVBoxLayout(self)
        layout.addWidget(self.about)
        layout.addWidget(self.bar)
        layout.addWidget(self.clusters, 20)
        layout.addStretch(1)  # keeps the texts at the top while there are no clusters
        self.resize(760, 640)
        self.bar.follow(prototypes.job)
        listen(self, (prototypes.changed, self._show))
        self._show()

    def _show(self) -> None:
        self.clusters.setVisible(self._prototypes.bank is not None)
