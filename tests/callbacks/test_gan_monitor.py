"""Failing adversarial training is reported once, healthy training never. Logged norms are those of the gradients."""

import numpy as np
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from genbench.callbacks import GANMonitor, Monitor
from genbench.callbacks.gan_monitor import Spell
from genbench.core.batch import DataSpec
from genbench.core.module import GenerativeModule
from genbench.core.noise import per_seed
from genbench.loggers import Curves
from tests.helpers.small import SGD, Each, run, same_weights
from tests.helpers.toy import SPEC, ToyAutoencoder

HEALTHY = {"d_real": 0.7, "d_fake": 0.3, "real_accuracy": 0.8, "fake_accuracy": 0.85}
WON = {"d_real": 0.999, "d_fake": 0.001, "real_accuracy": 1.0, "fake_accuracy": 1.0}
LOST = {"d_real": 0.95, "d_fake": 0.95, "real_accuracy": 1.0, "fake_accuracy": 0.0}
RESTS = {"d_real": 0.51, "d_fake": 0.495, "real_accuracy": 0.6, "fake_accuracy": 0.5}


class Staged(GenerativeModule):
    """A GAN that logs the terms `terms(images_seen)`."""

    players = {"generator": ("generator",), "discriminator": ("discriminator",)}
    ema = ("generator",)
    terms = staticmethod(lambda images_seen: HEALTHY)

    def __init__(self, spec=None, **training):
        super().__init__(spec, **training)
        self.generator = nn.Sequential(
            nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Unflatten(1, self.spec.shape)
        )
        self.discriminator = nn.Linear(16, 1)

    def training_step(self, batch, batch_idx):
        fake = self.generator(self.draw(torch.randn, len(batch), 3))
        with self.turn("discriminator") as turn:
            logits = self.discriminator(fake.detach().flatten(1)) - self.discriminator(batch.image.flatten(1))
            turn.minimize(real=logits.tanh().mean())
            turn.log(**{name: torch.tensor(value) for name, value in self.terms(self.images_seen).items()})
        with self.turn("generator") as turn:
            turn.minimize(adversarial=-self.discriminator(fake.flatten(1)).tanh().mean())

    def sample(self, seeds, *, condition=None):
        return self.generator(per_seed(torch.randn, seeds, (3,)))


def watched(module, folder, images=160, show=True, **balance):
    """Train for 20 steps of 8 images; the terms are read at every step."""
    curves = Curves(folder)
    callbacks = [
        Monitor(every_images=8, line_seconds=1e9, show=show),
        GANMonitor(**{"every_images": 16, "patience_images": 32, "collapsed": 0.0} | balance),
    ]
    run(module, images=images, callbacks=callbacks, logger=[curves])
    return curves


def said(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith(("warning:", "note:"))]


def staged(terms, spec=SPEC, **training):
    module = Staged(spec, optimizer=SGD, **training)
    module.terms = terms if callable(terms) else lambda images_seen: terms
    return module


def test_balanced_training_is_not_reported(tmp_path, capsys):
    watched(staged(HEALTHY), tmp_path)
    assert said(capsys) == []


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        (WON, ["warning: the discriminator has won at 40 images seen: D(x) 0.999, D(G(z)) 0.001",
               "`--model.optimizers.discriminator '{lr: 0.05}'`", "label smoothing", "instance noise"]),
        (LOST, ["warning: the generator has won at 40 images seen: D(x) 0.95, D(G(z)) 0.95",
                "more steps of the discriminator"]),
        (RESTS, ["note: D is close to 1/2 at 40 images seen: D(x) 0.51, D(G(z)) 0.495", "equilibrium"]),
    ],
)  # fmt: skip
def test_a_lasting_condition_is_reported_once(terms, words, tmp_path, capsys):
    watched(staged(terms, optimizers={}), tmp_path)
    (line,) = said(capsys)
    assert all(part in line for part in words)


def test_flags_are_named_if_the_model_has_them(tmp_path, capsys):
    module = staged(WON)
    module.hparams["adversarial"] = None
    watched(module, tmp_path)
    (line,) = said(capsys)
    assert "`--model.adversarial.smoothing 0.9`" in line and "`--model.adversarial.r1 1`" in line


def test_a_short_condition_is_not_reported_and_a_later_one_is_reported_again(tmp_path, capsys):
    watched(staged(lambda seen: WON if seen % 32 else HEALTHY), tmp_path)
    assert said(capsys) == []
    watched(staged(lambda seen: WON if seen <= 48 or seen > 88 else HEALTHY), tmp_path)
    assert [line.split(" images seen")[0][-3:].strip() for line in said(capsys)] == ["40", "128"]


def test_a_condition_with_a_short_break_is_not_reported_twice():
    spell = Spell(20)
    so = [(10, True), (30, True), (40, False), (50, True), (70, True), (80, False), (100, False), (110, True)]
    assert [n for n, now in so if spell.lasted(now, n)] == [30]
    assert not spell.lasted(True, 129) and spell.lasted(True, 130) and not spell.lasted(True, 500)


def test_nothing_is_reported_with_show_false_or_for_a_critic_without_probabilities(tmp_path, capsys):
    watched(staged(WON), tmp_path, show=False)
    watched(staged({}), tmp_path)
    assert said(capsys) == []


class Ignoring(Staged):
    def sample(self, seeds, *, condition=None):
        return self.generator(torch.ones(len(seeds), 3) + 1e-3 * per_seed(torch.randn, seeds, (3,)))


@pytest.mark.parametrize("shape", [(1, 4, 4), (16,)])
def test_a_generator_that_ignores_its_z_causes_a_warning(shape, tmp_path, capsys):
    module = Ignoring(DataSpec(shape), optimizer=SGD)
    curves = watched(module, tmp_path, collapsed=0.1)
    (line,) = said(capsys)
    assert line.startswith("warning: the samples have collapsed at 48 images seen: their variance is ")
    assert ("augmentation" in line) == (len(shape) == 3) and "a gradient penalty" in line
    found = [(row["images_seen"], float(row["diversity"])) for row in curves.rows() if row["diversity"]]
    assert [n for n, _ in found] == [str(n) for n in range(16, 161, 16)] and all(0 < d < 1e-3 for _, d in found)


def test_diversity_is_the_ratio_of_the_variances_of_samples_and_real_images(tmp_path):
    curves, module = Curves(tmp_path), staged(HEALTHY)
    callbacks = [Monitor(every_images=80, show=False), GANMonitor(every_images=80)]
    trainer = run(module, images=80, callbacks=callbacks, logger=[curves])
    with torch.no_grad():
        samples = module.eval().sample(torch.arange(64))
    real = trainer.datamodule.held_out()  # 24: all that there are
    a, b = (np.trace(np.cov(x.flatten(1).numpy(), rowvar=False)) for x in (samples, real))
    (value,) = [float(row["diversity"]) for row in curves.rows() if row["diversity"]]
    assert value == pytest.approx(a / b, rel=1e-4)


def test_monitoring_does_not_change_training(tmp_path):
    a, b = staged(HEALTHY), staged(HEALTHY)
    b.load_state_dict(a.state_dict())
    for module in (a, b):
        module.generator[1].eval()  # frozen statistics stay frozen
    run(a, images=80, callbacks=[Monitor(every_images=8, show=False)])
    modes = Each("on_train_batch_end", lambda trainer, module: [part.training for part in module.modules()])
    run(b, images=80, callbacks=[Monitor(every_images=8, show=False), GANMonitor(every_images=8), modes])
    assert same_weights(a, b)
    assert all(mode == modes.values[0] for mode in modes.values)


def test_other_models_are_ignored(tmp_path, capsys):
    curves = watched(ToyAutoencoder(SPEC), tmp_path, collapsed=1e9)
    assert said(capsys) == [] and "diversity" not in curves.rows()[0]


# ---- norms of gradients -----------------------------------------------------------------------------------------


class Norms(Each):
    """The norm of each step's complete gradient, by NumPy, before the model clips it."""

    def __init__(self):
        def look(trainer, module, optimizer):
            parts = [p.grad.double().numpy() for group in optimizer.param_groups for p in group["params"]]
            return np.sqrt(sum(np.square(part).sum() for part in parts))

        self.values = []
        self.on_before_optimizer_step = lambda *given: self.values.append(look(*given))


@pytest.mark.parametrize("plugins", [[], [MixedPrecision("16-mixed", "cpu")]], ids=["fp32", "fp16"])
@pytest.mark.parametrize("training", [{}, {"clip_norm": 1e-3}, {"accumulate": 2}], ids=["plain", "clipped", "sum of 2"])
def test_the_norm_is_that_of_the_whole_unscaled_gradient_before_clipping(plugins, training, tmp_path):
    curves, norms = Curves(tmp_path), Norms()
    module = ToyAutoencoder(SPEC, optimizer=SGD, **training)
    run(module, images=160, callbacks=[norms, Monitor(every_images=40, show=False)], logger=[curves], plugins=plugins)
    steps = [8 * training.get("accumulate", 1) * (k + 1) for k in range(len(norms.values))]  # images seen at each
    firsts = [next(v for n, v in zip(steps, norms.values, strict=True) if n > 40 * k) for k in range(4)]
    assert [float(row["train/grad_norm"]) for row in curves.rows()] == pytest.approx(firsts, rel=1e-5)
    assert min(firsts) > 1e-2


def test_a_gradient_that_overflows_is_skipped(tmp_path):
    class Overflows(ToyAutoencoder):
        def training_step(self, batch, batch_idx):
            return {"mse": self.reconstruct(batch.image).float().mean() * (1e38 if batch_idx == 0 else 1.0)}

    curves, norms = Curves(tmp_path), Norms()
    run(
        Overflows(SPEC), images=32, callbacks=[norms, Monitor(every_images=32, show=False)], logger=[curves],
        plugins=[MixedPrecision("16-mixed", "cpu")],
    )  # fmt: skip
    assert not np.isfinite(norms.values[0])
    assert float(curves.rows()[0]["train/grad_norm"]) == pytest.approx(norms.values[1], rel=1e-5)


def test_the_line_shows_losses_first_and_neither_rates_nor_norms(capsys):
    run(staged(HEALTHY), images=16, callbacks=[Monitor(every_images=8, line_seconds=0)])
    line = capsys.readouterr().err.splitlines()[-1]
    words = [part.split()[0] for part in line.split("  ")[3:] if part.strip()]
    assert words == ["real", "adversarial", "d_real", "d_fake"]
