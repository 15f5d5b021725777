"""Reading, decoding, ordering and loading of examples: the code that all tasks share.

The data sets, and what one example of them is, are defined by the tasks (:mod:`dynaconv.tasks`).
"""

from dynaconv.data.decoding import BadImage, BadImages, decode, default_cap
from dynaconv.data.examples import Examples, Loaded, Reader
from dynaconv.data.frozen import Frozen
from dynaconv.data.loader import Batches
from dynaconv.data.sampling import EvaluationBatches, TrainBatches

__all__ = [
    "BadImage",
    "BadImages",
    "Batches",
    "EvaluationBatches",
    "Examples",
    "Frozen",
    "Loaded",
    "Reader",
    "TrainBatches",
    "decode",
    "default_cap",
]
