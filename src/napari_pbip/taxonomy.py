"""Tissue classes: their order, names and colours.

Class ``n`` of a taxonomy has index ``n`` in image-level labels, masks, score maps and prototypes. A label image on disk
or in a layer has the value ``n + 1`` for class ``n``, :data:`NOT_ANALYSED` where the network was not applied (such as
outside the tissue), and :data:`UNASSIGNED` where no class reached its threshold.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

NOT_ANALYSED = 0
"""Value of a label image where nothing was analysed; napari draws it transparent."""
UNASSIGNED = 255
"""Value of a label image where tissue was analysed and no class reached its threshold."""
UNASSIGNED_NAME = "not assigned"
UNASSIGNED_RGB = (190, 190, 190)
MAX_CLASSES = 64

# Okabe & Ito (2008), "Color Universal Design": distinct for the common forms of colour blindness. Black
# is left out (invisible on dark tissue); yellow comes late, being faint on the white of a slide.
_OKABE_ITO = ("#D55E00", "#009E73", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")


def class_name(text: str) -> str:
    """Return a class name stripped and in Unicode form NFC.

    Names are compared in this form, because macOS writes the names of folders in another one (NFD) than most tables.
    """
    return unicodedata.normalize("NFC", text.strip())


class TissueClass(BaseModel):
    """A tissue class: a short name, as used for folders and in tables, and a colour ``#RRGGBB``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name of the class, normalised by :func:`class_name`."""
    colour: str

    _plain_name = field_validator("name")(class_name)

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour as three values in 0..255."""
        value = int(self.colour.removeprefix("#"), 16)
        return value >> 16, (value >> 8) & 255, value & 255


class Taxonomy(BaseModel):
    """The classes of a project, in order.

    Raises
    ------
    pydantic.ValidationError
        If a name is empty or occurs twice, or there are no classes or more than :data:`MAX_CLASSES`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[TissueClass, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [c.name for c in self.classes]
        if not 1 <= len(names) <= MAX_CLASSES:
            raise ValueError(f"there are {len(names)} tissue classes; 1 to {MAX_CLASSES} are possible")
        if not all(names):
            raise ValueError("a tissue class has no name; give it one")
        if twice := sorted({n for n in names if names.count(n) > 1}):
            same = " or ".join(f"“{name}”" for name in twice)
            raise ValueError(f"two tissue classes cannot both be named {same}; choose another name for one of them")
        return self

    @classmethod
    def from_names(cls, names: Sequence[str], colours: Sequence[str] | None = None) -> Self:
        """Make classes with these names, in this order, in colours that the colour-blind can distinguish.

        Parameters
        ----------
        names
            Class names in label order.
        colours
            Colours ``#RRGGBB``, one per name; by default a palette for the colour-blind, which has seven colours, and
            lighter and darker variants of them for further classes.
        """
        chosen = colours or [_palette(i) for i in range(len(names))]
        return cls(classes=tuple(TissueClass(name=n, colour=c) for n, c in zip(names, chosen, strict=True)))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def colours(self) -> npt.NDArray[np.uint8]:
        """RGB colours, shape (N, 3), uint8."""
        return np.array([c.rgb for c in self.classes], np.uint8)

    def in_colours(self, colours: Mapping[str, str]) -> Self:
        """Return the same classes in these colours ``#RRGGBB``, by name; others keep theirs."""
        if not colours.keys() & set(self.names):
            return self
        return type(self)(
            classes=tuple(TissueClass(name=one.name, colour=colours.get(one.name, one.colour)) for one in self)
        )

    def index(self, name: str) -> int:
        """Return the index of a class.

        Raises
        ------
        KeyError
            If no class has that name.
        """
        try:
            return self.names.index(class_name(name))
        except ValueError:
            raise KeyError(f"no class {name!r} among {', '.join(self.names)}") from None

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[TissueClass]:  # type: ignore[override]  # iterates classes, not fields
        return iter(self.classes)

    def to_json(self) -> list[dict[str, Any]]:
        """Return ``[{"name": ..., "colour": ...}, ...]``, which :meth:`from_json` reads."""
        return [c.model_dump() for c in self.classes]

    @classmethod
    def from_json(cls, classes: Sequence[dict[str, Any]]) -> Self:
        return cls(classes=tuple(TissueClass.model_validate(c) for c in classes))


Title = Annotated[str, AfterValidator(class_name), Field(min_length=1)]
"""What a class is called instead of its name."""
Colour = Annotated[str, Field(pattern="^#[0-9A-F]{6}$")]
"""A colour ``#RRGGBB``."""


class ClassDisplay(BaseModel):
    """The titles and colours in which classes are shown, by their names. A class without has its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    titles: Mapping[str, Title] = {}
    """Titles such as *adenocarcinoma* for the class ``lung_aca``."""
    colours: Mapping[str, Colour] = {}

    def title(self, name: str) -> str:
        """Return the title of a class, or its name if it has none."""
        return self.titles.get(name, name)

    def names(self, taxonomy: Taxonomy) -> dict[str, str]:
        """Return the names of classes by the titles that they have in :meth:`of`."""
        return dict(zip(self.of(taxonomy).names, taxonomy.names, strict=True))

    def of(self, taxonomy: Taxonomy) -> Taxonomy:
        """Return classes in their order, under their titles and in their colours, for what people look at.

        If the title of a class is the name or title of another one, as that of a class of another model may be, its own
        name follows in brackets.
        """
        titles = [self.title(name) for name in taxonomy.names]
        return Taxonomy(
            classes=tuple(
                TissueClass(
                    name=title if title == one.name or titles.count(title) == 1 else f"{title} ({one.name})",
                    colour=self.colours.get(one.name, one.colour),
                )
                for one, title in zip(taxonomy, titles, strict=True)
            )
        )


def _palette(index: int) -> str:
    """Return the colour of a class: from the palette, then mixed half with white, then half with black."""
    cycle, position = divmod(index, len(_OKABE_ITO))
    value = int(_OKABE_ITO[position].removeprefix("#"), 16)
    rgb = np.array([value >> 16, (value >> 8) & 255, value & 255])
    if cycle:
        rgb = (rgb + (255 if cycle % 2 else 0) * (cycle + 1) // 2) // (1 + (cycle + 1) // 2)
    return "#" + "".join(f"{v:02X}" for v in rgb)


BCSS = Taxonomy.from_names(("TUM", "STR", "LYM", "NEC"), ("#FF0000", "#00FF00", "#0000FF", "#9900FF"))
"""BCSS-WSSS: tumour, stroma, lymphocytes, necrosis, in the order of its file names ``[abcd]``."""
LUAD = Taxonomy.from_names(("TE", "NEC", "LYM", "TAS"), ("#CD3333", "#00FF00", "#4169E1", "#FFA500"))
"""LUAD-HistoSeg: tumour epithelium, necrosis, lymphocytes, tumour-associated stroma (another order)."""
