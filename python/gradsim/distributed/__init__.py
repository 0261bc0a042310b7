"""Gradients that are spread over processes: DistributedDataParallel, FSDP2, tensor parallelism, or none of them."""

from gradsim.distributed.checkpoint import SurgeryCheckpoint
from gradsim.distributed.ddp import Forwards, ddp_of, unwrapped
from gradsim.distributed.found import Spread, check_syncing, find_spread, is_sharded
from gradsim.distributed.presence import Facts, Presence, digest, meet, settle
from gradsim.distributed.processes import Group, Processes
from gradsim.distributed.replicas import AVERAGES, EXCHANGES, Replicas, Slice
from gradsim.distributed.slices import Bucket

__all__ = [
    "AVERAGES",
    "EXCHANGES",
    "Bucket",
    "Facts",
    "Forwards",
    "Group",
    "Presence",
    "Processes",
    "Replicas",
    "Slice",
    "Spread",
    "SurgeryCheckpoint",
    "check_syncing",
    "ddp_of",
    "digest",
    "find_spread",
    "is_sharded",
    "meet",
    "settle",
    "unwrapped",
]
