"""The LightningCLI behind fit, validate and test."""

from __future__ import annotations

import json
import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import set_loader
from jsonargparse.typing import register_type
from lightning import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import genbench.data
import genbench.models
from genbench.callbacks import (
    EMA,
    Acceleration,
    Checkpoint,
    Codebook,
    GANMonitor,
    MaxImages,
    Monitor,
    SampleLogger,
    StopSafely,
    ValidationMetrics,
)
from genbench.callbacks.run_record import RunRecord
from genbench.cli import compose, preflight, resume
from genbench.cli.console import console
from genbench.cli.devices import as_list, on_cpu, refuse_what_players_cannot, use_own_strategy, use_real_fp16
from genbench.cli.lightning_settings import DEFAULTS
from genbench.cli.merging import value_of
from genbench.cli.next_steps import print_scores, say_done, say_stopped
from genbench.cli.parser_errors import explained
from genbench.cli.resume import Change
from genbench.cli.run_folders import Place, inside, is_first_process, new_name, run_of, version_of
from genbench.core import checkpoint_io
from genbench.core.arguments import loaded_classes
from genbench.core.errors import LostProcess, UserError
from genbench.core.files import kept_elsewhere
from genbench.core.module import GenerativeModule
from genbench.core.precision import allow_tf32
from genbench.core.units import Images
from genbench.data.module import DataModule
from genbench.loggers import Curves

register_type(Images, serializer=int, deserializer=Images, fail_already_registered=False)
set_loader("yaml", lambda text: value_of(text, f"'{text}'"), (yaml.YAMLError, UserError))

# callbacks that every run has, each with its own group of settings
SETTINGS = {
    "acceleration": Acceleration,
    "ema": EMA,
    "monitor": Monitor,
    "gan_monitor": GANMonitor,
    "codebook": Codebook,
    "samples": SampleLogger,
    "validation": ValidationMetrics,
    "checkpoint": Checkpoint,
}


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
            self.checkpoint = checkpoint_io.read(self.ckpt)
            resume.refuse_other_model(self.checkpoint["genbench"]["model"], config.model.class_path, self.ckpt)
        state = self.checkpoint.get("run") or {}
        self._compare(config, state)
        if self.subcommand == "fit":
            self._choose_folder(config)
            resume.note_other_environment(state)
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
                raise UserError(f"{explained(str(error))}. Leave it out of `dict_kwargs`.") from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = dict(self._get(self.config_init, "trainer"))
        settings = {name: self._get(self.config_init, name) for name in SETTINGS}
        own = list(settings.values())
        if self.subcommand == "fit":
            dump = self.dump(self.config)
            command = shlex.join(["python", "-m", "genbench", "fit", *self.typed])
            self.run_record = RunRecord(self.folder, dump, command, [], resumed=self.place.resumed)
            # the budget before what asks whether this was the last batch
            own = [self.run_record, MaxImages(self._get(self.config, "max_images")), *own, StopSafely()]
        else:
            own = [settings["acceleration"], settings["validation"]]
        # `true` and `false` are Lightning's words for its own default and for none
        loggers = [logger for logger in as_list(config["logger"]) if not isinstance(logger, bool)]
        if self.subcommand == "fit":
            loggers.insert(0, Curves(self.folder))
        config |= {"logger": loggers, "callbacks": [*as_list(config["callbacks"]), *own]}
        use_own_strategy(config)
        use_real_fp16(config)
        if not on_cpu(config):  # Lightning reads PyTorch's old switch, which raises where a new one contradicts it
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
                datamodule.check_divisible(trainer.world_size)  # before there are processes, each of which would say it
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
                begun = self.checkpoint["genbench"]["images_seen"] if self.checkpoint else 0
                # a lost process says it itself, whichever is left
                say_stopped(trainer, self.folder, trained=self.model.images_seen > begun)
            raise
        finally:
            if is_first_process():
                self.place.leave(wanted=kept is not None)
        if trainer.is_global_zero:
            say_done(trainer, self.folder, self._get(self.config, "protocol"))

    def _prepare(self, model: GenerativeModule, data: LightningDataModule) -> None:
        """The last checks before anything is written, what the user should know, and the lock of the folder."""
        budget = self._get(self.config, "max_images")
        notes = model.look_ahead(budget)
        state, changeable = self.checkpoint.get("run") or {}, type(model).changeable
        if self.ckpt is not None:
            checkpoint_io.refuse_misfit(self.checkpoint, model, self.ckpt, training=True)
            resume.refuse_other_contents(self.checkpoint.get("data") or {}, data, self.changes, self.ckpt)
            resume.refuse_other_optimizers(self.checkpoint["genbench"].get("optimizers") or {}, model, self.ckpt)
            seen = self.checkpoint["genbench"]["images_seen"]
            film = self._get(self.config, "samples").film
            if seen >= budget and not (
                self.place.resumed and resume.lacks_last_pictures(self.folder, model, seen, film)
            ):
                raise UserError(
                    f"{self.ckpt} has seen {seen:,} images and the budget is {budget:,}: it is done. Give a larger "
                    "`--max_images` to go on."
                )
            trained = [
                change
                for change in self.changes
                if resume.changes_training(change, changeable, schedule=model.has_schedule)
            ]
            self.run_record.segments = resume.segments(state.get("segments"), trained, seen)
        else:
            self.run_record.segments = resume.segments(None, [], 0)
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
                resume.note_newer(self.checkpoint, self.ckpt, self.folder)
                self.place.take()
                if version_of(self.ckpt) != self.read_at:
                    raise UserError(
                        f"{self.ckpt} has been replaced by another process since it was read. Give the command again."
                    )

    def validate(self, model: GenerativeModule, datamodule: LightningDataModule, **kwargs: Any) -> None:
        resume.refuse_other_contents(self.checkpoint.get("data") or {}, datamodule, self.changes, self.ckpt)
        trained = checkpoint_io.load(self.ckpt)  # with averaged weights, as validation during training has them
        (scores,) = self.trainer.validate(trained, datamodule=datamodule, verbose=False)
        if self.trainer.is_global_zero:
            print(f"{self.ckpt} at {trained.images_seen:,} images seen, averaged weights")
            print_scores(scores, type(datamodule).__name__)


def _arguments(verb: str) -> set[str]:
    import inspect

    return set(inspect.signature(getattr(Trainer, verb)).parameters)
