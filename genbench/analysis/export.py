"""Export a network of a trained model as ONNX or as a `torch.export` program, which run without genbench."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
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
from genbench.core.noise import per_seed
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
TOLERANCE = 1e-4  # largest absolute difference from the original, for images in [-1, 1]
CODES = 1e-3  # largest fraction of different codebook indices: rounding decides between two equally near vectors
EXAMPLES = 16  # latents in the metadata, if they are not drawn from a standard distribution
METADATA = "genbench.json"  # name of the metadata in a .pt2 file


@dataclass(frozen=True)
class Value:
    """An input or output: its name, its dtype, its shape without the batch axis, and what its numbers mean."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: str


@dataclass
class Part:
    """A network of a model, ready for export.

    name      one of PARTS
    call      the model's own method: inputs -> output
    inputs    images or latents, and the condition, if the method takes one
    output    what the network returns
    example   n -> example inputs of n images, drawn from a fixed seed
    facts     metadata: the model, its checkpoint, its classes, and what is fixed in the exported network
    """

    name: str
    call: Callable[..., Tensor]
    inputs: tuple[Value, ...]
    output: Value
    example: Callable[[int], tuple[Tensor, ...]]
    facts: dict[str, Any] = field(default_factory=dict)
    model: Any = None

    def metadata(self) -> dict[str, str]:
        """Name -> text. Lists and mappings are JSON."""
        facts = self.facts | {"inputs": [_listed(v) for v in self.inputs], "outputs": [_listed(self.output)]}
        return {name: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for name, v in facts.items()}


def _listed(value: Value) -> dict[str, Any]:
    return asdict(value) | {"shape": ["batch", *value.shape]}


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    path        the network
    script      a script that loads it without genbench
    difference  largest absolute difference from the original model; for codebook indices, the fraction that differs
    """

    path: Path
    script: Path
    difference: float


def parts_of(model: Any) -> list[str]:
    """Names of the parts of a model that can be exported; the first one is exported by default."""
    return [name for name, (capability, _) in PARTS.items() if isinstance(model, capability)]


def part_of(model: Any, name: str | None = None, *, to: str | None = None, own: dict[str, Any] | None = None) -> Part:
    """A part of a trained model.

    Args:
        model: Model in eval mode on the CPU
        name: One of PARTS. Default: the first one that the model has
        to: Target domain of a translator. Default: B
        own: Values of the model's own options of the method, such as the `seed` of a translator's dropout. They are
            fixed in the exported network

    Raises:
        UserError: the model does not have the part or the domain.
    """
    name = chosen(model, name)
    method = getattr(model, PARTS[name][1])
    fixed = options(method) | (own or {})
    if name == "translator":
        to = to or "B"
        if to not in model.domains:
            raise UserError(f"{type(model).__name__} cannot translate to {to}. Choose from: {', '.join(model.domains)}.")
        fixed["to"] = to
    elif to is not None:
        raise UserError(f"`to` {to} is for a translator, but the exported part is the {name}.")
    inputs, draws, more = _inputs(model, name, method, to)

    def call(*tensors: Tensor) -> Tensor:
        condition = {"condition": tensors[1]} if len(tensors) > 1 else {}
        return method(tensors[0], **condition, **fixed)

    def example(n: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(n)
        return tuple(draw(n, generator) for draw in draws)

    with torch.no_grad():
        shape = tuple(call(*example(2)).shape[1:])
    facts, _ = facts_of(model, "raw")
    spec = model.spec
    told: dict[str, Any] = {
        "genbench": genbench.__version__,
        "model": type(model).__name__,
        "part": name,
        "checkpoint": facts["checkpoint"],
        "checkpoint_hash": facts["checkpoint_hash"],
        "weights": facts["weights"],
        "images_seen": facts["images_seen"],
    }
    told |= {"options": fixed} if fixed else {}
    told |= {"classes": list(spec.classes)} if spec.classes else {}
    told |= {"vocabulary": list(spec.vocabulary)} if spec.vocabulary else {}
    told |= more
    return Part(name, call, inputs, _output(model, name, shape), example, told, model)


def chosen(model: Any, name: str | None) -> str:
    has = parts_of(model)
    kind = type(model).__name__
    if name is not None and name not in PARTS:
        raise UserError(f"Unknown part '{name}'. Choose from: {', '.join(PARTS)}.{did_you_mean(name, PARTS)}")
    if not has:
        raise UserError(
            f"{kind} has no part that can be exported. It draws images pixel by pixel or without a latent, so its "
            f"sampling is not one pass through a network. Parts of other models: {', '.join(PARTS)}."
        )
    if name is not None and name not in has:
        raise UserError(f"{kind} has no {name}. Parts that it has: {', '.join(has)}. Set one of them with `--part`.")
    return name or has[0]


Draw = Callable[[int, torch.Generator], Tensor]


def _inputs(
    model: Any, name: str, method: Callable[..., Tensor], to: str | None
) -> tuple[tuple[Value, ...], list[Draw], dict[str, Any]]:
    """The inputs of a part, functions that draw examples of them, and metadata about them."""
    spec, more = model.spec, {}
    if name in ("generator", "decoder"):
        shape = tuple(model.latent_shape)
        if model.latent_dtype == "int64":
            known = model.latent_values
            first = Value("z", "int64", shape, f"codebook indices from 0 to {known - 1}")
            draw: Draw = lambda n, generator: torch.randint(known, (n, *shape), generator=generator)  # noqa: E731
        else:
            words, more = _prior(model, shape)
            first = Value("z", "float32", shape, words)
            draw = lambda n, generator: _latents(model, shape, n, generator)  # noqa: E731
    else:
        shape = tuple(spec.source if to == "B" else spec.shape)
        first = _image("image" if len(shape) == 3 else "point", shape, binary=spec.binary)
        draw = lambda n, generator: 2 * torch.rand(n, *shape, generator=generator) - 1  # noqa: E731
    if not takes_condition(method) or not model.conditional:
        return (first,), [draw], more
    if spec.target == "caption":
        words, length = len(spec.vocabulary), spec.caption_length
        second = Value("caption", "int64", (length,), "indices of words in `vocabulary`, padded with 0")
        return (first, second), [draw, lambda n, g: torch.randint(1, words, (n, length), generator=g)], more
    classes = len(spec.classes)
    second = Value("label", "int64", (), f"index of a class in `classes`, from 0 to {classes - 1}")
    return (first, second), [draw, lambda n, g: torch.randint(classes, (n,), generator=g)], more


def _latents(model: Any, shape: tuple[int, ...], n: int, generator: torch.Generator) -> Tensor:
    if isinstance(model, SamplesLatents):
        return model.sample_latents(torch.randint(2**31, (n,), generator=generator))
    return torch.randn(n, *shape, generator=generator)


def _prior(model: Any, shape: tuple[int, ...]) -> tuple[str, dict[str, Any]]:
    """The distribution of the latents in words, and example latents if it is not a standard one."""
    if not isinstance(model, SamplesLatents):
        return "codes as the encoder returns them", {}
    seeds = torch.arange(EXAMPLES)
    drawn = model.sample_latents(seeds)
    if torch.equal(drawn, per_seed(torch.randn, seeds, shape)):
        return "independent standard normal numbers", {}
    if torch.equal(drawn, 2 * per_seed(torch.rand, seeds, shape) - 1):
        return "independent uniform numbers from -1 to 1", {}
    words = "latents from the model's own distribution, which is not exported; `example_z` contains some"
    return words, {"example_z": drawn.tolist()}


def _image(name: str, shape: tuple[int, ...], binary: bool = False) -> Value:
    if len(shape) == 1:
        return Value(name, "float32", shape, "coordinates, not normalized")
    order = "gray" if shape[0] == 1 else "RGB" if shape[0] == 3 else f"{shape[0]} channels"
    values = "-1 (black) or 1 (white)" if binary else "from -1 to 1: pixel / 127.5 - 1"
    return Value(name, "float32", shape, f"{order}, {values}")


def _output(model: Any, name: str, shape: tuple[int, ...]) -> Value:
    if name == "encoder":
        if model.latent_dtype == "int64":
            return Value("z", "int64", shape, f"codebook indices from 0 to {model.latent_values - 1}")
        return Value("z", "float32", shape, "latent code; the mean, if the encoder is probabilistic")
    if name in ("classifier", "segmenter"):
        each = "each class" if name == "classifier" else "each class, at each pixel"
        return Value("logits", "float32", shape, f"logit of {each}; softmax over axis 1 gives probabilities")
    kind = "image" if len(shape) == 3 else "point"
    return _image({"autoencoder": "reconstruction", "translator": "translation"}.get(name, kind), shape)


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
    """Returns recorded random tensors instead of drawing them: a `torch.Generator` cannot be exported."""

    def __init__(self, noise: list[Tensor]) -> None:
        super().__init__()
        self.noise = iter(noise)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return next(self.noise) if (kwargs or {}).get("generator") is not None else func(*args, **(kwargs or {}))


class Network(nn.Module):
    """A part as a module. Random numbers that the part draws from a seed of its own, such as dropout, are constants."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.model, self.call = part.model, part.call
        inputs = part.example(TRACED)
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
        UserError: the part cannot be traced, because its control flow depends on values.
    """
    batch = torch.export.Dim("batch")
    inputs = part.example(TRACED)
    try:
        with _quiet(), torch.no_grad():
            dynamic = {"inputs": tuple({0: batch} for _ in inputs)}
            program = torch.export.export(Network(part).eval(), inputs, dynamic_shapes=dynamic)
    except Exception as error:  # the exporter raises exceptions of many classes
        raise UserError(
            f"The {part.name} of {part.facts['model']} cannot be exported: `torch.export` cannot trace its "
            f"`{PARTS[part.name][1]}` for any batch size ({reason(error)})."
        ) from error
    _remove_unused(program)
    return program


def _remove_unused(program: torch.export.ExportedProgram) -> None:
    """Remove the parameters and buffers that the graph does not use, such as those of a GAN's discriminator."""
    signature, graph = program.graph_signature, program.graph_module.graph
    nodes = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    kept = []
    for spec in signature.input_specs:
        node = nodes[spec.arg.name]
        if spec.target in program.state_dict and not node.users:
            graph.erase_node(node)
            del program.state_dict[spec.target]
        else:
            kept.append(spec)
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
                program, dynamo=True, verbose=False,
                input_names=[value.name for value in part.inputs], output_names=[part.output.name],
            )  # fmt: skip
            assert converted is not None  # as `dynamo` is set
            converted.model.metadata_props.update(part.metadata())
            return converted.model_proto.SerializeToString()
    except Exception as error:
        raise UserError(
            f"The {part.name} of {part.facts['model']} cannot be exported as ONNX ({reason(error)}). Use `--format "
            "torch`."
        ) from error


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
    settings.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {k: x.numpy() for k, x in zip(names, inputs, strict=True)})[0])

    return run


@torch.no_grad()
def difference(part: Part, network: Callable[..., Tensor], sizes: tuple[int, ...] = CHECKED) -> float:
    """The largest absolute difference between a network and the model, over batches of several sizes.

    For codebook indices, the largest fraction of different indices. Infinite if shapes or dtypes differ.
    """
    most = 0.0
    for n in sizes:
        inputs = part.example(n)
        expected, found = part.call(*inputs), network(*inputs)
        if found.shape != expected.shape or found.dtype != expected.dtype:
            return float("inf")
        off = (found - expected).abs() if expected.is_floating_point() else found.ne(expected).double().mean()
        most = max(most, off.nan_to_num(float("inf")).max().item())
    return most


# ---- script -------------------------------------------------------------------------------------------------------


def script(part: Part, name: str, format: Format, n: int = 4) -> str:
    """A short script that loads the file `name` from its own folder and runs it on a batch of n, without genbench."""
    numpy = format == "onnx"
    inputs = [(value, _drawn(part, value, n, numpy)) for value in part.inputs]
    lines = [f"# The {part.name} of a {part.facts['model']}, exported by genbench. Needs only "]
    lines[0] += "numpy and onnxruntime." if numpy else "PyTorch."
    uses_json = any("example_z" in code for _, code in inputs)
    lines += [*(["import json"] if uses_json else []), "from pathlib import Path", ""]
    lines += ["import numpy as np", "import onnxruntime"] if numpy else ["import torch"]
    lines += ["", f'path = Path(__file__).with_name("{name}")']
    if numpy:
        lines.append('network = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])')
        if uses_json:
            lines.append("metadata = network.get_modelmeta().custom_metadata_map")
    elif uses_json:
        lines.append(f'files = {{"{METADATA}": ""}}')
        lines.append("network = torch.export.load(path, extra_files=files).module()")
        lines.append(f'metadata = json.loads(files["{METADATA}"])')
    else:
        lines.append("network = torch.export.load(path).module()")
    for value, code in inputs:
        lines.append(f"# {value.dtype} {shape_text(value)}: {value.values}")
        lines.append(f"{value.name} = {code}")
    out = part.output
    names = ", ".join(value.name for value in part.inputs)
    if numpy:
        given = ", ".join(f'"{value.name}": {value.name}' for value in part.inputs)
        lines.append(f"({out.name},) = network.run(None, {{{given}}})")
    else:
        lines += ["with torch.no_grad():", f"    {out.name} = network({names})"]
    lines.append(f"# {out.dtype} {shape_text(out)}: {out.values}")
    lines.append(f"print({out.name}.shape, {out.name}.dtype)")
    if len(out.shape) == 3 and out.name != "logits":
        to_pixels = (
            "((%s + 1) * 127.5).round().clip(0, 255).astype(np.uint8)"
            if numpy
            else "((%s + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)"
        )
        lines.append(f"pixels = {to_pixels % out.name}")
    return "\n".join(lines) + "\n"


def shape_text(value: Value) -> str:
    return f"[{', '.join(['batch', *map(str, value.shape)])}]"


def _drawn(part: Part, value: Value, n: int, numpy: bool) -> str:
    """Code that makes an input of n images."""
    size = ", ".join(map(str, (n, *value.shape)))
    size_tuple = f"({size})" if value.shape else f"({n},)"
    if value.dtype == "int64":
        most = {"label": len(part.facts.get("classes", ())), "caption": len(part.facts.get("vocabulary", ()))}.get(
            value.name
        ) or int(value.values.rpartition(" ")[2]) + 1
        least = 1 if value.name == "caption" else 0
        if value.name == "label":
            return f"np.arange({n}) % {most}" if numpy else f"torch.arange({n}) % {most}"
        if numpy:
            return f"np.random.default_rng(0).integers({least}, {most}, {size_tuple})"
        return f"torch.randint({least}, {most}, {size_tuple})"
    if "example_z" in part.facts and value.name == "z":
        listed = f'json.loads(metadata["example_z"])[:{n}]'
        return f"np.array({listed}, dtype=np.float32)" if numpy else f"torch.tensor({listed})"
    if value.name == "z" and "uniform" not in value.values:
        if numpy:
            return f"np.random.default_rng(0).standard_normal({size_tuple}, dtype=np.float32)"
        return f"torch.randn{size_tuple}"
    if numpy:
        return f"np.random.default_rng(0).uniform(-1, 1, {size_tuple}).astype(np.float32)"
    return f"2 * torch.rand{size_tuple} - 1"


# ---- everything ---------------------------------------------------------------------------------------------------


def export(part: Part, path: Path, format: Format) -> Exported:
    """Export a part, compare it with the model, and write it and a script that loads it.

    Args:
        path: The file; the script is written to `<path>.py`

    Raises:
        UserError: the part cannot be exported, its output differs from the model's, or the files cannot be written.
    """
    data = contents(part, format)
    found = difference(part, loaded(data, format))
    is_code = part.output.dtype == "int64"
    if not found <= (CODES if is_code else TOLERANCE):
        what = f"{found:.2%} of its codebook indices" if is_code else f"its output by up to {found:.2g}"
        allowed = f"{CODES:.1%}" if is_code else f"{TOLERANCE:g}"
        raise UserError(
            f"The exported {part.name} differs from {part.facts['model']} in {what}, more than {allowed}. It was not "
            "written."
        )
    beside = path.with_name(f"{path.name}.py")
    files.write(path, lambda file: file.write(data))
    files.write(beside, lambda file: file.write(script(part, path.name, format).encode()))
    return Exported(path, beside, found)
