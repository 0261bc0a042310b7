"""Gradient surgery: `Surgery` for those with their own loop, `GradVac` and `PCGrad` around any torch optimizer."""

from gradsim.optim.flat_state import flatten_state, unflatten_state
from gradsim.optim.gradvac import GradVac
from gradsim.optim.pcgrad import PCGrad
from gradsim.optim.surgery import Surgery
from gradsim.optim.wrapper import SurgeryOptimizer

__all__ = ["GradVac", "PCGrad", "Surgery", "SurgeryOptimizer", "flatten_state", "unflatten_state"]
