"""Tables of tiles: CSV files of spreadsheets, R and pandas."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from napari_pbip.bank.layouts.splits import split_of
from napari_pbip.bank.tiles import Origin
from napari_pbip.errors import DataError
from napari_pbip.pictures import is_picture
from napari_pbip.taxonomy import class_name

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
"""Suffixes of the tables that are read."""
OTHER_TABLES = frozenset({".xlsx", ".xls", ".ods", ".parquet"})
CSV_COLUMNS = frozenset({"path", "mask", "split", "slide", "x", "y"})
"""Columns of a table of tiles that are not classes."""
_CLASS_WORDS = frozenset({"label", "labels", "class", "classes", "category", "tissue", "target"})
_SEPARATORS = ",;\t"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
"""Byte order marks and their encodings."""


class Table:
    """The header and rows of a table whose separator is a comma, semicolon or tab.

    Attributes
    ----------
    path
        The file.
    columns
        Names of the columns.
    rows
        Values of each row, one per column, as stripped text.
    lines
        Line of the file in which each row ends.

    Raises
    ------
    DataError
        If the file cannot be read, its encoding is unknown, or the header or a row is invalid.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        text = _text(path)
        separator = None
        if found := _SEPARATOR_LINE.match(text):  # Excel's line sep=;
            separator, text = found[1], text[found.end() :]
        header = re.sub(r'"[^"]*"', "", text.partition("\n")[0])
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=separator or max(_SEPARATORS, key=header.count), strict=True
        )
        first = 1 if found else 0
        self.columns: list[str] = []
        self.rows: list[dict[str, str]] = []
        self.lines: list[int] = []
        try:
            for values in reader:
                if not any(value.strip() for value in values):
                    continue
                if not self.columns:
                    self.columns = _columns(values, path)
                    continue
                if len(values) != len(self.columns):
                    raise csv.Error
                self.rows.append({name: v.strip() for name, v in zip(self.columns, values, strict=True) if name})
                self.lines.append(reader.line_num + first)
        except csv.Error as error:
            line = reader.line_num + first
            raise DataError(f"Row {line} of {path} does not match its header; correct it.") from error

    @property
    def class_columns(self) -> tuple[str, ...]:
        """The columns that are classes."""
        return tuple(c for c in self.columns if c and c not in CSV_COLUMNS)

    def split(self, row: int) -> str | None:
        """Return the split of a row, or None if its name is unknown."""
        named = self.rows[row].get("split")
        return split_of(named) if named else "train"

    def file(self, row: int, column: str) -> Path | None:
        """Return the file in a column of a row, whose path is relative to the table; None if the value is empty.

        Raises
        ------
        DataError
            If the file does not exist.
        """
        if not (name := self.rows[row].get(column)):
            return None
        for spelt in (name, name.replace("\\", "/")):  # a table may have been made on Windows
            if (path := self.path.parent / spelt).is_file():
                return path
        raise DataError(
            f"Row {self.lines[row]} of {self.path} names the file {self.path.parent / name}, which does not exist."
        )

    def labels(self, row: int, names: Sequence[str]) -> frozenset[int]:
        """Return the indices of the classes that are 1 in a row.

        Raises
        ------
        DataError
            If a class column contains anything but 0 and 1.
        """
        for name in names:
            if (value := self.rows[row][name]) not in ("0", "1"):
                raise DataError(
                    f"Row {self.lines[row]} of {self.path} holds {value!r} in the column {name}; it must be 0 or 1. "
                    "If the table does not give the classes, leave it out with `data.layout=folders`, and if "
                    f"{name} is no class, name the classes with `data.classes`."
                )
        return frozenset(n for n, name in enumerate(names) if self.rows[row][name] == "1")

    def origin(self, row: int, path: Path) -> Origin | None:
        """Return where a tile was cut from, by its row or else its file name; None if neither says so.

        Raises
        ------
        DataError
            If a row names a slide but no position on it.
        """
        slide, x, y = (self.rows[row].get(c, "") for c in ("slide", "x", "y"))
        if not slide:
            return Origin.from_name(path.name)
        try:
            return Origin(slide, int(x), int(y))
        except ValueError:
            raise DataError(
                f"Row {self.lines[row]} of {self.path} names a slide but x and y are no whole numbers."
            ) from None

    def lists_labels(self) -> bool:
        """Return whether the table lists labelled tiles, unlike other tables such as a manifest of files.

        Raises
        ------
        DataError
            If it lists labels in a form that is not supported.
        """
        marked = [c for c in self.class_columns if {row[c] for row in self.rows} <= {"0", "1"}] if self.rows else []
        worded = [c for c in self.class_columns if c.casefold() in _CLASS_WORDS]
        if not marked and not worded:
            return False
        if "path" not in self.columns:
            files = next((c for c in self.columns if c and self.rows and self._is_picture(self.rows[0][c])), None)
            if files is None:
                return False
            raise DataError(
                f"{self.path} seems to list tiles, but in a column {files!r}; call that column path, or leave the "
                "table out with `data.layout=folders`."
            )
        if not marked:
            raise DataError(
                f"{self.path} names classes in the column {worded[0]!r}; give it a 0/1 column for each class instead, "
                "or leave the table out with `data.layout=folders`."
            )
        return True

    def _is_picture(self, name: str) -> bool:
        path = self.path.parent / name.replace("\\", "/")
        return is_picture(path) and path.is_file()


def _columns(values: Sequence[str], path: Path) -> list[str]:
    """Return the names of the columns; those that are not classes in lower case, that of row numbers empty.

    Raises
    ------
    DataError
        If two columns have the same name.
    """
    names = [class_name(value) for value in values]
    lower = [name.casefold() for name in names]
    place = "slide" in lower  # else X may be a class
    columns = [
        small if small in CSV_COLUMNS and (place or small not in "xy") else name
        for small, name in zip(lower, names, strict=True)
    ]
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise DataError(f"{path} has two columns {twice[0]!r}; rename or remove one.")
    return columns


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
        text = data.decode(encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read; save it as CSV in UTF-8.") from error
    if "\0" in text:  # UTF-16 without a byte order mark, or a binary file
        raise DataError(f"{path} cannot be read; save it as CSV in UTF-8.")
    return text
