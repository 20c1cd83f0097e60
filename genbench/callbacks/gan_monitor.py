"""Whether generator and discriminator are in balance, and whether the samples are as diverse as the data."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from lightning import Callback
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from genbench.callbacks.conditions import in_turn
from genbench.callbacks.monitor import monitor_of
from genbench.core.arguments import Bounds, Checked, Share, Weight
from genbench.core.batch import Batch
from genbench.core.capabilities import Samples
from genbench.core.module import GenerativeModule
from genbench.core.units import Images

PLAYERS = ("discriminator", "critic")  # a model that has one of these optimizers is adversarial
N = 64  # samples, and real images, that diversity is measured on


class Spell:
    """How long something has been so without a break. It is worth saying once it has lasted, and again only after it
    has been away for as long."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self._so, self._since, self._said = False, 0, False

    def lasted(self, so: bool, images_seen: int) -> bool:
        """Whether it is to be said now."""
        if so != self._so:
            self._so, self._since = so, images_seen
        if images_seen - self._since < self.patience:
            return False
        news, self._said = so and not self._said, so
        return news


class GANMonitor(Callback, metaclass=Checked):
    """Watches adversarial training with a `discriminator` or `critic`, logs `diversity`, and says what goes wrong.

    Verdicts follow from the terms that the discriminator logs, as `Monitor` reads them: `d_real` and `d_fake`, the mean
    probability of being real that it gives to real images, D(x), and to samples, D(G(z)); `real_accuracy` and
    `fake_accuracy`, the shares that it tells right. A Wasserstein critic gives no probabilities and logs none of these:
    of such a model only `diversity` is known.

    `diversity` is the total variance of 64 samples (always of the same seeds, by the weights as trained and not their
    averages) over that of 64 images of the validation split: 1 is as various as the data, 0 is one image over and over.
    A conditional model is asked for each class in turn, so that the classes' own difference counts, too.

    Other models are left alone. A thing is said once it has lasted, and again only after it has been away for as long.

    Args:
        every_images: How often diversity is measured
        patience_images: How long a thing must last before it is said
        sure: Accuracies above which the discriminator has won, if its D(G(z)) is also below 1 - `sure`
        fooled: D(G(z)) above which the generator has won
        rest: How near to 1/2 both D(x) and D(G(z)) are where neither player moves the other
        collapsed: Diversity below which samples have collapsed
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
        self._real: list[Batch] = []  # first blocks of the validation split

    def on_train_batch_end(self, trainer, module: GenerativeModule, *_: Any) -> None:
        player = next((name for name in PLAYERS if name in module.players), None)
        if player is None or not trainer.is_global_zero:
            return
        monitor = monitor_of(trainer, "GANMonitor")
        said = []
        if monitor.read_at != self._read_at:
            self._read_at = monitor.read_at
            names = [f"{player}/{name}" for name in ("d_real", "d_fake", "real_accuracy", "fake_accuracy")]
            if all(name in monitor.terms for name in names):
                said += self._verdicts(module, player, *(monitor.terms[name] for name in names))
        real = trainer.datamodule is not None and is_overridden("val_dataloader", trainer.datamodule)
        if module.due(self.every_images) and isinstance(module, Samples) and real:
            diversity = self._diversity(trainer, module)
            for logger in trainer.loggers:
                logger.log_metrics({"diversity": diversity}, step=module.images_seen)
            if self._lasted("collapsed", diversity < self.collapsed, module):
                # of images, not of points
                augmented = [("augmentation", "adversarial.augment '[color, translation]'")]
                said.append(
                    f"warning: the samples have collapsed at {module.images_seen:,} images seen: their variance is "
                    f"{diversity:.3g} of the data's, so the generator makes much the same of every z. What may help: "
                    + _advice(
                        module, *(augmented if len(module.spec.shape) == 3 else []),
                        ("a gradient penalty", "adversarial.gradient_penalty 10"), ("R1", "adversarial.r1 1"),
                    )
                )  # fmt: skip
        for line in said:
            monitor.say(line)

    def _lasted(self, name: str, so: bool, module: GenerativeModule) -> bool:
        return self._spells[name].lasted(so, module.images_seen)

    def _verdicts(
        self, module: GenerativeModule, player: str, d_real: float, d_fake: float, real_right: float, fake_right: float
    ) -> list[str]:
        """Sentences on what a reading completes."""
        won = min(real_right, fake_right) > self.sure and d_fake < 1 - self.sure
        lost = d_fake > self.fooled
        rests = max(abs(d_real - 0.5), abs(d_fake - 0.5)) < self.rest
        at = f"at {module.images_seen:,} images seen: D(x) {d_real:.3g}, D(G(z)) {d_fake:.3g}"
        said = []
        if self._lasted("won", won, module):
            said.append(
                f"warning: the {player} has won {at}; the generator learns little from it. What may help: "
                + _advice(
                    module, ("a lower learning rate for it", _half_the_rate(module, player)),
                    ("label smoothing", "adversarial.smoothing 0.9"),
                    ("instance noise", "adversarial.instance_noise 0.1"), ("R1", "adversarial.r1 1"),
                )
            )  # fmt: skip
        if self._lasted("lost", lost, module):
            said.append(
                f"warning: the generator has won {at}; the {player} takes samples for real, and what it teaches is "
                "worth little. What may help: "
                + _advice(
                    module, (f"more steps of the {player}", "adversarial.discriminator_steps 2"),
                    ("a lower learning rate for the generator", _half_the_rate(module, "generator")),
                )
            )  # fmt: skip
        if self._lasted("rests", rests, module):
            said.append(
                f"note: D rests at 1/2 {at}. That is the equilibrium, or a {player} that has learned nothing: "
                "the samples tell which."
            )
        return said

    @torch.no_grad()
    def _diversity(self, trainer, module: GenerativeModule) -> float:
        if not self._real:
            blocks = iter(trainer.datamodule.val_dataloader())
            while sum(map(len, self._real)) < N and (block := next(blocks, None)):
                self._real.append(block[:N])
        real = torch.cat([block.image for block in self._real])[:N].to(module.device)
        modes = {part: part.training for part in module.modules()}  # a frozen part is not to be woken
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
    """The total variance of [B, ...]: the trace of its covariance."""
    return x.detach().float().flatten(1).var(0).sum()


def _half_the_rate(module: GenerativeModule, player: str) -> str:
    """The flag that halves the player's learning rate."""
    optimizers = dict(zip(module.players, module.trainer.optimizers, strict=True))
    if player not in optimizers:
        return "optimizers"
    return f"optimizers.{player} '{{lr: {optimizers[player].param_groups[0]['lr'] / 2:g}}}'"


def _advice(module: GenerativeModule, *remedies: tuple[str, str]) -> str:
    """What to try, each with its flag where the model has such an argument; not what its settings have or refuse."""
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
    """Whether the settings have this already, or refuse it."""
    if setting == "smoothing":
        return settings.smoothing < 1 or not settings.objective.smooths
    return setting in ("instance_noise", "r1", "gradient_penalty", "augment") and bool(getattr(settings, setting))
