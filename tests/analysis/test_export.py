"""Exported networks equal the models, and run without genbench."""

import io
import json
import re
import subprocess
import sys

import pytest
import torch

from genbench.analysis import export
from genbench.cli import configs
from genbench.core.batch import DataSpec
from genbench.core.capabilities import takes_condition
from genbench.core.errors import UserError
from genbench.models import DCGAN
from genbench.testing.recipe import Recipe
from tests.helpers.abilities import Untrained

onnxruntime = pytest.importorskip("onnxruntime")

# parts to test beside the default one
MORE = {
    "acgan": ["classifier"],
    "conditional_vae": ["encoder"],
    "glow": ["encoder", "decoder"],
    "latent_mixture": ["autoencoder"],
    "real_nvp": ["encoder"],
    "vq_prior": ["encoder", "decoder"],
    "vae_binary": ["autoencoder", "encoder", "decoder"],
}
EXPERIMENTS = sorted(path.stem for path in configs.folder().glob("*.yaml"))
CASES = [(name, part) for name in EXPERIMENTS for part in [None, *MORE.get(name, [])]]
METHODS = {
    "generator": "decode", "decoder": "decode", "encoder": "encode", "autoencoder": "reconstruct",
    "translator": "translate", "segmenter": "segment", "classifier": "classify",
}  # fmt: skip


def model_of(name):
    return Recipe(configs.folder() / f"{name}.yaml").model().eval().requires_grad_(False)


def inputs_and_output(model, part, n):
    """Random inputs of a part by name, and what the model's method returns for them."""
    spec, latent = model.spec, part in ("generator", "decoder")
    if latent:
        shape = (n, *model.latent_shape)
        first = torch.randint(model.latent_values, shape) if model.latent_dtype == "int64" else torch.randn(shape)
    else:
        first = torch.rand(n, *(spec.source if part == "translator" else spec.shape)) * 2 - 1
    method, condition = getattr(model, METHODS[part]), {}
    if takes_condition(method) and model.conditional:
        if spec.target == "caption":
            condition["caption"] = torch.randint(len(spec.vocabulary), (n, spec.caption_length))
        else:
            condition["label"] = torch.randint(len(spec.classes), (n,))
    with torch.no_grad():
        output = method(first, condition=next(iter(condition.values()))) if condition else method(first)
    return {"z" if latent else "image": first, **condition}, output


@pytest.mark.parametrize(("name", "part"), CASES)
def test_every_model_passes_onnxruntime_on_two_batch_sizes(name, part, tmp_path):
    model = model_of(name)
    if not export.parts_of(model):
        with pytest.raises(UserError, match=rf"{type(model).__name__} cannot be exported.* one pixel after another"):
            export.part_of(model)
        return
    done = export.export(export.part_of(model, part), tmp_path / "network.onnx", "onnx")
    network = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    for n in (2, 7):
        given, expected = inputs_and_output(model, part or export.parts_of(model)[0], n)
        found = torch.from_numpy(network.run(None, {key: value.numpy() for key, value in given.items()})[0])
        assert found.shape == expected.shape and found.dtype == expected.dtype
        assert (found - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["acgan", "text_gan", "vq_prior", "cyclegan_shapes", "ring"])
def test_a_torch_program_equals_the_model_on_two_batch_sizes(name, tmp_path):
    model = model_of(name)
    done = export.export(export.part_of(model), tmp_path / "network.pt2", "torch")
    network = torch.export.load(done.path).module()
    for n in (1, 6):
        given, expected = inputs_and_output(model, export.parts_of(model)[0], n)
        torch.testing.assert_close(network(*given.values()), expected, rtol=0, atol=1e-6)


def test_the_scripts_run_where_genbench_cannot_be_imported(tmp_path):
    expected = {
        ("vae_binary", "encoder", "torch"): "(4, 40) float32",
        ("acgan", "classifier", "onnx"): "(4, 10) float32",
        ("acgan", "classifier", "torch"): "(4, 10) float32",
        ("latent_mixture", "generator", "onnx"): "(4, 1, 32, 32) float32",
        ("latent_mixture", "generator", "torch"): "(4, 1, 32, 32) float32",
        ("vqvae", "decoder", "onnx"): "(4, 1, 32, 32) float32",
        ("text_gan", "generator", "torch"): "(4, 3, 32, 32) float32",
        ("segmentation_unet", "segmenter", "torch"): "(4, 6, 64, 64) float32",
        ("ring", "generator", "onnx"): "(4, 2) float32",
        ("cgan", "generator", "torch"): "(4, 1, 32, 32) float32",
    }
    scripts = []
    for name, part, format in expected:
        path = tmp_path / f"{name}{export.SUFFIXES[format]}"
        scripts.append(export.export(export.part_of(model_of(name), part), path, format).script)
        assert scripts[-1] == path.with_name(f"{path.name}.py")
    runs = "import sys, runpy; sys.modules['genbench'] = None\nfor path in sys.argv[1:]: runpy.run_path(path)"
    said = subprocess.run([sys.executable, "-c", runs, *scripts], cwd="/", capture_output=True, text=True, check=True)
    printed = [re.sub(r"torch\.Size\(\[(.*)\]\) torch\.", r"(\1) ", line) for line in said.stdout.splitlines()]
    assert [line for line in printed if line.startswith("(")] == list(expected.values())
    classes = [line for line in printed if line.startswith("[")]
    assert len(classes) == 2 and all(re.fullmatch(r"\[('\d'(, )?){4}\]", line) for line in classes)


def test_the_documentation_shows_the_scripts():
    part = export.part_of(DCGAN(DataSpec((1, 32, 32)), width=4).eval())
    text = (configs.folder().parent / "docs" / "export.md").read_text()
    for format, suffix in export.SUFFIXES.items():
        assert f"```python\n{export.script(part, f'dcgan{suffix}', format)}```\n" in text


def test_both_formats_contain_the_same_metadata():
    model = model_of("cgan")
    part = export.part_of(model)
    network = onnxruntime.InferenceSession(export.contents(part, "onnx"))
    extra = {export.METADATA: ""}
    torch.export.load(io.BytesIO(export.contents(part, "torch")), extra_files=extra)
    metadata = network.get_modelmeta().custom_metadata_map
    assert metadata == json.loads(extra[export.METADATA]) == part.metadata()
    assert metadata["model"] == "ConditionalGAN" and json.loads(metadata["classes"]) == list(model.spec.classes)
    assert len(metadata["checkpoint_hash"]) == 16
    z, label = json.loads(metadata["inputs"])
    words = "independent standard normal numbers"
    assert z == {"name": "z", "dtype": "float32", "shape": ["batch", *model.latent_shape], "values": words}
    assert label == {"name": "label", "dtype": "int64", "shape": ["batch"], "values": "a class from 0 to 9"}
    assert json.loads(metadata["outputs"])[0]["values"] == "gray from -1 to 1 (pixel / 127.5 - 1)"
    shapes = {one.name: one.shape for one in [*network.get_inputs(), *network.get_outputs()]}
    assert shapes == {"z": ["batch", *model.latent_shape], "label": ["batch"], "image": ["batch", 1, 32, 32]}


@pytest.mark.parametrize(("name", "network"), {"quickstart": "generator", "vq_prior": "autoencoder"}.items())
def test_only_the_weights_of_the_part_are_exported(name, network):
    model = model_of(name)
    program = export.program_of(export.part_of(model))
    own = {f"{network}.{key}" for key in getattr(model, network).state_dict()}
    exported = {key.removeprefix("model.") for key in program.state_dict}
    assert exported <= own and {key for key in own if key.endswith("weight")} <= exported
    assert not program.constants


def test_the_metadata_say_how_latents_are_drawn():
    spec = DataSpec((1, 16, 16))
    normal, uniform = (DCGAN(spec, width=4, latent_dim=4, prior=prior).eval() for prior in ("normal", "uniform"))
    assert export.part_of(normal).inputs[0].values == "independent standard normal numbers"
    assert export.part_of(uniform).inputs[0].values == "independent uniform numbers from -1 to 1"
    mixture = model_of("latent_mixture")
    examples = json.loads(export.part_of(mixture).metadata()["example_z"])
    torch.testing.assert_close(torch.tensor(examples), mixture.sample_latents(torch.arange(16)), rtol=0, atol=0)


def test_the_dropout_of_a_translator_is_fixed_by_its_seed():
    model = model_of("pix2pix_colorize")
    part = export.part_of(model, own={"seed": 3})
    assert json.loads(part.metadata()["options"]) == {"seed": 3, "to": "B"}
    network = export.loaded(export.contents(part, "onnx"), "onnx")
    x = torch.rand(2, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        expected, other = model.translate(x, seed=3), model.translate(x, seed=0)
    assert (network(x) - expected).abs().max() < 1e-6 < (expected - other).abs().max()


def test_a_translator_is_exported_in_the_given_direction():
    model, x = model_of("cyclegan_shapes"), torch.rand(2, 3, 32, 32) * 2 - 1
    network = export.loaded(export.contents(export.part_of(model, to="A"), "torch"), "torch")
    with torch.no_grad():
        assert (network(x) - model.G_BA(x)).abs().max() < 1e-6 < (network(x) - model.G_AB(x)).abs().max()


def test_a_network_that_differs_is_not_written(tmp_path, monkeypatch):
    part, path, real = export.part_of(model_of("ring")), tmp_path / "ring.pt2", export.loaded

    def off_by(amount):
        monkeypatch.setattr(export, "loaded", lambda *given: lambda z: real(*given)(z) + amount)

    off_by(2e-4)
    with pytest.raises(UserError, match=r"exported generator of GAN was not written.* by up to 0\.0002, more than"):
        export.export(part, path, "torch")
    off_by(float("nan"))
    with pytest.raises(UserError, match="by up to inf"):
        export.export(part, path, "torch")
    assert not any(tmp_path.iterdir())
    off_by(5e-5)
    assert export.export(part, path, "torch").difference == pytest.approx(5e-5, abs=1e-6)


def test_an_index_between_two_equally_near_vectors_does_not_refuse_a_network(tmp_path, monkeypatch):
    part, real, path = export.part_of(model_of("vqvae"), "encoder"), export.loaded, tmp_path / "codes.pt2"
    tied = part.examples(5)[0]

    def other(*given):
        network = real(*given)
        return lambda x: network(x) + (len(x) == 5 and x.equal(tied))

    monkeypatch.setattr(export, "loaded", other)
    assert export.export(part, path, "torch").difference == 0
    monkeypatch.setattr(export, "loaded", lambda *given: lambda x: real(*given)(x) + 1)
    with pytest.raises(UserError, match="by up to 1,"):
        export.export(part, path, "torch")


class Branching(Untrained):
    def reconstruct(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("format", export.SUFFIXES)
def test_control_flow_that_depends_on_values_is_refused_in_one_sentence(format, tmp_path, capfd):
    part = export.part_of(Branching(DataSpec((1, 4, 4))).eval())
    with pytest.raises(UserError, match=r"autoencoder of Branching cannot be exported.*`reconstruct`") as refused:
        export.export(part, tmp_path / "network", format)
    assert "\n" not in str(refused.value) and not any(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_the_exporters_print_nothing(capfd, tmp_path):
    part = export.part_of(model_of("ring"))
    for format in export.SUFFIXES:
        export.export(part, tmp_path / format, format)
    assert capfd.readouterr() == ("", "")


def test_invalid_parts_are_refused():
    model = model_of("vae_binary")
    with pytest.raises(UserError, match=r"Unknown part 'encodr'.* Did you mean 'encoder'"):
        export.part_of(model, "encodr")
    with pytest.raises(
        UserError, match="VAE has no classifier. Parts that it has: generator, autoencoder, encoder, dec"
    ):
        export.part_of(model, "classifier")
    with pytest.raises(UserError, match="VQPrior has no generator: its samples are not .* has: autoencoder, enc"):
        export.part_of(model_of("vq_prior"), "generator")
    with pytest.raises(UserError, match=r"target domain \(B\) is for a translator"):
        export.part_of(model, to="B")
    with pytest.raises(UserError, match="UNet cannot translate to A. Choose from: B"):
        export.part_of(model_of("unet_colorize"), to="A")
    with pytest.raises(UserError, match=r"model\.float\(\)\.cpu\(\)\.eval\(\)"):
        export.part_of(model.train())


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    real = export.importlib.util.find_spec
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else real(name))
    with pytest.raises(UserError, match=re.escape('needs onnxscript, which is not installed: `pip install "genbench[')):
        export.refuse_missing("onnx")
    export.refuse_missing("torch")
