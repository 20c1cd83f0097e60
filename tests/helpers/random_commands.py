"""Random commands, right and wrong ones, and what should follow from each."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from hypothesis import strategies as st

import genbench.data
import genbench.models
from genbench.cli.trainer import SETTINGS
from genbench.core.arguments import Bounds, declared
from genbench.core.units import Images
from genbench.objectives.adversarial_settings import AdversarialSettings

Path = tuple[str, ...]  # ("model", "optimizer", "lr"), without `init_args`
IN_CLASS = ("model", "data")

# name -> model, data set, their arguments; all as small as they can be
DIGITS = {"size": 16, "batch_size": 16, "subset": 80}
SHAPES = {"size": 32, "batch_size": 8, "train_images": 40, "val_images": 16, "test_images": 16}
RUNS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "vae": ("VAE", "Digits", {"width": 4, "latent_dim": 4}, DIGITS),
    "dcgan": ("DCGAN", "Digits", {"width": 4, "latent_dim": 4}, DIGITS),
    "gan": ("GAN", "Digits", {"hidden": [8], "latent_dim": 4}, DIGITS),
    "ring": ("GAN", "Ring", {"hidden": [8], "latent_dim": 2}, {"batch_size": 16}),
    "cgan": ("ConditionalGAN", "Digits", {"width": 4, "latent_dim": 4}, DIGITS),
    "cvae": ("ConditionalVAE", "Digits", {"network": "mlp", "hidden": [8], "latent_dim": 4}, DIGITS),
    "sngan": ("SNGAN", "Digits", {"width": 4, "latent_dim": 4, "discriminator_width": 4}, DIGITS | {"size": 32}),
    "semi_supervised_gan": (
        "SemiSupervisedGAN", "Digits", {"network": "mlp", "hidden": [8], "latent_dim": 4},
        DIGITS | {"subset": 200, "labeled": 20},
    ),
    "autoencoder": ("Autoencoder", "Digits", {"hidden": [8], "latent_dim": 4}, DIGITS),
    "conv_autoencoder": ("ConvAutoencoder", "Digits", {"width": 4, "latent_dim": 4}, DIGITS),
    "denoising": ("DenoisingAutoencoder", "Digits", {"width": 4, "latent_dim": 4}, DIGITS),
    "vqvae": ("VQVAE", "Digits", {"width": 4, "num_embeddings": 8, "embedding_dim": 4, "blocks": 1}, DIGITS),
    "pixelcnn": (
        "PixelCNN", "Digits", {"width": 4, "layers": 2, "kernel": 3}, DIGITS | {"size": 8, "binarize": "static"},
    ),
    "unet": ("UNet", "Shapes", {"width": 4, "depth": 2}, SHAPES | {"task": "colorize"}),
    "pix2pix": (
        "Pix2Pix", "Shapes", {"width": 4, "depth": 3, "discriminator_width": 4, "patch_layers": 1},
        SHAPES | {"task": "edges"},
    ),
    "segmentation": ("SegmentationUNet", "Shapes", {"width": 4, "depth": 2}, SHAPES | {"target": "mask"}),
    "cyclegan": (
        "CycleGAN", "Shapes", {"width": 4, "blocks": 1, "discriminator_width": 4, "patch_layers": 1},
        SHAPES | {"target": "domain"},
    ),
    "text": (
        "TextConditionalGAN", "Shapes", {"width": 4, "latent_dim": 4, "text_dim": 4}, SHAPES | {"target": "caption"},
    ),
}  # fmt: skip
FAST = ("vae", "dcgan", "gan", "ring", "cvae", "autoencoder")
AROUND = {
    ("max_images",): 48,
    ("validation", "samples"): 16,
    ("validation", "every_images"): 1_000_000,
    ("samples", "n"): 4,
    ("ema", "every_images"): 16,
}
# arguments that are drawn by hand, or not at all: they fetch, compile, or start other processes
APART = {
    "spec", "optimizer", "optimizers", "schedule", "schedules", "adversarial", "root", "download", "path",
    "autoencoder", "size", "range", "window", "subset", "compile", "monitor", "protocol", "extractor", "workers",
    "memory", "mode", "transforms",
}  # fmt: skip
OPTIMIZERS = {
    "torch.optim.Adam": ("lr", "betas", "weight_decay", "eps"),
    "torch.optim.AdamW": ("lr", "betas", "weight_decay"),
    "torch.optim.SGD": ("lr", "momentum", "weight_decay"),
    "torch.optim.RMSprop": ("lr", "alpha", "eps"),
}


@dataclass
class Case:
    """A command.

    words     what is typed
    files     that lie in the folder, by name
    expected  setting -> value, of all that was given: what the run must have if it is accepted
    drawn     those of them that are not of the base
    text      setting -> what was typed in place of a value: if it is accepted, the run must have what it says
    run       the base run, from RUNS
    resumes   whether it goes on with that run
    wrong     whether it must be refused
    """

    words: list[str]
    files: dict[str, bytes] = field(default_factory=dict)
    expected: dict[Path, Any] = field(default_factory=dict)
    drawn: dict[Path, Any] = field(default_factory=dict)
    text: dict[Path, str] = field(default_factory=dict)
    run: str = ""
    resumes: bool = False
    wrong: bool = False


# ---- values by their types ------------------------------------------------------------------------------------------


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Of few digits, so that all ways of writing one mean the same."""
    return st.integers(1, 99).map(lambda k: float(f"{low + (high - low) * k / 100:.3g}"))


def values(hint: Any) -> st.SearchStrategy[Any] | None:
    """What an annotation allows, as far as it is cheap; None where that is not known."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = next((one for one in inner if isinstance(one, Bounds)), Bounds())
        if inner[0] is int:
            low = 0 if bounds.at_least is None else int(bounds.at_least)
            return st.integers(low, int(min(low + 6, bounds.at_most if bounds.at_most is not None else low + 6)))
        low = next(b for b in (bounds.at_least, bounds.above, 0) if b is not None)
        return numbers(low, next(b for b in (bounds.at_most, bounds.below, low + 3) if b is not None))
    if origin is Literal:
        return st.sampled_from(inner)
    if origin in (Union, UnionType):
        known = [found for one in inner if (found := values(one)) is not None]
        return st.one_of(known) if known else None
    if _is_sequence(origin):
        found = values(inner[0])
        return None if found is None else st.lists(found, min_size=1, max_size=3)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(), Images: st.sampled_from([1, 16, 20, 48, 1000, 2500, 50_000]), type(None): st.none(),
        float: numbers(0, 1), int: st.integers(0, 5),
    }  # fmt: skip
    return simple.get(hint)


def _is_sequence(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, typing.Sequence) and origin is not str


def of_class(group: str, cls: type) -> dict[Path, st.SearchStrategy[Any]]:
    found = {}
    for name, hint in declared(cls).items():
        if name not in APART and (strategy := values(hint)) is not None:
            found[(group, name)] = strategy
    return found


WORDS = st.text("abcdefgh é名_-", min_size=1, max_size=8).filter(
    lambda text: text == text.strip() and text[0].isalpha() and yaml.safe_load(text) == text
)
RANGES = st.sampled_from(["dtype", "data", "0,255", [0, 200], "-10,300", [-5.5, 250]])


def pool(run: str) -> dict[Path, st.SearchStrategy[Any]]:
    """Every setting that a run of this kind may be given, with its values."""
    model, data = (getattr(of, name) for of, name in zip((genbench.models, genbench.data), RUNS[run], strict=False))
    found = of_class("model", model) | of_class("data", data)
    for name, cls in SETTINGS.items():
        found |= of_class(name, cls)
    share = st.sampled_from([0.0, 0.25, 0.5, 10, 40])
    players = model.players if isinstance(model.players, dict) else ("train",)
    for player in ("optimizer", *(f"optimizers.{name}" for name in players)):
        at = ("model", *player.split("."))
        found |= {
            (*at, "lr"): st.sampled_from([1e-5, 3e-4, 2e-3, 0.05]), (*at, "weight_decay"): numbers(0, 0.5),
            (*at, "betas"): st.lists(numbers(0, 0.99), min_size=2, max_size=2),
        }  # fmt: skip
    for player in ("schedule", *(f"schedules.{name}" for name in players)):
        at = ("model", *player.split("."))
        found |= {
            (*at, "warmup"): share, (*at, "decay_from"): st.sampled_from([0.5, 0.75, 45]),
            (*at, "final"): numbers(0, 1), (*at, "decay"): st.sampled_from(["linear", "cosine"]),
        }  # fmt: skip
    if "adversarial" in declared(model):
        objectives = st.sampled_from(["non_saturating", "minimax", "hinge", "least_squares", "wasserstein"])
        found |= {("model", *path): values for path, values in of_class("adversarial", AdversarialSettings).items()}
        found[("model", "adversarial", "objective")] = objectives
        found[("model", "adversarial", "augment")] = st.lists(
            st.sampled_from(["translation", "cutout", "affine"]), max_size=2, unique=True
        )
    if data is not genbench.data.Ring:
        found |= {
            ("data", "size"): st.sampled_from([8, 16, 32]), ("data", "range"): RANGES,
            ("data", "subset"): st.sampled_from([32, 40, "50%"]), ("data", "window"): st.just("100,300"),
        }  # fmt: skip
    return found | {
        ("max_images",): st.sampled_from([1, 16, 30, 64]),
        ("seed_everything",): st.sampled_from([0, 1, 5, 2**32 - 1]),
        ("title",): WORDS | st.just("all"),
        ("runs",): st.sampled_from(["runs", "a/b", "élan"]),
        ("protocol",): st.sampled_from(["fid10k-test", "fid50k-train"]),
        ("validation", "extractor"): st.sampled_from([None, "vgg-random"]),
        ("trainer", "precision"): st.sampled_from(["32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true", 32]),
        ("trainer", "deterministic"): st.booleans(),
        ("trainer", "detect_anomaly"): st.booleans(),
        ("trainer", "accelerator"): st.sampled_from(["cpu", "auto"]),
        ("trainer", "devices"): st.sampled_from([1, "1", "auto"]),
    }


# ---- spellings ------------------------------------------------------------------------------------------------------


def scalar(draw: Any, path: Path, value: Any) -> str:
    """A value as text."""
    if value is None:
        return draw(st.sampled_from(["null", "~", "Null"])) if path[0] in IN_CLASS else "null"
    if isinstance(value, bool):
        return draw(st.sampled_from(["true", "True", "yes", "on"] if value else ["false", "False", "no", "off"]))
    if isinstance(value, int):
        ways = [str(value), str(value)]
        if path[-1] in IMAGES:
            ways += [f"{value:e}", f"{value / 1000}k", f"{value:_}", f"{value}.0"]
        return draw(st.sampled_from(ways))
    if isinstance(value, float):
        return draw(st.sampled_from([repr(value), f"{value:e}", f"{value:.4f}" if value > 0.01 else repr(value)]))
    if isinstance(value, (list, dict)):
        return flow(value)
    return str(value)


ADDED = (("max_images",), ("name",))
IMAGES = ("max_images", "every_images", "patience_images", "halflife", "kl_warmup", "restart_dead_codes", "keep_every")


def flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).strip()


def flag(draw: Any, path: Path, value: Any) -> list[str]:
    """One of the ways in which it can be typed."""
    parts = path
    if path[0] in IN_CLASS and len(path) > 1 and path[1] != "class_path" and draw(st.integers(0, 3)) == 0:
        parts = (path[0], "init_args", *path[1:])
    if path[-1] == "class_path" and draw(st.booleans()):
        parts = path[:-1]
    elif len(parts) > 1 and path[-1] != "class_path" and draw(st.integers(0, 3)) == 0:
        depth = draw(st.integers(1, len(parts) - 1))
        inner = value
        for part in reversed(parts[depth:]):
            inner = {part: inner}
        return joined(draw, parts[:depth], flow(inner))
    return joined(draw, parts, scalar(draw, path, value))


def joined(draw: Any, path: Path, text: str) -> list[str]:
    name = "--" + ".".join(path)
    return [f"{name}={text}"] if text.startswith("--") or draw(st.booleans()) else [name, text]


def nested(draw: Any, settings: dict[Path, Any]) -> dict[str, Any]:
    """A config of these settings, in one of the ways in which it can be written."""
    found: dict[str, Any] = {}
    way = draw(st.sampled_from(["init_args", "beside", "dotted"]))
    for path, value in settings.items():
        parts = list(path)
        if way == "dotted" and len(parts) == 2 and parts[0] not in IN_CLASS:
            found[".".join(parts)] = value
            continue
        if parts[0] in IN_CLASS and parts[1] != "class_path" and way == "init_args":
            parts.insert(1, "init_args")
        into = found
        for part in parts[:-1]:
            into = into.setdefault(part, {})
        into[parts[-1]] = value
    return found


def written(draw: Any, config: dict[str, Any]) -> bytes:
    text = yaml.safe_dump(
        config, default_flow_style=draw(st.sampled_from([None, False])), allow_unicode=draw(st.booleans()),
        sort_keys=draw(st.booleans()),
    )  # fmt: skip
    return (draw(st.sampled_from(["", "\ufeff", "# of mine\n", "---\n"])) + text).encode()


def merged(*layers: dict[Path, Any]) -> dict[Path, Any]:
    """Later layers over earlier ones; another class drops the arguments of the old one."""
    found: dict[Path, Any] = {}
    for layer in layers:
        for path in sorted(layer, key=lambda path: path[-1] != "class_path"):
            if path[-1] == "class_path" and not same(found.get(path, default(path)), layer[path]):
                found = {key: value for key, value in found.items() if key[: len(path) - 1] != path[:-1]}
            found[path] = layer[path]
    return found


def default(path: Path) -> str | None:
    return "torch.optim.Adam" if "optimizer" in path else None


def same(a: str | None, b: str) -> bool:
    return a is None or a.rpartition(".")[2] == b.rpartition(".")[2]


# ---- fit ------------------------------------------------------------------------------------------------------------


def base(run: str) -> dict[Path, Any]:
    model, data, model_args, data_args = RUNS[run]
    found: dict[Path, Any] = {("model", "class_path"): model, ("data", "class_path"): data, **AROUND}
    found |= {("model", name): value for name, value in model_args.items()}
    return found | {("data", name): value for name, value in data_args.items()}


def full_name(draw: Any, group: str, name: str) -> str:
    module = getattr(genbench, f"{group}s" if group == "model" else group)
    return draw(st.sampled_from([name, f"genbench.{'models' if group == 'model' else 'data'}.{name}",
                                 f"{getattr(module, name).__module__}.{name}"]))  # fmt: skip


@st.composite
def trainings(draw: Any, *, resumes: bool = False) -> Case:
    """fit, with settings in configs and flags."""
    run = draw(st.one_of(st.sampled_from(FAST), st.sampled_from(sorted(RUNS))))
    settings, kinds = base(run), pool(run)
    chosen = draw(st.lists(st.sampled_from(sorted(kinds)), max_size=4, unique=True))
    drawn = {path: draw(kinds[path]) for path in chosen}
    if not resumes and draw(st.integers(0, 5)) == 0:
        cls = draw(st.sampled_from(sorted(OPTIMIZERS)))
        drawn = {path: value for path, value in drawn.items() if "betas" not in path and path[1:2] != ("optimizer",)}
        drawn[("model", "optimizer", "class_path")] = draw(st.sampled_from([cls, cls.rpartition(".")[2]]))
        for name in draw(st.lists(st.sampled_from(OPTIMIZERS[cls]), max_size=2, unique=True)):
            small = st.sampled_from([1e-4, 0.01, 0.3])
            drawn[("model", "optimizer", name)] = [draw(small), draw(small)] if name == "betas" else draw(small)
    places = {path: draw(st.sampled_from(["flag", "flag", "flag", "later", "first"])) for path in drawn}
    layers = [
        {path: value for path, value in drawn.items() if places[path] == place} for place in ("first", "later", "flag")
    ]
    first = {} if resumes else dict(settings)
    if not resumes:
        for group in IN_CLASS:
            first[(group, "class_path")] = full_name(draw, group, first[(group, "class_path")])
    first |= layers[0]
    later, flags = dict(layers[1]), dict(layers[2])
    words: list[list[str]] = []
    files: dict[str, bytes] = {}
    if not resumes:
        moved = draw(st.lists(st.sampled_from(sorted(settings)), max_size=3, unique=True))
        for path in moved:  # of the base, as flags
            flags.setdefault(path, first[path] if path not in drawn else drawn[path])
        if draw(st.integers(0, 7)) == 0:  # the first config is of another data set
            flags[("data", "class_path")] = first[("data", "class_path")]
            flags |= {path: flags.get(path, drawn.get(path, value)) for path, value in settings.items()
                      if path[0] == "data" and len(path) == 2 and path[1] != "class_path"}  # fmt: skip
            flags |= {path: value for path, value in {**first, **later}.items()
                      if path[0] == "data" and path not in flags}  # fmt: skip
            first = {path: value for path, value in first.items() if path[0] != "data"}
            first |= {("data", "class_path"): "MNIST", ("data", "size"): 28, ("data", "val_size"): 7}
            later = {path: value for path, value in later.items() if path[0] != "data"}
        elif draw(st.integers(0, 7)) == 0:  # the data from a file of its own
            own = {path[1:]: value for path, value in {**first, **later}.items() if path[0] == "data"}
            files["own data.yaml"] = written(draw, {path[-1]: value for path, value in own.items()})
            first, later = (
                {path: value for path, value in part.items() if path[0] != "data"} for part in (first, later)
            )
            words.append(["--data", "own data.yaml"])
    if first:
        files["first.yaml"] = written(draw, nested(draw, first))
        words.append(draw(st.sampled_from([["--config", "first.yaml"], ["--config=first.yaml"], ["-c", "first.yaml"]])))
    if later or draw(st.integers(0, 5)) == 0:
        files["later.yaml"] = written(draw, nested(draw, later)) if later else b""
        words.append(["--config", "later.yaml"])
    ordered = [flag(draw, path, value) for path, value in flags.items()]
    for path in flags:  # what was given before does not count
        if path[-1] != "class_path" and path in kinds and draw(st.integers(0, 7)) == 0:
            value = draw(kinds[path])
            if not isinstance(value, (list, dict)):
                ordered.insert(0, flag(draw, path, value))
    name = draw(st.sampled_from(["first", "é 名", "a.b", "deep/er"]))
    if resumes:
        words.append(["--ckpt", draw(st.sampled_from(["runs/base", "runs/base/checkpoints/last.ckpt", "last"]))])
        if ("max_images",) not in drawn:
            drawn[("max_images",)] = 64
            ordered.append(["--max_images", "64"])
    else:
        words.append(["--name", name])
        drawn[("name",)] = name
    configs = [word for word in words if word[0].startswith(("--config", "-c"))]
    others = [word for word in words if word not in configs]
    at = draw(st.integers(0, len(ordered)))
    line = [*ordered[:at], *configs, *others, *ordered[at:]]
    expected = merged(settings, *layers, {path: drawn[path] for path in ADDED if path in drawn})
    return Case(["fit", *(word for part in line for word in part)], files, expected, drawn, {}, run, resumes)


# ---- mistakes -------------------------------------------------------------------------------------------------------

NASTY = (
    "", " ", "abc", "nan", ".nan", "inf", "-.inf", "-1", "0", "1e400", "9" * 400, "1000000000000", "null", "true",
    "[]", "{}", "[1, 2]", "{a: 1}", "é", "\udcff", "!!python/object:os.system", "&a [*a]", "1:30", "0x10", "1_0",
    "٣", "+5", "5.0", "5.5", " 5 ", "5\n", "-", "[", "a: b", "'5'", "*", "%", "@x", "1e-3", "1e3", "16k", "../x",
    "/dev/null", ".", "None", "1,2", "{a}", "<<", "0b11", "1.", "--", "#", "5 # five", "\u202e5", "x" * 5000,
    "9" * 5000, "²",
)  # fmt: skip
BROKEN = (
    b"a: [1", b"model: {width: 4, width: 5}", b"- 1\n- 2\n", b"\xff\xfe", b"\ta: 1", b"model: 5", b"data: []", b"5",
    b"text", b"model: {class_path: VAE\n", b"a: &a [*a]", b"model.width: 4\nmodel: 3", b"ema: 5", b"ema: [1]",
    b"? [1, 2]\n: 3", b"model: {init_args: 3}", b"model: {class_path: {a: 1}}", b"trainer: {callbacks: 3}", b"1: 2",
    b"trainer: {callbacks: [{class_path: x.Y}]}", b"!!python/object:os.system {}", b"\x00", b"a: 1\n---\nb: 2",
    b"model: {optimizer: 3}", b"model: {optimizers: {vae: 3}}", b"model: {schedule: [1]}", b"null: 3", b"true: 1",
    b"max_images: {a: 1}", b"name: [a]", b"model: null", b"data: {init_args: {size: null}, class_path: null}",
    b"model: {init_args: {adversarial: 3}}", b"<<: 3", b"model: {<<: {width: 3}}", b"ema.halflife.x: 3", b".a: 3",
    b"trainer: {logger: {class_path: 3}}", b"model+: {a: 1}", b"ema: {halflife+: 3}", b"data: {class_path: Digits.}",
)  # fmt: skip
CLASSES = (
    "VEA", "genbench.models.VEA", "torch.nn.Linear", "os.path", "..", "Digits", "genbench.data.Digits", "lightning",
    "genbench.core.module.GenerativeModule", "x.y.Z", "VAE ", ".VAE", "VAE.", "builtins.int", "a b", "5", "[VAE]",
    "genbench.data.base.ImageData", "LightningModule", "lightning.LightningModule", "{class_path: 5}", "{}", "[]",
)  # fmt: skip
STRAY = (
    ["stray"], ["--"], ["---x", "1"], ["--=5"], ["--model.=3"], ["--model..width", "3"], ["--nothing", "3"], ["-x"],
    ["--model.batch_size", "4"], ["--data.width", "4"], ["--width", "4"], ["--model.optimizer", "3"], ["--ema", "5"],
    ["--trainer", "x"], ["--data.size.x", "3"], ["--model.width.0", "3"], ["--max_images.x", "3"], ["--config"],
    ["--model.init_args", "3"], ["--ema.halflife+", "5"], ["--model.optimizer.ls", "3"], ["--trainer.max_steps", "3"],
    ["--trainer.callbacks", "X"], ["--trainer.logger", "X"], ["--trainer.strategy", "fsdp"], ["--trainer.devices", "3"],
    ["--trainer.accelerator", "tpu"], ["--trainer.precision", "8"], ["--config", "nowhere"], ["--config", "."],
    ["--data", "nowhere.yaml"], ["--model.optimizers.nobody.lr", "1"], ["--model.optimizer.class_path", "X"],
    ["--model.optimizer.lr.x", "1"], ["--model.spec", "{}"], ["--data.spec", "3"], ["--model", "{}"], ["--ckpt", "x"],
    ["--model.optimizer.params", "3"], ["--model.optimizer.betas.7", "3"], ["--model.schedule.optimizer", "3"],
    ["--trainer.default_root_dir", "x"], ["--name", "../x"], ["--name", ""], ["--runs", ""], ["--import", "no.such"],
    ["--import", ""], ["--import"], ["--print_config", "x"], ["--trainer.profiler", "x"], ["--max_images", "0"],
    ["--checkpoint.monitor", "val/nothing"], ["--validation.protocol", "nothing"],
    ["--validation.extractor", "nothing"],
    ["--protocol", "nothing"], ["--model.dict_kwargs", "{a: 1}"], ["--model.dict_kwargs.a", "1"], ["--data+", "3"],
    ["--trainer.plugins", "x"], ["--trainer.num_nodes", "0"], ["--trainer.logger.x", "3"], ["--seed_everything", "-1"],
    ["--model.class_path.x", "3"], ["--data.batch_size", "4096"], ["--model.schedule.class_path", "StepLR"],
)  # fmt: skip


@st.composite
def mistakes(draw: Any, of: st.SearchStrategy[Case]) -> Case:
    """A command with something wrong in it, or something that may be."""
    case = draw(of)
    words, kind = list(case.words), draw(st.sampled_from(["value", "value", "typo", "stray", "class", "file", "word"]))
    kinds = pool(case.run)
    if kind == "value":
        path = draw(st.sampled_from(sorted(kinds)))
        text = draw(st.sampled_from(NASTY))
        expected = {key: value for key, value in case.expected.items() if key != path}
        return Case(
            [*words, f"--{'.'.join(path)}={text}"], case.files, expected, {**case.drawn, path: None}, {path: text},
            case.run, case.resumes,
        )  # fmt: skip
    if kind == "typo":
        named = [k for k, word in enumerate(words) if word.startswith("--") and "{" not in word and len(word) > 5]
        k = draw(st.sampled_from(named))
        name, equals, value = words[k].partition("=")
        at = draw(st.integers(2, len(name) - 1))
        words[k] = name[:at] + draw(st.sampled_from(["x", "_", "é", ""])) + name[at + 1 :] + equals + value
        if words[k] == case.words[k]:
            words[k] = "--x" + words[k][2:]
        return Case(words, case.files, run=case.run, resumes=case.resumes, wrong=True)
    if kind == "stray":
        words += draw(st.sampled_from(STRAY))
    elif kind == "class":
        words += [draw(st.sampled_from(["--model", "--data"])), draw(st.sampled_from(CLASSES))]
    elif kind == "file":
        files = case.files | {"broken.yaml": draw(st.sampled_from(BROKEN))}
        return Case([*words, "--config", "broken.yaml"], files, run=case.run, resumes=case.resumes)
    else:
        k = draw(st.integers(1, len(words) - 1))
        way = draw(st.sampled_from(["drop", "twice", "nasty"]))
        put = {"drop": [], "twice": [words[k]] * 2, "nasty": [draw(st.sampled_from(NASTY))]}[way]
        words[k : k + 1] = put
    return Case(words, case.files, run=case.run, resumes=case.resumes)


# ---- the other verbs ------------------------------------------------------------------------------------------------


def flags_of(draw: Any, known: dict[str, st.SearchStrategy[Any] | None], most: int = 4) -> dict[str, Any]:
    chosen = draw(st.lists(st.sampled_from(sorted(known)), max_size=most, unique=True))
    return {name: None if known[name] is None else draw(known[name]) for name in chosen}


def typed(flags: dict[str, Any]) -> Iterator[str]:
    for name, value in flags.items():
        yield f"--{name}"
        if isinstance(value, list):
            yield from map(str, value)
        elif value is not None:
            yield str(value)


METRICS = st.lists(st.sampled_from(["fid", "kid", "pr", "is"]), min_size=1, max_size=2, unique=True)
COUNT = st.integers(2, 40)


@st.composite
def others(draw: Any) -> Case:
    """A command of another verb that should do what it says."""
    verb = draw(st.sampled_from([
        "sample", "sample", "sample", "evaluate", "evaluate", "test", "validate", "translate", "leaderboard", "report",
        "suite", "fetch", "text", "text",
    ]))  # fmt: skip
    if verb == "sample":
        run = draw(st.sampled_from(["vae", "dcgan", "cgan", "pixelcnn", "ring", "cvae"]))
        known = {"n": st.integers(1, 5), "seed": st.integers(0, 2**40), "batch-size": st.integers(1, 6), "raw": None,
                 "device": st.sampled_from(["cpu", "auto"]), "overwrite": None,
                 "out": st.sampled_from(["x.png", "x.npy", "x.npz", "x.npy", "images", "é 名.npy"])}  # fmt: skip
        if run in ("cgan", "cvae"):
            known["label"] = st.integers(0, 9)
        flags = flags_of(draw, known)
        words = ["sample", "--ckpt", f"BASES/{run}", *typed(flags)]
    elif verb in ("evaluate", "test"):
        run = draw(st.sampled_from(["vae", "dcgan"]))
        known = {"generated": COUNT, "real": COUNT, "seed": st.integers(0, 99), "raw": None, "json": None,
                 "metrics": METRICS, "batch-size": COUNT, "name": WORDS, "out": st.sampled_from(["x", "é/y"]),
                 "device": st.just("cpu"), "kid-subset-size": st.integers(2, 20)}  # fmt: skip
        flags = flags_of(draw, known) | {"generated": draw(COUNT)}
        what = ["--ckpt", f"BASES/{run}"]
        if verb == "evaluate" and draw(st.integers(0, 3)) == 0:
            what = ["--baseline", "--data", "Digits"]
            flags.pop("raw", None)
        elif verb == "evaluate" and draw(st.integers(0, 3)) == 0:
            what = ["--images", "BASES/drawn.npy", "--data", "Digits"]
            flags.pop("raw", None)
        words = [verb, *what, *typed(flags | {"metrics": flags.get("metrics", ["fid"])})]
    elif verb == "validate":
        flags = flags_of(draw, {"validation.samples": COUNT, "trainer.accelerator": st.just("cpu")})
        words, run = ["validate", "--ckpt", "BASES/vae", *typed(flags)], "vae"
    elif verb == "translate":
        run = draw(st.sampled_from(["unet", "cyclegan"]))
        known = {"side-by-side": None, "tile": st.sampled_from([64, 1024]), "overwrite": None, "raw": None,
                 "to": st.sampled_from(["A", "B"] if run == "cyclegan" else ["B"]),
                 "range": st.sampled_from(["dtype", "data", "0,255", "-1,3e2"]),
                 "frames": st.sampled_from(["first", "each"])}  # fmt: skip
        words = ["translate", "--ckpt", f"BASES/{run}", "--input", "BASES/pictures", "--output", "out é"]
        words += typed(flags_of(draw, known))
    elif verb == "leaderboard":
        known = {"by": st.sampled_from(["fid", "fid-digitsnet"]), "data": st.just("Digits"),
                 "track": st.just("generation"),
                 "format": st.sampled_from(["table", "markdown", "csv", "json", "latex"])}  # fmt: skip
        words = ["leaderboard", *draw(st.sampled_from([["BASES"], ["BASES/vae"]])), *typed(flags_of(draw, known))]
    elif verb == "report":
        words = ["report", "BASES/vae", *typed(flags_of(draw, {"out": st.sampled_from(["x.html", "é 名.html"])}))]
    elif verb == "suite":
        words = draw(st.sampled_from([
            ["suite", "run", "BASES/tiny.yaml", "--dry-run"], ["suite", "status", "BASES/tiny.yaml"],
            ["suite", "run", "BASES/tiny.yaml", "--dry-run", "--only", "vae*"], ["suite", "--help"],
            ["suite", "run", "BASES/tiny.yaml", "--dry-run", "--at-once", "2", "--folder", "é"],
        ]))  # fmt: skip
    elif verb == "fetch":
        words = draw(st.sampled_from([["fetch"], ["fetch", "--root", "x"], ["fetch", "--help"]]))
    else:
        words = draw(st.sampled_from([
            [], ["help"], ["--help"], ["-h"], ["--version"], ["fit", "--help"], ["validate", "--help"],
            ["test", "--help"], ["evaluate", "--help"], ["sample", "-h"], ["translate", "--help"], ["check", "--help"],
            ["fit", "--model.help", "VAE"], ["fit", "--data.help", "Digits"], ["fit", "--data.help=Shapes"],
            ["leaderboard", "-h"], ["report", "-h"], ["fit", "--config", "quickstart", "--print_config"],
            ["fit", "--config", "vae", "--model.help"], ["suite", "run", "-h"],
            ["fit", "--config", "gan", "--print_config"], ["fit", "--help", "all"], ["validate", "-h", "all"],
        ]))  # fmt: skip
    return Case(list(words))


@st.composite
def other_mistakes(draw: Any) -> Case:
    case = draw(others())
    words = list(case.words)
    if not words:
        words = ["fti"]
    way = draw(st.sampled_from(["drop", "twice", "nasty", "nasty", "append", "typo", "verb", "check"]))
    k = draw(st.integers(min(1, len(words) - 1), len(words) - 1))
    if way == "drop":
        del words[k]
    elif way == "twice":
        words.insert(k, words[k])
    elif way == "nasty":
        words[k] = draw(st.sampled_from(NASTY))
    elif way == "append":
        words += draw(st.sampled_from([
            ["--nothing"], ["--nothing", "3"], ["stray"], ["--n", "0"], ["--seed", "-1"], ["--out", ""], ["--ckpt"],
            ["--out", "/proc/x.png"], ["--ckpt", "nowhere"], ["--label", "x"], ["--prompt", "red"], ["--n"],
            ["--generated", "0"], ["--generated", "1"], ["--real", "0"], ["--metrics", "x"], ["--extractor", "x"],
            ["--protocol", "x"], ["--device", "tpu"], ["--data", "X"], ["--data.size", "x"], ["--to", "C"],
            ["--reference", "nowhere"], ["--reference", "BASES/pictures"], ["--images", "BASES/tiny.yaml"],
            ["--size", "0"], ["--channels", "2"], ["--format", "x"], ["--by", "x"], ["--track", "x"], ["--only", "x"],
            ["--folder", "/proc/x"], ["--tile", "1"], ["--input", "nowhere"], ["--output", "BASES/pictures"],
            ["--config", "nowhere"], ["--root", ""], ["--at-once", "0"], ["--batch-size", "0"], ["--runs", ""],
            ["--kid-subset-size", "1"], ["--seed", "9" * 30], ["--out", "x.jpg"], ["--out", "BASES"],
            ["--data", "Digits", "--data.nothing", "3"], ["--devices", "0"], ["--n", "9" * 30], ["--real", "9" * 30],
        ]))  # fmt: skip
    elif way == "typo" and len(words[k]) > 2:
        words[k] = words[k][:-2] + "x" + words[k][-1:]
    elif way == "verb":
        words[0] = draw(st.sampled_from(["fti", "", "FIT", "sample ", "--sample", "é", "\udcff", "eval", "run", "-"]))
    elif way == "check":
        words = ["check", *draw(st.sampled_from([
            [], ["--config", "nowhere"], ["--config"], ["stray"], ["--config", "BASES/tiny.yaml"], ["--nothing", "3"],
            ["--config", "BASES/pictures"], ["--config", "", "--import", "x"], ["--import"],
        ]))]  # fmt: skip
    return Case(words)


@st.composite
def commands(draw: Any) -> Case:
    """Five in eight are meant to be right; some of these ask for what a model or a resumed run cannot have."""
    kind = draw(st.sampled_from(["fit", "fit", "fit", "resume", "other", "wrong fit", "wrong resume", "wrong other"]))
    resumes = "resume" in kind
    if "other" in kind:
        return draw(other_mistakes() if "wrong" in kind else others())
    return draw(mistakes(trainings(resumes=resumes)) if "wrong" in kind else trainings(resumes=resumes))
