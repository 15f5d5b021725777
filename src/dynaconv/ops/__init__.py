"""The mixing operation, and the ways to run it."""

from dynaconv.ops.call import Call
from dynaconv.ops.geometry import Geometry, as_tuple, output_space
from dynaconv.ops.mix import mix, plan_of
from dynaconv.ops.plan import CHOICES, STRATEGIES, Plan, Strategy, check_choice, choose, plan
from dynaconv.ops.reference import reference

__all__ = [
    "CHOICES",
    "STRATEGIES",
    "Call",
    "Geometry",
    "Plan",
    "Strategy",
    "as_tuple",
    "check_choice",
    "choose",
    "mix",
    "output_space",
    "plan",
    "plan_of",
    "reference",
]
