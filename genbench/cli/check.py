"""check: the promises that every model must keep, run on any config, one of your own repository included.

The model is the config's; the images are few and made up, in the shape that the config's data announces.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jsonargparse import ArgumentParser
from lightning import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

import genbench
import genbench.cli.trainer
import genbench.data
import genbench.models
from genbench.callbacks import EMA, Balance, Budget, Checkpoint, Monitor, Quality
from genbench.cli import compose, configs
from genbench.cli.arguments import Arguments
from genbench.cli.runs import import_modules, quiet
from genbench.core import composition, yaml_file
from genbench.core.batch import Batch, DataSpec, from_stored, to_stored
from genbench.core.capabilities import (
    Classifies,
    Encodes,
    HasLikelihood,
    Reconstructs,
    Samples,
    Segments,
    Translates,
)
from genbench.core.errors import UserError
from genbench.core.module import GenerativeModule
from genbench.core.strategy import PlayersDDP
from genbench.core.units import Images
from genbench.data.loader import EvalLoader, MemorySource, TrainLoader
from genbench.loggers import Curves
from genbench.metrics.sliced_wasserstein import project, sliced_wasserstein


class Broken(AssertionError):
    """A promise that was not kept; the message says how."""


class MadeUp(LightningDataModule):
    """A few smooth random images, or points, with every kind of target, in the shape of `spec`."""

    def __init__(self, spec: DataSpec, batch_size: int = 8, n: int = 36, labeled: bool = False) -> None:
        super().__init__()
        self.spec, self.batch_size = spec, batch_size
        draw = torch.Generator().manual_seed(0)
        if len(spec.shape) == 1:
            self.extractor = "points"
            # to one side: points all around are about as far from the origin, where models begin, as from other points
            image = torch.rand(n, *spec.shape, generator=draw) / 2 + 0.5
        else:
            self.extractor = "digitsnet"  # at hand everywhere, and small
            coarse = torch.rand(n, spec.channels, 4, 4, generator=draw)
            image = interpolate(coarse, spec.shape[1:], mode="bilinear")
            image = (image.round() if spec.binary else image).mul(255).to(torch.uint8)
        label = torch.arange(n) % len(spec.classes) if spec.classes else None
        words, length = len(spec.vocabulary), spec.caption_length or 4
        caption = torch.randint(1, words, (n, length), generator=draw) if words else None
        mask = image[:, 0].gt(127).long() if spec.target == "mask" else None
        source = None
        if spec.source:  # to be found from the image: it upside down, in other colors
            source = 255 - image.flip(2).float().mean(1, keepdim=True).to(torch.uint8).expand(
                -1, spec.source[0], -1, -1
            )
        self.known = None
        if labeled and label is not None:  # every third, of all classes if there are so many
            self.known = torch.arange(0, n, 3)
        self.everything = MemorySource(Batch(image, label, caption, mask, source=source))

    def train_dataloader(self) -> TrainLoader:
        t = self.trainer
        return TrainLoader(
            self.everything, self.batch_size, seed=t.lightning_module.seed, position=t.lightning_module.images_seen,
            rank=t.global_rank, world=t.world_size, known=self.known,
        )  # fmt: skip

    def val_dataloader(self) -> EvalLoader:
        return EvalLoader(self.everything, 16, rank=self.trainer.global_rank, world=self.trainer.world_size)


class Recipe:
    """Builds equal models of one config, again and again."""

    def __init__(self, path: Path) -> None:
        text = compose.settings(compose.Command("check", [(path, yaml_file.read(path))])).config
        if not {"model", "data"} <= text.keys():
            raise UserError(f"{path} is no config of an experiment: it needs `model` and `data`.")
        self.path, self.name = path, path.stem
        data = text["data"] if isinstance(text["data"], dict) else {}
        self.labeled = bool((data.get("init_args") or {}).get("labeled"))
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(LightningDataModule, "data")
        parser.add_subclass_arguments(GenerativeModule, "model", skip={"spec"})
        try:
            self._config = parser.parse_object({"model": text["model"], "data": text["data"]})
        except Exception as error:
            raise UserError(f"{path}: {error}") from error
        self._parser = parser
        data_only = ArgumentParser(exit_on_error=False)
        data_only.add_subclass_arguments(LightningDataModule, "data")
        self.spec: DataSpec = data_only.instantiate_classes(data_only.parse_object({"data": text["data"]})).data.spec

    def model(self) -> GenerativeModule:
        seed_everything(0, verbose=False)
        description = self._config.model
        module, _, name = description.class_path.rpartition(".")
        arguments = description.init_args.as_dict()
        parts = {argument: _untrained(value, self.path.parent) for argument, value in arguments.items()}
        return getattr(sys.modules[module], name)(self.spec, **arguments | {a: p for a, p in parts.items() if p})

    def data(self) -> MadeUp:
        return MadeUp(self.spec, labeled=self.labeled)


def _untrained(value: Any, folder: Path) -> dict[str, Any] | None:
    """Where `value` is a checkpoint that is not there, `runs/NAME/checkpoints/...`: an untrained model of config NAME,
    to build on in its place."""
    if not isinstance(value, str) or not value.endswith(".ckpt") or Path(value).is_file():
        return None
    other = folder / f"{Path(value).parts[-3]}.yaml"
    if not other.is_file():
        raise UserError(f"There is no checkpoint at {value}.")
    part = Recipe(other).model()
    return composition.described(part)


class Crash(Callback):
    """Ends a run as a power cut would, after so many images."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_end(self, trainer: Trainer, module: GenerativeModule, *_: Any) -> None:
        if module.images_seen >= self.at:
            raise KeyError("crash")


class Drift(Callback):
    """Names the state that differs from the first process's after a batch, before a save makes it the same again."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def on_train_batch_end(self, trainer: Trainer, module: GenerativeModule, *_: Any) -> None:
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            first = value.detach().clone()
            dist.broadcast(first, src=0)
            if not torch.equal(first, value):
                self.names.add(name)


def train(
    recipe: Recipe,
    folder: Path,
    images: int,
    ckpt: Path | None = None,
    crash_at: int | None = None,
    first: Callback | None = None,
    **trainer: Any,
) -> Trainer:
    """A short run of the config's model, with averages, scores, curves and checkpoints, on the CPU."""
    settings = {"accelerator": "cpu", "devices": 1} | trainer
    run = Trainer(
        default_root_dir=folder,
        logger=[Curves(folder)],
        callbacks=[
            *([first] if first else []),
            EMA(every_images=Images(16)),
            Monitor(every_images=Images(16), show=False),
            Balance(every_images=Images(32)),
            Quality(every_images=Images(32), samples=16),
            Checkpoint(every_images=Images(24)),
            Budget(images),
            *([Crash(crash_at)] if crash_at else []),
        ],
        max_epochs=-1, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
        num_sanity_val_steps=0, inference_mode=False, **settings,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(KeyError) if crash_at else nullcontext():
        run.fit(recipe.model(), datamodule=recipe.data(), ckpt_path=ckpt, weights_only=True)
    return run


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def demand(kept: bool, otherwise: str) -> None:
    if not kept:
        raise Broken(otherwise)


# ---- the promises -----------------------------------------------------------------------------------------------


def players_own_every_parameter_once(recipe: Recipe, folder: Path) -> None:
    model = recipe.model()
    owned = [p for player in model.players for p in model.parameters_of(player)]
    demand(len(owned) == len({id(p) for p in owned}), "a parameter belongs to two players")
    free = {n for n, p in model.named_parameters() if p.requires_grad and all(p is not q for q in owned)}
    demand(not free, f"no player moves {', '.join(sorted(free))}")
    for name in model.ema:
        demand(hasattr(model, name), f"`ema` names '{name}', which the model does not have")


def losses_are_finite_and_every_parameter_moves(recipe: Recipe, folder: Path) -> None:
    # not a single number: the output's bias of a critic with a linear cost has no gradient
    before = {n: p.clone() for n, p in recipe.model().named_parameters() if p.requires_grad and p.numel() > 1}
    run = train(recipe, folder, images=96)  # a generator may step at every fifth batch
    still = [n for n, p in run.lightning_module.named_parameters() if n in before and torch.equal(p, before[n])]
    demand(not still, f"these parameters did not move in twelve steps: {', '.join(still)}")
    demand(all(run.lightning_module.updates.values()), "a player took no step")


def one_batch_can_be_learned(recipe: Recipe, folder: Path) -> None:
    data = MadeUp(recipe.spec, n=8)
    real = from_stored(data.everything.everything.image)
    model = recipe.model()

    built_on_another = any(not p.requires_grad for p in model.parameters())

    @torch.no_grad()
    def distance() -> float:
        if built_on_another:  # and its images are what the frozen part makes of them
            scores = model.eval().validation_step(replace(data.everything.everything, image=real), 0)
            model.train()
            return sum(values.mean().item() for values in scores.values())
        if isinstance(model, Classifies):
            cost = cross_entropy(model.eval().classify(real), data.everything.everything.label).item()
            model.train()
            return cost
        if isinstance(model, HasLikelihood) and model.likelihood == "exact":
            return -model.log_likelihood(real).mean().item()
        if isinstance(model, Translates):
            made = model.translate(from_stored(data.everything.everything.source), to="B")
            if recipe.spec.target == "domain":
                return sliced_wasserstein(project(made), project(real)).item()
            return (made - real).square().mean().item()
        if isinstance(model, Segments):
            return cross_entropy(model.segment(real), data.everything.everything.mask).item()
        if isinstance(model, Reconstructs):
            return (model.reconstruct(real) - real).square().mean().item()
        return sliced_wasserstein(project(_sample(model, torch.arange(64), data=data)), project(real)).item()

    if not isinstance(model, (Samples, Reconstructs, Classifies, Translates, Segments)):
        return
    before = distance()
    for steps in (200, 400, 800, 1600):  # a generator that steps after five of its critic's needs more
        run = Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            callbacks=[Budget(8 * steps)],
            max_epochs=-1,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        run.fit(model, datamodule=data)
        after = distance()
        if after < 0.8 * before:
            return
    demand(False, f"{steps} steps on one batch brought it from {before:.3g} to {after:.3g} only")


def samples_have_the_datas_shape_and_range(recipe: Recipe, folder: Path) -> None:
    model = recipe.model().eval()
    if isinstance(model, Samples):
        images = _sample(model, torch.arange(3))
        demand(tuple(images.shape) == (3, *recipe.spec.shape), f"samples are {tuple(images.shape)}")
        demand(bool(torch.isfinite(images).all()), "samples are not finite")
        demand(images.ndim == 2 or bool(images.abs().max() <= 1.001), "samples leave [-1, 1]")  # points may
    x = from_stored(recipe.data().everything.everything.image[:3])
    if isinstance(model, Reconstructs):
        demand(model.reconstruct(x).shape == x.shape, "reconstructions have another shape")
    if isinstance(model, Translates):
        source, shapes = from_stored(recipe.data().everything.everything.source[:3]), {"B": x.shape}
        shapes |= {"A": source.shape} if "A" in model.domains else {}
        for to, shape in shapes.items():
            made = model.translate(source if to == "B" else x, to=to)
            demand(made.shape == shape, f"translations to {to} are {tuple(made.shape)}")
            demand(bool(made.abs().max() <= 1.001), f"translations to {to} leave [-1, 1] or are not finite")
    if isinstance(model, Segments):
        found, shape = model.segment(x), (3, len(recipe.spec.classes), *x.shape[2:])
        demand(tuple(found.shape) == shape, f"masks are {tuple(found.shape)}")
        demand(bool(torch.isfinite(found).all()), "masks are not finite")
    if isinstance(model, Encodes):
        z = model.encode(x)
        demand(tuple(z.shape[1:]) == tuple(model.latent_shape), f"`latent_shape` is not {tuple(z.shape[1:])}")
        demand(str(z.dtype) == f"torch.{model.latent_dtype}", f"`latent_dtype` is not {z.dtype}")


def a_sample_depends_on_its_seed_alone(recipe: Recipe, folder: Path) -> None:
    model = recipe.model().eval()
    if not isinstance(model, Samples):
        return
    seeds = torch.tensor([5, 3, 8, 1, 9])
    torch.manual_seed(1)
    together = to_stored(_sample(model, seeds)).float()
    torch.manual_seed(2)
    single = torch.cat([to_stored(_sample(model, seeds[k : k + 1], k)) for k in range(5)]).float()
    off = float((together - single).abs().max())
    if together.ndim == 2:
        demand(off <= 1e-4, f"the same seed gives points {off:.2g} apart at batch sizes 5 and 1")
    else:
        demand(off <= 1, f"the same seed gives pixels {off:g} levels apart at batch sizes 5 and 1")
    two = torch.cat([_sample(model, seeds[k : k + 1]) for k in (0, 1)])  # of one condition
    demand(bool((two[0] != two[1]).any()), "two seeds give the same image")
    if model.conditional:
        one = torch.cat([_sample(model, seeds[:1], first) for first in (0, 1)])
        demand(bool((one[0] != one[1]).any()), "two conditions give the same image of one seed")


def interrupted_equals_uninterrupted(recipe: Recipe, folder: Path) -> None:
    # 36 images in batches of 8, checkpoints every 24: the last one before a crash at 64 lies in mid-epoch (48), the
    # one before a crash at 80 on the last batch of the second pass (72)
    whole = train(recipe, folder / "whole", images=112)
    for stop in (64, 80):
        part = folder / f"part{stop}"
        train(recipe, part, images=112, crash_at=stop)
        rest = train(recipe, part, images=112, ckpt=part / "checkpoints" / "last.ckpt")
        a, b = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (folder / "whole", part))
        demand(same(a["state_dict"], b["state_dict"]), f"weights differ after a crash at {stop} images")
        demand(same(a["ema"]["state_dict"], b["ema"]["state_dict"]), f"averages differ after a crash at {stop} images")
        demand(_curve(folder / "whole") == _curve(part), f"the logged curve differs after a crash at {stop} images")
        demand(whole.lightning_module.updates == rest.lightning_module.updates, "numbers of updates differ")


def a_checkpoint_is_enough(recipe: Recipe, folder: Path) -> None:
    run = train(recipe, folder, images=40)
    model = genbench.load(folder / "checkpoints" / "last.ckpt")
    demand(type(model) is type(run.lightning_module), "the checkpoint gives another class")
    average = next(c for c in run.callbacks if isinstance(c, EMA)).average
    loaded = {k: v for k, v in model.state_dict().items() if k in average}
    demand(same(loaded, average), "averages were not loaded")
    if isinstance(model, Samples):
        run.lightning_module.eval().load_state_dict(average, strict=False)
        a, b = (_sample(m, torch.arange(2)) for m in (model, run.lightning_module))
        demand(bool(torch.equal(a, b)), "the loaded model samples something else")


def half_precision_stays_finite(recipe: Recipe, folder: Path) -> None:
    for precision in ("16-mixed", "bf16-mixed"):
        plugin = MixedPrecision(precision, device="cpu")
        run = train(recipe, folder / precision, images=40, plugins=[plugin])
        demand(all(run.lightning_module.updates.values()), f"no step was taken in {precision}")
        finite = all(bool(torch.isfinite(p).all()) for p in run.lightning_module.parameters())
        demand(finite, f"weights are not finite in {precision}")


def _sample(model: Any, seeds: Tensor, first: int = 0, data: MadeUp | None = None) -> Tensor:
    """Asked for the labels or captions of the data's images from `first` on, in turn."""
    condition = None
    if model.conditional:
        known = getattr((data or MadeUp(model.spec)).everything.everything, model.spec.target)
        condition = known[(torch.arange(len(seeds)) + first) % len(known)]
    with torch.no_grad():
        return model.sample(seeds, condition=condition)


def _curve(folder: Path) -> list[dict[str, str]]:
    rows = Curves(folder).rows()
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


# ---- two processes ----------------------------------------------------------------------------------------------


def two_processes(recipes: list[Recipe], folder: Path, modules: list[str] = ()) -> dict[str, str | None]:
    """Train each on two gloo processes, one pair for all; name -> what is wrong, or None."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [str(r.path) for r in recipes]
    command = f"from genbench.cli.check import _worker; _worker({paths}, {str(folder)!r}, {list(modules)})"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", command],
            env=os.environ | {
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0",
                "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
            },
            stdout=subprocess.DEVNULL, stderr=open(folder / f"rank{rank}.log", "wb"),  # noqa: SIM115
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for worker in workers:
            worker.wait(timeout=60 + 60 * len(recipes))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for worker in workers:
            worker.kill()
    return {recipe.name: _compare(recipe, folder) for recipe in recipes}


def _worker(paths: list[str], folder: str, modules: list[str]) -> None:
    import_modules([f"--import={m}" for m in modules])
    rank = int(os.environ["LOCAL_RANK"])
    for path in paths:
        recipe = Recipe(Path(path))
        strategy, drift = PlayersDDP(process_group_backend="gloo"), Drift()
        run = train(recipe, Path(folder) / recipe.name, images=48, first=drift, devices=2, strategy=strategy)
        module = run.lightning_module
        noise = module.draw(torch.randn, 4, 3)
        buffers = {name for name, _ in module.named_buffers()} & drift.names
        state = {
            "weights": sorted(drift.names - buffers),
            "buffers": sorted(buffers - module.kept_by_each_process()),
            "noise": noise,
            "images": module.images_seen,
        }
        torch.save(state, Path(folder) / f"{recipe.name}.{rank}.pt")


def _compare(recipe: Recipe, folder: Path) -> str | None:
    paths = [folder / f"{recipe.name}.{rank}.pt" for rank in range(2)]
    if not all(p.is_file() for p in paths):
        last = (folder / "rank0.log").read_text(errors="replace").strip().splitlines()[-1:]
        return f"two processes did not finish: {' '.join(last) or 'they hung'}"
    a, b = (torch.load(p, weights_only=True) for p in paths)
    if b["weights"]:
        return (
            f"the weights {_some(b['weights'])} differ between two processes: was a loss backpropagated outside "
            "`turn.minimize`, or a step taken outside a turn?"
        )
    if b["buffers"]:
        return (
            f"the buffers {_some(b['buffers'])} differ between two processes: what is taken from the batch wants "
            "`ranks.mean` or `ranks.total`; what each process may have for itself is named in `per_process`"
        )
    if torch.equal(a["noise"], b["noise"]):
        return "two processes draw the same noise"
    return None if a["images"] == 48 else f"{a['images']} images seen in place of 48"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


PROMISES: list[Callable[[Recipe, Path], None]] = [
    players_own_every_parameter_once,
    losses_are_finite_and_every_parameter_moves,
    one_batch_can_be_learned,
    samples_have_the_datas_shape_and_range,
    a_sample_depends_on_its_seed_alone,
    a_checkpoint_is_enough,
    interrupted_equals_uninterrupted,
    half_precision_stays_finite,
]


def main(verb: str, argv: list[str]) -> int:
    parser = Arguments("python -m genbench check", description=__doc__.partition("\n")[0])
    parser.add_argument("--config", required=True, help="name or file of a config")
    parser.add_argument("--import", metavar="MODULE", help="import a module with your own model first")
    modules = [argv[k + 1] for k, a in enumerate(argv[:-1]) if a == "--import"]
    modules += [a.partition("=")[2] for a in argv if a.startswith("--import=")]
    arguments = parser.parse_args(import_modules(argv))
    recipe = Recipe(configs.named(arguments.config))
    quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # a few small images: more threads would wait for one another
    broken = 0
    with tempfile.TemporaryDirectory() as folder:
        for promise in PROMISES:
            broken += _report(promise.__name__, lambda p=promise: p(recipe, Path(folder) / p.__name__))
        broken += _report("two_processes_agree", lambda: _raise(two_processes([recipe], Path(folder), modules)))
    print(f"\n{len(PROMISES) + 1 - broken} of {len(PROMISES) + 1} promises kept by {recipe.name}")
    return 1 if broken else 0


def _raise(found: dict[str, str | None]) -> None:
    for wrong in found.values():
        demand(wrong is None, str(wrong))


def _report(name: str, promise: Callable[[], None]) -> bool:
    start = time.monotonic()
    try:
        promise()
        wrong = ""
    except Broken as error:
        wrong = str(error)
    except Exception as error:  # a model that crashes has broken its promise too
        wrong = f"{type(error).__name__}: {error}"
    print(f"{'broken' if wrong else 'kept':<8}{name.replace('_', ' ')}  ({time.monotonic() - start:.1f} s)", flush=True)
    if wrong:
        print(f"        {wrong}")
    return bool(wrong)
