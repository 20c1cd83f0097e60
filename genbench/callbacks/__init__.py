"""Callbacks: EMA, images, validation, checkpoints, progress."""

from genbench.callbacks.acceleration import Acceleration
from genbench.callbacks.checkpoint import Checkpoint
from genbench.callbacks.codebook import Codebook
from genbench.callbacks.ema import EMA
from genbench.callbacks.gan_monitor import GANMonitor
from genbench.callbacks.max_images import MaxImages, StopSafely
from genbench.callbacks.monitor import Monitor
from genbench.callbacks.power_ema import PowerEMA
from genbench.callbacks.sample_logger import SampleLogger
from genbench.callbacks.validation_metrics import ValidationMetrics

__all__ = [
    "EMA",
    "Acceleration",
    "Checkpoint",
    "Codebook",
    "GANMonitor",
    "MaxImages",
    "Monitor",
    "PowerEMA",
    "SampleLogger",
    "StopSafely",
    "ValidationMetrics",
]
