"""Sphinx extension that converts docstrings to reStructuredText and documents all modules of a package.

Docstrings of genbench contain code in single backticks, sections in Google style, and tables. A table has one row per
name, with two or more spaces between the name and its meaning. Napoleon converts the sections, and this extension
converts the rest.
"""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import inspect

SECTIONS = ("Args:", "Raises:", "Returns:", "Yields:")
BOUNDED = re.compile(r"[~\w.]*Annotated\[([~\w.]+), [~\w.]*Bounds\([^()]*(?:\([^()]*\))?[^()]*\)\]")
ENTRY = re.compile(r"( *)(\S[^`]*?) {2,}(\S.*)")  # "name   its meaning"


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", process, priority=400)  # runs before Napoleon, which has priority 500
    app.connect("autodoc-process-signature", readable_signature)
    app.add_directive("package", Package)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Package(Directive):
    """`.. package:: NAME` documents each module of a package, in alphabetical order."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        package = self.arguments[0]
        found: list[nodes.Node] = []
        for module in sorted(m.name for m in pkgutil.iter_modules(import_module(package).__path__)):
            section = nodes.section(ids=[nodes.make_id(module)], names=[module])
            section += nodes.title(text=module.replace("_", " ").capitalize())
            text = [f".. automodule:: {package}.{module}", "   :members:", ""]
            self.state.nested_parse(StringList(text, source=package), 0, section)
            found.append(section)
        return found


def readable_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Remove the bounds of numbers from a signature. For a class, show `__init__`, not the metaclass's `__call__`."""
    if what == "class" and "__call__" in {key for cls in type(obj).__mro__[:-2] for key in vars(cls)}:
        if "__init__" not in vars(obj):
            return "", returns  # it has the same arguments as its base class
        own = inspect.signature(obj.__init__, bound_method=True)
        signature = inspect.stringify_signature(own, unqualified_typehints=True, show_return_annotation=False)
    return BOUNDED.sub(r"\1", signature) if signature else signature, returns


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Convert the lines of a docstring to reStructuredText, in place."""
    out: list[str] = []
    blocks = _blocks(lines)
    for k, block in enumerate(blocks):
        after = blocks[k + 1] if k + 1 < len(blocks) else [""]
        before = blocks[k - 1] if k else [""]
        if _indent(block[0]) and before[-1].endswith(":") and not ENTRY.fullmatch(block[0]):
            out += block  # an indented example stays unchanged, because the paragraph before it ends with `::`
        elif block[0].strip() in SECTIONS:
            out += [_escaped(line) for line in block]
        elif _is_table(block):
            out += _definitions(block)
        elif len(block) > 1 and block[0].endswith(":") and _is_table(block[1:]):
            out += [_escaped(block[0]), "", *_definitions(block[1:])]
        else:
            out += [_escaped(line) for line in block]
            if block[-1].endswith(":") and _indent(after[0]) and not ENTRY.fullmatch(after[0]):
                out[-1] += ":"
        out.append("")
    lines[:] = out


def _blocks(lines: list[str]) -> list[list[str]]:
    """Split lines into blocks at empty lines. An indented example that contains empty lines is one block."""
    blocks: list[list[str]] = []
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block:
            if blocks and _indent(block[0]) and _indent(blocks[-1][0]):
                blocks[-1] += ["", *block]
            else:
                blocks.append(block)
            block = []
    return blocks


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_table(block: list[str]) -> bool:
    """Whether every line is an entry of a table or the indented continuation of an entry."""
    left = _indent(block[0])
    starts = [k for k, line in enumerate(block) if _indent(line) == left]
    entries = [bool(ENTRY.fullmatch(block[k])) or (k + 1 < len(block) and _indent(block[k + 1]) > left) for k in starts]
    return (
        all(_indent(line) >= left for line in block) and all(entries) and bool(ENTRY.match(block[0]) or len(starts) > 1)
    )


def _definitions(block: list[str]) -> list[str]:
    out: list[str] = []
    left = _indent(block[0])
    for line in block:
        entry = ENTRY.fullmatch(line)
        if _indent(line) > left:
            out.append(f"    {_escaped(line.strip())}")
        elif entry:
            out += [f"``{entry[2]}``", f"    {_escaped(entry[3])}"]
        else:
            out.append(f"``{line.strip()}``")
    return out


def _escaped(line: str) -> str:
    """Convert `code` to ``code`` and escape characters that reStructuredText would read as markup."""
    parts = line.split("`")
    if len(parts) % 2 == 0:  # an unmatched backtick: the code continues in the next line
        return re.sub(r"([*|`\\])", r"\\\1", line)
    for k, part in enumerate(parts):
        if k % 2:
            follows = parts[k + 1][:1]
            parts[k] = f"``{part}``" + ("\\ " if follows.isalnum() else "")
        else:
            part = re.sub(r"([*|\\])", r"\\\1", part)
            parts[k] = re.sub(r"(\w)_(?!\w)", r"\1\\_", part)
    return "".join(parts)
