"""Power-function averages equal averages of all weights of a run, and lengths between are reconstructed from them."""

import shutil

import pytest
import torch

import genbench
from genbench.callbacks import EMA, Checkpoint, PowerEMA
from genbench.core import checkpoint_io, snapshots
from genbench.core.batch import DataSpec
from genbench.core.errors import NonFiniteLoss, UserError
from genbench.core.power_averages import exponent
from genbench.models import DCGAN
from tests.helpers.small import Each, run, same_weights
from tests.helpers.toy import SPEC, ToyAutoencoder, ToyGAN

LAST = "checkpoints/last.ckpt"


def flat(average):
    return torch.cat([average[name].double().flatten() for name in sorted(average)])


def power(**settings):
    return PowerEMA(**{"enabled": True, "every_images": 8, "snapshot_every": 0.1} | settings)


def train(folder, callbacks, images=160, ckpt=None, module=None):
    torch.manual_seed(0)
    module = module or ToyGAN(SPEC)
    run(module, images=images, callbacks=[*callbacks, Checkpoint(every_images=40)], folder=folder, ckpt=ckpt,
        limit_val_batches=0)  # fmt: skip
    return module


def assert_same(one, other):
    """Two entries `power_ema` of checkpoints, bit for bit, with the hashes of their snapshots."""
    assert one.pop("snapshots") == other.pop("snapshots")
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def names(folder):
    return sorted(path.name for path in (folder / "ema").iterdir())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with 40 snapshots, and averages of all its weights: length -> parameters [P]."""
    folder, lengths = tmp_path_factory.mktemp("run"), (0.05, 0.06, 0.075, 0.09, 0.1)
    direct = {}

    def average(trainer, module):
        step = module.images_seen // 8
        now = flat(snapshots.averaged(module)).detach()
        for one in lengths:
            beta = (1 - 1 / step) ** (exponent(one) + 1)  # the recursion of the paper, equation 3
            direct[one] = now if step == 1 else beta * direct[one] + (1 - beta) * now

    callbacks = [Each("on_train_batch_end", average), power(snapshot_every=0.025)]
    torch.manual_seed(0)  # the errors depend on the path of the weights
    train(folder, callbacks, images=3200, module=ToyAutoencoder(SPEC, optimizer={"lr": 0.01}))
    return folder, direct


def test_the_kept_averages_are_those_of_all_weights(trained):
    folder, direct = trained
    checkpoint = checkpoint_io.read(folder / LAST)
    assert checkpoint["power_ema"]["lengths"] == [0.05, 0.1] and len(names(folder)) == 40
    for one, average in zip((0.05, 0.1), checkpoint["power_ema"]["averages"], strict=True):
        assert (flat(average) - direct[one]).norm() < 1e-6 * direct[one].norm()


@pytest.mark.parametrize("sigma_rel", [0.06, 0.075, 0.09])
def test_a_length_that_was_not_kept_is_that_of_all_weights_and_better_with_more_snapshots(trained, sigma_rel):
    folder, direct = trained
    checkpoint = checkpoint_io.read(folder / LAST)
    every, errors = checkpoint["power_ema"]["snapshots"], []
    scale = (direct[0.05] - direct[0.1]).norm()  # what the length changes
    for each in (8, 4, 2, 1):  # 5, 10, 20 and 40 snapshots
        checkpoint["power_ema"]["snapshots"] = every[each - 1 :: each]
        found = flat(snapshots.weights(checkpoint, folder / LAST, sigma_rel))
        errors.append(((found - direct[sigma_rel]).norm() / scale).item())
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 2e-3 and errors[3] < 5e-4, errors
    assert (found - direct[sigma_rel]).norm() < 1e-5 * direct[sigma_rel].norm()


def test_a_kept_length_is_exact_and_needs_no_snapshots(trained, tmp_path):
    folder, _ = trained
    shutil.copy(folder / LAST, tmp_path / "alone.ckpt")
    kept = checkpoint_io.read(folder / LAST)["power_ema"]["averages"][1]
    model = genbench.load(tmp_path / "alone.ckpt", ema=0.1)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in kept.items())
    assert model.origin == (tmp_path / "alone.ckpt", "ema 0.1")


def test_buffers_are_copied_and_only_networks_that_a_capability_uses_are_averaged(tmp_path):
    module = train(tmp_path, [EMA(every_images=8), power()], module=DCGAN(DataSpec((1, 16, 16)), latent_dim=4, width=2))
    average = checkpoint_io.read(tmp_path / LAST)["power_ema"]["averages"][0]
    assert average.keys() == {f"generator.{name}" for name, _ in module.generator.named_parameters()}
    raw, found = genbench.load(tmp_path / LAST, raw=True), genbench.load(tmp_path / LAST, ema=0.075)
    assert same_weights(found.discriminator, raw.discriminator) and not same_weights(found.generator, raw.generator)
    buffers = dict(found.generator.named_buffers())
    assert len(buffers) == 6 and all(torch.equal(b, raw.generator.get_buffer(n)) for n, b in buffers.items())


def test_without_it_nothing_changes_and_with_it_only_the_averages_are_added(tmp_path):
    for name, more in (("never", []), ("off", [PowerEMA()]), ("on", [power()])):
        train(tmp_path / name, [EMA(every_images=8), *more])
    assert not (tmp_path / "off" / "ema").exists()
    never, off, on = (checkpoint_io.read(tmp_path / name / LAST) for name in ("never", "off", "on"))
    assert "power_ema" not in off and off.keys() == never.keys() and on.keys() - off.keys() == {"power_ema"}
    for other in (off, on):
        for entry in ("state_dict", "optimizer_states", "ema"):
            torch.testing.assert_close(other[entry], never[entry], rtol=0, atol=0)


@pytest.mark.parametrize("batch_size", [8, 20])
def test_snapshots_are_stored_at_fractions_of_the_budget_or_at_numbers_of_images(tmp_path, batch_size):
    for every, folder in ((0.25, tmp_path / "fraction"), ("40", tmp_path / "images")):
        run(ToyGAN(SPEC), images=160, callbacks=[power(snapshot_every=every)], folder=folder, batch_size=batch_size)
        assert names(folder) == [f"{at:010d}.pt" for at in (40, 80, 120, 160)]


def test_snapshots_come_with_updates(tmp_path):
    train(tmp_path, [power(every_images=24, snapshot_every=40)])
    assert names(tmp_path) == [f"{at:010d}.pt" for at in (48, 96, 120)]  # the updates that passed 40, 80 and 120
    assert checkpoint_io.read(tmp_path / LAST)["power_ema"]["updated_at"] == 144


def test_a_resumed_run_has_the_averages_and_snapshots_of_a_run_that_was_never_stopped(tmp_path):
    train(tmp_path / "whole", [power(every_images=24)], images=160)
    train(tmp_path / "part", [power(every_images=24, snapshot_every=16)], images=88)
    (tmp_path / "part").rename(tmp_path / "moved")
    train(tmp_path / "moved", [power(every_images=24)], ckpt=tmp_path / "moved" / LAST)
    whole, resumed = (checkpoint_io.read(tmp_path / name / LAST)["power_ema"] for name in ("whole", "moved"))
    assert_same(resumed, whole)
    assert names(tmp_path / "moved") == names(tmp_path / "whole")
    for name in names(tmp_path / "whole"):
        assert (tmp_path / "moved/ema" / name).read_bytes() == (tmp_path / "whole/ema" / name).read_bytes()


def test_a_run_that_was_killed_between_checkpoints_stores_no_snapshot_twice(tmp_path):
    class Killed(Exception):
        pass

    def kill(trainer, module):
        if module.images_seen == 112:
            raise Killed

    train(tmp_path / "whole", [power()])
    with pytest.raises(Killed):
        train(tmp_path / "part", [power(), Each("on_train_batch_end", kill)])
    assert names(tmp_path / "part")[-1] == "0000000112.pt"  # after the last checkpoint, of 80 images
    train(tmp_path / "part", [power()], ckpt=tmp_path / "part" / LAST)
    whole, resumed = (checkpoint_io.read(tmp_path / name / LAST)["power_ema"] for name in ("whole", "part"))
    assert_same(resumed, whole)
    assert names(tmp_path / "part") == names(tmp_path / "whole")


def test_a_run_that_is_resumed_from_an_earlier_checkpoint_replaces_later_snapshots(tmp_path):
    def part(images, ckpt=None, lr=0.1):
        module = ToyGAN(SPEC, optimizer={"class_path": "torch.optim.SGD", "lr": lr})
        saver = Checkpoint(every_images=1000, keep_every=80)
        callbacks = [power(snapshot_every=16), saver]
        run(module, images=images, callbacks=callbacks, folder=tmp_path, ckpt=ckpt, limit_val_batches=0)

    torch.manual_seed(0)
    part(160)
    before = {name: (tmp_path / "ema" / name).read_bytes() for name in names(tmp_path)}
    old = shutil.copy(tmp_path / LAST, tmp_path / "checkpoints" / "old.ckpt")
    part(128, tmp_path / "checkpoints" / "0000000080.ckpt", lr=0.5)
    assert names(tmp_path) == sorted(before)[:8]  # those of 144 and 160 images belong to the replaced training
    same = [name for name in names(tmp_path) if (tmp_path / "ema" / name).read_bytes() == before[name]]
    assert same == sorted(before)[:5]
    genbench.load(tmp_path / LAST, ema=0.075)
    with pytest.raises(UserError, match="0000000096.pt is not the one that was stored .* earlier checkpoint"):
        genbench.load(old, ema=0.075)


def test_a_new_run_from_a_checkpoint_takes_its_snapshots_along(tmp_path, capsys):
    train(tmp_path / "a", [power()], images=80)
    train(tmp_path / "b", [power()], ckpt=tmp_path / "a" / LAST)
    shutil.rmtree(tmp_path / "a" / "ema")
    genbench.load(tmp_path / "b" / LAST, ema=0.075)
    assert "missing" not in capsys.readouterr().err
    train(tmp_path / "c", [power()], ckpt=tmp_path / "a" / LAST)
    assert "10 snapshots of the averaged weights are missing" in capsys.readouterr().err
    assert names(tmp_path / "c") == [f"{at:010d}.pt" for at in (96, 112, 128, 144, 160)]


def test_sixteen_bit_weights_are_averaged_in_float32(tmp_path):
    module, average = ToyAutoencoder(SPEC).bfloat16(), power()
    module.images_seen = 0
    average.on_fit_start(None, module)
    module.images_seen = 8
    average.update(module)
    assert {value.dtype for each in average.averages for value in each.values()} == {torch.float32}


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    def poison(trainer, module):
        if module.images_seen == 88:
            module.generator[0].bias.data[0] = torch.nan

    with pytest.raises(NonFiniteLoss):
        train(tmp_path, [Each("on_train_batch_end", poison), power()])
    genbench.load(tmp_path / LAST, ema=0.075)
    found = train(tmp_path, [power()], ckpt=tmp_path / LAST)
    assert found.images_seen == 160 and len(names(tmp_path)) == 10


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lengths": [0.05, 0.05]}, r"power_ema.lengths is \[0.05, 0.05\]; expected two different lengths"),
        ({"lengths": [0.05]}, "expected two different lengths"),
        ({"lengths": [0.05, 0.1, 0.2]}, "expected two different lengths"),
        ({"lengths": [0.0, 0.1]}, "power_ema.lengths is 0.0; a length is above 0 and at most 0.28"),
        ({"lengths": [0.05, 0.29]}, "power_ema.lengths is 0.29; a length is above 0 and at most 0.28"),
        ({"lengths": [0.05, float("nan")]}, "must be a finite number"),
        ({"snapshot_every": 0}, "power_ema.snapshot_every is 0"),
        ({"snapshot_every": 2.5}, "power_ema.snapshot_every: 2.5 is not a number of images"),
        ({"every_images": 0}, "power_ema.every_images is 0"),
        ({"enabled": False, "lengths": [0.05, 0.2]}, "power_ema.lengths has no effect.*Set `--power_ema.enabled true`"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        power(**settings)


def test_it_cannot_begin_or_change_within_a_run(tmp_path):
    train(tmp_path / "without", [], images=40)
    with pytest.raises(UserError, match="already seen 40 images without power-function averages"):
        train(tmp_path / "without", [power()], ckpt=tmp_path / "without" / LAST)
    train(tmp_path / "with", [power()], images=40)
    with pytest.raises(UserError, match=r"contains averages of the lengths \[0.05, 0.1\], which cannot change"):
        train(tmp_path / "with", [power(lengths=[0.05, 0.2])], ckpt=tmp_path / "with" / LAST)


def test_lengths_that_a_run_cannot_provide_are_refused_with_those_that_it_can(trained, tmp_path):
    folder, _ = trained
    for wrong in (0.04, 0.11, -1.0, float("nan")):
        with pytest.raises(UserError, match=f"--ema is {wrong}, .* lengths 0.05 and 0.1; expected a length between"):
            genbench.load(folder / LAST, ema=wrong)
    with pytest.raises(UserError, match="raw weights and the average of the length 0.05 cannot be combined"):
        genbench.load(folder / LAST, raw=True, ema=0.05)
    train(tmp_path / "without", [EMA()])
    with pytest.raises(UserError, match="contains no power-function averages .*--power_ema.enabled true"):
        genbench.load(tmp_path / "without" / LAST, ema=0.05)
    train(tmp_path / "few", [power(snapshot_every=1000)])
    with pytest.raises(UserError, match="no snapshot was stored before .* 160 images. Use `--ema 0.05` or `--ema 0.1`"):
        genbench.load(tmp_path / "few" / LAST, ema=0.075)
    genbench.load(tmp_path / "few" / LAST, ema=0.05)


def test_missing_and_damaged_snapshots_are_refused_with_their_path(tmp_path):
    train(tmp_path, [power()])
    path = tmp_path / "ema" / "0000000080.pt"
    whole = path.read_bytes()
    middle = len(whole) // 2
    for contents, message in (
        (None, "is missing"),
        (b"", "is damaged or not a snapshot of averaged weights"),
        (whole[:middle], "is damaged"),
        (whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :], "is damaged|is not the one"),
    ):
        path.unlink() if contents is None else path.write_bytes(contents)
        with pytest.raises(UserError, match=message) as raised:
            genbench.load(tmp_path / LAST, ema=0.075)
        assert str(path) in str(raised.value) and "0.05 and 0.1" in str(raised.value)
        assert "\n" not in str(raised.value)


def test_averages_that_do_not_fit_the_model_are_refused(tmp_path):
    train(tmp_path, [power()])
    contents = checkpoint_io.read(tmp_path / LAST)
    del contents["power_ema"]["averages"][1]["generator.0.bias"]
    torch.save(contents, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="An average in .* `generator.0.bias` is missing in the checkpoint"):
        genbench.load(tmp_path / "x.ckpt", ema=0.05)
    del contents["power_ema"]["snapshots"]
    torch.save(contents, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="it lacks `power_ema.snapshots`"):
        genbench.load(tmp_path / "x.ckpt")
