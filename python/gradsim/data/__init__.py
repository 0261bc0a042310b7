"""Readers and samplers: tasks from folders, datasets and the names of the Unicode CLDR, and batches drawn from them."""

from gradsim.data.cldr import NameTable, shared_names
from gradsim.data.dataset import read_dataset
from gradsim.data.folder import read_folder
from gradsim.data.holdout import hold_out
from gradsim.data.languages import LANGUAGES, SELECTION, Language
from gradsim.data.sampler import TaskBatchSampler
from gradsim.data.source import read_tasks
from gradsim.data.subset import limit
from gradsim.data.tasks import Example, TaskData, TaskSet
from gradsim.data.words import cldr_tasks

__all__ = [
    "LANGUAGES",
    "SELECTION",
    "Example",
    "Language",
    "NameTable",
    "TaskBatchSampler",
    "TaskData",
    "TaskSet",
    "cldr_tasks",
    "hold_out",
    "limit",
    "read_dataset",
    "read_folder",
    "read_tasks",
    "shared_names",
]
