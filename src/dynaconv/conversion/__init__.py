"""Conversion of any network into a dynamic one that keeps its weights."""

from dynaconv.conversion.load import load_static
from dynaconv.conversion.method import METHODS, Method
from dynaconv.conversion.network import dynamize
from dynaconv.conversion.report import DynamizeReport, LayerReport

__all__ = ["METHODS", "DynamizeReport", "LayerReport", "Method", "dynamize", "load_static"]
