"""Comparisons: the equal recipe, the statistics, the table and the picture."""

from dynaconv.analysis.comparison import Comparison, Row
from dynaconv.analysis.experiment import compare
from dynaconv.analysis.settings import CompareSettings
from dynaconv.analysis.statistics import Difference, paired_difference

__all__ = ["CompareSettings", "Comparison", "Difference", "Row", "compare", "paired_difference"]
