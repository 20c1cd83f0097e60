"""The LightningCLI behind fit and validate."""

from __future__ import annotations

import inspect
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
from genbench import callbacks as ours
from genbench.callbacks.run_record import RunRecord
from genbench.cli import compose, preflight, resume
from genbench.cli.console import console
from genbench.cli.devices import as_list, on_cpu, refuse_unsupported, use_own_strategy, use_real_fp16
from genbench.cli.lightning_settings import DEFAULTS
from genbench.cli.merging import Merging, value_of
from genbench.cli.next_steps import print_scores, say_done, say_stopped
from genbench.cli.parser_errors import explained
from genbench.cli.resume import Change
from genbench.cli.run_folders import Place, inside, is_first_process, new_name, run_of, version_of
from genbench.core import checkpoint_io
from genbench.core.class_paths import loaded_classes
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
    "acceleration": ours.Acceleration,
    "ema": ours.EMA,
    "power_ema": ours.PowerEMA,
    "monitor": ours.Monitor,
    "gan_monitor": ours.GANMonitor,
    "codebook": ours.Codebook,
    "samples": ours.SampleLogger,
    "validation": ours.ValidationMetrics,
    "checkpoint": ours.Checkpoint,
}


class GenbenchCLI(LightningCLI):
    """A LightningCLI with named runs, budgets in images, checkpoints from `--ckpt`, and genbench's callbacks."""

    verb = "fit"
    typed: list[str] = []  # the arguments after the command
    found: Path | None = None  # path of the checkpoint of `--ckpt`
    name_flag: str | None = None  # `--name` as typed: the folder may have been renamed since the config was written
    runs_flag: str | None = None  # `--runs` as typed, for the same reason
    settings: Merging  # the merged configs and flags

    @classmethod
    def run(cls, verb: str, command: compose.Command, typed: list[str] = ()) -> GenbenchCLI:
        GenbenchCLI.verb = verb  # set on the class: `subcommands` is static
        cls.typed, cls.settings, cls.found = list(typed), compose.settings(command), command.ckpt
        flags = {flag.path: flag.value for flag in command.flags}
        cls.name_flag, cls.runs_flag = flags.get(("name",)), flags.get(("runs",))
        for key in ("model", "data"):  # `--model.help` without a class shows the config's model
            named = cls.settings.config.get(key)
            if isinstance(named, dict) and "class_path" in named and command.asked[-1:] == [f"--{key}.help"]:
                command.asked.append(named["class_path"])
        if command.asked:  # print text instead of starting a run
            arguments: Any = [verb, "--config", json.dumps(cls.settings.config), *command.asked]
        else:
            arguments = cls._object(command)
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
    def _object(cls, command: compose.Command) -> dict[str, Any]:
        """Return the settings in the form that the parser expects.

        Raises:
            UserError: no model or no data is set, for example because only a part of a config was passed.
        """
        files = ", ".join(str(path) for path, _ in command.configs)
        where, whole = (
            (f" in {files}", "a complete config first, such as `--config dcgan`,") if files else ("", "`--config NAME`")
        )
        for key, advice in {"model": f"Pass {whole} or `--model DCGAN`", "data": "Pass `--data MNIST`"}.items():
            named = cls.settings.config.get(key)
            if not isinstance(named, dict) or "class_path" not in named:
                raise UserError(f"No {key} is set{where}. {advice}.")
        return {"subcommand": cls.verb, cls.verb: cls.settings.config}

    # ---- arguments ----------------------------------------------------------------------------------------------

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        verb = GenbenchCLI.verb  # only the current command: building each parser is slow
        skipped = {"model", "ckpt_path", "weights_only", "verbose"}
        skipped |= {"dataloaders", "train_dataloaders", "val_dataloaders", "datamodule"}
        return {verb: skipped & inspect.signature(getattr(Trainer, verb)).parameters.keys()}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name, kind, default, text in (
            ("max_images", Images, Images(1_000_000), "Real images to train on: 1e6, 1M"),
            ("name", str | None, None, "Name of the run. Default: model, data and time"),
            ("title", str | None, None, "Name of the model on leaderboards. Default: its class"),
            ("protocol", str, "fid10k-test", "Protocol that `test` uses to evaluate the trained model"),
            ("runs", str, "runs", "Folder of all runs"),
            ("ckpt", str | None, None, "Checkpoint to resume: a file, a run folder, or last / best of --name or of the "
             "newest run"),
        ):  # fmt: skip
            parser.add_argument(f"--{name}", type=kind, default=default, help=text)
        for name, cls in SETTINGS.items():
            parser.add_lightning_class_args(cls, name)
        parser.link_arguments("data.spec", "model.init_args.spec", apply_on="instantiate")

    # ---- before anything is built -------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        refuse_unsupported(config.trainer)
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
            if given := [
                str(change) for change in self.changes if change.setting.startswith(("model.", "ema.", "power_ema."))
            ]:
                raise UserError(f"{self.ckpt} is scored as it was trained. Remove the changed setting {given[0]}.")
            self.folder = run_of(self.ckpt) or Path(config.runs)
        self._write_into_folder(config, state)
        for note in self.settings.dropped if is_first_process() else ():
            console.print(note, markup=False)

    def _compare(self, config: Any, state: dict[str, Any]) -> None:
        """Find the settings that differ from the checkpoint. Raises UserError if one of them cannot change."""
        if self.ckpt is None:
            return
        new = self.dump(self.config)
        if state.get("config"):
            old = state["config"]
        else:  # written by a user's own script: only the arguments of the model are known
            given = {name: value for name, value in self.checkpoint["hyper_parameters"].items() if name != "spec"}
            old = {"model": {"class_path": self.checkpoint["genbench"]["model"], "init_args": given}}
            old["seed_everything"] = self.checkpoint["genbench"]["seed"]
        if missing := resume.missing(old, new):
            with suppress(Exception):  # a config of an older version may have unknown settings
                if "data" in old:
                    old = self.dump({self.subcommand: self._parser(self.subcommand).parse_object(old)})
                missing = resume.missing(old, new)
        path = config.model.class_path  # a full path or a short name
        short = getattr(genbench.models, path.rpartition(".")[2], GenerativeModule)
        changeable = loaded_classes(GenerativeModule).get(path, short).changeable
        found_range = ((self.checkpoint.get("data") or {}).get("arguments") or {}).get("range")
        found = resume.changes(old, new, missing, changeable, self.ckpt, found_range)
        self.changes = resume.in_force(found, self.checkpoint)

    def _choose_folder(self, config: Any) -> None:
        """Set the run's folder: the folder of the checkpoint's run, or a new one."""
        run, typed = (run_of(self.ckpt) if self.ckpt else None), self.name_flag
        elsewhere = run is not None and self.runs_flag and Path(self.runs_flag).resolve() not in run.resolve().parents
        if elsewhere and typed is None:
            raise UserError(
                f"{self.ckpt} belongs to the run {run}, which is not in --runs {self.runs_flag}. Remove `--runs` to "
                "resume that run, or add `--name` to start a new run."
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
        before = ((state.get("config") or {}).get("trainer") or {}).get("default_root_dir")  # the run may have moved
        config.trainer.default_root_dir = str(self.folder)
        loggers = config.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if not hasattr(logger, "class_path"):
                continue
            if logger.init_args.get("save_dir") in (None, ".", before):
                logger.init_args.save_dir = str(self.folder)
            if logger.class_path.endswith("Wandb"):
                logger.init_args.run_name = logger.init_args.run_name or self.folder.name
                same = self.place is not None and self.place.resumed  # a new run logs a new curve
                logger.init_args.run_id = (state.get("wandb") if same else None) or logger.init_args.run_id

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if isinstance(seed, bool) or not 0 <= seed < 2**32:  # Lightning reads `true` as 0
            raise UserError(
                f"--seed_everything {str(seed).lower()}: every run needs a seed. Use a whole number from 0 to "
                f"{2**32 - 1}."
            )
        super()._set_seed()

    # ---- building -----------------------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except BaseException as error:
            if self.place is not None:
                self.place.leave()
            if "got an unexpected keyword argument" in str(error):  # the parser cannot check `dict_kwargs`
                raise UserError(f"{explained(str(error))}. Remove it from `dict_kwargs`.") from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = dict(self._get(self.config_init, "trainer"))
        settings = {name: self._get(self.config_init, name) for name in SETTINGS}
        own = list(settings.values())
        if self.subcommand == "fit":
            dump = self.dump(self.config)
            command = shlex.join(["python", "-m", "genbench", "fit", *self.typed])
            self.run_record = RunRecord(self.folder, dump, command, [], resumed=self.place.resumed)
            # MaxImages comes first: it tells other callbacks whether a batch was the last one
            own = [self.run_record, ours.MaxImages(self._get(self.config, "max_images")), *own, ours.StopSafely()]
        else:
            own = [settings["acceleration"], settings["validation"]]
        # `true` is Lightning's default logger and `false` is no logger; both are dropped
        loggers = [logger for logger in as_list(config["logger"]) if not isinstance(logger, bool)]
        if self.subcommand == "fit":
            loggers.insert(0, Curves(self.folder))
        config |= {"logger": loggers, "callbacks": [*as_list(config["callbacks"]), *own]}
        use_own_strategy(config)
        use_real_fp16(config)
        if not on_cpu(config):  # Lightning reads PyTorch's old TF32 switch: an error if the new one differs
            allow_tf32(settings["acceleration"].tf32)
        try:
            return Trainer(**config | kwargs)
        except (MisconfigurationException, ValueError, TypeError) as error:  # Lightning rejects a setting
            raise UserError(
                f"{error} This machine has {torch.cuda.device_count()} GPUs and {os.cpu_count()} CPU cores. Choose "
                "devices with `--trainer.accelerator gpu|cpu` and `--trainer.devices N`."
            ) from error

    def dump(self, config: Any) -> dict[str, Any]:
        """Return the complete config, as plain types."""
        dump = yaml.safe_load(self._parser(self.subcommand).dump(config[self.subcommand], skip_none=False))
        return {key: value for key, value in dump.items() if key not in ("config", "ckpt")}

    # ---- commands -----------------------------------------------------------------------------------------------

    def fit(self, model: GenerativeModule, datamodule: LightningDataModule, **kwargs: Any) -> None:
        trainer, kept = self.trainer, None
        try:
            if isinstance(datamodule, DataModule):
                # before other processes start, which would print the error again
                datamodule.check_divisible(trainer.world_size)
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
            # after a LostProcess, each remaining process prints its message, so nothing is added here
            if began and kept is None and trainer.is_global_zero and not isinstance(error, LostProcess):
                begun = self.checkpoint["genbench"]["images_seen"] if self.checkpoint else 0
                say_stopped(trainer, self.folder, trained=self.model.images_seen > begun)
            raise
        finally:
            if is_first_process():
                self.place.leave(wanted=kept is not None)
        if trainer.is_global_zero:
            say_done(trainer, self.folder, self._get(self.config, "protocol"))

    def _prepare(self, model: GenerativeModule, data: LightningDataModule) -> None:
        """Run the last checks before anything is written, print notes, and lock the folder."""
        budget = self._get(self.config, "max_images")
        notes = model.look_ahead(budget)
        state, changeable = self.checkpoint.get("run") or {}, type(model).changeable
        if self.ckpt is not None:
            checkpoint_io.refuse_misfit(self.checkpoint, model, self.ckpt, training=True)
            resume.refuse_other_contents(self.checkpoint.get("data") or {}, data, self.changes, self.ckpt)
            resume.refuse_other_optimizers(self.checkpoint["genbench"].get("optimizers") or {}, model, self.ckpt)
            seen = self.checkpoint["genbench"]["images_seen"]
            film = self._get(self.config, "samples").film
            unfinished = self.place.resumed and resume.lacks_last_pictures(self.folder, model, seen, film)
            if seen >= budget and not unfinished:
                raise UserError(
                    f"{self.ckpt} has seen {seen:,} images and the budget is {budget:,}, so the run is done. Use a "
                    "larger `--max_images` to continue."
                )
            schedule = any(model.schedule_settings.values())
            trained = [c for c in self.changes if resume.changes_training(c, changeable, schedule=schedule)]
            self.run_record.segments = resume.segments(state.get("segments"), trained, seen)
        else:
            self.run_record.segments = resume.segments(None, [], 0)
        if not is_first_process():
            return
        for note in notes:
            console.print(f"note: {note}")
        for change in self.changes:
            console.print(f"changed: {change}")
        if self.ckpt is not None:
            changed = any(change.setting == "model.accumulate" for change in self.changes)
            if state and changed and self.checkpoint["genbench"].get("micro_batch"):
                console.print("note: accumulated gradients are dropped because model.accumulate has changed.")
            if self.place.resumed:
                resume.note_newer(self.checkpoint, self.ckpt, self.folder)
                self.place.take()
                if version_of(self.ckpt) != self.read_at:
                    raise UserError(
                        f"{self.ckpt} has been replaced by another process since it was read. Run the command again."
                    )

    def validate(self, model: GenerativeModule, datamodule: LightningDataModule, **kwargs: Any) -> None:
        resume.refuse_other_contents(self.checkpoint.get("data") or {}, datamodule, self.changes, self.ckpt)
        trained = checkpoint_io.load(self.ckpt)  # with EMA weights, as in validation during training
        (scores,) = self.trainer.validate(trained, datamodule=datamodule, verbose=False)
        if self.trainer.is_global_zero:
            print(f"{self.ckpt} at {trained.images_seen:,} images seen, EMA weights")
            print_scores(scores, type(datamodule).__name__)
