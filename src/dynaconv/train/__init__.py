"""Training: one loop, from one CPU to many machines."""

from .fit import fit
from .record import EpochRecord, FitResult
from .settings import TrainSettings
from .signals import Stopped

__all__ = ["EpochRecord", "FitResult", "Stopped", "TrainSettings", "fit"]
