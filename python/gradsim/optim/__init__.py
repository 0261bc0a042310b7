"""Gradient surgery: `Surgery` for those with their own loop, `GradVac` and `PCGrad` around any torch optimizer."""

from gradsim.optim.gradvac import GradVac
from gradsim.optim.pcgrad import PCGrad
from gradsim.optim.surgery import Surgery
from gradsim.optim.wrapper import SurgeryOptimizer

__all__ = ["GradVac", "PCGrad", "Surgery", "SurgeryOptimizer"]
