"""Damaging files: bits are flipped, ends cut off, parts overwritten, tags and metadata edited."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_NUMBERS = (0, 1, 2, 3, 7, 255, 256, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
_VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 0.5, 1e-300, 1e308, 2**31, 10**6, 10**9, 10**18, 10**40, float("nan"), float("inf"),
    "", "x", "..", "/", "0", "yx", "../../0", "\u0000", "A" * 5000, [], {}, [[]], [0], [1, 1, 1], {"name": "x"},
    ["c", "y", "x"],
)  # fmt: skip
_TEXT = (b"0", b"-1", b"99999999", b"nan", b"1e9", b"", b"0,5", b"\xff\xfe", b"<", b"&a;")


def mutate(path: Path, rng: np.random.Generator) -> str:
    """Damage a slide in place; return in words what was done."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        if not files:
            return "nothing"
        texts = [file for file in files if file.suffix == ".json" or file.name.startswith(".z")]
        if texts and rng.random() < 0.6:
            return _edit_json(texts[rng.integers(len(texts))], rng)
        file = files[rng.integers(len(files))]
        if rng.random() < 0.1:
            file.unlink()
            if rng.random() < 0.5:
                file.mkdir()
            return f"{file.name} removed"
        return f"{file.name}: {mutate(file, rng)}"
    content = bytearray(path.read_bytes()) or bytearray(b"x")
    ways: list[Callable[[bytearray, np.random.Generator], str]] = [_flip, _flip_in_header, _overwrite, _cut, _shift]
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        ways += [_edit_tag] * 4 + [_edit_text] * (2 if b"<OME" in content or b"Aperio" in content else 0)
    did = ways[rng.integers(len(ways))](content, rng)
    path.write_bytes(content)
    return did


def _flip(content: bytearray, rng: np.random.Generator) -> str:
    count = int(2 ** rng.uniform(0, 8))
    for place in rng.integers(len(content), size=count):
        content[place] ^= 1 << int(rng.integers(8))
    return f"{count} bits flipped"


def _flip_in_header(content: bytearray, rng: np.random.Generator) -> str:
    size = min(len(content), 512)
    start = 0 if rng.random() < 0.6 else len(content) - size
    count = int(rng.integers(1, 5))
    for place in rng.integers(size, size=count):
        content[start + place] = int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))]))
    return f"{count} bytes of its {'end' if start else 'beginning'} changed"


def _overwrite(content: bytearray, rng: np.random.Generator) -> str:
    length = int(min(len(content), 2 ** rng.uniform(1, 14)))
    start = int(rng.integers(len(content) - length + 1))
    filling = (bytes(length), b"\xff" * length, rng.bytes(length))[rng.integers(3)]
    content[start : start + length] = filling
    return f"{length} bytes overwritten from {start}"


def _cut(content: bytearray, rng: np.random.Generator) -> str:
    keep = int(rng.integers(1, len(content)) if rng.random() < 0.7 else rng.integers(1, min(len(content), 600)))
    del content[keep:]
    return f"cut to {keep} bytes"


def _shift(content: bytearray, rng: np.random.Generator) -> str:
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 64))
    if rng.random() < 0.5:
        del content[start : start + length]
        return f"{length} bytes taken out at {start}"
    content[start:start] = rng.bytes(length)
    return f"{length} bytes put in at {start}"


def _edit_text(content: bytearray, rng: np.random.Generator) -> str:
    """Replace a number or word of the description."""
    start = max(content.find(b"<?xml"), content.find(b"Aperio"))
    found = list(re.finditer(rb'(?<==)"[^"]*"|\d+(\.\d+)?', bytes(content[start : start + 4000])))
    if not found:
        return _flip(content, rng)
    one = found[rng.integers(len(found))]
    new = _TEXT[rng.integers(len(_TEXT))]
    old = one[0]
    quoted = b'"' + new + b'"' if old.startswith(b'"') else new
    content[start + one.start() : start + one.end()] = quoted[: len(old)].ljust(len(old))  # nothing else moves
    return f"{old!r} became {quoted!r}"


def _edit_tag(content: bytearray, rng: np.random.Generator) -> str:
    """Give a tag of a page another code, type, count or value."""
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    place, offset = ("Q", 8) if big else ("I", 4)
    head, size = ("Q", 20) if big else ("H", 12)
    if len(content) < 16:
        return _flip(content, rng)
    pages, at = [], struct.unpack_from(order + place, content, offset)[0]
    while at and at not in pages and at + 8 + offset < len(content) and len(pages) < 20:
        pages.append(at)
        count = struct.unpack_from(order + head, content, at)[0]
        end = at + struct.calcsize(head) + count * size
        if end + offset > len(content):
            break
        at = struct.unpack_from(order + place, content, end)[0]
    if not pages:  # damaged before
        return _flip(content, rng)
    page = pages[rng.integers(len(pages))]
    count = struct.unpack_from(order + head, content, page)[0]
    entry = (
        page + struct.calcsize(head) + int(rng.integers(min(count, 2**62) + 1)) * size
    )  # one past the last: the next page
    value = int(_NUMBERS[rng.integers(len(_NUMBERS))] if rng.random() < 0.8 else rng.integers(2**32))
    field = int(rng.choice([0, 1, 2, 3, 3, 3, 3]))
    form, shift = [("H", 0), ("H", 2), (place, 4), (place, 4 + offset)][field]
    if entry + shift + offset > len(content):
        return _flip(content, rng)
    tag = struct.unpack_from(order + "H", content, entry)[0]
    struct.pack_into(order + form, content, entry + shift, value & (0xFFFF if form == "H" else 2**32 - 1))
    return f"tag {tag} of the page at {page}: {('code', 'type', 'count', 'value')[field]} became {value}"


def _edit_json(path: Path, rng: np.random.Generator) -> str:
    """Replace or remove a value, or damage the text."""
    if rng.random() < 0.1:
        content = bytearray(path.read_bytes()) or bytearray(b"x")
        did = (_flip, _cut, _shift)[rng.integers(3)](content, rng)
        path.write_bytes(content)
        return f"{path.name}: {did}"
    try:
        document = json.loads(path.read_text())
    except ValueError:  # damaged before
        path.write_text("{}")
        return f"{path.name} emptied"
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(document)
    if not places:
        path.write_text(json.dumps(_VALUES[rng.integers(len(_VALUES))]))
        return f"{path.name} replaced"
    node, key = places[rng.integers(len(places))]
    if rng.random() < 0.2:
        del node[key]
        did = "removed"
    else:
        node[key] = _VALUES[rng.integers(len(_VALUES))]
        did = f"became {str(node[key])[:40]!r}"
    path.write_text(json.dumps(document))
    return f"{path.parent.name}/{path.name}: {key} {did}"


def copy(source: Path, folder: Path) -> Path:
    """Return a copy of a slide, file or folder, which may be damaged."""
    target = folder / source.name
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    return target
