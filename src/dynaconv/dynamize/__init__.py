"""Any network becomes dynamic without losing its weights."""

from dynaconv.dynamize.dynamize import dynamize
from dynaconv.dynamize.freeze import FreezeReport, freeze
from dynaconv.dynamize.load import load_static
from dynaconv.dynamize.method import METHODS, Method
from dynaconv.dynamize.report import DynamizeReport, LayerReport

__all__ = ["METHODS", "DynamizeReport", "FreezeReport", "LayerReport", "Method", "dynamize", "freeze", "load_static"]
