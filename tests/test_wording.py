"""Every message names arguments and settings as Python does; command line and window have a word for each of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import napari_pbip
from napari_pbip.config import JobSettings
from napari_pbip.config.labels import fields
from napari_pbip.wording import Interface

SOURCE = Path(napari_pbip.__file__).parent
SETTINGS = "|".join(re.escape(name) for name, _ in fields(JobSettings) if "." in name)
BARE_SETTING = re.compile(rf"(?<![`\w.])(?:{SETTINGS})\b")
ARGUMENT = re.compile(rf"`[a-z_.]+(?:=[^`]+|\([^`]*\))`|`(?:image_mpp|{SETTINGS})`")
OPTION = re.compile(r"--(?:out|resume|overwrite|update|data|mpp|image-mpp)\b")
MAKES_BUTTON = re.compile(r"^(?:push|toggle|folding)_button$|_button\.setText$")
PRESSED = re.compile(r"\b(?:[Pp]ress|[Uu]se|[Oo]pen|with) (?:“(?=[^”]+…”))?([A-Z][a-z]+(?: image bank| both)?)")
COMMAND_LINE = ("cli", "replay", "doctor.py", "wording.py", "settings_file.py")
"""Modules whose texts are read on the command line, or are about it."""


def texts() -> Iterator[tuple[str, str]]:
    """Return all string literals except docstrings, with the module that contains them."""
    for path in SOURCE.rglob("*.py"):
        if not set(path.relative_to(SOURCE).parts) & set(COMMAND_LINE):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                    yield path.name, node.value


def buttons() -> set[str]:
    """Return the texts of all buttons of the window, without the dots of those that open a dialog."""
    found = set()
    for path in (SOURCE / "gui").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and call.args and MAKES_BUTTON.search(ast.unparse(call.func)):
                inside = (node.value for node in ast.walk(call.args[0]) if isinstance(node, ast.Constant))
                found |= {text.removesuffix("…") for text in inside if isinstance(text, str)}
    return found


def test_every_button_that_the_window_names_exists() -> None:
    said = {Interface.WINDOW.sentence(text) for _, text in texts()}
    ways = {way for _, text in texts() for way in ARGUMENT.findall(text) if way.endswith("=True`")}
    said |= {f"use {Interface.WINDOW.sentence(way)}" for way in ways}
    said |= {Interface.WINDOW.sentence("run `napari-pbip encoders fetch uni`")}
    named = {name for sentence in said for name in PRESSED.findall(sentence)} - {"Ctrl", "Shift"}
    assert {"Resume", "Replace", "Fetch", "Browse", "Prototypes", "Update image bank", "Keep both"} <= named
    assert named <= buttons()


def test_no_message_names_an_option_of_the_command_line() -> None:
    assert [(module, text) for module, text in texts() if OPTION.search(text)] == []


def test_no_message_names_a_setting_out_of_backquotes() -> None:
    sentences = [(module, text) for module, text in texts() if " " in text.strip() and "--set" not in text]
    assert [(module, text) for module, text in sentences if BARE_SETTING.search(text)] == []


def test_the_command_line_and_the_window_have_a_word_for_each_argument() -> None:
    named = {argument for _, text in texts() for argument in ARGUMENT.findall(text)}
    assert {"`resume=True`", "`overwrite=True`", "`build_bank()`", "`mpp=0.5`", "`train.batch_size`"} <= named
    for _, text in texts():
        for interface in Interface:
            assert not ARGUMENT.search(interface.sentence(text)), text
