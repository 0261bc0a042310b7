"""Task grouping: which tasks to train together, by their similarity."""

from gradsim.grouping.agreement import adjusted_rand_index
from gradsim.grouping.choice import Candidate, GroupingChoice
from gradsim.grouping.choose import choose_num_groups
from gradsim.grouping.grouping import TaskGrouping
from gradsim.grouping.linkage import average_linkage
from gradsim.grouping.networks import NetworkSelection, select_networks
from gradsim.grouping.random_groups import random_grouping
from gradsim.grouping.solve import group_tasks

__all__ = [
    "Candidate",
    "GroupingChoice",
    "NetworkSelection",
    "TaskGrouping",
    "adjusted_rand_index",
    "average_linkage",
    "choose_num_groups",
    "group_tasks",
    "random_grouping",
    "select_networks",
]
