"""argparse for all verbs but `fit` and `validate`: a mistake is one sentence, which proposes the nearest name."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import NoReturn

from genbench.core.errors import did_you_mean


class Arguments(argparse.ArgumentParser):
    """An ArgumentParser that prints one sentence in place of all its flags, and exits with 2."""

    def flags(self) -> Iterator[str]:
        """All flags, those of sub-commands too."""
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser.flags()

    def error(self, message: str) -> NoReturn:
        near = ""
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            near = did_you_mean(found[1].partition("=")[0], self.flags())
        elif found := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            near = did_you_mean(found[1], re.findall(r"[\w.-]+", found[2]))
        self.exit(2, f"error: {message}.{near} `{self.prog} --help` lists them all.\n")
