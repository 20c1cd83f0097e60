"""GenerativeModule: the base of all models. How an optimizer step is taken is decided here, once.

A model with one optimizer returns its named loss terms:

    class Autoencoder(GenerativeModule):
        def training_step(self, batch, batch_idx):
            return {"reconstruction": mse_loss(self.decoder(self.encoder(batch.image)), batch.image)}

A model with several says which networks belong to which optimizer (player), and writes its updates one after the other:

    class GAN(GenerativeModule):
        players = {"generator": ("generator",), "discriminator": ("discriminator",)}
        ema = ("generator",)

        def training_step(self, batch, batch_idx):
            fake = self.generator(self.draw(torch.randn, len(batch), 100))
            with self.turn("discriminator") as turn:
                turn.minimize(real=..., fake=...)
            with self.turn("generator") as turn:
                turn.minimize(adversarial=...)

The output of a network may be used after that network has stepped only if it is detached: its graph holds weights that
have changed.
"""

from __future__ import annotations

import copy
import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

import genbench
from genbench.core import ranks, rates
from genbench.core.arguments import Count, Positive, Remembers
from genbench.core.batch import Batch, DataSpec
from genbench.core.capabilities import Samples, taking_a_number
from genbench.core.errors import NonFiniteLoss, UserError
from genbench.core.noise import Draws, mix
from genbench.core.optim import ADAM, Schedule, build_optimizer, build_schedule, look_ahead, merge

FORMAT = 1  # of a checkpoint's contents: goes up where an older genbench would misread them; 0 did not say it


class Turn:
    """One player's part of a training step; see `GenerativeModule.turn`."""

    def __init__(self, module: GenerativeModule, player: str) -> None:
        self._module, self._player = module, player
        self.backwards = 0

    def minimize(self, **terms: Tensor) -> None:
        """Add up the named loss terms (scalars) and backpropagate them into this player's gradients."""
        self.log(**terms)
        loss = sum(terms.values())
        if not self.backwards and self._module._micro_batch == 1:
            # here and not after the step: memory given back at the end of a step costs page faults in the next
            for p in self._module._own[self._player]:
                p.grad = None
        self._module.manual_backward(loss / self._module.accumulate if self._module.accumulate > 1 else loss)
        self.backwards += 1

    def log(self, **values: Tensor) -> None:
        """Record scalars under this player's name: averaged until they are read, watched for NaN."""
        for name, value in values.items():
            self._module.record(f"{self._player}/{name}", value)


def _with_step(training_step: Callable) -> Callable:
    """A `training_step` that takes an optimizer step on the loss terms that it returns, if it returns any."""

    @wraps(training_step)
    def step(self: GenerativeModule, batch: Any, batch_idx: int) -> dict[str, Tensor] | None:
        terms = training_step(self, batch, batch_idx)
        if type(self).training_step is not step:  # a subclass has called it, and returns terms itself
            return terms
        if terms is None and (self._turned or len(self.players) > 1):  # it has taken its steps
            return None
        if not isinstance(terms, Mapping):
            raise UserError(
                f"training_step of {type(self).__name__} returns a {type(terms).__name__}: return loss terms by "
                "name, such as {'reconstruction': loss}."
            )
        if len(self.players) > 1:
            raise UserError(
                f"training_step of {type(self).__name__} returns loss terms, and the model has the optimizers "
                f"{', '.join(self.players)}: give each its own, `with self.turn(NAME) as turn: turn.minimize(...)`."
            )
        (player,) = self.players
        with self.turn(player) as turn:
            turn.minimize(**terms)
        return None

    return step


class GenerativeModule(LightningModule, metaclass=Remembers):
    """Base of all models.

    Args:
        spec: What the data is; given by the DataModule when run from a config
        optimizer: Optimizer of every player: a class path and its arguments, such as
            `{class_path: torch.optim.Adam, lr: 0.001}`
        optimizers: What differs for single players, by player: `{generator: {lr: 0.0001}}`
        schedule: Learning-rate schedule of every player, or none: `{warmup: 0.05, decay_from: 0.5}` in shares of the
            budget or in images, see `genbench.core.optim.WarmupDecay`; or a class path and its arguments, and then
            one of its steps is 1,000 images seen
        schedules: What differs for single players, by player
        accumulate: Add up the gradients of so many batches before a step. Equal to one large batch for a model of
            one player without batch normalization; of a GAN the small batches meet an opponent that has not moved
        clip_norm: Clip each player's gradient to this norm
        clip_value: Clip each gradient's elements to this magnitude

    Class attributes that a model may set:
        players   optimizer -> names of its networks; by default one, `train`, of all networks but frozen models
        ema       names of the networks that a capability uses: these have moving averages; by default all of `players`
        default_optimizer  class path and arguments of every optimizer where the user gives none
        changeable  arguments of its own that a run may change when it goes on: those that change neither networks nor
                    buffers, such as the weights of loss terms
        conditional  whether `sample` takes a condition
        per_process  names of buffers that on several devices each process makes from its own share of the batch, such
                     as a pool of images. A checkpoint has the first one's, and all go on from those. All other state is
                     made from the whole batch, with `ranks.mean` or `ranks.total`; `check` finds what is not

    Progress is counted in `images_seen`: real images that training took from its loader, over all processes.
    """

    abstract = True
    default_optimizer: ClassVar[dict[str, Any]] = ADAM
    changeable: ClassVar[tuple[str, ...]] = ()
    conditional: bool = False
    per_process: ClassVar[tuple[str, ...]] = ()
    _setting = "model"
    _arguments: dict[str, Any]  # see `genbench.core.arguments.Remembers`

    spec: DataSpec

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if issubclass(cls, Samples):
            cls.sample = taking_a_number(cls.sample)
        if "training_step" in vars(cls):
            cls.training_step = _with_step(cls.training_step)

    @property
    def players(self) -> dict[str, tuple[str, ...]]:
        """Optimizer -> names of its networks."""
        # a model inside of this one is trained already, see `core.composition`
        return {"train": tuple(n for n, net in self.named_children() if not isinstance(net, GenerativeModule))}

    @property
    def ema(self) -> tuple[str, ...]:
        """Names of the networks that have moving averages."""
        return tuple(name for names in self.players.values() for name in names)

    def __init__(
        self,
        spec: DataSpec | None = None,
        *,
        optimizer: dict[str, Any] | None = None,
        optimizers: dict[str, dict[str, Any]] | None = None,
        schedule: dict[str, Any] | None = None,
        schedules: dict[str, dict[str, Any]] | None = None,
        accumulate: Count = 1,
        clip_norm: Positive | None = None,
        clip_value: Positive | None = None,
    ) -> None:
        super().__init__()
        if spec is None:
            raise UserError(
                f"{type(self).__name__} needs to know its data: give `spec=data.spec`, or run it from a config, where "
                "the DataModule gives it."
            )
        self.save_hyperparameters(self._arguments, logger=False)
        self.automatic_optimization = False
        self.spec = DataSpec.from_dict(spec) if isinstance(spec, dict) else spec
        default = merge(self.default_optimizer, optimizer)
        self._optimizers = {name: merge(default, (optimizers or {}).get(name)) for name in self.players}
        self._schedules = {name: merge(schedule, (schedules or {}).get(name)) for name in self.players}
        for name in self.players:
            self._optimizers[name] = rates.checked(self._optimizers[name], "optimizer", name, optimizers)
            self._schedules[name] = rates.checked(self._schedules[name], "schedule", name, schedules)
        for argument, given in {"optimizers": optimizers, "schedules": schedules}.items():
            for name in given or {}:
                if name not in self.players:
                    raise UserError(f"{argument} names '{name}'; the model's optimizers are {', '.join(self.players)}.")
        self.accumulate, self.clip_norm, self.clip_value = accumulate, clip_norm, clip_value

        self.origin: tuple[Path, str] | None = None  # checkpoint that it was loaded from, and which of its weights
        self.images_seen = 0
        self.budget: int | None = None  # images of the whole run, where a MaxImages says so
        self._last_batch = 0  # images of the last global batch
        self.updates = dict.fromkeys(self.players, 0)
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        self.draw = Draws()
        self._micro_batch = 0  # batches added up so far, the current one included
        self._turned: set[str] = set()  # players that had a turn on this batch
        self._half_made: dict[str, Tensor] = {}  # gradients of a resumed run that stopped while accumulating
        self._sums: dict[str, Tensor] = {}  # running sums of what turns logged, on the device
        self._counts: dict[str, int] = {}
        self._scalers: dict[str, Any] = {}
        self._own: dict[str, list[nn.Parameter]] = {}
        self._schedulers: dict[str, Schedule | None] = {}
        self._kept_by_optimizers: set[str] = set()  # in their parameter groups, without what schedules put there
        self._loading: list[dict[str, Any]] = []  # optimizer states of the checkpoint that is being loaded

    # ---- a turn -------------------------------------------------------------------------------------------------

    @contextmanager
    def turn(self, player: str) -> Iterator[Turn]:
        """One player's part of a training step: forward, `minimize`, and at the end its optimizer's step.

        Inside, only this player's parameters take gradient. At the end (every `accumulate` batches) gradients are
        averaged over processes, unscaled, clipped, and the optimizer and its schedule step. Gradients are emptied
        before the next backward.
        """
        index = list(self.players).index(player)
        if self.accumulate > 1 and player in self._turned:
            raise UserError(
                f"accumulate is {self.accumulate}, and the {player} takes several turns on one batch: the gradients of "
                "its turns would be added up. Leave `model.accumulate` out, or give each player one turn "
                "(`adversarial.generator_steps`)."
            )
        self._turned.add(player)
        optimizer = self._wrapped_optimizers()[index]
        precision = self.trainer.strategy.precision_plugin
        if self._scalers:
            # one gradient scaler each: with one for all, a player's overflow would rescale gradients that another
            # has already accumulated
            precision.scaler = self._scalers[player]
        others = [p for name, own in self._own.items() if name != player for p in own if p.requires_grad]
        for p in others:
            p.requires_grad_(False)
        turn = Turn(self, player)
        try:
            yield turn
        finally:
            for p in others:
                p.requires_grad_(True)
        if turn.backwards and self._micro_batch == self.accumulate:
            optimizer.step()  # -> strategy averages -> precision unscales -> on_before_optimizer_step clips -> step
            self.updates[player] += 1
            if self._schedulers[player] is not None:
                self._schedulers[player].advance(self.images_seen)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip: the one place where gradients are complete and unscaled."""
        if self.clip_norm is None and self.clip_value is None:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(parameters, self.clip_value)

    def parameters_of(self, player: str) -> list[nn.Parameter]:
        """The parameters that the player's optimizer moves."""
        return [p for name in self.players[player] for p in getattr(self, name).parameters()]

    @property
    def optimizer_classes(self) -> dict[str, str]:
        """Player -> class path of its optimizer."""
        return {player: str(description.get("class_path")) for player, description in self._optimizers.items()}

    @property
    def has_schedule(self) -> bool:
        return any(self._schedules.values())

    def look_ahead(self, budget: int) -> list[str]:
        """Sentences on schedules whose rate stops falling before the end of the budget.

        Raises:
            UserError: a schedule cannot be stepped so far, or its arguments are wrong.
        """
        found = (
            look_ahead(self._schedules[player], self._optimizers[player], player, budget) for player in self.players
        )
        return [sentence for sentence in found if sentence]

    def _wrapped_optimizers(self) -> list:
        wrapped = self.optimizers()
        return wrapped if isinstance(wrapped, list) else [wrapped]

    def configure_optimizers(self) -> list[Optimizer]:
        fp16 = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        self._own = {player: self.parameters_of(player) for player in self.players}
        optimizers, self._schedulers = [], {}
        for player, description in self._optimizers.items():
            optimizer = build_optimizer(self._own[player], description, player, self.device, fused=not fp16)
            optimizers.append(optimizer)
            self._kept_by_optimizers.update(*optimizer.param_groups)
            self._schedulers[player] = build_schedule(optimizer, self._schedules[player], player, self.budget)
        return optimizers  # not the schedules: they follow from the images seen, and no checkpoint has them

    def check_condition(self, condition: Tensor | None) -> None:
        """Raise UserError where `sample` is asked for what the model was not trained on, or not told what it needs."""
        name = type(self).__name__
        if condition is not None and not self.conditional:
            raise UserError(f"{name} is trained without labels or prompts, so none can be asked of it.")
        if condition is None and self.conditional:
            if self.spec.target == "caption":
                raise UserError(f"{name} draws what a caption says: give one for each image.")
            raise UserError(f"{name} draws images of a class: give a label for each.")

    def labels_of_all(self, batch: Batch) -> Tensor:
        """The batch's labels [B]. Raises UserError where some images have none (`data.labeled`)."""
        if batch.known_label is not None:
            raise UserError(f"{type(self).__name__} wants the label of every image: leave `data.labeled` out.")
        return batch.label

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Scores of each image, [B] by name; the base has none, and what capabilities allow is scored for all."""
        return {}

    # ---- clock and noise ----------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        from genbench.core.strategy import PlayersDDP

        if self.trainer.world_size > 1 and not isinstance(self.trainer.strategy, PlayersDDP):
            raise UserError(
                f"{type(self.trainer.strategy).__name__} cannot train several players: it expects one backward per "
                "step. Use `--trainer.strategy auto`, which averages each player's gradients when it steps."
            )
        self.origin = None
        self._place_draws()
        # A checkpoint has an optimizer's state, and the config its settings: rates, betas, fused or not, and what a
        # schedule keeps beside them.
        for state, optimizer in zip(self._loading, self.trainer.optimizers, strict=False):
            for saved, built in zip(state["param_groups"], optimizer.param_groups, strict=False):
                kept = self._kept_by_optimizers - _settings_of(optimizer)
                saved.update({name: value for name, value in built.items() if name not in kept})
        self._loading = []

    def on_train_start(self) -> None:
        # only now: Lightning empties all gradients before it trains
        for name, gradient in self._half_made.items():
            p = self.get_parameter(name)
            p.grad = gradient.to(p.device)
        self._half_made = {}

    def _place_draws(self) -> None:
        self.draw = Draws(self.trainer.global_rank, self.trainer.world_size, self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Advance the clock, and key all randomness of the step on it.

        The global generators are seeded per process (dropout and the like differ between processes); `self.draw`
        gives noise keyed by the image's place in the global batch.
        """
        for schedule in filter(None, self._schedulers.values()):
            schedule.advance(self.images_seen)  # also of a player that has not stepped for some batches
        self.draw.seed("train", self.seed, self.images_seen)
        seed = mix("step", self.seed, self.images_seen, self.trainer.global_rank)
        # not torch.manual_seed: without a GPU it queues a call, with a stack trace, at every step
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        self._last_batch = len(batch) * self.trainer.world_size
        self.images_seen += self._last_batch
        self._micro_batch = self._micro_batch % self.accumulate + 1
        self._turned.clear()

    def on_validation_start(self) -> None:
        self._place_draws()
        self.draw.world, self.draw.rank = 1, 0  # blocks of images are dealt to processes whole

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        block = batch_idx * self.trainer.world_size + self.trainer.global_rank
        self.draw.seed("validation", block)  # not the run's seed: all runs are judged with the same noise

    def on_validation_end(self) -> None:
        self._place_draws()

    def on_validation_model_zero_grad(self) -> None:
        pass  # Lightning would empty gradients that are being accumulated

    def due(self, every: int) -> bool:
        """Whether the last batch took the clock to or past a multiple of `every` images."""
        return self.images_seen // every != (self.images_seen - self._last_batch) // every

    # ---- what turns logged --------------------------------------------------------------------------------------

    def record(self, name: str, value: Tensor) -> None:
        """Log a scalar as a column of metrics.csv, such as `train/elbo`: the mean of all values until they are read."""
        value = value.detach()
        if name in self._sums:
            self._sums[name].add_(value)
        else:
            self._sums[name] = value.to(torch.promote_types(value.dtype, torch.float32), copy=True)
        self._counts[name] = self._counts.get(name, 0) + 1

    def record_once(self, name: str, measure: Callable[[], Tensor]) -> None:
        """Record what is costly to measure at its first chance after each reading, and not again until the next.

        A value that is not finite is left out and the next chance taken: a gradient scaler tries scales that overflow.
        """
        if name not in self._counts:
            value = measure()
            if torch.isfinite(value):
                self.record(name, value)

    def read_terms(self, *, reset: bool = True) -> dict[str, float]:
        """Means of all terms since the last reset, over all processes; one synchronization for all.

        A term that was not finite at any time since then makes its sum so.

        Raises:
            NonFiniteLoss: names the optimizer, the term and the images seen; on all processes alike.
        """
        if not self._sums:
            return {}
        sums = ranks.mean(torch.stack(list(self._sums.values()))).tolist()
        means = {name: total / self._counts[name] for name, total in zip(self._sums, sums, strict=True)}
        if reset:
            self._sums, self._counts = {}, {}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise NonFiniteLoss(
                    f"The loss is no longer finite: {name} is {mean} at {self.images_seen:,} images seen. The last "
                    "checkpoint is from before; try a lower learning rate, `--model.clip_norm 1`, or 32-bit precision."
                )
        return means

    def check_finite(self) -> None:
        """Raise `NonFiniteLoss` if a loss term or a weight is not finite. To be called before a checkpoint."""
        self.read_terms(reset=False)
        for player in self.players:
            norms = torch._foreach_norm([p.detach() for p in self.parameters_of(player)])
            finite = torch.isfinite(torch.stack([n.float() for n in norms])).all().float()
            if ranks.mean(finite).item() < 1:
                raise NonFiniteLoss(
                    f"Weights are no longer finite: those of optimizer '{player}' at {self.images_seen:,} images "
                    "seen. The last checkpoint is from before; try a lower learning rate or `--model.clip_norm 1`."
                )

    # ---- checkpoints --------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        scaler = getattr(self.trainer.strategy.precision_plugin, "scaler", None)
        if stage == "fit" and scaler is not None:
            self._scalers = {player: copy.deepcopy(scaler) for player in self.players}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning's own counters would only be in the way: position, clock and schedules follow `images_seen`
        checkpoint.pop("loops", None)
        gradients = self._accumulated()
        # A checkpoint has one of each, and any number of devices may go on with it: what the processes, which are all
        # here, have made of their shares becomes the mean, which changes neither the next step nor the next reading.
        ranks.average_([*gradients.values(), *self._sums.values()])
        checkpoint["genbench"] = {
            "model": f"{type(self).__module__}.{type(self).__qualname__}",
            "format": FORMAT,
            "version": genbench.__version__,
            "images_seen": self.images_seen,
            "updates": dict(self.updates),
            "seed": self.seed,
            "optimizers": self._optimizers,
            "scalers": {player: scaler.state_dict() for player, scaler in self._scalers.items()},
            "terms": {name: [total, self._counts[name]] for name, total in self._sums.items()},
        }
        if gradients:
            checkpoint["genbench"] |= {"micro_batch": self._micro_batch, "gradients": gradients}
            checkpoint["genbench"]["accumulate"] = self.accumulate

    def kept_by_each_process(self) -> set[str]:
        """Names of the buffers that may differ between processes: `per_process`, and running statistics of norms."""
        norms = {name for name, m in self.named_modules() if isinstance(m, nn.modules.batchnorm._NormBase)}
        buffers = [name for name, _ in self.named_buffers()]
        return {name for name in buffers if name.rpartition(".")[0] in norms or name in self.per_process}

    def _accumulated(self) -> dict[str, Tensor]:
        if self._micro_batch % self.accumulate == 0:
            return {}  # what lies there has been stepped on
        return {name: p.grad for name, p in self.named_parameters() if p.grad is not None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._trainer is not None:
            # Lightning does this only after it has copied the weights: those of a run in float64 would be rounded
            self.trainer.strategy.precision_plugin.convert_module(self)
        self._loading = checkpoint.get("optimizer_states", [])
        state = checkpoint["genbench"]
        self.images_seen, self.updates, self.seed = state["images_seen"], dict(state["updates"]), state["seed"]
        for player, scaler in state["scalers"].items():
            if player in self._scalers:
                self._scalers[player].load_state_dict(scaler)
        for name, (total, count) in state["terms"].items():
            self._sums[name], self._counts[name] = total.to(self.device), count
        if state.get("accumulate", self.accumulate) == self.accumulate:
            self._micro_batch = state.get("micro_batch", 0)
            self._half_made = state.get("gradients", {})


def _settings_of(optimizer: Optimizer) -> set[str]:
    """What an optimizer keeps of its arguments in its parameter groups; the rest there is state, such as Prodigy's."""
    return {"lr", "initial_lr", *inspect.signature(type(optimizer).__init__).parameters} - {"params"}
