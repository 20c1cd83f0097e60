"""The speed of a config is measured in a few steps, and then the run ends."""

import json

import pytest

from genbench.callbacks import stopwatch
from genbench.core.errors import Interrupted
from tests.helpers.small import run
from tests.helpers.toy import SPEC, ToyGAN


def test_images_per_second_are_those_between_warming_up_and_the_end(tmp_path, monkeypatch):
    clock = iter(float(k) for k in range(1000))  # one second per step, and one at the start

    class Clock:
        monotonic = staticmethod(lambda: next(clock))

    monkeypatch.setattr(stopwatch, "time", Clock)
    watch = stopwatch.Stopwatch(str(tmp_path / "speed.json"), seconds=10, warmup=7)
    module = ToyGAN(SPEC)
    with pytest.raises(Interrupted):
        run(module, images=10_000, callbacks=[watch], limit_val_batches=0)
    assert module.images_seen == 8 * 17  # 7 warm-up steps, 10 measured steps
    found = json.loads((tmp_path / "speed.json").read_text())
    assert found == watch.found and found["images_per_second"] == 8.0 and found["world_size"] == 1


def test_at_least_five_steps_are_not_counted(tmp_path):
    watch = stopwatch.Stopwatch(str(tmp_path / "speed.json"), seconds=0, warmup=0)
    module = ToyGAN(SPEC)
    with pytest.raises(Interrupted):
        run(module, images=10_000, callbacks=[watch], limit_val_batches=0)
    assert module.images_seen == 8 * 6
