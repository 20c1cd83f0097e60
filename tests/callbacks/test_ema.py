"""The moving average has the set half-life in images. It is used only for validation, samples and loaded models."""

import math

import pytest
import torch

import genbench
from genbench.callbacks import EMA, Checkpoint, ValidationMetrics
from genbench.core import checkpoint_io
from genbench.core.batch import DataSpec
from genbench.models import DCGAN
from tests.helpers.small import Each, run, same_weights
from tests.helpers.toy import SPEC, ToyAutoencoder, ToyGAN


class Weights(ToyAutoencoder):
    """A model whose float64 weights are all set by the test."""

    def set(self, value):
        for parameter in self.parameters():
            parameter.data.fill_(value)


def follow(ema, path, images, module=None):
    """The average after training, where all weights have the value `path(images seen)`."""
    module = module or Weights(SPEC).double()
    module.set(path(0))
    ema.on_fit_start(None, module)
    for module.images_seen in range(0, images + 1, 100):
        if module.images_seen and module.images_seen % ema.every_images == 0:
            module.set(path(module.images_seen))
            ema.update(module)
    values = torch.cat([value.flatten() for value in ema.average.values()])
    assert (values == values[0]).all()
    return values[0].item()


def step(images):
    return 0.0 if images == 0 else 1.0


def test_one_update_keeps_half_of_the_weights_that_were_there_a_half_life_ago():
    assert follow(EMA(halflife=500, rampup=0, every_images=500), step, 500) == pytest.approx(0.5, rel=1e-15)
    assert follow(EMA(halflife=1000, rampup=0, every_images=500), step, 500) == pytest.approx(1 - 0.5**0.5, rel=1e-15)


def test_the_ramp_up_shortens_the_half_life_to_a_fraction_of_the_images_seen():
    # Karras et al. 2020: min(half-life, 0.05 * images seen); here 0.05 * 500 = 25 images, so 20 halvings
    assert follow(EMA(halflife=10_000, every_images=500), step, 500) == pytest.approx(1 - 0.5**20, rel=1e-15)
    # and past 200,000 images it is the half-life itself
    module = Weights(SPEC).double()
    ema = EMA(halflife=10_000)
    module.set(0.0)
    module.images_seen = 300_000
    ema.on_fit_start(None, module)
    module.set(1.0)
    module.images_seen += 500
    ema.update(module)
    assert ema.average["encoder.1.bias"][0].item() == pytest.approx(1 - 0.5 ** (500 / 10_000), rel=1e-13)


@pytest.mark.parametrize("every", [100, 500, 1000])
def test_how_often_it_is_updated_does_not_change_the_half_life(every):
    # weights that jumped once: the old weights' fraction halves every 1,000 images, for any number of updates
    average = follow(EMA(halflife=1000, rampup=0, every_images=every), step, 5000)
    assert average == pytest.approx(1 - 0.5**5, rel=1e-14)


@pytest.mark.parametrize("every", [100, 500])
def test_it_lags_behind_a_steady_motion_by_the_half_life_over_log_2(every):
    # the continuous average of w(t) = t lags by h / ln 2; one updated every s images by s / (2^(s/h) - 1)
    lag = 100_000 - follow(EMA(halflife=1000, rampup=0, every_images=every), float, 100_000)
    assert lag == pytest.approx(every / (2 ** (every / 1000) - 1), rel=1e-9)
    assert abs(lag - 1000 / math.log(2)) <= every / 2


def test_short_runs_are_not_evaluated_with_their_first_weights():
    module, ema = ToyAutoencoder(SPEC), EMA()
    first = {name: value.clone() for name, value in module.state_dict().items()}
    run(module, images=200, callbacks=[ema])  # fewer than one interval of updates
    for name, value in module.state_dict().items():
        moved, left = (value - first[name]).norm(), (ema.average[name] - first[name]).norm()
        assert left > moved / 2


def test_updates_come_at_the_interval_in_images():
    ema, seen = EMA(every_images=20, rampup=0), []
    original = ema.update
    ema.update = lambda module: (seen.append(module.images_seen), original(module))
    run(ToyAutoencoder(SPEC), images=80, callbacks=[ema])
    assert [n for n in seen if n >= 20] == [24, 40, 64, 80]  # the batches of 8 that reach 20, 40, 60, 80


def gan():
    torch.manual_seed(0)
    return DCGAN(DataSpec((1, 16, 16)), latent_dim=4, width=2)


def test_buffers_are_copied_and_not_averaged():
    module, ema = gan(), EMA(every_images=8, halflife=1000, rampup=0)
    run(module, images=40, callbacks=[ema])
    buffers = dict(module.generator.named_buffers())
    assert len(buffers) == 6
    assert all(torch.equal(ema.average[f"generator.{name}"], value) for name, value in buffers.items())
    assert not any(torch.equal(ema.average[f"generator.{name}"], p) for name, p in module.generator.named_parameters())


def test_only_networks_that_a_capability_uses_are_averaged():
    module, ema = gan(), EMA()
    ema.on_fit_start(None, module)
    assert ema.average.keys() == {f"generator.{name}" for name in module.generator.state_dict()}


def test_the_average_is_put_in_place_and_the_weights_back_to_the_bit():
    module, ema = gan(), EMA(every_images=8)
    run(module, images=40, callbacks=[ema])
    raw = {name: value.clone() for name, value in module.state_dict().items()}
    average = {name: value.clone() for name, value in ema.average.items()}
    with ema.in_place(module):
        assert all(torch.equal(value, average.get(name, raw[name])) for name, value in module.state_dict().items())
    assert all(torch.equal(value, raw[name]) for name, value in module.state_dict().items())
    with pytest.raises(ZeroDivisionError), ema.in_place(module):
        raise ZeroDivisionError
    assert all(torch.equal(value, raw[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(value, average[name]) for name, value in ema.average.items())


def test_validation_during_training_uses_the_average():
    module, ema = ToyAutoencoder(SPEC), EMA(every_images=8, halflife=100, rampup=0)

    def averaged_in_place(trainer, module):
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
        return True

    before = {}
    remember = Each(
        "on_train_batch_end", lambda trainer, module: before.update({k: v.clone() for k, v in ema.average.items()})
    )
    inside = Each("on_validation_epoch_end", averaged_in_place)
    after = Each(
        "on_validation_end", lambda trainer, module: torch.equal(module.decoder[0].bias, before["decoder.0.bias"])
    )
    run(module, images=24, callbacks=[ema, remember, ValidationMetrics(every_images=8), inside, after])
    assert inside.values == [True] * 3 and after.values == [False] * 3


def test_a_checkpoint_holds_both_the_weights_and_their_average(tmp_path):
    module, ema = ToyGAN(SPEC), EMA(every_images=8)
    run(module, images=40, callbacks=[ema]).save_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    averaged, raw = genbench.load(tmp_path / "x.ckpt"), genbench.load(tmp_path / "x.ckpt", raw=True)
    assert same_weights(raw, module) and not same_weights(averaged, module)
    assert all(torch.equal(averaged.state_dict()[name], value) for name, value in ema.average.items())
    assert same_weights(averaged.discriminator, module.discriminator)


def test_a_resumed_average_is_that_of_a_run_that_was_never_stopped(tmp_path):
    def averaging():
        return EMA(every_images=24, halflife=50)

    whole, part, rest = averaging(), averaging(), averaging()
    torch.manual_seed(0)
    module = ToyGAN(SPEC)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    run(module, images=120, callbacks=[whole])
    module = ToyGAN(SPEC)
    module.load_state_dict(state)
    # stopped in the middle of an interval
    run(module, images=64, callbacks=[part]).save_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    run(ToyGAN(SPEC), images=120, callbacks=[rest], ckpt=tmp_path / "x.ckpt")
    assert all(torch.equal(rest.average[name], value) for name, value in whole.average.items())


def test_without_an_average_a_checkpoint_is_loaded_as_trained(tmp_path):
    module, ema = ToyGAN(SPEC), EMA(enabled=False)
    callbacks = [ema, ValidationMetrics(every_images=16, samples=10), Checkpoint()]
    run(module, images=16, callbacks=callbacks, folder=tmp_path)
    path = tmp_path / "checkpoints" / "last.ckpt"
    assert "ema" not in checkpoint_io.read(path)
    assert same_weights(genbench.load(path), module)
    with ema.in_place(module):
        assert same_weights(genbench.load(path), module)
