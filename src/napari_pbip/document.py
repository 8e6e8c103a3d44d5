"""A document of sections, tables and pictures as one HTML file that needs no other file, no script and no network.

Whoever writes a document says what is in it; how it looks, on screens and on paper, is in ``document.html.jinja``
alone. Texts are plain, and are escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import ClassVar, Literal, Self

import jinja2
import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_pbip.files import writing


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    tone: Literal["plain", "note", "warning", "copy"] = "plain"
    """``note`` is smaller, ``warning`` stands out, and ``copy`` is meant to be copied."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and their values, below each other."""

    kind: ClassVar[str] = "facts"
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Cell:
    """A field of a table with more than a text."""

    text: str
    colour: str = ""
    """Colour of a swatch before the text, ``#RRGGBB``."""
    shade: float | None = None
    """How dark the background is, 0 to 1."""
    mark: Literal["", "best", "second"] = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table; narrow ones stand side by side."""

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    names: int = 1
    """Number of columns with names, which come first and are aligned to the left."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with a caption."""

    caption: str
    data: bytes
    """The file, PNG or JPEG."""

    @classmethod
    def of(cls, pixels: npt.NDArray[np.uint8], caption: str, form: Literal["PNG", "JPEG"] = "JPEG") -> Self:
        """Make a picture of pixels, RGB (H, W, 3)."""
        file = BytesIO()
        Image.fromarray(pixels).save(file, form, quality=88)
        return cls(caption, file.getvalue())

    @property
    def address(self) -> str:
        """The picture as ``data:`` URI."""
        form = "png" if self.data.startswith(b"\x89PNG") else "jpeg"
        return f"data:image/{form};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures side by side."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]
    size: Literal["large", "wide", "medium", "small"] = "medium"
    """``large`` ones share the width of the page; the others are about 20, 12 and 6 letters wide."""


@dataclass(frozen=True, slots=True)
class Legend:
    """Names and their colours, ``#RRGGBB``, in a line."""

    kind: ClassVar[str] = "legend"
    colours: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a document with a heading."""

    kind: ClassVar[str] = "section"
    title: str
    parts: Sequence[Part]
    new_page: bool = False
    """Whether it begins a new page when the document is printed."""


Part = Text | Facts | Table | Pictures | Legend | Section


@dataclass(frozen=True, slots=True)
class Document:
    """A whole document."""

    title: str
    parts: Sequence[Part]
    footer: str = ""

    def write(self, path: Path) -> None:
        """Write the document as HTML; the file is replaced only when complete.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("napari_pbip", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        page = environment.get_template("document.html.jinja").render(document=self)
        with writing(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
