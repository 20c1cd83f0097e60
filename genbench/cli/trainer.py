"""The LightningCLI behind fit, validate and test."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import set_loader
from jsonargparse.typing import register_type
from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.table import Table

import genbench.data
import genbench.models
from genbench.callbacks import (
    EMA,
    Acceleration,
    Balance,
    Budget,
    Checkpoint,
    Codebook,
    Monitor,
    Pictures,
    Quality,
    StopSafely,
)
from genbench.cli import compose, preflight, resume
from genbench.cli.lightning_settings import DEFAULTS, refuse_what_is_not_followed
from genbench.cli.resume import Change
from genbench.cli.runs import Place, inside, is_first_process, new_name, run_of, version_of
from genbench.core import checkpoint as files
from genbench.core import machine
from genbench.core.arguments import loaded_classes
from genbench.core.capabilities import Reconstructs, Samples, Segments, Translates
from genbench.core.errors import LostProcess, UserError, warn
from genbench.core.files import kept_elsewhere, replacing
from genbench.core.history import Unreadable
from genbench.core.module import GenerativeModule
from genbench.core.precision import allow_tf32
from genbench.core.strategy import PlayersDDP
from genbench.core.units import Images
from genbench.data.module import DataModule
from genbench.loggers import Curves, Wandb

register_type(Images, serializer=int, deserializer=Images, fail_already_registered=False)
set_loader("yaml", lambda text: compose.value_of(text, f"'{text}'"), (yaml.YAMLError, UserError))

MOST_PROCESSES = 10_000  # devices of a machine, or machines: beyond it a number is a slip of the keyboard

console = Console(stderr=True, highlight=False, soft_wrap=True)

# callbacks that every run has, each with its own group of settings
SETTINGS = {
    "acceleration": Acceleration,
    "ema": EMA,
    "monitor": Monitor,
    "balance": Balance,
    "codebook": Codebook,
    "pictures": Pictures,
    "quality": Quality,
    "checkpoint": Checkpoint,
}


class Run(Callback):
    """The run's folder: `runs/<name>/` with config.yaml, curves, pictures and checkpoints of this run alone.

    Nothing is written there before model, optimizers and data are built and hold what the checkpoint has.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], command: str | None, segments: list[dict[str, Any]]
    ) -> None:
        self.folder, self.config, self.command, self.segments = folder, config, command, segments
        self._begun = False
        self._seconds = self._busy = 0.0  # of the parts before this one: in all, and in training steps
        self._started = self._batch_started = time.monotonic()

    def on_save_checkpoint(self, trainer: Trainer, module: GenerativeModule, checkpoint: dict[str, Any]) -> None:
        if trainer.is_global_zero and self._begun and not (self.folder / "config.yaml").exists():
            warn(f"{self.folder} has been moved or removed during training. What follows is written there anew.")
            self._write_config()
        config = {name: value for name, value in self.config.items() if name != "config"}
        checkpoint["run"] = {
            "environment": environment(),
            "wandb": _wandb_id(trainer),
            "name": self.folder.name,
            "command": self.command,
            "config": config,
            "segments": [*self.segments[:-1], self.segments[-1] | {"to": module.images_seen}],
            "training": self._training(trainer, module),
        }
        waiting = [row for logger in trainer.loggers if isinstance(logger, Curves) for row in logger.waiting]
        if waiting:  # a disk that is full has no room for them: they go where the checkpoint goes
            checkpoint["run"]["rows"] = waiting
        data = trainer.datamodule
        if isinstance(data, DataModule):
            cls = type(data)
            checkpoint["data"] = {
                "class": f"{cls.__module__}.{cls.__qualname__}",
                "arguments": data.arguments,
                "contents": data.contents(),
            }

    def on_load_checkpoint(self, trainer: Trainer, module: GenerativeModule, checkpoint: dict[str, Any]) -> None:
        before = checkpoint.get("run", {}).get("training") or {}
        self.command = checkpoint.get("run", {}).get("command") or self.command  # that began the run
        self._seconds, self._busy = before.get("seconds", 0.0), before.get("busy_seconds", 0.0)
        if run_of(Path(trainer.ckpt_path)) == self.folder:
            for logger in trainer.loggers:
                if isinstance(logger, Curves):
                    logger.waiting = list(checkpoint.get("run", {}).get("rows", []))

    def on_train_start(self, trainer: Trainer, module: GenerativeModule) -> None:
        self._started = time.monotonic()
        if trainer.is_global_zero:
            (self.folder / "checkpoints").mkdir(exist_ok=True)  # where one that was kept elsewhere is to be moved
            self._write_config()
            for logger in trainer.loggers:
                logger.log_hyperparams(self.config)
        self._begun = True

    def _write_config(self) -> None:
        with replacing(self.folder / "config.yaml") as file:
            file.write(yaml.safe_dump(self.config, sort_keys=False).encode())

    def on_train_batch_start(self, *_: Any) -> None:
        self._batch_started = time.monotonic()

    def on_train_batch_end(self, *_: Any) -> None:
        # the first of the callbacks: what the others do in between, such as pictures, is not training
        self._busy += time.monotonic() - self._batch_started

    def _training(self, trainer: Trainer, module: GenerativeModule) -> dict[str, Any]:
        """What the training took so far, in all its parts."""
        seconds = self._seconds + time.monotonic() - self._started
        device = trainer.strategy.root_device
        return {
            "device": machine.device_name(device),
            "precision": str(trainer.precision),
            "world_size": trainer.world_size,
            "seconds": seconds,
            "busy_seconds": self._busy,
            "images_per_second": module.images_seen / self._busy if self._busy else None,
            "peak_memory": machine.peak_memory(device),
            "device_hours": seconds * trainer.world_size / 3600,
        }


def environment() -> dict[str, Any]:
    """What bit-for-bit resumption depends on."""
    return {"torch": str(torch.__version__), "threads": torch.get_num_threads()}


def _wandb_id(trainer: Trainer) -> str | None:
    return next((logger.experiment.id for logger in trainer.loggers if isinstance(logger, Wandb)), None)


class GenbenchCLI(LightningCLI):
    """Adds to LightningCLI: runs with names, budgets in images, checkpoints by `--ckpt`, and our callbacks."""

    verb = "fit"
    typed: list[str] = []  # what the person typed after the verb
    found: Path | None = None  # the checkpoint of `--ckpt`
    name_flag: str | None = None  # `--name`, as typed: that of a config may be from before the folder was renamed
    runs_flag: str | None = None  # `--runs`, likewise
    settings = compose.Settings({}, {}, [])  # what follows from it and from the configs

    @classmethod
    def run(cls, verb: str, command: compose.Command, typed: list[str] = ()) -> GenbenchCLI:
        GenbenchCLI.verb = verb  # of the whole process: `subcommands` knows no class
        cls.typed, cls.settings, cls.found = list(typed), compose.settings(command), command.ckpt
        typed_by = {flag.path: flag.value for flag in command.flags}
        cls.name_flag, cls.runs_flag = typed_by.get(("name",)), typed_by.get(("runs",))
        for key in ("model", "data"):  # `--model.help` alone is of the config's model
            named = cls.settings.config.get(key)
            if isinstance(named, dict) and "class_path" in named and command.asked[-1:] == [f"--{key}.help"]:
                command.asked.append(named["class_path"])
        if command.asked:  # text in place of a run
            arguments: Any = [verb, "--config", json.dumps(cls.settings.config), *command.asked]
        else:
            arguments = cls._object()
        return cls(
            GenerativeModule,
            LightningDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            trainer_defaults=DEFAULTS,
            parser_kwargs={"prog": "python -m genbench", "exit_on_error": False, verb: {"exit_on_error": False}},
            args=arguments,
        )

    @classmethod
    def _object(cls) -> dict[str, Any]:
        """The settings, as the parser takes them."""
        for key, flag in {"model": "`--config NAME` or `--model DCGAN`", "data": "`--data MNIST`"}.items():
            named = cls.settings.config.get(key)
            if not isinstance(named, dict) or "class_path" not in named:
                raise UserError(f"No {key} is named: give {flag}.")
        return {"subcommand": cls.verb, cls.verb: cls.settings.config}

    # ---- arguments ----------------------------------------------------------------------------------------------

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        data = {"dataloaders", "train_dataloaders", "val_dataloaders", "datamodule"}
        # only the verb that runs: each parser costs time
        return {
            GenbenchCLI.verb: {"model", "ckpt_path", "weights_only", "verbose", *data} & _arguments(GenbenchCLI.verb)
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--max_images", type=Images, default=Images(1_000_000), help="Real images to train on: 1e6, 1M"
        )
        parser.add_argument(
            "--name", type=str | None, default=None, help="Name of the run. Default: model, data and time"
        )
        parser.add_argument(
            "--title", type=str | None, default=None, help="What boards call the model. Default: its class"
        )
        parser.add_argument(
            "--protocol", type=str, default="fid10k-test", help="What `test` measures the trained model by"
        )
        parser.add_argument("--runs", type=str, default="runs", help="Folder of all runs")
        parser.add_argument(
            "--ckpt", type=str | None, default=None,
            help="Checkpoint to go on from: a file, a run folder, or last / best of --name or of the newest run",
        )  # fmt: skip
        for name, cls in SETTINGS.items():
            parser.add_lightning_class_args(cls, name)
        parser.link_arguments("data.spec", "model.init_args.spec", apply_on="instantiate")

    # ---- before anything is built -------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        refuse_what_players_cannot(config.trainer)
        self.ckpt = self.found
        self.checkpoint: dict[str, Any] = {}
        self.changes: list[Change] = []
        self.place: Place | None = None
        if self.ckpt is not None:
            self.read_at = version_of(self.ckpt)
            self.checkpoint = files.read(self.ckpt)
            self._same_model(self.checkpoint["genbench"]["model"], config.model.class_path)
        state = self.checkpoint.get("run") or {}
        self._compare(config, state)
        if self.subcommand == "fit":
            self._choose_folder(config)
            self._warn_if_elsewhere(state)
        else:
            self._refuse_changes_of_model()
            self.folder = run_of(self.ckpt) or Path(config.runs)
        self._write_into_folder(config, state)
        self._report_kept(config)

    def _compare(self, config: Any, state: dict[str, Any]) -> None:
        """Find out what is given now and was not before; refuse what cannot change."""
        if self.ckpt is None:
            return
        new = self.dump(self.config)
        if state.get("config"):
            old = state["config"]
        else:  # a checkpoint of a script of one's own: what model and data were built with is all that is known
            given = {name: value for name, value in self.checkpoint["hyper_parameters"].items() if name != "spec"}
            old = {"model": {"class_path": self.checkpoint["genbench"]["model"], "init_args": given}}
            old["seed_everything"] = self.checkpoint["genbench"]["seed"]
        if missing := resume.missing(old, new):
            with suppress(Exception):  # of another version, whose settings are not all known
                if "data" in old:
                    old = self.dump({self.subcommand: self._parser(self.subcommand).parse_object(old)})
                missing = resume.missing(old, new)
        found_range = ((self.checkpoint.get("data") or {}).get("arguments") or {}).get("range")
        found = resume.changes(old, new, missing, self._changeable(config), self.ckpt, found_range)
        self.changes = resume.in_force(found, self.checkpoint)

    def _refuse_changes_of_model(self) -> None:
        """Raise UserError where `validate` is given what the checkpoint has already, which it would not follow."""
        if given := [str(change) for change in self.changes if change.setting.startswith(("model.", "ema."))]:
            raise UserError(f"{self.ckpt} is scored as it was trained, and {given[0]} was given. Leave it out.")

    def _changeable(self, config: Any) -> tuple[str, ...]:
        cls = next((c for name, c in loaded_classes(GenerativeModule).items() if name == config.model.class_path), None)
        if cls is None:  # by its short name
            cls = getattr(genbench.models, config.model.class_path.rpartition(".")[2], GenerativeModule)
        return cls.changeable

    def _choose_folder(self, config: Any) -> None:
        """The run's folder: that of the checkpoint, wherever it lies now and whatever it was called; or a new one."""
        run, typed = (run_of(self.ckpt) if self.ckpt else None), self.name_flag
        elsewhere = run is not None and self.runs_flag and Path(self.runs_flag).resolve() not in run.resolve().parents
        if elsewhere and typed is None:
            raise UserError(
                f"{self.ckpt} is of the run {run}, which does not lie in --runs {self.runs_flag}. Leave `--runs` out "
                "to go on with it, or give `--name` too to begin a new run there."
            )
        if run is not None and typed in (None, run.name) and not elsewhere:
            self.place = Place(run, resumed=True)
            config.name = run.name
            if is_first_process():
                self.place.refuse_if_taken()
        else:
            name = typed if self.ckpt else config.name
            if name is None:
                stem = f"{config.model.class_path.split('.')[-1]}-{config.data.class_path.split('.')[-1]}".lower()
                name = new_name(stem, Path(config.runs))
            config.name = name
            self.place = Place(inside(Path(config.runs), name), resumed=False)
            if is_first_process():
                self.place.take()
        self.folder = self.place.folder

    def _same_model(self, trained: str, configured: str) -> None:
        if trained.rpartition(".")[2] != configured.rpartition(".")[2]:
            raise UserError(
                f"{self.ckpt} is a checkpoint of {trained}, and the config is of {configured}. Leave `--config` out to "
                "use the run's own, or name the checkpoint of another run."
            )

    def _warn_if_elsewhere(self, state: dict[str, Any]) -> None:
        for what, now in environment().items():
            before = state.get("environment", {}).get(what, now)
            if before != now:
                console.print(
                    f"note: the checkpoint was made with {what} {before}, this is {now}: the run goes on, but not bit "
                    "for bit as it would have."
                )

    def _write_into_folder(self, config: Any, state: dict[str, Any]) -> None:
        before = ((state.get("config") or {}).get("trainer") or {}).get("default_root_dir")  # it may have moved since
        config.trainer.default_root_dir = str(self.folder)
        loggers = config.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if not hasattr(logger, "class_path"):
                continue
            if logger.init_args.get("save_dir") in (None, ".", before):
                logger.init_args.save_dir = str(self.folder)
            if logger.class_path.endswith("Wandb"):
                logger.init_args.run_name = logger.init_args.run_name or self.folder.name
                same = self.place is not None and self.place.resumed  # a new run has a curve of its own
                logger.init_args.run_id = (state.get("wandb") if same else None) or logger.init_args.run_id

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if isinstance(seed, bool) or not 0 <= seed < 2**32:  # Lightning takes `true` for 0
            raise UserError(
                f"--seed_everything {str(seed).lower()}: every run has a seed. Give a whole number from 0 to "
                f"{2**32 - 1}."
            )
        super()._set_seed()

    def _report_kept(self, config: Any) -> None:
        """Say which arguments of a config are gone because a flag or another config names another class."""
        if is_first_process():
            for said in self.settings.dropped:
                console.print(said, markup=False)

    # ---- building -----------------------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except BaseException as error:
            if self.place is not None:
                self.place.leave()
            if "got an unexpected keyword argument" in str(error):  # from `dict_kwargs`, which the parser cannot check
                raise UserError(f"{compose.explained(str(error))}. Leave it out of `dict_kwargs`.") from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = dict(self._get(self.config_init, "trainer"))
        settings = {name: self._get(self.config_init, name) for name in SETTINGS}
        own = list(settings.values())
        if self.subcommand == "fit":
            dump = self.dump(self.config)
            command = shlex.join(["python", "-m", "genbench", "fit", *self.typed])
            self.run_folder = Run(self.folder, dump, command, [])
            # the budget before what asks whether this was the last batch
            own = [self.run_folder, Budget(self._get(self.config, "max_images")), *own, StopSafely()]
        else:
            own = [settings["acceleration"], settings["quality"]]
        # `true` and `false` are Lightning's words for its own default and for none
        loggers = [logger for logger in _as_list(config["logger"]) if not isinstance(logger, bool)]
        if self.subcommand == "fit":
            loggers.insert(0, Curves(self.folder))
        config |= {"logger": loggers, "callbacks": [*_as_list(config["callbacks"]), *own]}
        _use_own_strategy(config)
        _use_real_fp16(config)
        if not _on_cpu(config):  # Lightning reads PyTorch's old switch, which raises where a new one contradicts it
            allow_tf32(settings["acceleration"].tf32)
        try:
            return Trainer(**config | kwargs)
        except (MisconfigurationException, ValueError, TypeError) as error:  # Lightning's words for a wrong setting
            raise UserError(
                f"{error} This machine has {torch.cuda.device_count()} GPUs and {os.cpu_count()} CPU cores: choose "
                "with `--trainer.accelerator gpu|cpu` and `--trainer.devices N`."
            ) from error

    def dump(self, config: Any) -> dict[str, Any]:
        """The config with everything that was set, as plain types."""
        dump = yaml.safe_load(self._parser(self.subcommand).dump(config[self.subcommand], skip_none=False))
        return {key: value for key, value in dump.items() if key not in ("config", "ckpt")}

    # ---- verbs --------------------------------------------------------------------------------------------------

    def fit(self, model: GenerativeModule, datamodule: LightningDataModule, **kwargs: Any) -> None:
        trainer, kept = self.trainer, None
        try:
            if isinstance(datamodule, DataModule):
                datamodule.check_share(trainer.world_size)  # before there are processes, each of which would say it
            if is_first_process():
                parameters = sum(p.numel() for p in model.parameters())
                console.print(
                    f"{type(model).__name__} ({parameters:,} parameters) on {type(datamodule).__name__} "
                    f"{'×'.join(map(str, model.spec.shape))} -> {self.folder}"
                )
            preflight.check(trainer, model, datamodule, self._get(self.config, "protocol"))
            self._prepare(model, datamodule)
            trainer.fit(model, datamodule=datamodule, ckpt_path=self.ckpt, weights_only=True)
        except BaseException as error:
            kept = kept_elsewhere(error)
            began = trainer.state.fn is not None
            if began and kept is None and trainer.is_global_zero and not isinstance(error, LostProcess):
                self._say_how_to_go_on()  # a lost process says it itself, whichever is left
            raise
        finally:
            if is_first_process():
                self.place.leave(wanted=kept is not None)
        if trainer.is_global_zero:
            self._say_where()

    def _prepare(self, model: GenerativeModule, data: LightningDataModule) -> None:
        """The last checks before anything is written, what the user should know, and the lock of the folder."""
        budget = self._get(self.config, "max_images")
        notes = model.look_ahead(budget)
        state, changeable = self.checkpoint.get("run") or {}, type(model).changeable
        if self.ckpt is not None:
            files.refuse_misfit(self.checkpoint, model, self.ckpt, training=True)
            resume.refuse_other_contents(self.checkpoint.get("data") or {}, data, self.changes, self.ckpt)
            resume.refuse_other_optimizers(self.checkpoint["genbench"].get("optimizers") or {}, model, self.ckpt)
            seen = self.checkpoint["genbench"]["images_seen"]
            if seen >= budget and not (self.place.resumed and self._lacks(model, seen)):
                raise UserError(
                    f"{self.ckpt} has seen {seen:,} images and the budget is {budget:,}: it is done. Give a larger "
                    "`--max_images` to go on."
                )
            trained = [
                change
                for change in self.changes
                if resume.changes_training(change, changeable, schedule=model.has_schedule)
            ]
            self.run_folder.segments = resume.segments(state.get("segments"), trained, seen)
        else:
            self.run_folder.segments = resume.segments(None, [], 0)
        if not is_first_process():
            return
        for note in notes:
            console.print(f"note: {note}")
        if self.ckpt is not None:
            for change in self.changes:
                console.print(f"changed: {change}")
            if (
                state
                and self.checkpoint["genbench"].get("micro_batch")
                and any(change.setting == "model.accumulate" for change in self.changes)
            ):
                console.print(
                    "note: gradients that were being accumulated are dropped, as model.accumulate has changed."
                )
            if self.place.resumed:
                self._note_newer()
                self.place.take()
                if version_of(self.ckpt) != self.read_at:
                    raise UserError(
                        f"{self.ckpt} has been replaced by another process since it was read. Give the command again."
                    )

    def _note_newer(self) -> None:
        """Say so where a run goes on from a checkpoint that is not its last."""
        last = self.folder / "checkpoints" / "last.ckpt"
        if last.is_file() and not last.samefile(self.ckpt):
            newest, seen = (files.read(last)["genbench"]["images_seen"], self.checkpoint["genbench"]["images_seen"])
            if newest > seen:
                console.print(
                    f"note: {last} has seen {newest:,} images. This run goes on from {seen:,}, and what came after is "
                    "replaced. `--name OTHER` leaves it as it is and begins a new run."
                )

    def _lacks(self, model: GenerativeModule, seen: int) -> bool:
        """Whether a run that has reached its budget was killed before its last pictures and curves were made."""
        curves, metrics = self.folder / "curves.png", self.folder / "metrics.csv"
        if metrics.is_file() and not (curves.is_file() and curves.stat().st_mtime >= metrics.stat().st_mtime):
            with suppress(Unreadable):  # of which there will be none; training says so
                if Curves(self.folder).series():
                    return True
        film = self._get(self.config, "pictures").film
        kinds = {Samples: "samples", Reconstructs: "reconstructions", Translates: "translations", Segments: "masks"}
        for capability, name in kinds.items():
            if isinstance(model, capability):
                grids = sorted((self.folder / name).glob("*.png"))
                if not grids or grids[-1].stem != f"{seen:010d}":
                    return True
                if film != "none" and len(grids) > 1 and not (self.folder / f"{name}.{film}").is_file():
                    return True
        return False

    def validate(self, model: GenerativeModule, datamodule: LightningDataModule, **kwargs: Any) -> None:
        resume.refuse_other_contents(self.checkpoint.get("data") or {}, datamodule, self.changes, self.ckpt)
        trained = files.load(self.ckpt)  # with averaged weights, as validation during training has them
        (scores,) = self.trainer.validate(trained, datamodule=datamodule, verbose=False)
        if self.trainer.is_global_zero:
            print(f"{self.ckpt} at {trained.images_seen:,} images seen, averaged weights")
            table = Table()
            table.add_column("score")
            table.add_column(type(datamodule).__name__, justify="right")
            for name, value in scores.items():
                table.add_row(name, f"{value:.5g}")
            Console().print(table)

    # ---- last words ---------------------------------------------------------------------------------------------

    def _say_where(self) -> None:
        last = self.folder / "checkpoints" / "last.ckpt"
        console.print(
            f"\nDone: {self.trainer.lightning_module.images_seen:,} images. Everything lies in {self.folder}/"
        )
        self._say_wandb()
        model, data = self.trainer.lightning_module, self.trainer.datamodule
        own = preflight.imports(model)
        ckpt, best = shlex.quote(str(last)), last.with_name("best.ckpt")
        if isinstance(model, Samples):
            console.print(f"  sample:  python -m genbench sample --ckpt {ckpt} --n 64 --out samples.png{own}")
        if isinstance(model, (Translates, Segments)):
            console.print(f"  apply:   python -m genbench translate --ckpt {ckpt} --input FOLDER --output FOLDER{own}")
        judged = shlex.quote(str(best)) if best.exists() else ckpt
        console.print(f"  measure: {preflight.measuring(self._get(self.config, 'protocol'), model, data, judged)}")
        console.print(f"  resume:  python -m genbench fit --ckpt {ckpt} --max_images N{preflight.imports(model, data)}")

    def _say_how_to_go_on(self) -> None:
        last = self.folder / "checkpoints" / "last.ckpt"
        begun = self.checkpoint["genbench"]["images_seen"] if self.checkpoint else 0
        if last.exists() and self.model.images_seen > begun:  # without a step it was refused, and would be again
            console.print(f"\nStopped. Go on from the last checkpoint:  python -m genbench fit --ckpt {last}")
        self._say_wandb()

    def _say_wandb(self) -> None:
        for logger in self.trainer.loggers:
            if isinstance(logger, Wandb):
                console.print(logger.where())


class Parser(GenbenchCLI):
    """`fit`'s parser alone: flags to a config, and a config to a model and its data."""

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass

    def parse(self, command: compose.Command) -> Any:
        type(self).settings = compose.settings(command)
        return self.parser.parse_object(self._object())

    def build(self, config: Any) -> tuple[GenerativeModule, LightningDataModule]:
        built = self.parser.instantiate_classes(config)["fit"]
        return built.model, built.data


def _arguments(verb: str) -> set[str]:
    import inspect

    return set(inspect.signature(getattr(Trainer, verb)).parameters)


def refuse_what_players_cannot(config: Any) -> None:
    """Strategies for another way of training, and what a CPU cannot do: said before anything is built."""
    refuse_what_is_not_followed(config)
    for name in ("devices", "num_nodes"):
        asked = str(config[name])
        if asked.isdecimal() and int(asked[:20]) > MOST_PROCESSES:
            raise UserError(
                f"--trainer.{name} is {asked[:20]}; at most {MOST_PROCESSES:,} were expected. This machine has "
                f"{torch.cuda.device_count()} GPUs and {os.cpu_count()} CPU cores."
            )
    strategy = config.strategy
    if strategy is None:
        raise UserError("--trainer.strategy null: leave it out, or give `auto`.")
    if not isinstance(strategy, str):
        strategy = strategy.class_path
        module, _, name = strategy.rpartition(".")
        known = issubclass(getattr(sys.modules[module], name), (PlayersDDP, SingleDeviceStrategy))
    else:
        known = strategy in ("auto", "ddp")
    if not known:
        raise UserError(
            f"--trainer.strategy {strategy} cannot train players: strategies other than `auto` wrap or shard one "
            "module for one backward per step. Players step in turns, each on gradients of its own, and every model "
            "here fits on one device. Leave it out: several devices then average each player's gradients when it steps."
        )
    if config.sync_batchnorm and _on_cpu(config):
        raise UserError(
            "--trainer.sync_batchnorm: PyTorch synchronizes batch normalization on GPUs only, and this run is on a "
            "CPU. Leave it out, or train on GPUs with `--trainer.accelerator gpu`."
        )


def _on_cpu(config: Any) -> bool:
    return config["accelerator"] == "cpu" or (config["accelerator"] == "auto" and not torch.cuda.is_available())


def _launched() -> tuple[int, int] | None:
    """Processes on each machine and machines, where torchrun or Slurm has started more than one process."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        world, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    elif SLURMEnvironment.detect():
        world, here = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NTASKS_PER_NODE", 0))
    else:
        return None
    if world == 1:
        return None
    if not here:
        raise UserError(f"Slurm has started {world} processes: say how many on each machine, with `--ntasks-per-node`.")
    return here, world // here


def _use_own_strategy(config: dict[str, Any]) -> None:
    """Several devices train with our strategy: as many as were asked for, or as processes were started already."""
    devices, accelerator = config["devices"], config["accelerator"]
    launched = _launched()
    if launched and devices == "auto":
        devices, config["num_nodes"] = launched
        config["devices"] = devices
    if accelerator in ("auto", "gpu", "cuda") and devices in ("auto", -1, "-1"):
        count = torch.cuda.device_count()
    elif isinstance(devices, (list, tuple)):
        count = len(devices)
    else:
        text = str(devices)
        number = text.isdecimal() and len(text) < 10  # another is for Lightning to refuse
        count = int(text) if number else len([d for d in text.split(",") if d.strip()])
    if launched and (count, config["num_nodes"]) != launched:
        raise UserError(
            f"{launched[0]} processes were started on each of {launched[1]} machines, and the config asks for {count} "
            f"devices on {config['num_nodes']}: leave `--trainer.devices` and `--trainer.num_nodes` out."
        )
    if config["strategy"] in ("auto", "ddp") and (count > 1 or config["num_nodes"] > 1):
        config["strategy"] = PlayersDDP()
    elif config["strategy"] == "ddp":
        config["strategy"] = "auto"


def _use_real_fp16(config: dict[str, Any]) -> None:
    """fp16 on a CPU as asked, with a gradient scaler, where Lightning would quietly take bf16."""
    if _on_cpu(config) and str(config["precision"]) in ("16-mixed", "16"):
        config["precision"] = None
        config["plugins"] = [*_as_list(config["plugins"]), MixedPrecision("16-mixed", device="cpu")]


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
