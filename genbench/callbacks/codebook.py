"""Monitors the usage of a codebook."""

from __future__ import annotations

from typing import Any

from lightning import Callback

from genbench.callbacks.gan_monitor import Spell
from genbench.callbacks.monitor import monitor_of
from genbench.core.arguments import Checked, Share
from genbench.core.module import GenerativeModule
from genbench.core.units import Images


class Codebook(Callback, metaclass=Checked):
    """Warns when most embeddings of a codebook are unused. It reads the logged `codebook_usage` (the fraction of
    embeddings used at least a tenth as often as under uniform usage) and `perplexity`. Does nothing for models without
    a codebook.

    Args:
        patience_images: The usage must stay low for this many images before a warning, and stay normal for as many
            before the next warning
        dead: Warn if the usage is below this fraction
    """

    def __init__(self, patience_images: Images = Images(20_000), dead: Share = 0.1) -> None:
        self.patience_images, self.dead = Images(patience_images), dead
        self._spell = Spell(self.patience_images)
        self._read_at = -1

    def on_train_batch_end(self, trainer, module: GenerativeModule, *_: Any) -> None:
        codes = getattr(module, "latent_values", None)
        if codes is None or not trainer.is_global_zero:
            return
        monitor = monitor_of(trainer, "Codebook")
        if monitor.read_at == self._read_at:
            return
        self._read_at = monitor.read_at
        terms = {name.rpartition("/")[2]: value for name, value in monitor.terms.items()}
        usage = terms.get("codebook_usage")
        if usage is None or not self._spell.lasted(usage < self.dead, module.images_seen):
            return
        remedies = [f"fewer embeddings (`--model.num_embeddings {max(2, codes // 4)}`)"]
        if getattr(module, "restart_dead_codes", 0) is None:
            remedies.insert(0, "restarting unused embeddings (`--model.restart_dead_codes 10k`)")
        monitor.say(
            f"warning: the codebook has collapsed at {module.images_seen:,} images seen: {usage:.2%} of its {codes} "
            f"embeddings are used (perplexity {terms['perplexity']:.3g}), which limits the reconstructions. "
            f"Try {' or '.join(remedies)}."
        )
