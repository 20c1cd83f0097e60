"""Contract tests. Each is a function of a model's recipe and an output folder, and may raise ContractViolation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.nn.functional import cross_entropy

import genbench
from genbench.callbacks import EMA, MaxImages
from genbench.core.batch import from_stored, to_stored
from genbench.core.capabilities import (
    Classifies,
    Encodes,
    HasLikelihood,
    Reconstructs,
    Samples,
    SamplesLatents,
    Segments,
    Translates,
    options,
    takes_condition,
)
from genbench.core.module import GenerativeModule
from genbench.loggers import Curves
from genbench.metrics.sliced_wasserstein import project, sliced_wasserstein
from genbench.testing.recipe import QUIET, Recipe, SyntheticData, train

STEPS = 8  # at most, of a model that samples in steps


class ContractViolation(AssertionError):
    """A contract test failed. The message contains the reason."""


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ContractViolation(message)


def players_own_every_parameter_once(recipe: Recipe, folder: Path) -> None:
    model = recipe.model()
    owned = [p for player in model.players for p in model.parameters_of(player)]
    require(len(owned) == len({id(p) for p in owned}), "a parameter belongs to two optimizers in `players`")
    free = {n for n, p in model.named_parameters() if p.requires_grad and all(p is not q for q in owned)}
    require(not free, f"no optimizer in `players` updates {', '.join(sorted(free))}")
    for name in model.ema:
        require(hasattr(model, name), f"`ema` names '{name}', which the model does not have")


def losses_are_finite_and_every_parameter_moves(recipe: Recipe, folder: Path) -> None:
    # parameters with one element are skipped: the output bias of a critic with a linear loss has no gradient
    before = {n: p.clone() for n, p in recipe.model().named_parameters() if p.requires_grad and p.numel() > 1}
    run = train(recipe, folder, images=96)  # a generator may step only at every fifth batch
    still = [n for n, p in run.lightning_module.named_parameters() if n in before and torch.equal(p, before[n])]
    require(not still, f"these parameters did not change in twelve steps: {', '.join(still)}")
    require(all(run.lightning_module.updates.values()), "an optimizer took no step")


def one_batch_can_be_learned(recipe: Recipe, folder: Path) -> None:
    data = SyntheticData(recipe.spec, n=8)
    batch = data.everything.everything
    real, model = from_stored(batch.image), recipe.model()
    built_on_another = any(not p.requires_grad for p in model.parameters())

    @torch.no_grad()
    def distance() -> float:
        if built_on_another:  # a frozen part generates the images
            scores = model.eval().validation_step(replace(batch, image=real), 0)
            model.train()
            return sum(values.mean().item() for values in scores.values())
        if isinstance(model, Classifies):
            cost = cross_entropy(model.eval().classify(real), batch.label).item()
            model.train()
            return cost
        if isinstance(model, HasLikelihood) and model.likelihood == "exact":
            return -model.log_likelihood(real).mean().item()
        if isinstance(model, Translates):
            made = model.translate(from_stored(batch.source), to="B")
            if recipe.spec.target == "domain":
                return sliced_wasserstein(project(made), project(real)).item()
            return (made - real).square().mean().item()
        if isinstance(model, Segments):
            return cross_entropy(model.segment(real), batch.mask).item()
        if isinstance(model, Reconstructs):
            return (model.reconstruct(real) - real).square().mean().item()
        return sliced_wasserstein(project(_sample(model, torch.arange(64), data=data)), project(real)).item()

    if not isinstance(model, (Samples, Reconstructs, Classifies, Translates, Segments)):
        return
    before = distance()
    for steps in (200, 400, 800, 1600):  # a generator with five critic steps per step needs more
        run = Trainer(
            accelerator="cpu", devices=1, logger=False, callbacks=[MaxImages(8 * steps)], default_root_dir=folder,
            limit_val_batches=0, **QUIET,
        )  # fmt: skip
        run.fit(model, datamodule=data)
        after = distance()
        if after < 0.8 * before:
            return
    require(False, f"{steps} steps on one batch reduced the error only from {before:.3g} to {after:.3g}")


def samples_have_the_shape_and_range_of_the_data(recipe: Recipe, folder: Path) -> None:
    model = recipe.model().eval()
    if isinstance(model, Samples):
        images = _sample(model, torch.arange(3))
        require(tuple(images.shape) == (3, *recipe.spec.shape), f"samples have the shape {tuple(images.shape)}")
        require(bool(torch.isfinite(images).all()), "samples are not finite")
        require(images.ndim == 2 or bool(images.abs().max() <= 1.001), "samples leave [-1, 1]")  # points may leave it
    x = from_stored(recipe.data().everything.everything.image[:3])
    if isinstance(model, Reconstructs):
        require(model.reconstruct(x).shape == x.shape, "reconstructions have a different shape than the images")
    if isinstance(model, Translates):
        source, shapes = from_stored(recipe.data().everything.everything.source[:3]), {"B": x.shape}
        shapes |= {"A": source.shape} if "A" in model.domains else {}
        for to, shape in shapes.items():
            made = model.translate(source if to == "B" else x, to=to)
            require(made.shape == shape, f"translations to {to} have the shape {tuple(made.shape)}")
            require(bool(made.abs().max() <= 1.001), f"translations to {to} leave [-1, 1] or are not finite")
    if isinstance(model, Segments):
        found, shape = model.segment(x), (3, len(recipe.spec.classes), *x.shape[2:])
        require(tuple(found.shape) == shape, f"masks have the shape {tuple(found.shape)}")
        require(bool(torch.isfinite(found).all()), "masks are not finite")
    if isinstance(model, Encodes):
        label = recipe.data().everything.everything.label
        encode: Any = model.encode
        z = encode(x, condition=label[:3]) if takes_condition(encode) else encode(x)
        require(tuple(z.shape[1:]) == tuple(model.latent_shape), f"`latent_shape` is not {tuple(z.shape[1:])}")
        require(str(z.dtype) == f"torch.{model.latent_dtype}", f"`latent_dtype` is not {z.dtype}")


def decoded_latents_are_the_samples(recipe: Recipe, folder: Path) -> None:
    model = recipe.model().eval()
    if not isinstance(model, SamplesLatents):
        return
    z = model.sample_latents(torch.arange(3), **_few_steps(model.sample_latents))
    require(tuple(z.shape) == (3, *model.latent_shape), f"`sample_latents` returns the shape {tuple(z.shape)}")
    decode: Any = model.decode
    if takes_condition(decode):
        known = getattr(recipe.data().everything.everything, model.spec.target)
        decode = partial(decode, condition=known[torch.arange(3) % len(known)])
    with torch.no_grad():
        require(torch.equal(decode(z), _sample(model, torch.arange(3))), "`decode` does not map latents to the samples")


def _fill_zeros(model: GenerativeModule) -> None:
    """Draw the weight matrices that are initialized to zero, so that an untrained network depends on all its inputs."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 and not bool(parameter.any()):
                parameter.copy_(torch.randn(parameter.shape, generator=draw) / parameter[0].numel() ** 0.5)


def a_sample_depends_on_its_seed_alone(recipe: Recipe, folder: Path) -> None:
    model = recipe.model().eval()
    if not isinstance(model, Samples):
        return
    _fill_zeros(model)
    seeds = torch.tensor([5, 3, 8, 1, 9])
    torch.manual_seed(1)
    together = to_stored(_sample(model, seeds)).float()
    torch.manual_seed(2)
    single = torch.cat([to_stored(_sample(model, seeds[k : k + 1], k)) for k in range(5)]).float()
    off = float((together - single).abs().max())
    if together.ndim == 2:
        require(off <= 1e-4, f"points of the same seed differ by {off:.2g} between batch sizes 5 and 1")
    else:
        require(off <= 1, f"pixels of the same seed differ by {off:g} levels between batch sizes 5 and 1")
    two = torch.cat([_sample(model, seeds[k : k + 1]) for k in (0, 1)])  # with the same condition
    require(bool((two[0] != two[1]).any()), "two seeds give the same image")
    if model.conditional:
        one = torch.cat([_sample(model, seeds[:1], first) for first in (0, 1)])
        require(bool((one[0] != one[1]).any()), "two conditions give the same image with the same seed")


def interrupted_equals_uninterrupted(recipe: Recipe, folder: Path) -> None:
    # 36 images in batches of 8, with a checkpoint every 24 images: the last checkpoint before a crash at 64 is in the
    # middle of an epoch (48), and the last before a crash at 80 is at the end of the second epoch (72)
    whole = train(recipe, folder / "whole", images=112)
    for stop in (64, 80):
        part = folder / f"part{stop}"
        train(recipe, part, images=112, crash_at=stop)
        rest = train(recipe, part, images=112, ckpt=part / "checkpoints" / "last.ckpt")
        a, b = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (folder / "whole", part))
        require(
            same(a["state_dict"], b["state_dict"]),
            f"weights differ after a crash at {stop} images. `batch_idx` restarts at a resume: use `images_seen`",
        )
        require(same(a["ema"]["state_dict"], b["ema"]["state_dict"]), f"averages differ after a crash at {stop} images")
        require(_curve(folder / "whole") == _curve(part), f"the logged curve differs after a crash at {stop} images")
        require(whole.lightning_module.updates == rest.lightning_module.updates, "numbers of updates differ")


def a_checkpoint_is_enough(recipe: Recipe, folder: Path) -> None:
    run = train(recipe, folder, images=40)
    model = genbench.load(folder / "checkpoints" / "last.ckpt")
    require(type(model) is type(run.lightning_module), "the loaded model has a different class")
    average = next(c for c in run.callbacks if isinstance(c, EMA)).average
    loaded = {k: v for k, v in model.state_dict().items() if k in average}
    require(same(loaded, average), "averages were not loaded")
    if isinstance(model, Samples):
        run.lightning_module.eval().load_state_dict(average, strict=False)
        a, b = (_sample(m, torch.arange(2)) for m in (model, run.lightning_module))
        require(bool(torch.equal(a, b)), "the loaded model gives different samples")


def half_precision_stays_finite(recipe: Recipe, folder: Path) -> None:
    for precision in ("16-mixed", "bf16-mixed"):
        plugin = MixedPrecision(precision, device="cpu")
        run = train(recipe, folder / precision, images=40, plugins=[plugin])
        require(all(run.lightning_module.updates.values()), f"no step was taken in {precision}")
        finite = all(bool(torch.isfinite(p).all()) for p in run.lightning_module.parameters())
        require(finite, f"weights are not finite in {precision}")


def _sample(model: Any, seeds: Tensor, first: int = 0, data: SyntheticData | None = None) -> Tensor:
    """Samples of these seeds. The conditions are labels or captions of the data, starting with image `first`."""
    condition = None
    if model.conditional:
        known = getattr((data or SyntheticData(model.spec)).everything.everything, model.spec.target)
        condition = known[(torch.arange(len(seeds)) + first) % len(known)]
    with torch.no_grad():
        return model.sample(seeds, condition=condition, **_few_steps(model.sample))


def _few_steps(sample: Any) -> dict[str, int]:
    """Options for a method that samples in steps: few are enough, since no test judges the quality of samples."""
    steps = options(sample).get("steps")
    return {"steps": min(STEPS, steps)} if isinstance(steps, int) else {}


def _curve(folder: Path) -> list[dict[str, str]]:
    rows = Curves(folder).rows()
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


# tests that run in one process
CONTRACT_TESTS: list[Callable[[Recipe, Path], None]] = [
    players_own_every_parameter_once,
    losses_are_finite_and_every_parameter_moves,
    one_batch_can_be_learned,
    samples_have_the_shape_and_range_of_the_data,
    decoded_latents_are_the_samples,
    a_sample_depends_on_its_seed_alone,
    a_checkpoint_is_enough,
    interrupted_equals_uninterrupted,
    half_precision_stays_finite,
]
