"""Figures of similarities."""

from gradsim.report.figures import draw

__all__ = ["draw"]
