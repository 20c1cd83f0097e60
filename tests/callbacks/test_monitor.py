"""The logged and displayed values are the computed values."""

import io
import time

import pytest
import torch
from rich.console import Console

from genbench.callbacks import Monitor
from genbench.callbacks.monitor import Line
from genbench.loggers import Curves
from tests.helpers.small import SGD, Each, run
from tests.helpers.toy import SPEC, ToyAutoencoder, ToyGAN


class Remembering(ToyAutoencoder):
    """Keeps the loss of every step."""

    def training_step(self, batch, batch_idx):
        with torch.no_grad():
            loss = (self.reconstruct(batch.image) - batch.image).square().mean().item()
        self.__dict__.setdefault("losses", []).append(loss)
        return super().training_step(batch, batch_idx)


def test_a_logged_term_is_the_mean_of_the_steps_since_the_last_one(tmp_path):
    module, curves = Remembering(SPEC), Curves(tmp_path)
    run(module, images=88, callbacks=[Monitor(every_images=24, show=False)], logger=[curves])
    rows = curves.rows()
    assert [row["images_seen"] for row in rows] == ["24", "48", "72", "88"]  # the rest at the end
    for k, row in enumerate(rows):
        steps = module.losses[3 * k : 3 * k + 3]
        assert float(row["train/mse"]) == pytest.approx(sum(steps) / len(steps), rel=1e-5)


def test_every_term_and_rate_of_every_player_is_in_the_curves(tmp_path):
    curves = Curves(tmp_path)
    module = ToyGAN(SPEC, r1_gamma=0.1, optimizer=SGD, optimizers={"generator": {"lr": 0.05}})
    run(module, images=40, callbacks=[Monitor(every_images=40, show=False)], logger=[curves])
    (row,) = curves.rows()
    assert row.keys() == {
        "images_seen", "generator/adversarial", "generator/lr", "generator/grad_norm", "discriminator/real",
        "discriminator/fake", "discriminator/r1", "discriminator/lr", "discriminator/grad_norm", "images_per_second",
    }  # fmt: skip
    assert (row["generator/lr"], row["discriminator/lr"]) == ("0.05", "0.1")
    assert float(row["images_per_second"]) > 0


def test_a_run_that_was_stopped_between_two_readings_has_the_curve_of_one_that_was_not(tmp_path):
    def reading(folder, module, images, ckpt=None):
        curves = Curves(folder)
        folder.mkdir(exist_ok=True)
        callbacks = [Monitor(every_images=40, show=False)]
        trainer = run(module, images=images, callbacks=callbacks, logger=[curves], ckpt=ckpt)
        return trainer, [(row["images_seen"], row["train/mse"]) for row in curves.rows()]

    whole, part, rest = (ToyAutoencoder(SPEC) for _ in range(3))
    part.load_state_dict(whole.state_dict())
    _, expected = reading(tmp_path / "whole", whole, 120)

    from genbench.callbacks import MaxImages

    class Saves(MaxImages):  # a checkpoint in the middle of the second reading, after which the run continues a little
        def on_train_batch_end(self, trainer, module, *_):
            if module.images_seen == 64:
                trainer.save_checkpoint(tmp_path / "x.ckpt", weights_only=False)

    curves = Curves(tmp_path)
    run(part, images=104, callbacks=[Monitor(every_images=40, show=False), Saves(1000)], logger=[curves])
    assert [row["images_seen"] for row in curves.rows()] == ["40", "80", "104"]
    _, resumed = reading(tmp_path, rest, 120, tmp_path / "x.ckpt")
    assert resumed == expected and [n for n, _ in expected] == ["40", "80", "120"]


def test_progress_is_printed_in_lines_without_a_terminal(tmp_path, capsys):
    run(ToyGAN(SPEC), images=80, callbacks=[Monitor(every_images=8, line_seconds=0)])
    lines = [line for line in capsys.readouterr().err.splitlines() if "images/s" in line]
    assert len(lines) == 11  # one each step, and one at the end
    for k, line in enumerate(lines[:10]):
        assert line.startswith(f"{8 * (k + 1)}/80 images  ")
        assert all(term in line for term in ("adversarial ", "real ", "fake "))
        assert " left " in line


def test_progress_is_a_bar_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    run(ToyGAN(SPEC), images=80, callbacks=[Monitor(every_images=8, refresh_seconds=0)])
    shown = capsys.readouterr().err
    assert "ToyGAN" in shown and "40/80" in shown and "80/80" in shown and "images/s" in shown


TERMS = [("adversarial", 1.234), ("real", 0.512), ("fake", 0.611), ("d_real", 0.7), ("d_fake", 0.2)]


def rendered(width, **given):
    line = Line(**{"name": "DCGAN", "done": 400_000, "total": 1_000_000, "speed": 1234.5, "terms": TERMS} | given)
    line.started = time.monotonic() - 325
    console = Console(width=width, file=io.StringIO())
    console.print(line)
    return console.file.getvalue()


def test_a_terminal_of_80_columns_shows_a_bar_the_images_the_speed_and_the_time_left():
    shown = "DCGAN ━━━━━━━━━╸               400,000/1,000,000 1,234 images/s 5:25 8:06 left\n"
    assert rendered(80) == shown  # without colors what is left of the bar is blank
    long = rendered(80, name="DenoisingAutoencoder", done=9_400_000, total=10_000_000, speed=88.4)
    assert long == "━━━━━━━━━━━━━━━━━━━━━━╸  9,400,000/10,000,000 88 images/s 1:53:07 left\n"


def test_no_time_is_left_where_the_last_batch_goes_beyond_the_budget():
    assert rendered(80, done=1_000_032).rstrip().endswith(" 5:25 0:00 left")


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (10, "━━     40%"),
        (20, "━━━━━━           40%"),
        (40, "━━━━╸        400,000/1,000,000 8:06 left"),
        (60, "━━━━━━╸           400,000/1,000,000 1,234 images/s 8:06 left"),
        (100, "DCGAN ━━━━━━╸           400,000/1,000,000 1,234 images/s 5:25 8:06 left adversarial 1.23  real 0.512"),
    ],
)
def test_a_narrow_terminal_shows_less_and_wraps_nothing(width, shown):
    assert rendered(width) == shown + "\n"


def test_no_width_wraps_and_none_has_a_bar_of_a_few_characters_while_terms_are_shown():
    for width in range(4, 220):
        for given in ({}, {"name": "DenoisingAutoencoder", "total": 10**9}, {"speed": 0.0}, {"total": None}):
            line = rendered(width, **given)
            assert line.count("\n") == 1 and len(line) <= width + 1, (width, given)
            assert " " * 40 not in line
    assert "0.4 images/s" in rendered(120, speed=0.42)
    wide = rendered(200)
    assert all(f"{name} {value:.3g}" in wide for name, value in TERMS)


def test_a_run_resumed_at_its_very_end_has_the_last_row_once_and_no_speed_of_no_images(tmp_path):
    def curve(folder, images, ckpt=None, callbacks=()):
        folder.mkdir(exist_ok=True)
        curves, module = Curves(folder), ToyAutoencoder(SPEC)
        torch.manual_seed(0)
        module.load_state_dict(start)
        callbacks = [Monitor(every_images=40, show=False), *callbacks]
        trainer = run(module, images=images, callbacks=callbacks, logger=[curves], ckpt=ckpt)
        trainer.save_checkpoint(folder / "end.ckpt", weights_only=False)
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in curves.rows()], curves.rows()

    start = ToyAutoencoder(SPEC).state_dict()
    expected, _ = curve(tmp_path / "whole", 104)
    longer, _ = curve(tmp_path / "longer", 200)
    assert [row["images_seen"] for row in expected] == ["40", "80", "104"]

    # killed after its last checkpoint: before the last row was logged, or after it
    save = Each("on_train_batch_end", lambda t, m: m.images_seen == 104 and t.save_checkpoint(tmp_path / "x.ckpt"))
    part = tmp_path / "part"
    curve(part, 104, callbacks=[save])
    rows = (part / "metrics.csv").read_text().splitlines(keepends=True)
    for left in (rows[:-1], rows):
        (part / "metrics.csv").write_text("".join(left))
        found, whole = curve(part, 104, ckpt=tmp_path / "x.ckpt")
        assert found == expected
        assert whole[-1]["images_per_second"] == ""
    # and once more, and then with a larger budget: as if there had been no end before
    assert curve(part, 104, ckpt=part / "end.ckpt")[0] == expected
    assert curve(part, 200, ckpt=part / "end.ckpt")[0] == longer


def test_nothing_is_printed_with_show_false(capsys):
    run(ToyGAN(SPEC), images=16, callbacks=[Monitor(every_images=8, line_seconds=0, show=False)])
    assert "images/s" not in "".join(capsys.readouterr())
