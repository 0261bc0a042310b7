"""Task grouping: which tasks to train together, by their similarity."""

from gradsim.grouping.agreement import adjusted_rand_index
from gradsim.grouping.grouping import TaskGrouping
from gradsim.grouping.linkage import average_linkage
from gradsim.grouping.solve import group_tasks

__all__ = ["TaskGrouping", "adjusted_rand_index", "average_linkage", "group_tasks"]
