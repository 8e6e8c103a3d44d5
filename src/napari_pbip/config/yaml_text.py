"""A YAML reader in which ``no`` is a word, and a key that occurs twice is an error."""

from __future__ import annotations

import re
from typing import Any

import yaml

_WORDS = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
"""Tags that YAML 1.1 gives to words such as NO and 2024-01-31, which may be names of classes."""


class _Loader(yaml.SafeLoader):
    """A loader of plain values in which only the words true and false are truth values, as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    problem = f"the key {key.value!r} is given twice; keep one of them"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _WORDS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")


def read_yaml(text: str) -> Any:
    """Parse a YAML text to plain values.

    Raises
    ------
    ValueError
        If the text is not YAML; the message says where and why, without a full stop.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a subclass of the safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = " ".join(str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).split())
        if "escape" in reason:
            reason += ", since in double quotes a backslash is special; write the path in single quotes or in none"
        raise ValueError(f"line {mark.line + 1}: {reason}" if mark else reason) from error
