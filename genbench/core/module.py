"""GenerativeModule: the base class of all models. It takes all optimizer steps.

A model with one optimizer returns its named loss terms:

    class Autoencoder(GenerativeModule):
        def training_step(self, batch, batch_idx):
            return {"reconstruction": mse_loss(self.decoder(self.encoder(batch.image)), batch.image)}

In a model with several optimizers, `players` lists the networks of each optimizer, and `training_step` has one `turn`
per optimizer. In genbench, a player is an optimizer together with its networks:

    class GAN(GenerativeModule):
        players = {"generator": ("generator",), "discriminator": ("discriminator",)}
        ema = ("generator",)

        def training_step(self, batch, batch_idx):
            fake = self.generator(self.draw(torch.randn, len(batch), 100))
            with self.turn("discriminator") as turn:
                turn.minimize(real=..., fake=...)
            with self.turn("generator") as turn:
                turn.minimize(adversarial=...)

After a network's optimizer has stepped, earlier outputs of the network may be used only if they are detached: their
graph refers to weights that have changed.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
from genbench.core.capabilities import Classifies, Samples, taking_a_number
from genbench.core.class_paths import path_of
from genbench.core.errors import NonFiniteLoss, UserError
from genbench.core.noise import Draws, mix
from genbench.core.optim import ADAM, Schedule, build_optimizer, build_schedule, keep_settings, look_ahead, merge
from genbench.core.terms import Terms
from genbench.core.turn import Turn, with_step

# format of a checkpoint's contents: it increases when an older genbench would misread them. Checkpoints of format 0
# have no format number
FORMAT = 1


class GenerativeModule(LightningModule, metaclass=Remembers):
    """Base class of all models.

    Args:
        spec: Shape and targets of the data; the commands take it from the DataModule
        optimizer: Optimizer of every player: a class path and its arguments, such as
            `{class_path: torch.optim.Adam, lr: 0.001}`
        optimizers: Settings that differ for single players, by player: `{generator: {lr: 0.0001}}`
        schedule: Learning-rate schedule of every player, or none: `{warmup: 0.05, decay_from: 0.5}` in fractions of
            the budget or in images, see `genbench.core.optim.WarmupDecay`; or a class path and its arguments, where
            one step is 1,000 images seen
        schedules: Settings that differ for single players, by player
        accumulate: Number of batches whose gradients are added up before a step. This equals one large batch for a
            model with one player and no batch normalization. In a GAN the other player does not change between these
            batches
        clip_norm: Maximum norm of each player's gradient
        clip_value: Maximum magnitude of each element of a gradient

    Class attributes that a model may set:
        players   optimizer -> names of its networks; by default `train`, with all networks but frozen models
        ema       names of the networks that a capability uses, which have moving averages; by default all of `players`
        default_optimizer  class path and arguments of every optimizer that the user does not set
        changeable  the model's arguments that may change when a run is resumed: arguments that change neither networks
                    nor buffers, such as the weights of loss terms
        conditional  whether `sample` takes a condition
        per_process  names of buffers that each process computes from its own part of the batch, such as a pool of
                     images. A checkpoint stores the buffers of the first process, and all processes resume from them.
                     All other state must be computed from the whole batch, with `ranks.mean` or `ranks.total`; `check`
                     finds state that is not

    Progress is counted in `images_seen`: the real images that training read from its loader, over all processes.
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
            cls.training_step = with_step(cls.training_step)

    @property
    def players(self) -> dict[str, tuple[str, ...]]:
        """Optimizer -> names of its networks."""
        # a model inside this one is already trained, see `core.composition`
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
                f"{type(self).__name__} needs the `spec` of its data: pass `spec=data.spec`, or run it from a config, "
                "which passes it."
            )
        self.save_hyperparameters(self._arguments, logger=False)
        self.automatic_optimization = False
        self.spec = DataSpec.from_dict(spec) if isinstance(spec, dict) else spec
        default = merge(self.default_optimizer, optimizer)
        self.optimizer_settings = rates.of_players(self.players, "optimizer", default, optimizers)
        self.schedule_settings = rates.of_players(self.players, "schedule", schedule, schedules)
        self.accumulate, self.clip_norm, self.clip_value = accumulate, clip_norm, clip_value

        self.origin: tuple[Path, str] | None = None  # the checkpoint it was loaded from, and `raw` or `ema`
        self.images_seen = 0
        self.budget: int | None = None  # images of the whole run, set by MaxImages
        self._last_batch = 0  # images of the last global batch
        self.updates = dict.fromkeys(self.players, 0)
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        self.draw = Draws()
        self._micro_batch = 0  # batches added up so far, including the current one
        self._turned: set[str] = set()  # players that had a turn on this batch
        self._half_made: dict[str, Tensor] = {}  # gradients of a run that was stopped between accumulated batches
        self.logged = Terms()  # terms that the turns have logged and that are not read yet
        self._scalers: dict[str, Any] = {}
        self._own: dict[str, list[nn.Parameter]] = {}
        self._schedulers: dict[str, Schedule | None] = {}
        self._kept_by_optimizers: set[str] = set()  # keys of parameter groups before schedules are built
        self._loading: list[dict[str, Any]] = []  # optimizer states of the checkpoint that is being loaded

    # ---- a turn -------------------------------------------------------------------------------------------------

    @contextmanager
    def turn(self, player: str) -> Iterator[Turn]:
        """One player's part of a training step: forward, `minimize`, and at the end its optimizer's step.

        Inside, only this player's parameters require gradients. At the end (every `accumulate` batches) gradients are
        averaged over processes, unscaled and clipped, and the optimizer and its schedule step. Gradients are set to
        None before the next backward.
        """
        index = list(self.players).index(player)
        if self.accumulate > 1 and player in self._turned:
            raise UserError(
                f"accumulate is {self.accumulate}, but optimizer '{player}' takes several steps on one batch, whose "
                "gradients would be added up. Remove `--model.accumulate`, or use one step per batch "
                "(`adversarial.generator_steps`)."
            )
        self._turned.add(player)
        wrapped = self.optimizers()
        optimizer = wrapped[index] if isinstance(wrapped, list) else wrapped
        precision = self.trainer.strategy.precision_plugin
        if self._scalers:
            # one gradient scaler per optimizer: with a shared scaler, an overflow in one optimizer would rescale
            # gradients that other optimizers have already accumulated
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
        """The parameters that the player's optimizer updates."""
        return [p for name in self.players[player] for p in getattr(self, name).parameters()]

    def look_ahead(self, budget: int) -> list[str]:
        """Notes on schedules whose learning rate stops falling before the end of the budget.

        Raises:
            UserError: a schedule cannot step to the end of the budget, or its arguments are invalid.
        """
        both = zip(self.schedule_settings.values(), self.optimizer_settings.values(), self.players, strict=True)
        return list(filter(None, (look_ahead(*settings, budget) for settings in both)))

    def configure_optimizers(self) -> list[Optimizer]:
        fp16 = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        self._own = {player: self.parameters_of(player) for player in self.players}
        optimizers, self._schedulers = [], {}
        for player, description in self.optimizer_settings.items():
            optimizer = build_optimizer(self._own[player], description, player, self.device, fused=not fp16)
            optimizers.append(optimizer)
            self._kept_by_optimizers.update(*optimizer.param_groups)
            self._schedulers[player] = build_schedule(optimizer, self.schedule_settings[player], player, self.budget)
        return optimizers  # without schedules, which depend only on the images seen and are not in checkpoints

    def check_condition(self, condition: Tensor | None) -> None:
        """Raise UserError if the model does not use a condition but got one, or needs one and got none."""
        name = type(self).__name__
        if condition is not None and not self.conditional:
            raise UserError(f"{name} was trained without labels or captions. Remove the condition.")
        if condition is None and self.conditional:
            if self.spec.target == "caption":
                raise UserError(f"{name} samples images for captions. Pass one caption per image.")
            raise UserError(f"{name} samples images of a class. Pass one label per image.")

    def labels_of_all(self, batch: Batch) -> Tensor:
        """The batch's labels [B]. Raises UserError if some images have no label (`data.labeled`)."""
        if batch.known_label is not None:
            raise UserError(f"{type(self).__name__} needs a label for every image. Remove `--data.labeled`.")
        return batch.label

    @property
    def scores_images(self) -> bool:
        """Whether validation computes a score for each image."""
        return type(self).validation_step is not GenerativeModule.validation_step or isinstance(self, Classifies)

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Scores of each image, name -> [B], in addition to the scores of the model's capabilities. Default: none."""
        return {}

    # ---- images seen and noise ------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        from genbench.core.strategy import PlayersDDP

        if self.trainer.world_size > 1 and not isinstance(self.trainer.strategy, PlayersDDP):
            raise UserError(
                f"{type(self.trainer.strategy).__name__} cannot train a model of genbench, since it expects one "
                "backward pass per step. Use `--trainer.strategy auto`."
            )
        self.origin = None
        self._place_draws()
        for state, optimizer in zip(self._loading, self.trainer.optimizers, strict=False):
            keep_settings(optimizer, state, self._kept_by_optimizers)
        self._loading = []

    def on_train_start(self) -> None:
        # not earlier: Lightning clears all gradients before it trains
        for name, gradient in self._half_made.items():
            p = self.get_parameter(name)
            p.grad = gradient.to(p.device)
        self._half_made = {}

    def _place_draws(self) -> None:
        self.draw = Draws(self.trainer.global_rank, self.trainer.world_size, self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Advance `images_seen` and seed all randomness of the step with it.

        The global generators are seeded per process, so dropout, for example, differs between processes. The noise of
        `self.draw` depends on the image's position in the global batch.
        """
        for schedule in filter(None, self._schedulers.values()):
            schedule.advance(self.images_seen)  # also for an optimizer that skips steps
        self.draw.seed("train", self.seed, self.images_seen)
        seed = mix("step", self.seed, self.images_seen, self.trainer.global_rank)
        # not torch.manual_seed: without a GPU it stores a call with a stack trace at every step
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        self._last_batch = len(batch) * self.trainer.world_size
        self.images_seen += self._last_batch
        self._micro_batch = self._micro_batch % self.accumulate + 1
        self._turned.clear()

    def on_validation_start(self) -> None:
        self.draw = Draws(device=self.device)  # in validation a process draws noise only for its own blocks

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        block = batch_idx * self.trainer.world_size + self.trainer.global_rank
        self.draw.seed("validation", block)  # without the run's seed: all runs are validated with the same noise

    def on_validation_end(self) -> None:
        self._place_draws()

    def on_validation_model_zero_grad(self) -> None:
        pass  # Lightning would clear gradients that are being accumulated

    def due(self, every: int) -> bool:
        """Whether `images_seen` reached or passed a multiple of `every` with the last batch."""
        return self.images_seen // every != (self.images_seen - self._last_batch) // every

    # ---- loss terms --------------------------------------------------------------------------------------

    def record(self, name: str, value: Tensor) -> None:
        """Log a scalar as a column of metrics.csv, such as `train/elbo`. A row has the mean since the previous row."""
        self.logged.add(name, value)

    def read_terms(self, *, reset: bool = True) -> dict[str, float]:
        """Means of all terms since the last reset, over all processes.

        Raises:
            NonFiniteLoss: a mean is not finite; raised on all processes, with the term and the images seen.
        """
        return self.logged.read(self.images_seen, reset=reset)

    def check_finite(self) -> None:
        """Raise `NonFiniteLoss` if a loss term or a weight is not finite. Called before a checkpoint is saved."""
        self.read_terms(reset=False)
        for player in self.players:
            norms = torch._foreach_norm([p.detach() for p in self.parameters_of(player)])
            finite = torch.isfinite(torch.stack([n.float() for n in norms])).all().float()
            if ranks.mean(finite).item() < 1:
                raise NonFiniteLoss(
                    f"Weights of optimizer '{player}' are no longer finite at {self.images_seen:,} images seen. The "
                    "last checkpoint is from before. Try a lower learning rate or `--model.clip_norm 1`."
                )

    # ---- checkpoints --------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        scaler = getattr(self.trainer.strategy.precision_plugin, "scaler", None)
        if stage == "fit" and scaler is not None:
            self._scalers = {player: copy.deepcopy(scaler) for player in self.players}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # without Lightning's counters: the position and the schedules depend only on `images_seen`
        checkpoint.pop("loops", None)
        gradients = self._accumulated()
        # Any number of devices may resume from a checkpoint, so it stores the mean over all processes. The mean changes
        # neither the next step nor the next reading.
        ranks.average_([*gradients.values(), *self.logged.sums.values()])
        checkpoint["genbench"] = {
            "model": path_of(type(self)),
            "format": FORMAT,
            "version": genbench.__version__,
            "images_seen": self.images_seen,
            "updates": dict(self.updates),
            "seed": self.seed,
            "optimizers": self.optimizer_settings,
            "scalers": {player: scaler.state_dict() for player, scaler in self._scalers.items()},
            "terms": self.logged.state_dict(),
        }
        if gradients:
            checkpoint["genbench"] |= {"micro_batch": self._micro_batch, "gradients": gradients}
            checkpoint["genbench"]["accumulate"] = self.accumulate

    def _accumulated(self) -> dict[str, Tensor]:
        if self._micro_batch % self.accumulate == 0:
            return {}  # the step has been taken
        return {name: p.grad for name, p in self.named_parameters() if p.grad is not None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._trainer is not None:
            # Lightning converts the module only after it has copied the weights, which would round float64 weights
            self.trainer.strategy.precision_plugin.convert_module(self)
        self._loading = checkpoint.get("optimizer_states", [])
        state = checkpoint["genbench"]
        self.images_seen, self.updates, self.seed = state["images_seen"], dict(state["updates"]), state["seed"]
        for player, scaler in state["scalers"].items():
            if player in self._scalers:
                self._scalers[player].load_state_dict(scaler)
        self.logged.load_state_dict(state["terms"], self.device)
        if state.get("accumulate", self.accumulate) == self.accumulate:
            self._micro_batch = state.get("micro_batch", 0)
            self._half_made = state.get("gradients", {})
