"""Where task gradients live (`GradientBuffer`) and how they are grouped (`Granularity`)."""

from gradsim.gradients.buffer import GradientBuffer
from gradsim.gradients.granularity import Granularity, Groups

__all__ = ["GradientBuffer", "Granularity", "Groups"]
