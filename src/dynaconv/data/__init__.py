"""Reading, decoding, ordering and loading of examples: what the tasks share.

Which data sets there are, and what an example of them is, belongs to the tasks (:mod:`dynaconv.tasks`).
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
