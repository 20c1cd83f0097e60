"""What happens around training: averages, pictures, scores, checkpoints, progress."""

from genbench.callbacks.acceleration import Acceleration
from genbench.callbacks.balance import Balance
from genbench.callbacks.budget import Budget, StopSafely
from genbench.callbacks.checkpoint import Checkpoint
from genbench.callbacks.codebook import Codebook
from genbench.callbacks.ema import EMA
from genbench.callbacks.monitor import Monitor
from genbench.callbacks.quality import Quality
from genbench.callbacks.sample_logger import Pictures

__all__ = [
    "EMA",
    "Acceleration",
    "Balance",
    "Budget",
    "Checkpoint",
    "Codebook",
    "Monitor",
    "Pictures",
    "Quality",
    "StopSafely",
]
