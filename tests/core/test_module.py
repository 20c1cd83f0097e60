"""Turns: a step changes only the parameters of its own player."""

import math

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision

from genbench.core.batch import DataSpec
from genbench.core.errors import NonFiniteLoss, UserError
from tests.helpers.toy import SPEC, Loader, ToyAutoencoder, ToyGAN, fit

SGD = {"class_path": "torch.optim.SGD", "lr": 0.1}


def weights(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


class Seen(Callback):
    """Remembers what it is told to look at, after each batch."""

    def __init__(self, look):
        self.look, self.values = look, []

    def on_train_batch_end(self, trainer, module, *_):
        self.values.append(self.look(trainer, module))


def test_adversarial_training_equals_a_loop_written_by_hand():
    module = ToyGAN(SPEC, optimizer=SGD)
    by_hand = ToyGAN(SPEC, optimizer=SGD)
    by_hand.load_state_dict(module.state_dict())
    fit(module, images=40)

    g, d = (torch.optim.SGD(net.parameters(), 0.1) for net in (by_hand.generator, by_hand.discriminator))
    seen = 0
    for batch, _ in zip(Loader(by_hand, 8), range(5), strict=False):
        by_hand.draw.seed("train", 0, seen)
        fake = by_hand.generator(by_hand.draw(torch.randn, 8, 3))
        d.zero_grad()
        sum(
            by_hand.adversarial.discriminator_loss(
                by_hand.discriminator(batch.image), by_hand.discriminator(fake.detach())
            ).values()
        ).backward()
        d.step()
        g.zero_grad()
        by_hand.adversarial.generator_loss(by_hand.discriminator(fake))["adversarial"].backward()
        g.step()
        seen += 8
    for name, p in by_hand.named_parameters():
        torch.testing.assert_close(module.get_parameter(name), p, rtol=0, atol=1e-7)


def test_inside_a_turn_only_its_player_requires_gradients():
    class Watched(ToyGAN):
        def training_step(self, batch, batch_idx):
            with self.turn("discriminator"):
                assert not any(p.requires_grad for p in self.generator.parameters())
                assert all(p.requires_grad for p in self.discriminator.parameters())
            with pytest.raises(RuntimeError, match="inside"), self.turn("generator"):
                raise RuntimeError("inside")
            assert all(p.requires_grad for p in self.parameters())  # also after an error
            self.checked = True

    module = Watched(SPEC)
    fit(module, images=8)
    assert module.checked


def test_a_turn_that_minimizes_nothing_takes_no_step():
    class Lazy(ToyGAN):
        def training_step(self, batch, batch_idx):
            with self.turn("generator"):
                pass

    module = Lazy(SPEC)
    before = weights(module)
    fit(module, images=16)
    assert module.updates == {"generator": 0, "discriminator": 0}
    assert all(torch.equal(p, before[n]) for n, p in module.named_parameters())


def test_returned_loss_terms_are_minimized_with_one_step():
    module, by_hand = ToyAutoencoder(SPEC, optimizer=SGD), ToyAutoencoder(SPEC)
    by_hand.load_state_dict(module.state_dict())
    fit(module, images=24)
    optimizer = torch.optim.SGD(by_hand.parameters(), 0.1)
    for batch, _ in zip(Loader(by_hand, 8), range(3), strict=False):
        optimizer.zero_grad()
        (by_hand.reconstruct(batch.image) - batch.image).square().mean().backward()
        optimizer.step()
    for name, p in by_hand.named_parameters():
        torch.testing.assert_close(module.get_parameter(name), p, rtol=0, atol=1e-7)
    assert module.updates == {"train": 3} and module.ema == ("encoder", "decoder")


def test_a_subclass_may_add_a_loss_term_to_its_base_class():
    class More(ToyAutoencoder):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) | {"norm": self.encoder[1].weight.square().sum()}

    module = More(SPEC)
    fit(module, images=24)
    assert module.updates == {"train": 3} and set(module.read_terms()) == {"train/mse", "train/norm"}


def test_a_frozen_model_inside_a_model_has_no_optimizer_and_no_moving_average():
    class Outer(ToyAutoencoder):
        def __init__(self, spec=None, **training):
            super().__init__(spec, **training)
            self.inner = ToyAutoencoder(spec)

    assert Outer(SPEC).players == {"train": ("encoder", "decoder")} and Outer(SPEC).ema == ("encoder", "decoder")


@pytest.mark.parametrize(
    ("base", "returned", "message"),
    [
        (ToyAutoencoder, torch.zeros(()), "returns a Tensor; expected a dict of loss terms"),
        (ToyAutoencoder, None, "returns a NoneType; expected a dict of loss terms"),
        (ToyGAN, {"loss": torch.zeros(())}, "several optimizers .generator, discriminator.. Use"),
    ],
)
def test_wrong_return_values_of_a_training_step_are_refused(base, returned, message):
    class Wrong(base):
        def training_step(self, batch, batch_idx):
            return returned

    with pytest.raises(UserError, match=message):
        fit(Wrong(SPEC), images=8)


def test_accumulated_batches_equal_one_large_batch_for_one_player():
    small, large = (ToyAutoencoder(SPEC, optimizer=SGD, accumulate=a).double() for a in (4, 1))
    small.load_state_dict(large.state_dict())
    fit(small, images=160, batch_size=8, precision="64-true")
    fit(large, images=160, batch_size=32, precision="64-true")
    assert small.updates == large.updates == {"train": 5}
    for name, p in large.named_parameters():
        torch.testing.assert_close(small.get_parameter(name), p, rtol=0, atol=1e-14)


def test_accumulation_survives_an_interruption_between_its_batches(tmp_path):
    whole, part = (ToyGAN(SPEC, accumulate=3) for _ in range(2))
    part.load_state_dict(whole.state_dict())
    fit(whole, images=72)
    run = fit(part, images=40)  # five batches: two of them wait for the third
    run.save_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    rest = ToyGAN(SPEC, accumulate=3)
    from lightning import Trainer

    from genbench.callbacks import MaxImages

    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=[MaxImages(72)], max_epochs=-1, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip

    class Resumed(Loader):
        def __init__(self):
            pass

        def __iter__(self):
            super().__init__(rest, 8)
            return super().__iter__()

    trainer.fit(rest, train_dataloaders=Resumed(), ckpt_path=tmp_path / "x.ckpt", weights_only=True)
    assert all(torch.equal(p, whole.get_parameter(n)) for n, p in rest.named_parameters())


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_clipping_sees_unscaled_gradients(precision):
    norms = []

    class Watched(ToyAutoencoder):
        def on_before_optimizer_step(self, optimizer):
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in self.parameters()]).item())
            super().on_before_optimizer_step(optimizer)
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in self.parameters()]).item())

    plugins = [MixedPrecision("16-mixed", "cpu")] if precision == "16-mixed" else []
    fit(Watched(SPEC, clip_norm=1e-3), images=8, plugins=plugins)
    before, after = norms
    assert 1e-2 < before < 10  # not 65,536 times as large
    assert after == pytest.approx(1e-3, rel=1e-3)


def test_clip_value_bounds_every_element():
    module = ToyAutoencoder(SPEC, optimizer=SGD, clip_value=1e-4).double()
    before = weights(module)
    fit(module, images=8, precision="64-true")
    moved = max((p.detach() - before[n]).abs().max() for n, p in module.named_parameters())
    assert moved == pytest.approx(0.1 * 1e-4, rel=1e-9)


def test_an_overflow_of_one_player_does_not_change_the_gradient_scale_of_others():
    class Overflows(ToyGAN):
        def training_step(self, batch, batch_idx):
            fake = self.generator(self.draw(torch.randn, len(batch), 3))
            with self.turn("discriminator") as turn:
                turn.minimize(real=self.discriminator(batch.image).float().mean() * 1e38)
            with self.turn("generator") as turn:
                turn.minimize(**self.adversarial.generator_loss(self.discriminator(fake)))

    module = Overflows(SPEC)
    before = weights(module)
    fit(module, images=8, plugins=[MixedPrecision("16-mixed", "cpu")])
    assert module._scalers["discriminator"].get_scale() == 32768
    assert module._scalers["generator"].get_scale() == 65536
    assert all(torch.equal(p, before[f"discriminator.{n}"]) for n, p in module.discriminator.named_parameters())
    assert not torch.equal(module.generator[0].weight, before["generator.0.weight"])


def test_fp16_and_fp32_agree_to_half_precision():
    a, b = (ToyGAN(SPEC, optimizer=SGD) for _ in range(2))
    b.load_state_dict(a.state_dict())
    fit(a, images=80)
    fit(b, images=80, plugins=[MixedPrecision("16-mixed", "cpu")])
    for name, p in a.named_parameters():
        torch.testing.assert_close(b.get_parameter(name), p, rtol=0, atol=2e-3)


def test_a_schedule_counts_in_thousands_of_images():
    schedule = {"class_path": "torch.optim.lr_scheduler.StepLR", "step_size": 1, "gamma": 0.5}
    module = ToyGAN(SPEC, optimizer=SGD, schedules={"generator": schedule})
    rates = Seen(lambda t, m: (m.images_seen, t.optimizers[0].param_groups[0]["lr"]))
    run = fit(module, images=3000, batch_size=40, callbacks=[rates])
    assert all(lr == pytest.approx(0.1 * 0.5 ** (n // 1000)) for n, lr in rates.values)
    assert run.optimizers[1].param_groups[0]["lr"] == 0.1  # the discriminator has none


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("r1_gamma", [0.0, 1.0])
def test_compiled_networks_learn_the_same_with_and_without_a_penalty(r1_gamma, backend):
    plain, compiled = (ToyGAN(SPEC, r1_gamma=r1_gamma) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    torch.compiler.reset()  # after many compilations of one kind of network it would fall back to the plain forward
    for name in ("generator", "discriminator"):
        getattr(compiled, name).compile(backend=backend)
    fit(plain, images=40)
    fit(compiled, images=40)
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    for name, p in plain.named_parameters():
        torch.testing.assert_close(compiled.get_parameter(name), p, rtol=0, atol=1e-6)


def test_the_error_for_a_loss_that_is_not_finite_has_optimizer_term_and_images():
    from genbench.callbacks import Monitor

    module = ToyGAN(SPEC, poison=100)
    with pytest.raises(NonFiniteLoss, match=r"discriminator/real is nan at 120 images"):
        fit(module, images=1000, callbacks=[Monitor(every_images=40, show=False)])


def test_weights_that_are_not_finite_are_not_saved():
    module = ToyGAN(SPEC)
    fit(module, images=8)
    module.generator[0].bias.data[0] = math.inf
    with pytest.raises(NonFiniteLoss, match="optimizer 'generator' are no longer finite at 8 images"):
        module.check_finite()


def test_hyperparameters_are_plain_and_complete_also_from_python():
    module = ToyGAN(SPEC, 0.5, optimizer={"betas": (0.5, 0.9)}, accumulate=2)
    assert dict(module.hparams) == {
        "spec": {
            "shape": [1, 4, 4],
            "target": "none",
            "classes": [],
            "vocabulary": [],
            "caption_length": 0,
            "binary": False,
            "source": [],
        },
        "r1_gamma": 0.5,
        "optimizer": {"betas": [0.5, 0.9]},
        "accumulate": 2,
    }
    again = ToyGAN(**module.hparams)
    assert again.spec == DataSpec((1, 4, 4)) and again.accumulate == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizers": {"critic": {}}}, "unknown optimizer 'critic'. Choose from: generator, discriminator"),
        ({"accumulate": 0}, "at least 1"),
        ({"optimizer": torch.nn.Identity()}, "must be a plain"),
        ({"spec": None}, "needs the `spec` of its data"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(arguments, message):
    with pytest.raises(UserError, match=message):
        ToyGAN(**{"spec": SPEC} | arguments)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"class_path": "Adamm"}, "unknown Optimizer 'Adamm'.* Did you mean 'Adam'"),
        ({"class_path": "os.system"}, "unknown Optimizer 'os.system'"),
        ({"learning_rate": 1}, "Adam has no argument 'learning_rate'. Choose from: lr"),
        ({"class_path": "torch.optim.SGD", "nesterov": True}, "rejected its arguments"),
        ({"class_path": 3}, "expected a `class_path`"),
    ],
)
def test_wrong_optimizers_are_refused_in_a_sentence(optimizer, message):
    with pytest.raises(UserError, match=message):
        fit(ToyGAN(SPEC, optimizer=optimizer), images=8)


def test_a_fused_optimizer_under_fp16_is_refused_with_the_reason():
    optimizer = {"class_path": "Adam", "fused": True}
    with pytest.raises(UserError, match="unscales gradients inside its step"):
        fit(ToyGAN(SPEC, optimizer=optimizer), images=8, plugins=[MixedPrecision("16-mixed", "cpu")])


def test_runs_with_the_same_seed_are_equal_and_runs_with_different_seeds_differ():
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(5)
        module = ToyGAN(SPEC)
        module.seed = seed
        fit(module, images=40)
        runs.append(weights(module))
    assert all(torch.equal(runs[0][n], runs[1][n]) for n in runs[0])
    assert not all(torch.equal(runs[0][n], runs[2][n]) for n in runs[0])


def test_data_parallel_strategies_that_cannot_train_players_are_refused(monkeypatch):
    module = ToyGAN(SPEC)

    class Two:
        world_size, strategy = 2, object()

    monkeypatch.setattr(ToyGAN, "trainer", Two())
    with pytest.raises(UserError, match="--trainer.strategy auto"):
        module.on_fit_start()
