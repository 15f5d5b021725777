"""Training: one loop, from one CPU to many machines."""

from dynaconv.train.fit import fit
from dynaconv.train.record import EpochRecord, FitResult
from dynaconv.train.settings import TrainSettings
from dynaconv.train.signals import Stopped

__all__ = ["EpochRecord", "FitResult", "Stopped", "TrainSettings", "fit"]
