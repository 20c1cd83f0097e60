"""Export a network of a trained model as ONNX or as a `torch.export` program, which run without genbench."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.overrides import TorchFunctionMode

import genbench
from genbench.core import files
from genbench.core.capabilities import (
    Classifies,
    Decodes,
    Encodes,
    Reconstructs,
    SamplesLatents,
    Segments,
    Translates,
    options,
    takes_condition,
)
from genbench.core.errors import UserError, did_you_mean, reason
from genbench.core.noise import mix, per_seed
from genbench.evaluation.checkpoint_facts import facts_of

Format = Literal["onnx", "torch"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # the extra `export`

# part -> its capability and its method. If no part is named, the first one that the model has is exported
PARTS: dict[str, tuple[type, str]] = {
    "generator": (SamplesLatents, "decode"),
    "translator": (Translates, "translate"),
    "segmenter": (Segments, "segment"),
    "autoencoder": (Reconstructs, "reconstruct"),
    "encoder": (Encodes, "encode"),
    "decoder": (Decodes, "decode"),
    "classifier": (Classifies, "classify"),
}

TRACED, CHECKED = 3, (1, 5)  # batch sizes
TOLERANCE = 1e-4  # largest absolute difference from the model; images are in [-1, 1]
EXAMPLES = 16  # latents in the metadata, if they are not drawn from a standard distribution
METADATA = "genbench.json"  # name of the metadata in a .pt2 file

# how example inputs are drawn -> code for NumPy and for PyTorch
DRAWS = {
    "normal": ("np.random.default_rng(0).standard_normal({size}, dtype=np.float32)", "torch.randn({size})"),
    "uniform": ("np.random.default_rng(0).uniform(-1, 1, {size}).astype(np.float32)", "2 * torch.rand({size}) - 1"),
    "indices": ("np.random.default_rng(0).integers(0, {below}, {size})", "torch.randint(0, {below}, {size})"),
    "classes": ("np.arange({n}) % {below}", "torch.arange({n}) % {below}"),
    "latents": (
        'np.array(json.loads(metadata["example_z"])[:{n}], dtype=np.float32)',
        'torch.tensor(json.loads(metadata["example_z"])[:{n}])',
    ),
}


@dataclass(frozen=True)
class Value:
    """An input or output.

    name    its name in the exported network
    dtype   float32 or int64
    shape   without the batch axis
    values  what its numbers mean, in words
    draws   key of DRAWS: how examples of an input are drawn
    below   number of values of an int64 input
    """

    name: str
    dtype: Literal["float32", "int64"]
    shape: tuple[int, ...]
    values: str
    draws: str = ""
    below: int = 0

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(['batch', *map(str, self.shape)])}], {self.values}"

    def example(self, model: Any, n: int, generator: torch.Generator) -> Tensor:
        """Examples for a check, [n, *shape]."""
        if self.dtype == "int64":
            return torch.randint(self.below, (n, *self.shape), generator=generator)
        if self.draws == "uniform":
            return 2 * torch.rand(n, *self.shape, generator=generator) - 1
        if self.draws == "latents":
            return model.sample_latents(torch.randint(2**31, (n,), generator=generator))
        return torch.randn(n, *self.shape, generator=generator)


@dataclass(frozen=True)
class Part:
    """A network of a model, ready for export.

    name    one of PARTS
    model   the model
    call    the model's own method: inputs -> output
    inputs  images or latents, and the condition, if the method takes one
    output  what the network returns
    facts   metadata: the model, its checkpoint, its classes, and what is fixed in the exported network
    """

    name: str
    model: Any
    call: Callable[..., Tensor]
    inputs: tuple[Value, ...]
    output: Value
    facts: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name} of {type(self.model).__name__}"

    def examples(self, n: int, seed: int = 0) -> tuple[Tensor, ...]:
        """A batch of n random inputs."""
        generator = torch.Generator().manual_seed(mix("export", n, seed))
        return tuple(value.example(self.model, n, generator) for value in self.inputs)

    def metadata(self) -> dict[str, str]:
        """Name -> text. Lists and mappings are JSON."""
        facts = self.facts | {"inputs": [_described(v) for v in self.inputs], "outputs": [_described(self.output)]}
        return {name: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for name, v in facts.items()}


def _described(value: Value) -> dict[str, Any]:
    shape = ["batch", *value.shape]
    return {"name": value.name, "dtype": value.dtype, "shape": shape, "values": value.values}


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    path        the network
    script      a script that loads it without genbench
    difference  largest absolute difference from the model; for codebook indices, the fraction that differs
    """

    path: Path
    script: Path
    difference: float


def parts_of(model: Any) -> list[str]:
    """Names of the parts of a model that can be exported; the first one is exported by default."""
    return [name for name, (capability, _) in PARTS.items() if isinstance(model, capability)]


def chosen(model: Any, name: str | None = None) -> str:
    """The name of the part to export: `name`, or the first part of the model.

    Raises:
        UserError: the model does not have the part.
    """
    kind, has = type(model).__name__, parts_of(model)
    if name is not None and name not in PARTS:
        raise UserError(f"Unknown part '{name}'. Choose from: {', '.join(PARTS)}.{did_you_mean(name, PARTS)}")
    if not has:
        methods = "`, `".join(dict.fromkeys(method for _, method in PARTS.values()))
        raise UserError(
            f"{kind} cannot be exported: it has none of the methods `{methods}`. Its images are not the output of one "
            "pass through a network. A PixelCNN, for example, draws one pixel after another."
        )
    if name is not None and name not in has:
        why = ": its samples are not the output of one pass through a network" if name == "generator" else ""
        raise UserError(f"{kind} has no {name}{why}. Parts that it has: {', '.join(has)}. Set one with `--part`.")
    return name or has[0]


def part_of(model: Any, name: str | None = None, *, to: str | None = None, own: dict[str, Any] | None = None) -> Part:
    """A part of a trained model.

    Args:
        model: Model in float32 and eval mode on the CPU, as `genbench.load` returns it
        name: One of PARTS. Default: the first one that the model has
        to: Target domain of a translator. Default: B
        own: Values of the model's own options of the method, such as the `seed` of a translator's dropout. They are
            fixed in the exported network

    Raises:
        UserError: the model does not have the part or the domain.
    """
    name = chosen(model, name)
    if model.training or model.device.type != "cpu" or model.dtype != torch.float32:
        raise UserError(
            "Only a model in float32 and eval mode on the CPU can be exported: `model.float().cpu().eval()`."
        )
    method = getattr(model, PARTS[name][1])
    fixed = options(method) | (own or {})
    if name == "translator":
        fixed["to"] = to or "B"
        if fixed["to"] not in model.domains:
            known = ", ".join(model.domains)
            raise UserError(f"{type(model).__name__} cannot translate to {to}. Choose from: {known}.")
    elif to is not None:
        raise UserError(f"A target domain ({to}) is for a translator, but the exported part is the {name}.")

    def call(*tensors: Tensor) -> Tensor:
        condition = {"condition": tensors[1]} if len(tensors) > 1 else {}
        return method(tensors[0], **condition, **fixed)

    first = _latent(model) if name in ("generator", "decoder") else _image_input(model, fixed.get("to"))
    inputs = (first, *_conditions(model, method))
    trained, spec = facts_of(model, "raw")[0], model.spec
    facts: dict[str, Any] = {"genbench": genbench.__version__, "model": type(model).__name__, "part": name}
    facts |= {key: trained[key] for key in ("checkpoint", "checkpoint_hash", "weights", "images_seen")}
    optional = {"options": fixed, "classes": list(spec.classes), "vocabulary": list(spec.vocabulary)}
    if first.draws == "latents":
        optional["example_z"] = model.sample_latents(torch.arange(EXAMPLES)).tolist()
    facts |= {key: value for key, value in optional.items() if value}
    part = Part(name, model, call, inputs, first, facts)
    with torch.no_grad():
        shape = tuple(call(*part.examples(2)).shape[1:])
    return replace(part, output=_output(model, name, shape))


def _latent(model: Any) -> Value:
    """The input of a generator or a decoder."""
    shape = tuple(model.latent_shape)
    if model.latent_dtype == "int64":
        return _codes(model, shape)
    if not isinstance(model, SamplesLatents):
        return Value("z", "float32", shape, "a latent code, as the encoder returns it", "normal")
    seeds = torch.arange(EXAMPLES)
    drawn = model.sample_latents(seeds)
    if torch.equal(drawn, per_seed(torch.randn, seeds, shape)):
        return Value("z", "float32", shape, "independent standard normal numbers", "normal")
    if torch.equal(drawn, 2 * per_seed(torch.rand, seeds, shape) - 1):
        return Value("z", "float32", shape, "independent uniform numbers from -1 to 1", "uniform")
    words = "from the model's own distribution, which is not exported; the metadata `example_z` contains some"
    return Value("z", "float32", shape, words, "latents")


def _codes(model: Any, shape: tuple[int, ...]) -> Value:
    most = model.latent_values - 1
    return Value("z", "int64", shape, f"codebook indices from 0 to {most}", "indices", most + 1)


def _image_input(model: Any, to: str | None) -> Value:
    shape = tuple(model.spec.source if to == "B" else model.spec.shape)
    return _image("image", shape, binary=model.spec.binary)


def _image(name: str, shape: tuple[int, ...], *, binary: bool = False) -> Value:
    if len(shape) == 1:
        return Value("point" if name == "image" else name, "float32", shape, "coordinates as in the data", "uniform")
    order = {1: "gray", 3: "RGB"}.get(shape[0], f"{shape[0]} channels")
    values = "each -1 (black) or 1 (white)" if binary else "from -1 to 1 (pixel / 127.5 - 1)"
    return Value(name, "float32", shape, f"{order} {values}", "uniform")


def _conditions(model: Any, method: Callable[..., Tensor]) -> tuple[Value, ...]:
    """The condition as an input, if the method takes one."""
    spec = model.spec
    if not takes_condition(method) or not model.conditional:
        return ()
    if spec.target == "caption":
        length, words = spec.caption_length, len(spec.vocabulary)
        if not length:
            raise UserError(f"{type(model).__name__} was trained on captions of any length, which cannot be exported.")
        about = "indices of words in the metadata `vocabulary`, padded with 0"
        return (Value("caption", "int64", (length,), about, "indices", words),)
    classes = len(spec.classes)
    return (Value("label", "int64", (), f"a class from 0 to {classes - 1}", "classes", classes),)


def _output(model: Any, name: str, shape: tuple[int, ...]) -> Value:
    if name == "encoder":
        if model.latent_dtype == "int64":
            return _codes(model, shape)
        return Value("z", "float32", shape, "a latent code; the mean, if the encoder is probabilistic")
    if name in ("classifier", "segmenter"):
        return Value("logits", "float32", shape, "a logit of each class; softmax over axis 1 gives probabilities")
    return _image({"autoencoder": "reconstruction", "translator": "translation"}.get(name, "image"), shape)


# ---- tracing ------------------------------------------------------------------------------------------------------


class _Recorded(TorchFunctionMode):
    """Records the random tensors that are drawn with a generator."""

    def __init__(self) -> None:
        super().__init__()
        self.noise: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn = func(*args, **(kwargs or {}))
        if (kwargs or {}).get("generator") is not None:
            self.noise.append(drawn)
        return drawn


class _Replayed(TorchFunctionMode):
    """Returns recorded random tensors instead of drawing them.

    `torch.export` would export the generator without its `manual_seed`, so that each call would draw different numbers.
    """

    def __init__(self, noise: list[Tensor]) -> None:
        super().__init__()
        self.noise = iter(noise)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return next(self.noise) if (kwargs or {}).get("generator") is not None else func(*args, **(kwargs or {}))


class Network(nn.Module):
    """A part as a module. Random numbers that the part draws from its own seed, such as dropout, are constants."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.train(False)  # before the model is added, so that the mode of the model does not change
        self.model, self.call = part.model, part.call
        inputs = part.examples(TRACED)
        with torch.no_grad(), _Recorded() as recorded:
            part.call(*inputs)
        self.draws = len(recorded.noise)
        for k, noise in enumerate(recorded.noise):
            self.register_buffer(f"noise{k}", noise)

    def forward(self, *inputs: Tensor) -> Tensor:
        with _Replayed([getattr(self, f"noise{k}") for k in range(self.draws)]):
            return self.call(*inputs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporters print, log and warn; none of it is about the user's model."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def program_of(part: Part) -> torch.export.ExportedProgram:
    """The part as a `torch.export` program with a dynamic batch axis, without the weights of the model's other parts.

    Raises:
        UserError: the part cannot be traced, because its control flow depends on the values of its input.
    """
    inputs = part.examples(TRACED)
    batch = ({0: torch.export.Dim("batch")},) * len(inputs)
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(Network(part), inputs, dynamic_shapes={"inputs": batch}, strict=False)
    except Exception as error:  # the exporter raises exceptions of many classes
        raise UserError(
            f"The {part} cannot be exported: `torch.export` cannot trace its method `{PARTS[part.name][1]}` for all "
            f"batch sizes. Its control flow may depend on the values of its input. ({reason(error)})"
        ) from error
    _remove_unused(program)
    return program


def _remove_unused(program: torch.export.ExportedProgram) -> None:
    """Remove the weights that the graph does not use, such as those of a GAN's discriminator."""
    signature, graph = program.graph_signature, program.graph_module.graph
    unused = {node.name: node for node in graph.nodes if node.op == "placeholder" and not node.users}
    weights = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
    kept = []
    for spec in signature.input_specs:
        if spec.kind not in weights or spec.arg.name not in unused:
            kept.append(spec)
            continue
        graph.erase_node(unused[spec.arg.name])
        for tensors in (program.state_dict, program.constants):
            tensors.pop(spec.target, None)
    signature.input_specs = kept
    program.graph_module.recompile()


def contents(part: Part, format: Format) -> bytes:
    """The bytes of an .onnx or a .pt2 file, with metadata.

    Raises:
        UserError: the part cannot be exported, or a package is missing.
    """
    refuse_missing(format)
    program = program_of(part)
    file = io.BytesIO()
    if format == "torch":
        with _quiet():
            torch.export.save(program, file, extra_files={METADATA: json.dumps(part.metadata(), ensure_ascii=False)})
        return file.getvalue()
    try:
        with _quiet():
            converted = torch.onnx.export(
                program, dynamo=True, verbose=False, dynamic_shapes=({0: "batch"},) * len(part.inputs),
                input_names=[value.name for value in part.inputs], output_names=[part.output.name],
            )  # fmt: skip
            assert converted is not None  # because `dynamo` is set
            converted.model.metadata_props.update(part.metadata())
            return converted.model_proto.SerializeToString()
    except Exception as error:
        raise UserError(f"The {part} cannot be exported as ONNX ({reason(error)}). Use `--format torch`.") from error


def refuse_missing(format: Format) -> None:
    """Raise UserError if a package that a format needs is not installed."""
    lacking = [name for name in PACKAGES if importlib.util.find_spec(name) is None] if format == "onnx" else []
    if lacking:
        raise UserError(
            f'ONNX needs {" and ".join(lacking)}, which is not installed: `pip install "genbench[export]"`. `--format '
            "torch` needs no other package."
        )


# ---- check --------------------------------------------------------------------------------------------------------


def loaded(data: bytes, format: Format) -> Callable[..., Tensor]:
    """The network of an exported file as a function of its inputs, run by onnxruntime or PyTorch."""
    if format == "torch":
        with _quiet():
            return torch.export.load(io.BytesIO(data)).module()
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # only errors
    session = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {k: x.numpy() for k, x in zip(names, inputs, strict=True)})[0])

    return run


@torch.no_grad()
def difference(part: Part, network: Callable[..., Tensor], seed: int = 0) -> float:
    """The largest absolute difference between a network and the model, for batches of CHECKED random inputs.

    For codebook indices, the largest fraction of different indices. Infinite if shapes or dtypes differ.
    """
    most = 0.0
    for n in CHECKED:
        inputs = part.examples(n, seed)
        expected, found = part.call(*inputs), network(*inputs)
        if found.shape != expected.shape or found.dtype != expected.dtype:
            return float("inf")
        off = (found - expected).abs() if expected.is_floating_point() else found.ne(expected).double().mean()
        most = max(most, off.nan_to_num(float("inf")).max().item())
    return most


# ---- script -------------------------------------------------------------------------------------------------------


def script(part: Part, name: str, format: Format, n: int = 4) -> str:
    """A script that loads the file `name` from its own folder and runs it on a batch of n, without genbench."""
    numpy, out, names = format == "onnx", part.output, [value.name for value in part.inputs]
    shows_classes = part.name == "classifier"
    parses = shows_classes or any(value.draws == "latents" for value in part.inputs)
    lines = [f"# The {part}, exported by genbench. Needs only {'numpy and onnxruntime' if numpy else 'PyTorch'}."]
    lines += [*(["import json"] if parses else []), "from pathlib import Path", ""]
    lines += ["import numpy as np", "import onnxruntime"] if numpy else ["import torch"]
    lines += ["", f"path = Path(__file__).with_name({json.dumps(name, ensure_ascii=False)})"]
    if numpy:
        lines.append('network = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])')
        lines += ["metadata = network.get_modelmeta().custom_metadata_map"] if parses else []
    elif parses:
        lines += [f'extra = {{"{METADATA}": ""}}', "network = torch.export.load(path, extra_files=extra).module()"]
        lines += [f'metadata = json.loads(extra["{METADATA}"])']
    else:
        lines += ["network = torch.export.load(path).module()"]
    for value in part.inputs:
        size = str((n, *value.shape))
        code = DRAWS[value.draws][0 if numpy else 1].format(size=size, below=value.below, n=n)
        lines += [f"# {value}", f"{value.name} = {code}"]
    if numpy:
        given = ", ".join(f'"{name}": {name}' for name in names)
        lines.append(f"({out.name},) = network.run(None, {{{given}}})")
    else:
        lines += ["with torch.no_grad():", f"    {out.name} = network({', '.join(names)})"]
    lines += [f"# {out}", f"print({out.name}.shape, {out.name}.dtype)"]
    if shows_classes:
        lines.append('classes = json.loads(metadata["classes"])')
        lines.append("print([classes[k] for k in logits.argmax(1)])")
    elif part.name == "segmenter":
        lines.append(f"mask = logits.argmax(1)  # int64 [{n}, {', '.join(map(str, out.shape[1:]))}]")
    elif len(out.shape) == 3 and out.dtype == "float32":
        rounded = f"(({out.name} + 1) * 127.5).round()"
        pixels = f"{rounded}.clip(0, 255).astype(np.uint8)" if numpy else f"{rounded}.clamp(0, 255).to(torch.uint8)"
        lines.append(f"pixels = {pixels}  # {'gray' if out.shape[0] == 1 else 'color'}, 0 to 255")
    return "\n".join(lines) + "\n"


# ---- everything ---------------------------------------------------------------------------------------------------


def export(part: Part, path: Path, format: Format) -> Exported:
    """Export a part, compare it with the model, and write it and a script that loads it.

    Args:
        path: The file; the script is written to `<path>.py`

    Raises:
        UserError: the part cannot be exported, its output differs from the model's, or the files cannot be written.
    """
    data = contents(part, format)
    network = loaded(data, format)
    found = difference(part, network)
    if getattr(part.model, "latent_dtype", None) == "int64" and found > TOLERANCE:
        # If two codebook vectors are about equally near, rounding decides between them. For a VQVAE on MNIST, 3 of
        # 128,000 indices of test images differed. A wrong network differs for all inputs.
        found = min(difference(part, network, seed) for seed in (1, 2))
    if not found <= TOLERANCE:
        raise UserError(
            f"The exported {part} was not written: in {'onnxruntime' if format == 'onnx' else 'PyTorch'}, its output "
            f"differs from the model's by up to {found:.2g}, more than {TOLERANCE:g}."
        )
    beside = path.with_name(f"{path.name}.py")
    files.write(path, lambda file: file.write(data))
    files.write(beside, lambda file: file.write(script(part, path.name, format).encode()))
    return Exported(path, beside, found)
