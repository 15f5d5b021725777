"""Training: one loop, from one CPU to many machines."""

from dynaconv.train.records import EpochRecord, FitResult
from dynaconv.train.run_folder.weights import Trained, load_trained
from dynaconv.train.settings import TrainSettings
from dynaconv.train.signals import Stopped
from dynaconv.train.trainer import fit

__all__ = ["EpochRecord", "FitResult", "Stopped", "TrainSettings", "Trained", "fit", "load_trained"]
