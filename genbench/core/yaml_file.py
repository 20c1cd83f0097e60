"""Reads YAML. All YAML files of genbench are read here.

Values are read as in YAML 1.1, with four exceptions for which PyYAML's values are surprising: `1e-3` is a number, and
`1:30`, `010` and `2026-01-31` are text. A numeric setting still converts text to a number, so `width: 010` is 10.
"""

from __future__ import annotations

import os
import re
from typing import Any

import yaml

from genbench.core import renamed
from genbench.core.errors import UserError

MOST_BYTES = 32 * 2**20  # size of a file; the file of a suite of 1,000 runs has less than 1 MB
MOST_VALUES = 1_000_000  # values in a file; an alias counts each time it is used
MOST_DIGITS = 300  # digits of a whole number: float64 cannot represent larger numbers
DEEPEST = 50  # levels of nested mappings and lists

PLAIN = {f"tag:yaml.org,2002:{tag}" for tag in ("bool", "null", "int", "float", "str", "seq", "map", "merge")}

_Parent = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, if installed, is 10 times as fast


class _Loader(_Parent):
    """A loader with its own rules for the types of unquoted text."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _tag, _pattern, _first in (
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", "<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read(path: str | os.PathLike, what: str = "file of settings") -> dict[str, Any]:
    """The mapping in a file; for an empty file an empty mapping. `what` describes the file in errors.

    Old names of settings are replaced with the current names, see `core.renamed`.

    Raises:
        UserError: the file cannot be read, is not UTF-8, is not YAML, has a key twice, or is not a mapping. The message
        has the file and, if known, the line.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > MOST_BYTES:
        raise UserError(f"{path} is larger than {MOST_BYTES // 2**20} MB, too large for a file of settings.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path} is not YAML: line {line} is not text in UTF-8. Save the file as UTF-8.") from error
    found = parse(text, str(path))
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a {what}: it contains {_kind(found)}; expected settings, `name: value`.")
    return renamed.settings(found)


def parse(text: str, source: str) -> Any:
    """The value of a YAML text. `source` is the text's name in errors.

    Raises:
        UserError: the text is not YAML, has a key twice, is nested too deeply, or is too large with its aliases.
    """
    depth = 0
    try:
        # check the depth on parser events, because loading a document is recursive and could exhaust the stack
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > DEEPEST:
                    raise UserError(f"{_at(source, event)}: settings are nested more than {DEEPEST} levels deep.")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node, loader, source, {}, set())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(filter(None, [error.context, error.problem]))
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise UserError(f"{source} is not YAML: {problem}{where}.") from error
    except (yaml.YAMLError, ValueError, KeyError) as error:  # for example a control character, `!!int x`, `!!bool x`
        raise UserError(f"{source} is not YAML: {' '.join(str(error).split())}.") from error


def _check(node: yaml.Node, loader: Any, source: str, sizes: dict[int, int], above: set[int]) -> int:
    """The number of values in a node; an alias counts each time. Raises UserError for a duplicate key."""
    if node.tag not in PLAIN:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise UserError(f"{_at(source, node)}: the YAML tag `{tag}` is not supported. Use a plain value.")
    if isinstance(node, yaml.ScalarNode):
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MOST_DIGITS:
            raise UserError(
                f"{_at(source, node)}: a whole number of {len(node.value)} digits is too large for any setting."
            )
        return 1
    if id(node) in sizes:
        return sizes[id(node)]
    if id(node) in above:
        raise UserError(f"{_at(source, node)}: an alias (`*name`) is used inside the value that it refers to.")
    above.add(id(node))
    size = 1
    if isinstance(node, yaml.MappingNode):
        lines: dict[Any, int] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{_at(source, key_node)}: the name of a setting must be a word or a number.")
            merges = key_node.tag == "tag:yaml.org,2002:merge"
            key = "<<" if merges else loader.construct_object(key_node)
            if key in lines:
                raise UserError(
                    f"{_at(source, key_node)}: '{key_node.value}' is set twice, first in line {lines[key]}. Keep one "
                    "of the two."
                )
            lines[key] = key_node.start_mark.line + 1
            size += 1 + _check(value, loader, source, sizes, above)
    else:
        size += sum(_check(value, loader, source, sizes, above) for value in node.value)
    if size > MOST_VALUES:
        raise UserError(f"{_at(source, node)}: its aliases expand to more than {MOST_VALUES:,} values.")
    above.discard(id(node))
    sizes[id(node)] = size
    return size


def _at(source: str, node: yaml.Node | yaml.Event) -> str:
    return f"{source}, line {node.start_mark.line + 1}"


def _kind(value: Any) -> str:
    return {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}.get(
        type(value), f"a {type(value).__name__}"
    )
