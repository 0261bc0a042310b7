"""All task gradients out of one backward pass over one mixed batch."""

from gradsim.one_backward.block import check_model, check_surroundings, is_sequence_first, mixed
from gradsim.one_backward.collector import Collector, Sink
from gradsim.one_backward.pool import Pool, Space
from gradsim.one_backward.rows import TaskRows
from gradsim.one_backward.samples import Samples
from gradsim.one_backward.scale import SCALES, Scale, TaskScale, Together, check_scale

__all__ = [
    "SCALES",
    "Collector",
    "Pool",
    "Samples",
    "Scale",
    "Sink",
    "Space",
    "TaskRows",
    "TaskScale",
    "Together",
    "check_model",
    "check_scale",
    "check_surroundings",
    "is_sequence_first",
    "mixed",
]
