"""The choice of the encoder, and the download of its weights after the user has agreed."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_pbip.config import BankSettings, JobSettings
from napari_pbip.gui.connections import listen
from napari_pbip.gui.jobs import RunningJob
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.job_bar import JobBar, Notice
from napari_pbip.gui.widgets.question import ask
from napari_pbip.gui.widgets.settings_form import SettingsForm
from napari_pbip.models.encoders import EncoderSpec, catalogue
from napari_pbip.models.encoders.weights import FOLDER_VARIABLE


class EncoderChoice(QWidget):
    """Widget that edits ``bank.encoder`` and ``bank.weights`` of a session, and fetches weights on request.

    Parameters
    ----------
    session
        The session whose settings are edited.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._encoders = session.encoders
        bank = session.settings.bank
        self.form: SettingsForm[BankSettings] = SettingsForm(bank, only=("encoder",))
        self.weights_form: SettingsForm[BankSettings] = SettingsForm(bank, only=("weights",))
        for form in (self.form, self.weights_form):
            form.value_changed.connect(lambda bank: self._session.change(bank=bank))
        self.notice = Notice()
        self.fetch_button = push_button("Fetch…", clicked=self._ask)
        self.bar = JobBar(keeps=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.form)
        layout.addWidget(self.weights_form)
        layout.addWidget(self.notice)
        layout.addWidget(self.fetch_button, 0, Qt.AlignmentFlag.AlignLeft)
        layout.addWidget(self.bar)
        encoders = self._encoders
        listen(
            self,
            (session.settings_changed, self._show_settings),
            (encoders.found, self._show_found),
            (encoders.fetching, self._follow),
        )
        self._show_settings(session.settings)
        self._show_found()
        if encoders.job is not None:
            self._follow(encoders.job)

    @property
    def fields(self) -> tuple[QWidget, ...]:
        """Return the widgets in the order of the Tab key."""
        return (*self.form.controls("encoder"), *self.weights_form.controls("weights"), self.fetch_button)

    def usable(self) -> bool:
        """Return whether the fields and, as far as is known, the encoder can be used; show what is wrong if not."""
        self._show_state()
        typed = self.form.problems() or self.weights_form.problems()
        return not typed and not self._problem() and self._lacking is None

    def showEvent(self, event: QShowEvent | None) -> None:
        """Look for weights again, because the user may have copied some by hand."""
        super().showEvent(event)
        self._encoders.refresh()

    @property
    def _spec(self) -> EncoderSpec | None:
        return catalogue().get(self._session.settings.bank.encoder)

    def _show_settings(self, settings: JobSettings) -> None:
        self.form.set_value(settings.bank)
        self.weights_form.set_value(settings.bank)
        self._show_state()

    def _show_found(self) -> None:
        lacking = self._encoders.lacks_weights
        rows = sorted(catalogue().values(), key=lacking)  # usable encoders first
        self.form.offer("encoder", {spec.name: _note(spec, lacking(spec)) for spec in rows})
        self._show_state()

    def _show_state(self) -> None:
        """Show a description of the encoder, or how to get its missing weights."""
        spec, given = self._spec, self._session.settings.bank.weights
        self.form.editor("encoder").setToolTip(
            "The network that describes tiles" if spec is None else f"{spec.title}\nLicence: {spec.licence}"
        )
        self.weights_form.setVisible(given is not None or (spec is not None and spec.needs_weights))
        self.notice.clear()
        problem = self._problem()
        if problem:
            self.notice.error(problem)
        elif self._lacking is not None:
            self.notice.warn(_how(self._lacking))
        fetchable = self._lacking is not None and self._lacking.hub is not None
        self.fetch_button.setVisible(fetchable)
        self.fetch_button.setEnabled(self._encoders.job is None)
        if fetchable and spec is not None:
            self.fetch_button.setText(f"Fetch {spec.name}…")
            self.fetch_button.setToolTip(f"Asks first; then fetches {_price(spec)} from {_page(spec)}")

    @property
    def _lacking(self) -> EncoderSpec | None:
        """Return the chosen encoder if its weights are missing, else None."""
        spec, given = self._spec, self._session.settings.bank.weights
        return spec if spec is not None and given is None and self._encoders.lacks_weights(spec) else None

    def _problem(self) -> str:
        """Return what is wrong with the values of the fields; empty if nothing is."""
        settings, spec = self._session.settings.bank, self._spec
        if spec is None:
            return f"There is no encoder {settings.encoder!r}; choose one from the list."
        if settings.weights is not None and not spec.needs_weights:
            return f"The encoder {spec.name} takes no weights; leave them empty."
        return ""

    # fetching ------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask the user to agree to size, licence and source before anything is fetched."""
        spec = self._lacking
        if spec is None:
            return
        gate = "\nThey are available on request: without access, nothing can be fetched." if spec.gated else ""
        details = (
            f"{spec.title}\n\nSize: {spec.megabytes:,} MB\nLicence: {spec.licence}\nSource: {_page(spec)}{gate}\n\n"
            f"They are kept in the folder that {FOLDER_VARIABLE} names, or else in the Hugging Face cache."
        )
        question = f"Fetch the weights of {spec.name}?"
        ask(self, "Fetch weights", question, {"Fetch": lambda: self._encoders.fetch(spec.name)}, details)

    def _follow(self, job: RunningJob) -> None:
        self.bar.follow(job)
        self.fetch_button.setEnabled(False)
        job.ended.connect(self._on_end)

    def _on_end(self) -> None:
        self._show_state()


def _note(spec: EncoderSpec, lacking: bool) -> str:
    """Return the note beside an encoder in the list."""
    if not lacking:
        return "ready"
    if spec.hub is None:
        return "needs your own weights" if spec.page is None else "weights to be fetched by hand"
    return f"{spec.megabytes:,} MB to fetch" + ", on request" * spec.gated


def _how(spec: EncoderSpec) -> str:
    """Return a sentence on which weights are missing and how to get them."""
    if spec.hub is None and spec.page is None:
        return f"The encoder {spec.name} needs weights; choose their folder."
    missing = f"The weights of {spec.name} are not on this machine"
    if spec.hub is None:
        return f"{missing}; get them from {spec.page} ({_price(spec)}), and choose their folder."
    if spec.gated:
        return (
            f"{missing} and are available on request: ask for access at {_page(spec)}, log in with `hf auth login`, "
            f"then fetch them ({_price(spec)}), or choose their folder."
        )
    return f"{missing}; fetch them ({_price(spec)}), or choose their folder."


def _price(spec: EncoderSpec) -> str:
    return f"{spec.megabytes:,} MB, licence: {spec.licence}"


def _page(spec: EncoderSpec) -> str:
    return f"https://huggingface.co/{spec.hub}"
