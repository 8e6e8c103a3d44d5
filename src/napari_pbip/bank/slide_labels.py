"""Labels of tiles on slides while the user edits them; every change is a step that can be undone exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from types import MappingProxyType
from typing import Self

from psygnal import Signal
from pydantic import ValidationError

from napari_pbip.bank.labelled_slides import LabelledSlides, Labels, Origin, check_class_name
from napari_pbip.errors import DataError
from napari_pbip.slides import Position, SlideFacts, TileSize
from napari_pbip.taxonomy import MAX_CLASSES, Taxonomy, TissueClass

NONE: Labels = frozenset()
_FIRST_CLASSES = ("tumour", "stroma")


@dataclass(frozen=True, slots=True)
class _Step:
    """A change: the state before and after it of everything that it affects."""

    taxonomies: tuple[Taxonomy, Taxonomy]
    sizes: tuple[TileSize, TileSize]
    tiles: Mapping[tuple[str, Position], tuple[Labels, Labels]] = field(default_factory=dict)
    """Labels by the identity of the slide and the position of the tile."""
    origins: Mapping[tuple[str, Position], tuple[Origin, Origin]] = field(default_factory=dict)
    """Origins of the same tiles."""
    slides: tuple[SlideFacts, SlideFacts] | None = None

    @property
    def empty(self) -> bool:
        pairs = (self.taxonomies, self.sizes, self.slides or (None, None))
        return not self.tiles and all(before == after for before, after in pairs)

    @property
    def reversed(self) -> _Step:
        return _Step(
            self.taxonomies[::-1],
            self.sizes[::-1],
            {key: change[::-1] for key, change in self.tiles.items()},
            {key: change[::-1] for key, change in self.origins.items()},
            None if self.slides is None else self.slides[::-1],
        )


class SlideLabels:
    """The classes, tile size and labelled tiles of any number of slides.

    Attributes
    ----------
    taxonomy
        The classes; labels of a tile are their indices.
    size
        Size of all tiles.
    """

    changed = Signal()
    """Emitted when labels, classes or the tile size have changed."""
    stepped = Signal()
    """Emitted when a step was made that can be undone."""

    def __init__(self) -> None:
        self.taxonomy = Taxonomy.from_names(_FIRST_CLASSES)
        self.size = TileSize()
        self._slides: dict[str, SlideFacts] = {}
        self._tiles: dict[str, dict[Position, Labels]] = {}
        self._origins: dict[str, dict[Position, Origin]] = {}  # of tiles that were not drawn
        self._counts: list[int] = [0] * MAX_CLASSES
        self._done: list[_Step] = []
        self._undone: list[_Step] = []

    @classmethod
    def from_labelled(cls, labelled: LabelledSlides) -> Self:
        """Make editable labels of a snapshot, without steps to undo."""
        labels = cls()
        labels.taxonomy, labels.size = labelled.taxonomy, labelled.size
        for slide, tiles, origins in zip(labelled.slides, labelled.tiles, labelled.origins or repeat({}), strict=False):
            labels.add_slide(slide)
            for position, given in tiles.items():
                labels._set(slide.identity, position, given, origins.get(position, Origin.DRAWN))
        return labels

    def snapshot(self) -> LabelledSlides:
        """Return an immutable copy of the present state."""
        labelled = [slide for slide in self._slides.values() if self._tiles[slide.identity]]
        tiles = tuple(dict(self._tiles[slide.identity]) for slide in labelled)
        origins = tuple(dict(self._origins[slide.identity]) for slide in labelled)
        return LabelledSlides(self.taxonomy, self.size, tuple(labelled), tiles, origins)

    def __len__(self) -> int:
        """Number of labelled tiles of all slides."""
        return sum(map(len, self._tiles.values()))

    @property
    def slides(self) -> int:
        """Number of slides with labelled tiles."""
        return sum(map(bool, self._tiles.values()))

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of tiles of each class, over all slides."""
        return tuple(self._counts[: len(self.taxonomy)])

    def tiles(self, identity: str) -> Mapping[Position, Labels]:
        """Return a read-only view of the labelled tiles of a slide; it is empty if the slide is unknown."""
        return MappingProxyType(self._tiles.get(identity, {}))

    def origins(self, identity: str) -> Mapping[Position, Origin]:
        """Return a read-only view of the origins of those labelled tiles of a slide that were not drawn."""
        return MappingProxyType(self._origins.get(identity, {}))

    # slides ----------------------------------------------------------------------------------------------------

    def add_slide(self, slide: SlideFacts) -> None:
        """Add a slide, or record the present path of a known one. This cannot be undone.

        Raises
        ------
        DataError
            If tiles of the slide were labelled at other microns per pixel, so that their position would change.
        """
        known = self._slides.get(slide.identity)
        if known is not None and known.mpp != slide.mpp and self._tiles[slide.identity]:
            raise DataError(
                f"{slide.name} was labelled at {known.mpp:g} microns per pixel and has {slide.mpp:g} now, so its "
                f"tiles would be elsewhere; change it back in Slides, or remove this slide's labels."
            )
        self._slides[slide.identity] = slide
        self._tiles.setdefault(slide.identity, {})
        self._origins.setdefault(slide.identity, {})

    def restart_slide(self, slide: SlideFacts) -> int:
        """Remove the labels of a slide and use its present facts; return the number of tiles that lost their labels."""
        before = self._slides[slide.identity]
        changes = self._changes(slide.identity, self.tiles(slide.identity), lambda _: NONE)
        self._do(tiles=changes, slides=(before, slide))
        return len(changes)

    # labels ----------------------------------------------------------------------------------------------------

    def label(self, identity: str, positions: Iterable[Position], labels: Iterable[int], *, add: bool = False) -> int:
        """Set the labels of tiles of a slide; return the number of tiles that changed.

        Parameters
        ----------
        identity
            Identity of the slide; see :meth:`add_slide`.
        positions
            Positions of the tiles.
        labels
            Class indices; if there are none, the labels are removed.
        add
            Whether the tiles keep the labels that they have.
        """
        given = frozenset(labels)
        if not given <= frozenset(range(len(self.taxonomy))):
            raise IndexError(f"no such class: {sorted(given)} of {len(self.taxonomy)}")
        changes = self._changes(identity, positions, (lambda old: old | given) if add else lambda _: given)
        self._do(tiles=changes, origin=Origin.DRAWN)
        return len(changes)

    def annotate(
        self,
        identity: str,
        tiles: Mapping[str, Iterable[Position]],
        colours: Mapping[str, str] | None = None,
        origin: Origin = Origin.IMPORTED,
        *,
        add: bool = True,
    ) -> int:
        """Label tiles of a slide by class name; return the number of tiles that changed.

        Classes that do not exist are added, in the same step. They replace the first classes if no tile has a label and
        nobody has named others.

        Parameters
        ----------
        identity
            Identity of the slide; see :meth:`add_slide`.
        tiles
            Positions of tiles by class name.
        colours
            Colours ``#RRGGBB`` of new classes; others get the next one.
        origin
            Where these labels come from.
        add
            Whether the tiles keep the labels that they have.

        Raises
        ------
        DataError
            If a name cannot be used, or there are too many classes.
        """
        fresh = not len(self) and self.taxonomy.names == _FIRST_CLASSES
        classes = [] if fresh else [*self.taxonomy.classes]
        for name in sorted(set(tiles) - {c.name for c in classes}):
            colour = (colours or {}).get(name) or _free_colour(classes)
            classes.append(TissueClass(name=check_class_name(name), colour=colour))
        taxonomy = _checked(tuple(classes))
        given: dict[Position, Labels] = {}
        for name, positions in tiles.items():
            for position in positions:
                given[position] = given.get(position, NONE) | {taxonomy.index(name)}
        known = self.tiles(identity)
        pairs = ((position, known.get(position, NONE), labels) for position, labels in given.items())
        after = ((position, old, old | new if add else new) for position, old, new in pairs)
        changes = {(identity, position): (old, new) for position, old, new in after if new != old}
        self._do(taxonomy=taxonomy, tiles=changes, origin=origin)
        return len(changes)

    def clear(self) -> int:
        """Remove the labels of all tiles of all slides; return the number of tiles that had one."""
        changes = {
            key: change
            for identity in self._tiles
            for key, change in self._changes(identity, self.tiles(identity), lambda _: NONE).items()
        }
        self._do(tiles=changes)
        return len(changes)

    def resize(self, size: TileSize) -> None:
        """Change the size of tiles.

        Raises
        ------
        DataError
            If tiles are labelled, because their labels would then apply to other tissue.
        """
        if size != self.size and len(self):
            raise DataError(
                f"{len(self):,} tiles are labelled at {self.size}; remove all labels first to choose another size."
            )
        self._do(size=size)

    # classes ---------------------------------------------------------------------------------------------------

    def add_class(self, name: str | None = None) -> int:
        """Add a class with the next colour; return its index.

        Raises
        ------
        DataError
            If the name cannot be used, or there are too many classes.
        """
        if name is None:
            taken = set(self.taxonomy.names)
            name = next(n for i in range(len(taken) + 1) if (n := f"class {len(taken) + 1 + i}") not in taken)
        position = len(self.taxonomy)
        name = check_class_name(name)
        new = TissueClass(name=name, colour=_free_colour(self.taxonomy.classes))
        self._do(taxonomy=_checked((*self.taxonomy.classes, new)))
        return position

    def rename_class(self, index: int, name: str) -> None:
        """Rename a class; its tiles keep it.

        Raises
        ------
        DataError
            If the name cannot be used.
        """
        self._replace_class(index, TissueClass(name=check_class_name(name), colour=self.taxonomy.classes[index].colour))

    def recolour_class(self, index: int, colour: str) -> None:
        """Give a class another colour, ``#RRGGBB``."""
        self._replace_class(index, TissueClass(name=self.taxonomy.classes[index].name, colour=colour.upper()))

    def remove_class(self, index: int) -> int:
        """Remove a class; return the number of tiles that lost it. Tiles without another class become unlabelled.

        Raises
        ------
        DataError
            If it is the last class.
        """
        lost = self.counts[index]
        kept = tuple(c for n, c in enumerate(self.taxonomy.classes) if n != index)
        if not kept:
            raise DataError("One class has to stay; rename it instead.")

        def without(old: Labels) -> Labels:
            return frozenset(n - (n > index) for n in old if n != index)

        changes = {
            key: change
            for identity in self._tiles
            for key, change in self._changes(identity, self.tiles(identity), without).items()
        }
        self._do(taxonomy=_checked(kept), tiles=changes)
        return lost

    def _replace_class(self, index: int, new: TissueClass) -> None:
        classes = [*self.taxonomy.classes]
        classes[index] = new
        self._do(taxonomy=_checked(tuple(classes)))

    # steps -----------------------------------------------------------------------------------------------------

    @property
    def can_undo(self) -> bool:
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        return bool(self._undone)

    def undo(self) -> bool:
        """Undo the last step; return False if there is none."""
        if not self._done:
            return False
        step = self._done.pop()
        self._undone.append(step)
        self._apply(step.reversed)
        return True

    def redo(self) -> bool:
        """Redo the last step that was undone; return False if there is none."""
        if not self._undone:
            return False
        step = self._undone.pop()
        self._done.append(step)
        self._apply(step)
        return True

    def _changes(
        self, identity: str, positions: Iterable[Position], new: Callable[[Labels], Labels]
    ) -> dict[tuple[str, Position], tuple[Labels, Labels]]:
        """Return the changes that a rule makes to these tiles."""
        tiles = self._tiles[identity]
        pairs = ((position, tiles.get(position, NONE)) for position in positions)
        return {(identity, p): (old, after) for p, old in pairs if (after := new(old)) != old}

    def _do(
        self,
        *,
        taxonomy: Taxonomy | None = None,
        size: TileSize | None = None,
        tiles: Mapping[tuple[str, Position], tuple[Labels, Labels]] | None = None,
        slides: tuple[SlideFacts, SlideFacts] | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Make a step; tiles whose labels change keep their origin if none is given."""
        tiles = tiles or {}
        before = {key: self._origins[key[0]].get(key[1], Origin.DRAWN) for key in tiles}
        origins = {key: (old, origin or old) for key, old in before.items()}
        step = _Step((self.taxonomy, taxonomy or self.taxonomy), (self.size, size or self.size), tiles, origins, slides)
        if not step.empty:
            self._done.append(step)
            self._undone.clear()
            self._apply(step)
            self.stepped.emit()

    def _apply(self, step: _Step) -> None:
        self.taxonomy, self.size = step.taxonomies[1], step.sizes[1]
        if step.slides is not None:
            self._slides[step.slides[1].identity] = step.slides[1]
        for key, (_, after) in step.tiles.items():
            self._set(*key, after, step.origins[key][1])
        self.changed.emit()

    def _set(self, identity: str, position: Position, labels: Labels, origin: Origin) -> None:
        tiles, origins = self._tiles[identity], self._origins[identity]
        origins.pop(position, None)
        if labels and origin is not Origin.DRAWN:
            origins[position] = origin
        for n in tiles.pop(position, NONE):
            self._counts[n] -= 1
        if labels:
            tiles[position] = labels
            for n in labels:
                self._counts[n] += 1


def _free_colour(classes: Sequence[TissueClass]) -> str:
    """Return the first colour of the palette that no class has."""
    colours = {c.colour for c in classes}
    palette = Taxonomy.from_names([str(i) for i in range(min(len(classes) + 1, MAX_CLASSES))])
    return next((c.colour for c in palette if c.colour not in colours), palette.classes[-1].colour)


def _checked(classes: tuple[TissueClass, ...]) -> Taxonomy:
    try:
        return Taxonomy(classes=classes)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise DataError(f"{reason[0].upper()}{reason[1:]}.") from error
