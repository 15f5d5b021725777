"""The two operations of dynamic convolution, and the ways to run them.

``mix`` convolves every example with its own mixture of a bank, ``convolve_each`` with a kernel that is given. The
reference defines both; a strategy is one way to run them, and the plan chooses one and says why.
"""

from dynaconv.ops.call import Call
from dynaconv.ops.geometry import Geometry, as_tuple, output_space
from dynaconv.ops.mixing import convolve_each, mix, plan_of
from dynaconv.ops.plan import CHOICES, Plan, check_choice, choose
from dynaconv.ops.strategies import STRATEGIES, Strategy

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
    "convolve_each",
    "mix",
    "output_space",
    "plan_of",
]
