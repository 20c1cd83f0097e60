"""Speed settings change results only by rounding, and do not change the names in a checkpoint."""

import pytest
import torch
from lightning.pytorch.profilers import SimpleProfiler

import genbench
from genbench.callbacks import EMA, Acceleration
from genbench.callbacks.acceleration import Unprofiled
from genbench.core.batch import DataSpec
from genbench.models import DCGAN, VAE
from tests.helpers.small import SGD, Each, run
from tests.helpers.toy import SPEC, ToyGAN

MODELS = {
    "dcgan": lambda: DCGAN(DataSpec((3, 16, 16)), latent_dim=4, width=4, adversarial={"r1": 1.0}, optimizer=SGD),
    "vae": lambda: VAE(DataSpec((3, 16, 16)), latent_dim=4, width=4, optimizer=SGD | {"lr": 1e-4}),
    "mlp": lambda: VAE(DataSpec((3, 16, 16)), latent_dim=4, network="mlp", hidden=[8], optimizer=SGD | {"lr": 1e-4}),
}


def trained(build, **settings):
    torch.manual_seed(0)
    module = build()
    run(module, images=40, callbacks=[Acceleration(**settings), EMA()], limit_val_batches=0)
    return module


@pytest.mark.parametrize("name", MODELS)
def test_channels_last_gives_the_same_numbers(name):
    plain, last = (trained(MODELS[name], channels_last=value) for value in (False, True))
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(last.state_dict()[key], value, rtol=0, atol=1e-5)


def test_channels_last_reaches_images_convolutions_and_the_average():
    module, seen = MODELS["dcgan"](), []
    module.discriminator.register_forward_pre_hook(
        lambda net, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    average = EMA(every_images=8)
    run(module, images=16, callbacks=[Acceleration(), average], limit_val_batches=0)
    assert len(seen) == 6 and all(seen)  # real, fake, fake again
    kernels = [*module.parameters(), *average.average.values()]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels if p.ndim == 4)


def test_a_chosen_profiler_is_kept(tmp_path):
    run(MODELS["mlp"](), images=16, callbacks=[Acceleration(), seen := Each("on_train_end", lambda t, m: t.profiler)])
    assert type(seen.values[0]) is Unprofiled and seen.values[0].profile("a") is seen.values[0].profile("b")
    profiler = SimpleProfiler(dirpath=tmp_path, filename="profile")
    run(MODELS["mlp"](), images=16, callbacks=[Acceleration()], profiler=profiler)
    assert profiler.recorded_durations["run_training_batch"]


def test_compiled_networks_learn_the_same_and_keep_the_names_of_their_weights(tmp_path):
    torch.manual_seed(0)
    plain, compiled = ToyGAN(SPEC), ToyGAN(SPEC)
    compiled.load_state_dict(plain.state_dict())
    run(plain, images=40, callbacks=[Acceleration(compile=None), EMA()], limit_val_batches=0)
    trainer = run(compiled, images=40, callbacks=[Acceleration(compile="aot_eager"), EMA()], limit_val_batches=0)
    assert compiled.generator._compiled_call_impl is not None
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[key], value, rtol=0, atol=1e-6)
    trainer.save_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    seeds = torch.arange(3)
    again = genbench.load(tmp_path / "x.ckpt", raw=True)
    torch.testing.assert_close(again.sample(seeds), plain.sample(seeds), rtol=0, atol=1e-5)
