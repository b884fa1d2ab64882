"""How a waist is learned: one loop, its settings, schedules, data order and checkpoints."""

from hourglass.training.callbacks import Callback
from hourglass.training.config import TrainConfig
from hourglass.training.loop import FitResult, fit

__all__ = ["Callback", "FitResult", "TrainConfig", "fit"]
