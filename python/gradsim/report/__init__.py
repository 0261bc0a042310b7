"""Figures of similarities, and the report: one HTML page about a measurement, its groups and their training."""

from gradsim.report.figures import draw
from gradsim.report.page import write_report
from gradsim.report.typology import read_typology

__all__ = ["draw", "read_typology", "write_report"]
