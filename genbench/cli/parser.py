"""The parser of `fit` without training: it turns flags into a config, and a config into a model and its data."""

from __future__ import annotations

from typing import Any

from lightning import LightningDataModule

from genbench.cli import compose
from genbench.cli.trainer import GenbenchCLI
from genbench.core.module import GenerativeModule


class Parser(GenbenchCLI):
    """A GenbenchCLI that only parses and builds."""

    def before_instantiate_classes(self) -> None: ...

    def instantiate_classes(self) -> None: ...

    def _run_subcommand(self, subcommand: str) -> None: ...

    def parse(self, command: compose.Command) -> Any:
        type(self).settings = compose.settings(command)
        return self.parser.parse_object(self._object(command))

    def build(self, config: Any) -> tuple[GenerativeModule, LightningDataModule]:
        built = self.parser.instantiate_classes(config)["fit"]
        return built.model, built.data
