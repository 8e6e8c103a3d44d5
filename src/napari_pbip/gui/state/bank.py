"""The state of the project's image bank, which widgets show, select and correct, and which outlives them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_pbip.bank import (
    ClusterFacts,
    Curation,
    ImageBank,
    NearDuplicate,
    TileSet,
    bank_warnings,
    load_single_tiles,
    near_duplicates,
    project,
)
from napari_pbip.bank.cluster_counts import check_enough_tiles
from napari_pbip.bank.features import FeatureFile
from napari_pbip.config import BankSettings, DataSettings
from napari_pbip.errors import BankError, DataError, PbipError
from napari_pbip.events import Job
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.state.thumbnails import Thumbnails
from napari_pbip.wording import Interface

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session

Place = tuple[float, float]


@dataclass(frozen=True)
class _OnDisk:
    """The contents of the bank's folder."""

    bank: ImageBank | None
    problem: str = ""
    curation: Curation = field(default_factory=Curation)
    duplicates: tuple[NearDuplicate, ...] = ()
    warnings: tuple[str, ...] = ()
    clusters: tuple[ClusterFacts, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> _OnDisk:
        if not FeatureFile.exists(folder):
            return cls(None)
        try:
            bank = ImageBank.read(folder)
            curation = Curation.read(folder)
        except BankError as error:
            return cls(None, Interface.WINDOW.sentence(error))
        duplicates = near_duplicates(bank)
        return cls(bank, "", curation, duplicates, bank_warnings(bank, duplicates, curation), bank.clusters())


NO_TILES = "There are no labelled tiles yet; choose a folder in Label tiles, or label some there."
_Clusters = int | str | Mapping[str, int | str]
"""Numbers of clusters, as in the settings of a bank."""


@dataclass(frozen=True)
class _Wanted:
    """The settings and corrections of a build."""

    settings: BankSettings
    curation: Curation | None
    """Corrections to apply; None keeps those in the bank's folder."""
    overwrite: bool = False


class BankWork:
    """The image bank of the session's project.

    Attributes
    ----------
    tiles
        The labelled tiles from which a bank would be built now, or None.
    tiles_problem
        Why they cannot be used, as a sentence; empty also if none were chosen or labelled yet.
    selected
        Hashes of the tiles that the user has selected in any view.
    places
        Positions of the tiles on a plane, by hash; empty until they are computed.
    job
        The running build or update, or None.
    thumbnails
        The thumbnails of the tiles.
    """

    changed = Signal()
    """Emitted when the bank has changed."""
    tiles_changed = Signal()
    """Emitted when the labelled tiles have changed."""
    selection_changed = Signal()
    """Emitted when the selection has changed."""
    places_changed = Signal()
    """Emitted when the positions of the tiles have been computed."""
    building = Signal(RunningJob)
    """Emitted when a build or update has started."""
    refused = Signal(str)
    """Emitted with the reason why a correction was refused."""
    one = "cluster"

    def __init__(self, session: Session) -> None:
        self._session = session
        self._disk = _OnDisk(None)
        self._known = Curation()
        self._building: tuple[Path, _Wanted] | None = None
        self._wanted: _Wanted | None = None
        self._again = False
        self._loads = 0
        self.tiles: TileSet | None = None
        self.tiles_problem = ""
        self.selected: frozenset[str] = frozenset()
        self.places: dict[str, Place] = {}
        self.job: RunningJob | None = None
        self.thumbnails = Thumbnails(session.start)
        session.folder_changed.connect(self._on_folder)

    # what there is -------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return self._session.bank_folder

    @property
    def bank(self) -> ImageBank | None:
        """The bank in the project folder."""
        return self._disk.bank

    @property
    def problem(self) -> str:
        """Why the bank in the folder cannot be read, as a sentence; empty if it can."""
        return self._disk.problem

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the bank as a whole."""
        return self._disk.warnings

    @property
    def clusters(self) -> tuple[ClusterFacts, ...]:
        """The facts of the bank's clusters."""
        return self._disk.clusters

    @property
    def duplicates(self) -> tuple[NearDuplicate, ...]:
        """The near-duplicates in the bank."""
        return self._disk.duplicates

    @property
    def curation(self) -> Curation:
        """The user's corrections, including the one that is being applied."""
        wanted = self._wanted
        return self._disk.curation if wanted is None or wanted.curation is None else wanted.curation

    def load(self) -> None:
        """Read the bank of the project folder, in a thread."""
        folder = self.folder
        self._loads += 1
        number = self._loads

        def then(found: _OnDisk) -> None:
            if number == self._loads:
                self._show(found)

        self._session.in_thread(lambda: _OnDisk.read(folder), then)

    def find_tiles(self) -> None:
        """Find the tiles from which a bank would be built, in a thread."""
        data = self._session.settings.data
        if data.folder is None:
            self._found_tiles(None, "")
            return

        def then(tiles: TileSet) -> None:
            if data == self._session.settings.data:
                self._found_tiles(tiles, "")

        self._session.in_thread(lambda: _tiles(data), then, lambda error: self._found_tiles(None, str(error)))

    def _found_tiles(self, tiles: TileSet | None, problem: str) -> None:
        self.tiles, self.tiles_problem = tiles, problem
        self.tiles_changed.emit()

    def _show(self, found: _OnDisk) -> None:
        before, self._disk = self._disk.bank, found
        building = self._building
        if building is None or building[0] != self.folder or building[1].curation is None:  # else new ones come
            self._known = found.curation
        if self.job is None:
            self._wanted = None  # it is on disk
        if before is None and found.bank is not None and self._session.settings.bank == BankSettings():
            self._session.change(bank=found.bank.settings)  # the project was opened again
        there = set() if found.bank is None else {t.hash for t in found.bank.tiles}
        if self.places and (before is None or found.bank is None or before.encoder != found.bank.encoder):
            self.places = {}
        if found.bank is not None and not there <= self.places.keys():
            self._place(found.bank)
        self.selected &= there
        self.changed.emit()

    def _place(self, bank: ImageBank) -> None:
        def then(places: dict[str, Place]) -> None:
            if bank is self.bank:
                self.places = places
                self.places_changed.emit()

        def work() -> dict[str, Place]:
            rows = {tile.hash: row for row, tile in enumerate(bank.tiles)}  # equal pictures have one position
            places = project(bank.features[list(rows.values())], bank.settings.seed)
            return dict(zip(rows, map(tuple, places.tolist()), strict=True))

        self._session.in_thread(work, then)

    # the selection -------------------------------------------------------------------------------------------

    def select(self, hashes: Collection[str]) -> None:
        """Select these tiles in all views."""
        chosen = frozenset(hashes)
        if chosen != self.selected:
            self.selected = chosen
            self.selection_changed.emit()

    # building ------------------------------------------------------------------------------------------------

    def would_replace(self) -> bool:
        """Return whether the bank in the folder was built with another encoder than that of the settings."""
        wanted, bank = self._session.settings.bank, self.bank
        if bank is None:
            return False
        weights = bank.encoder["weights"]
        return bank.encoder["name"] != wanted.encoder or (
            wanted.weights is not None and weights is not None and wanted.weights.resolve() != Path(weights)
        )

    def build(self, *, overwrite: bool = False) -> None:
        """Build the bank with the settings of the session, or update the one in the folder."""
        if self.job is None:
            self._run(_Wanted(self._session.settings.bank, None, overwrite))

    def remove(self, hashes: Collection[str]) -> None:
        """Remove tiles from the bank."""
        self._correct(self.curation.remove(hashes))

    def move(self, hashes: Collection[str], class_name: str) -> None:
        """Give tiles another class."""
        self._correct(self.curation.move(hashes, class_name))

    def change_k(self, class_name: str, k: int) -> None:
        """Change the number of clusters of a class; 0 chooses it automatically. The other classes keep theirs."""
        bank = self.bank
        if bank is None:
            return
        before, chosen = self._settings(bank).k, self._session.settings.bank.k
        each = {name: before[name] if isinstance(before, dict) else before for name in bank.taxonomy.names}
        each[class_name] = k or "auto"
        if self._cluster(each, each):
            self._session.history.push(
                f"number of clusters of {self._session.classes.title(class_name)}",
                lambda: self._cluster(before, chosen),
                lambda: self._cluster(each, each),
                about=self,
            )

    def _cluster(self, k: _Clusters, chosen: _Clusters) -> bool:
        """Cluster the bank into these numbers, and choose others for the next build; return whether it can be done."""
        bank = self.bank
        if bank is None:
            return False
        settings = self._settings(bank).model_copy(update={"k": k})
        try:
            check_enough_tiles(bank.taxonomy, settings, [t.class_index for t in bank.tiles])
        except PbipError as error:
            self.refused.emit(str(error))
            return False
        self._session.change(bank=self._session.settings.bank.model_copy(update={"k": chosen}))
        self._run(_Wanted(settings, self.curation))
        return True

    def _correct(self, curation: Curation) -> None:
        before = self.curation
        if curation != before and self._apply(curation):
            self._session.history.push(
                "correction of the image bank", lambda: self._apply(before), lambda: self._apply(curation), about=self
            )

    def _apply(self, curation: Curation) -> bool:
        """Apply a correction; return whether a bank can still be built with it."""
        bank = self.bank
        if bank is None:
            return False
        known = (*bank.tiles, *bank.removed)
        after = [curation.class_of(t.hash, t.class_index, bank.taxonomy) for t in known]
        try:
            check_enough_tiles(bank.taxonomy, self._settings(bank), after)
        except PbipError as error:
            self.refused.emit(str(error))
            return False
        self._run(_Wanted(self._settings(bank), curation))
        return True

    def _settings(self, bank: ImageBank) -> BankSettings:
        """Return the settings for a correction: those of the bank, not those being chosen for the next build."""
        return bank.settings if self._wanted is None else self._wanted.settings

    def _run(self, wanted: _Wanted) -> None:
        """Start a build; a correction made while one runs is applied when it has ended."""
        self._wanted = wanted
        if self.job is not None:
            self._again = True
            return
        settings, folder, known = self._session.settings, self.folder, self._known

        def make() -> Job:
            from napari_pbip.engine.banks.build_bank import build_bank  # torch takes seconds to load: not in the window

            if wanted.curation is not None and Curation.read(folder) != known:
                raise BankError(
                    "The image bank was corrected in another window meanwhile; it is shown as it is now, so make your "
                    "correction once more."
                )
            return build_bank(
                _tiles(settings.data),
                folder,
                wanted.settings,
                settings.data,
                device=settings.train.device,
                update=not wanted.overwrite,
                overwrite=wanted.overwrite,
                curation=wanted.curation,
                # a correction encodes nothing; starting processes, or reaching others, would take longer than it does
                scheduler=settings.scheduler if wanted.curation is None else None,
            )

        self._building = folder, wanted
        self.job = self._session.start(make)
        self.job.ended.connect(lambda state: self._built(state, folder, wanted))
        self.building.emit(self.job)

    def _built(self, state: State, folder: Path, wanted: _Wanted) -> None:
        again, self._again, self.job, self._building = self._again, False, None, None
        if folder != self.folder:  # it belongs to the previous project
            if again and self._wanted is not None:
                self._run(self._wanted)
            return
        if state is State.FINISHED:
            self._known = self._known if wanted.curation is None else wanted.curation
            self._session.change(bank_folder=folder)
            if again and self._wanted is not None:
                self._run(self._wanted)
                return
        else:  # the state on disk counts
            self._session.history.forget(self)
            self._wanted = None
        self.load()

    def _on_folder(self) -> None:
        self._wanted, self._again = None, False
        self.places = {}
        self._show(_OnDisk(None))
        self.load()


def _tiles(data: DataSettings) -> TileSet:
    if data.folder is None:
        raise DataError(NO_TILES)
    tiles = load_single_tiles(data.folder, data)
    tiles.require_two_classes()
    return tiles
