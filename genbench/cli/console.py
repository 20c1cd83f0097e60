"""Where `fit` and `validate` print what they have to say."""

from rich.console import Console

console = Console(stderr=True, highlight=False, soft_wrap=True)
