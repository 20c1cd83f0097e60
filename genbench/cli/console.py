"""The console to which `fit` and `validate` print messages (standard error)."""

from rich.console import Console

console = Console(stderr=True, highlight=False, soft_wrap=True)
