"""Contact sheets: what each prototype is made of, to be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from napari_pbip.bank.bank_folder import thumbnail_path
from napari_pbip.bank.image_bank import ClusterFacts, ImageBank
from napari_pbip.errors import BankError
from napari_pbip.files import write_picture

_SIDE, _GAP, _LABEL, _HEADER, _CAPTION = 112, 6, 190, 40, 24
_COLUMNS = 12
"""Tiles shown of a cluster, at most."""
_INK, _GREY, _ALARM, _PAPER = "#1a1a1a", "#5a5a5a", "#b00020", "#ffffff"


def write_sheets(bank: ImageBank, folder: Path, out: Path) -> tuple[Path, ...]:
    """Write a picture for each class: a row a cluster, nearest to its centre first.

    Parameters
    ----------
    bank
        The bank.
    folder
        Where it lies; the small pictures are read from there.
    out
        Folder for the pictures, ``<number>_<class>.png``.

    Returns
    -------
    tuple of Path
        The pictures, in class order.

    Raises
    ------
    BankError
        If a small picture is missing or damaged.
    OutputError
        If a picture cannot be written.
    """
    paths = []
    for n, (name, sheet) in enumerate(contact_sheets(bank, folder)):
        safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
        path = out / f"{n + 1}_{safe}.png"
        write_picture(path, sheet, "PNG")
        paths.append(path)
    return tuple(paths)


def contact_sheets(bank: ImageBank, folder: Path) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture of each class; see :func:`write_sheets`."""
    facts = bank.clusters()
    for n, name in enumerate(bank.taxonomy.names):
        yield name, _sheet(bank, folder, n, [c for c in facts if c.class_name == name])


def _sheet(bank: ImageBank, folder: Path, n: int, clusters: list[ClusterFacts]) -> Image.Image:
    rows = [bank.nearest(c.subclass)[: min(_COLUMNS, bank.settings.nearest)] for c in clusters]
    width = _LABEL + max(4, *map(len, rows)) * (_SIDE + _GAP) + _GAP
    row_height = _SIDE + _CAPTION + _GAP
    sheet = Image.new("RGB", (width, _HEADER + _GAP + len(rows) * row_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(20), ImageFont.load_default(13)

    tissue = bank.taxonomy.classes[n]
    light = float(np.dot(tissue.rgb, (0.299, 0.587, 0.114))) > 140
    draw.rectangle((0, 0, width, _HEADER), fill=tissue.colour)
    tiles = sum(c.tiles for c in clusters)
    heading = (
        f"{tissue.name}: {tiles} tiles in {len(clusters)} cluster{'s' * (len(clusters) > 1)} ({bank.encoder['name']})"
    )
    draw.text((_GAP, _HEADER / 2), heading, _INK if light else _PAPER, large, anchor="lm")

    for i, (cluster, row) in enumerate(zip(clusters, rows, strict=True)):
        top = _HEADER + _GAP + i * row_height
        facts = [
            (f"Cluster {i + 1}", large, _INK),
            (f"{cluster.tiles} tiles", small, _INK),
            (f"mean similarity {cluster.similarity:.2f}", small, _GREY),
            (f"purity {cluster.purity:.0%}", small, _ALARM if cluster.warning else _GREY),
        ]
        for line, (text, font, ink) in enumerate(facts):
            draw.text((_GAP, top + (0, 26, 44, 62)[line]), text, ink, font)
        for column, tile in enumerate(row):
            picture = _thumbnail(thumbnail_path(folder, tile))
            left = _LABEL + column * (_SIDE + _GAP)
            sheet.paste(picture, (left + (_SIDE - picture.width) // 2, top + (_SIDE - picture.height) // 2))
            draw.text((left + _SIDE / 2, top + _SIDE + 4), f"{tile.similarity:.2f}", _GREY, small, anchor="ma")
        if cluster.warning:
            draw.text((_GAP, top + 82), _wrapped(cluster.warning, 28), _ALARM, ImageFont.load_default(11))
    return sheet


def _thumbnail(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except OSError as error:
        raise BankError(
            f"The small picture {path} is missing or damaged; build the bank again (`bank build --update`)."
        ) from error


def _wrapped(text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
