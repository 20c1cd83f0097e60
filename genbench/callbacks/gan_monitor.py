"""Monitors the balance of generator and discriminator, and the diversity of samples."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from lightning import Callback
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from genbench.callbacks.monitor import monitor_of
from genbench.core.arguments import Bounds, Checked, Share, Weight
from genbench.core.batch import Batch
from genbench.core.capabilities import Samples
from genbench.core.conditions import in_turn
from genbench.core.module import GenerativeModule
from genbench.core.units import Images

PLAYERS = ("discriminator", "critic")  # a model with one of these optimizers is adversarial
N = 64  # number of samples, and of real images, that diversity is computed from


class Spell:
    """Decides when to report a condition: once after it was true for `patience` images, and again only after it was
    false for as many images."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self._held, self._since, self._reported = False, 0, False

    def lasted(self, holds: bool, images_seen: int) -> bool:
        """Whether to report the condition now."""
        if holds != self._held:
            self._held, self._since = holds, images_seen
        if images_seen - self._since < self.patience:
            return False
        new, self._reported = holds and not self._reported, holds
        return new


class GANMonitor(Callback, metaclass=Checked):
    """Monitors the training of models with a `discriminator` or `critic`, logs `diversity`, and warns of problems.

    Warnings depend on terms that the discriminator logs and `Monitor` reads. `d_real` and `d_fake` are the mean
    probabilities of being real that it assigns to real images, D(x), and to samples, D(G(z)). `real_accuracy` and
    `fake_accuracy` are the fractions that it classifies correctly. A Wasserstein critic outputs no probabilities and
    logs none of these terms, so only `diversity` is monitored.

    `diversity` is the total variance of 64 samples (always from the same seeds, with the raw weights) divided by the
    total variance of 64 images of the validation split: 1 is as diverse as the data, 0 is a single image. A conditional
    model samples its classes in turn, so differences between classes are included.

    Other models are ignored.

    Args:
        every_images: Images between two measurements of diversity
        patience_images: A condition must be true for this many images before a warning, and false for as many before
            the next warning
        sure: The discriminator has won if both accuracies are above `sure` and D(G(z)) is below 1 - `sure`
        fooled: The generator has won if D(G(z)) is above this
        rest: Training is considered at equilibrium if D(x) and D(G(z)) differ from 1/2 by less than this
        collapsed: The samples have collapsed if their diversity is below this
    """

    _setting = "gan_monitor"

    def __init__(
        self,
        every_images: Images = Images(10_000),
        patience_images: Images = Images(20_000),
        sure: Share = 0.99,
        fooled: Share = 0.9,
        rest: Annotated[float, Bounds(at_least=0, at_most=0.5)] = 0.02,
        collapsed: Weight = 0.1,
    ) -> None:
        self.every_images, self.patience_images = Images(every_images), Images(patience_images)
        self.sure, self.fooled, self.rest, self.collapsed = sure, fooled, rest, collapsed
        self._spells = {name: Spell(self.patience_images) for name in ("won", "lost", "rests", "collapsed")}
        self._read_at = -1
        self._real: list[Batch] = []  # first batches of the validation split

    def on_train_batch_end(self, trainer, module: GenerativeModule, *_: Any) -> None:
        player = next((name for name in PLAYERS if name in module.players), None)
        if player is None or not trainer.is_global_zero:
            return
        monitor = monitor_of(trainer, "GANMonitor")
        warnings = []
        if monitor.read_at != self._read_at:
            self._read_at = monitor.read_at
            names = [f"{player}/{name}" for name in ("d_real", "d_fake", "real_accuracy", "fake_accuracy")]
            if all(name in monitor.terms for name in names):
                warnings += self._warnings(module, player, *(monitor.terms[name] for name in names))
        real = trainer.datamodule is not None and is_overridden("val_dataloader", trainer.datamodule)
        if module.due(self.every_images) and isinstance(module, Samples) and real:
            diversity = self._diversity(trainer, module)
            for logger in trainer.loggers:
                logger.log_metrics({"diversity": diversity}, step=module.images_seen)
            if self._spells["collapsed"].lasted(diversity < self.collapsed, module.images_seen):
                # augmentations are only for images, not for points
                augmented = [("augmentation", "adversarial.augment '[color, translation]'")]
                warnings.append(
                    f"warning: the samples have collapsed at {module.images_seen:,} images seen: their variance is "
                    f"{diversity:.3g} times that of the data, so nearly every z gives the same sample. Try "
                    + _advice(
                        module, *(augmented if len(module.spec.shape) == 3 else []),
                        ("a gradient penalty", "adversarial.gradient_penalty 10"), ("R1", "adversarial.r1 1"),
                    )
                )  # fmt: skip
        for line in warnings:
            monitor.say(line)

    def _warnings(
        self, module: GenerativeModule, player: str, d_real: float, d_fake: float, real_right: float, fake_right: float
    ) -> list[str]:
        """Warnings to print after the terms were read."""
        at = f"at {module.images_seen:,} images seen: D(x) {d_real:.3g}, D(G(z)) {d_fake:.3g}"
        slower = ("a lower learning rate for it", _half_the_rate(module, player))
        smoothing = ("label smoothing", "adversarial.smoothing 0.9")
        noise, r1 = ("instance noise", "adversarial.instance_noise 0.1"), ("R1", "adversarial.r1 1")
        steps = (f"more steps of the {player}", "adversarial.discriminator_steps 2")
        slower_generator = ("a lower learning rate for the generator", _half_the_rate(module, "generator"))
        conditions = {
            "won": (
                min(real_right, fake_right) > self.sure and d_fake < 1 - self.sure,
                f"warning: the {player} has won {at}; the generator learns little from it. Try "
                + _advice(module, slower, smoothing, noise, r1),
            ),
            "lost": (
                d_fake > self.fooled,
                f"warning: the generator has won {at}; the {player} classifies samples as real, so its gradients "
                "are of little use. Try " + _advice(module, steps, slower_generator),
            ),
            "rests": (
                max(abs(d_real - 0.5), abs(d_fake - 0.5)) < self.rest,
                f"note: D is close to 1/2 {at}. Either training is at equilibrium, or the {player} has learned "
                "nothing: look at the samples.",
            ),
        }
        return [
            text for name, (holds, text) in conditions.items() if self._spells[name].lasted(holds, module.images_seen)
        ]

    @torch.no_grad()
    def _diversity(self, trainer, module: GenerativeModule) -> float:
        if not self._real:
            blocks = iter(trainer.datamodule.val_dataloader())
            while sum(map(len, self._real)) < N and (block := next(blocks, None)):
                self._real.append(block[:N])
        real = torch.cat([block.image for block in self._real])[:N].to(module.device)
        modes = {part: part.training for part in module.modules()}  # a frozen part stays in eval mode
        devices = [module.device] if module.device.type == "cuda" else []
        seeds, condition = torch.arange(N, device=module.device), in_turn(module, N, self._real[0])
        module.eval()
        try:
            with torch.random.fork_rng(devices), trainer.precision_plugin.forward_context():
                samples = module.sample(seeds, condition=condition)
        finally:
            for part, training in modes.items():
                part.training = training
        return (_variance(samples) / _variance(real)).item()


def _variance(x: Tensor) -> Tensor:
    """The total variance of [B, ...]: the trace of the covariance."""
    return x.detach().float().flatten(1).var(0).sum()


def _half_the_rate(module: GenerativeModule, player: str) -> str:
    """The flag that halves the learning rate of the optimizer `player`."""
    optimizers = dict(zip(module.players, module.trainer.optimizers, strict=True))
    if player not in optimizers:
        return "optimizers"
    return f"optimizers.{player} '{{lr: {optimizers[player].param_groups[0]['lr'] / 2:g}}}'"


def _advice(module: GenerativeModule, *remedies: tuple[str, str]) -> str:
    """Join the remedies, each with its flag if the model has that argument. Omit those that the model already uses or
    does not support."""
    settings = getattr(module, "adversarial", None)
    named = []
    for what, flag in remedies:
        setting = flag.partition(" ")[0].rpartition("adversarial.")[2]
        if settings is not None and _pointless(settings, setting):
            continue
        if settings is not None and setting == "discriminator_steps":
            flag = f"adversarial.discriminator_steps {2 * settings.discriminator_steps}"
            if settings.generator_steps > 1:
                what, flag = "fewer steps of its own", "adversarial.generator_steps 1"
        named.append(f"{what} (`--model.{flag}`)" if flag.partition(".")[0] in module.hparams else what)
    return " or ".join(filter(None, [", ".join(named[:-1]), named[-1] if named else "other networks"])) + "."


def _pointless(settings: Any, setting: str) -> bool:
    """Whether the settings already use this setting, or do not support it."""
    if setting == "smoothing":
        return settings.smoothing < 1 or not settings.objective.smooths
    return setting in ("instance_noise", "r1", "gradient_penalty", "augment") and bool(getattr(settings, setting))
