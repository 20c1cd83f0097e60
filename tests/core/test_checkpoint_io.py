"""Checkpoints are written atomically and loaded safely."""

import os
import random
import re
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.serialization import get_crc32_options, set_crc32_options

import genbench
from genbench.callbacks import EMA, Checkpoint
from genbench.core import checkpoint_io
from genbench.core.capabilities import options
from genbench.core.errors import UserError
from genbench.core.module import FORMAT
from tests.helpers.small import run
from tests.helpers.toy import SPEC, ToyAutoencoder, ToyGAN, fit


@pytest.fixture
def trained(tmp_path):
    module = ToyGAN(SPEC)
    fit(module, images=16).save_checkpoint(tmp_path / "toy.ckpt", weights_only=False)
    return module, tmp_path / "toy.ckpt"


def test_a_full_disk_keeps_the_last_good_checkpoint_and_is_reported(tmp_path):
    # a real failing write: no file of this process may grow past 4 kB
    script = f"""
import resource, torch
from pathlib import Path
from genbench.core.checkpoint_io import AtomicCheckpointIO
path = Path({str(tmp_path)!r}) / "last.ckpt"
AtomicCheckpointIO().save_checkpoint({{"x": 1}}, path)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    AtomicCheckpointIO().save_checkpoint({{"x": torch.zeros(100000)}}, path)
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UserError The checkpoint") and "is intact" in done.stdout, done
    assert torch.load(tmp_path / "last.ckpt") == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_model_is_rebuilt_from_only_its_checkpoint_also_through_lightning(trained):
    module, path = trained
    for again in (genbench.load(path), ToyGAN.load_from_checkpoint(path, weights_only=True)):
        assert type(again) is ToyGAN and again.spec == SPEC
        assert all(torch.equal(p, module.get_parameter(n)) for n, p in again.named_parameters())
    assert genbench.load(path).images_seen == 16 and not genbench.load(path).training


def test_a_checkpoint_works_from_another_folder(trained, tmp_path):
    module, path = trained
    other = tmp_path / "elsewhere" / "renamed.ckpt"
    other.parent.mkdir()
    path.rename(other)
    assert isinstance(genbench.load(other), ToyGAN)


def test_a_checkpoint_imports_nothing_by_itself(trained):
    _, path = trained
    script = f"import genbench; genbench.load({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode and "is not imported" in done.stderr and "--import tests.helpers.toy" in done.stderr


@pytest.mark.parametrize(
    ("kept", "why"), [(0, "it is empty"), (10, "its end is missing"), (3000, "its end is missing")]
)
def test_a_truncated_checkpoint_is_reported(trained, kept, why):
    _, path = trained
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=rf"toy.ckpt is damaged or not a checkpoint \({why}\)"):
        checkpoint_io.read(path)


def test_an_unsafe_pickle_is_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was_run",))

    torch.save({"genbench": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="contains more than tensors and plain values"):
        checkpoint_io.read(tmp_path / "evil.ckpt")
    assert not (tmp_path / "was_run").exists()


def test_other_files_are_refused_as_checkpoints(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="is not a checkpoint of genbench"):
        checkpoint_io.read(tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="There is no checkpoint at"):
        checkpoint_io.read(tmp_path / "none.ckpt")


# ---- damage ---------------------------------------------------------------------------------------------------------


def same(a, b):
    """Equal in everything, types and bits included."""
    if isinstance(a, torch.Tensor):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def flipped(path, bit):
    """The file with one bit turned over."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    other = path.with_name("flipped.ckpt")
    other.write_bytes(data)
    return other


@contextmanager
def checksums(written):
    """Whether torch writes them."""
    set_crc32_options(written)
    try:
        yield
    finally:
        set_crc32_options(True)


def directory(path):
    """The bits of the zip's directory, at its end."""
    data = path.read_bytes()
    start = data.index(b"PK\1\2")
    return range(8 * start, 8 * len(data))


def test_a_flipped_bit_is_detected_or_changes_nothing(trained):
    _, path = trained
    whole, draw, refused = checkpoint_io.read(path), random.Random(0), 0
    bits = [draw.randrange(8 * path.stat().st_size) for _ in range(300)] + draw.sample(directory(path), 300)
    for bit in bits:
        other = flipped(path, bit)
        try:
            found = checkpoint_io.read(other)
        except UserError as error:
            assert str(error).startswith(f"{other} is damaged"), error
            refused += 1
        else:
            assert same(found, whole), bit
    assert refused > 300


def test_every_tensor_and_the_pickle_are_covered(trained):
    _, path = trained
    with zipfile.ZipFile(path) as archive:
        members = {m.filename.partition("/")[2]: m for m in archive.infolist()}
    assert {"data.pkl", "data/0", "byteorder"} < members.keys()
    for name, member in members.items():
        with open(path, "rb") as file:
            file.seek(member.header_offset)
            header = file.read(30)
        first = member.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(
            header[28:30], "little"
        )  # fmt: skip
        for byte in (first, first + member.file_size - 1):
            with pytest.raises(UserError, match=f"damaged: '.*{name}' in it does not match its checksum"):
                checkpoint_io.read(flipped(path, 8 * byte + 3))


def test_a_tensor_marked_as_a_folder_in_the_zip_is_an_error(trained):
    # torch would read nothing, and leave whatever the memory held
    _, path = trained
    data = path.read_bytes()
    header = data.rindex(b"PK\1\2", 0, data.rindex(b"/data/1"))
    with pytest.raises(UserError, match="flipped.ckpt is damaged"):
        checkpoint_io.read(flipped(path, 8 * (header + 38) + 4))


def test_checksums_are_written_even_if_disabled_in_torch(trained):
    module, path = trained
    contents = checkpoint_io.read(path)
    with checksums(False):
        checkpoint_io.AtomicCheckpointIO().save_checkpoint(contents, path)
        assert not get_crc32_options()  # as the program wants it
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert same(dict(checkpoint_io.read(path)["state_dict"]), dict(module.state_dict()))


def test_verification_is_fast_compared_to_loading(tmp_path):
    weights = {f"layer{k}": torch.randn(1024, 1024) for k in range(12)}  # 50 MB
    torch.save({"genbench": GENBENCH, "hyper_parameters": {}, "state_dict": weights}, tmp_path / "a.ckpt")

    def seconds(read):
        found = []
        for _ in range(5):
            began = time.process_time()
            read()
            found.append(time.process_time() - began)
        return min(found)

    bare = seconds(lambda: torch.load(tmp_path / "a.ckpt", weights_only=True))
    assert seconds(lambda: checkpoint_io.read(tmp_path / "a.ckpt")) < bare + 0.3 * 50 / 200 + 0.05


# ---- formats --------------------------------------------------------------------------------------------------------

GENBENCH = {"model": "tests.helpers.toy.ToyGAN", "images_seen": 1, "updates": {}, "seed": 0, "format": FORMAT}


def test_a_checkpoint_has_its_format_and_the_version_that_wrote_it(trained, capfd):
    _, path = trained
    state = checkpoint_io.read(path)["genbench"]
    assert (state["format"], state["version"]) == (FORMAT, genbench.__version__)
    assert capfd.readouterr().err == ""


def test_a_newer_format_is_refused(trained):
    _, path = trained
    contents = checkpoint_io.read(path)
    contents["genbench"] |= {"format": FORMAT + 1, "version": "9.1"}
    torch.save(contents, path)
    with pytest.raises(UserError, match=f"has format {FORMAT + 1}, written by genbench 9.1, .* reads formats up to"):
        genbench.load(path)
    for odd in ("2", -1, True, 1.0):
        contents["genbench"]["format"] = odd
        torch.save(contents, path)
        with pytest.raises(UserError, match="its format is"):
            genbench.load(path)


@pytest.mark.parametrize("how", ["without a format", "without checksums", "in torch's old form"])
def test_older_formats_are_read_with_one_note(trained, capfd, how):
    module, path = trained
    contents = checkpoint_io.read(path)
    if how == "without a format":
        del contents["genbench"]["format"], contents["genbench"]["version"]
    with checksums(how != "without checksums"):
        torch.save(contents, path, _use_new_zipfile_serialization=how != "in torch's old form")
    capfd.readouterr()
    for _ in range(2):
        again = genbench.load(path, raw=True)
        assert same(dict(again.state_dict()), dict(module.state_dict()))
    said = capfd.readouterr().err
    why = "it has no format" if how == "without a format" else "it has no checksums"
    assert said.startswith(f"note: {path}: {why}") and said.count("note:") == 1


# ---- contents that are not those of the model -----------------------------------------------------------------------


def changed(path, where, value=None):
    """The checkpoint with another value at `a.b.c`, or without it."""
    contents = place = checkpoint_io.read(path)
    *above, last = where.split("/")
    for name in above:
        place = place[int(name) if isinstance(place, list) else name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    torch.save(contents, path)
    return path


@pytest.fixture
def averaged(tmp_path):
    """A checkpoint with EMA weights and optimizer states."""
    module = ToyGAN(SPEC)
    run(module, images=16, callbacks=[EMA(), Checkpoint()], folder=tmp_path, limit_val_batches=0)
    return tmp_path / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("genbench", 3, "it lacks `genbench.model`"),
        ("genbench/model", None, "it lacks `genbench.model`"),
        ("genbench/images_seen", "many", "it has a str instead of `genbench.images_seen`"),
        ("genbench/images_seen", True, "it has a bool instead of `genbench.images_seen`"),
        ("genbench/images_seen", -1, "`genbench.images_seen` is -1; expected a number of at least 0"),
        ("genbench/updates/generator", "x", "`genbench.updates.generator` is 'x'; expected a number of at least 0"),
        ("run", {"segments": "x"}, "`run.segments` is 'x'; expected a list of mappings"),
        ("hyper_parameters", None, "it lacks `hyper_parameters`"),
        ("hyper_parameters", [1], "it has a list instead of `hyper_parameters`"),
        ("hyper_parameters/sizes", [1], "arguments with which tests.helpers.toy.ToyGAN cannot be built"),
        ("hyper_parameters/spec", {"color": 1}, "arguments with which tests.helpers.toy.ToyGAN cannot be built"),
        ("state_dict", None, "it lacks `state_dict`"),
        ("state_dict", torch.zeros(3), "it has a Tensor instead of `state_dict`"),
        ("state_dict/generator.0.bias", None,
         "does not fit this ToyGAN: `generator.0.bias` is missing in the checkpoint and 8 in the model"),
        ("state_dict/generator.0.weight", torch.zeros(16, 3), "is 16×3 in the checkpoint and 8×3 in the model"),
        ("state_dict/generator.9.bias", torch.zeros(()), "is a single number in the checkpoint and missing"),
        ("state_dict/generator.0.bias", "eight", "is not a tensor in the checkpoint and 8 in the model"),
        ("ema/state_dict", None, "it lacks `ema.state_dict`"),
        ("ema/state_dict/generator.0.bias", None, "EMA weights in .* `generator.0.bias` is missing in the check"),
        ("ema/state_dict/generator.0.bias", torch.zeros(2), "`generator.0.bias` is 2 in the checkpoint and 8 in the"),
        ("ema/state_dict/discriminator.1.bias", torch.zeros(2), "is 2 in the checkpoint and missing in the model"),
    ],
)  # fmt: skip
def test_missing_contents_and_different_shapes_are_reported(averaged, where, value, message):
    with pytest.raises(UserError, match=message) as raised:
        genbench.load(changed(averaged, where, value))
    assert "\n" not in str(raised.value) and str(averaged) in str(raised.value)


def test_missing_averaged_weights_are_reported_and_raw_weights_still_load(averaged):
    changed(averaged, "run", {"config": {"ema": {"enabled": True}}})
    genbench.load(averaged)
    changed(averaged, "ema")
    with pytest.raises(UserError, match="it lacks `ema`, the EMA weights"):
        genbench.load(averaged)
    assert genbench.load(averaged, raw=True).origin == (averaged, "raw")
    with pytest.raises(UserError, match="it lacks `ema`"):
        checkpoint_io.refuse_misfit(checkpoint_io.read(averaged), ToyGAN(SPEC), averaged, training=True)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("optimizer_states", None, "it lacks `optimizer_states`"),
        ("lr_schedulers", None, "it lacks `lr_schedulers`"),
        ("callbacks", 3, "it has a int instead of `callbacks`"),
        ("pytorch-lightning_version", None, "it lacks `pytorch-lightning_version`"),
        ("genbench/scalers", None, "it lacks `genbench.scalers`"),
        ("optimizer_states", [], "it has 0 optimizer states, for generator, discriminator"),
        (
            "genbench/updates",
            {"critic": 2},
            "it has 2 optimizer states, for critic, but the model has the optimizers",
        ),
        (
            "optimizer_states/0/state",
            {},
            "in the state of optimizer 'generator', the averages of 2 updates are missing",
        ),
        (
            "optimizer_states/1/param_groups",
            [],
            "in the state of optimizer 'discriminator', there are 0 parameters, but the model has 4",
        ),
        ("optimizer_states/1/state", {0: {"exp_avg": torch.zeros(9, 16)}}, "`exp_avg` is 9×16 for a parameter of 8×16"),
        (
            "optimizer_states/1/state",
            {9: {"exp_avg": torch.zeros(9)}},
            "in the state of optimizer 'discriminator', some values are damaged",
        ),
        ("optimizer_states/1/state", [1], "in the state of optimizer 'discriminator', some values are damaged"),
    ],
)
def test_a_training_state_that_does_not_fit_the_model_is_reported_before_training(averaged, where, value, message):
    genbench.load(changed(averaged, where, value))  # sampling needs none of it
    with pytest.raises(UserError, match=re.escape(message)):
        checkpoint_io.refuse_misfit(checkpoint_io.read(averaged), ToyGAN(SPEC), averaged, training=True)


def test_a_complete_checkpoint_fits_only_its_own_model(averaged):
    contents = checkpoint_io.read(averaged)
    checkpoint_io.refuse_misfit(contents, ToyGAN(SPEC), averaged, training=True)
    with pytest.raises(UserError, match="does not fit this ToyAutoencoder: `encoder.1.weight` is missing in the check"):
        checkpoint_io.refuse_misfit(contents, ToyAutoencoder(SPEC), averaged)


def test_lightning_reads_checkpoints_with_the_same_checks(averaged):
    io = checkpoint_io.AtomicCheckpointIO()
    assert same(io.load_checkpoint(averaged, map_location="cpu", weights_only=True), checkpoint_io.read(averaged))
    with pytest.raises(UserError, match="does not match its checksum"):
        io.load_checkpoint(flipped(averaged, 8 * averaged.read_bytes().index(b"state_dict")))


# ---- where there is no room -----------------------------------------------------------------------------------------


def test_a_checkpoint_on_a_full_disk_is_saved_elsewhere_and_can_be_resumed(averaged, tmp_path, elsewhere, full):
    before = averaged.read_bytes()
    full(averaged.parent)
    with pytest.raises(
        UserError, match="No space left on device.*previous checkpoint is intact.*free disk space and move it"
    ) as raised:
        run(ToyGAN(SPEC), images=32, callbacks=[EMA(), Checkpoint()], folder=tmp_path, limit_val_batches=0)
    assert averaged.read_bytes() == before
    source, target = re.search(r"`mv (\S+) (\S+)`", str(raised.value)).groups()
    assert f"`python -m genbench fit --ckpt {target}`" in str(raised.value)
    os.replace(source, target)
    assert genbench.load(averaged).images_seen == 32


def test_the_error_for_a_copy_on_a_full_disk_has_the_path_of_the_checkpoint(averaged, full):
    full(averaged.parent)
    with pytest.raises(UserError, match=f"The same checkpoint is also at {averaged}"):
        checkpoint_io.copy(averaged, averaged.with_name("other.ckpt"))


# ---- the ways to name it, and to sample -----------------------------------------------------------------------------


def test_a_run_folder_can_be_loaded_as_in_commands(averaged, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    os.rename(averaged.parent, tmp_path / "checkpoints.moved")
    (tmp_path / "runs" / "first").mkdir()
    os.rename(tmp_path / "checkpoints.moved", tmp_path / "runs" / "first" / "checkpoints")
    monkeypatch.chdir(tmp_path)
    last = Path("runs/first/checkpoints/last.ckpt")
    assert [genbench.load(path).origin[0] for path in ("runs/first", Path("runs/first"), "last", last)] == [last] * 4
    with pytest.raises(UserError, match="There is no checkpoint at runs/checkpoints/last.ckpt"):
        genbench.load("runs")


def test_a_number_of_samples_means_as_many_seeds(averaged):
    for model in (genbench.load(averaged), ToyGAN(SPEC)):
        assert torch.equal(model.sample(5), model.sample(torch.arange(5)))
        assert torch.equal(model.sample(seeds=5), model.sample(5, condition=None))


@pytest.mark.parametrize("given", [0, -3, True, 2.0, "16", None, torch.zeros(3), torch.zeros((), dtype=torch.int64)])
def test_other_types_than_a_number_or_seeds_are_refused(given):
    with pytest.raises(UserError, match="Pass a positive number of images, or one seed per image"):
        ToyGAN(SPEC).sample(given)


def test_a_users_model_takes_numbers_even_if_it_inherits_sample():
    class Mixin:
        def sample(self, seeds, *, condition=None, bright: bool = False):
            return seeds

    class Own(Mixin, ToyAutoencoder):
        pass

    class Further(Own):
        def sample(self, seeds, *, condition=None):
            return super().sample(seeds)

    assert Own(SPEC).sample(3).tolist() == Further(SPEC).sample(3).tolist() == [0, 1, 2]
    assert options(Own.sample) == {"bright": False}
