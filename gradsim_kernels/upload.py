"""Small int64 tables from the host to a GPU without waiting for it.

A table that is the same as one of the last calls on the same stream is not sent again: offsets never change, and the
addresses of gradients change only when the allocator moves one. What a CUDA graph captures is sent at each replay, from
pinned memory that is kept for good.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

KEPT = 64  # tables
_SLAB_BYTES = 1 << 20

_tables: OrderedDict[tuple[int, int, bytes], Tensor] = OrderedDict()
_slab: Tensor | None = None  # pinned, for captures: allocating pinned memory may be refused while a graph is captured
_slab_used = 0


def to_device(table: Tensor, device: torch.device) -> Tensor:
    """An int64 tensor as it is on `device`; from the CPU to a GPU it is sent on the current stream, or found there."""
    global _slab
    if table.device == device or device.type != "cuda":
        return table.to(device)
    if _slab is None and not torch.cuda.is_current_stream_capturing():
        _slab = torch.empty(_SLAB_BYTES // 8, dtype=torch.int64, pin_memory=True)
    if torch.cuda.is_current_stream_capturing():
        return _captured(table, device)
    # A table that another stream sent may not have arrived.
    key = (torch.cuda.current_stream(device).cuda_stream, device.index, table.numpy().tobytes())
    found = _tables.get(key)
    if found is None:
        found = _tables[key] = table.pin_memory().to(device, non_blocking=True)
        if len(_tables) > KEPT:
            _tables.popitem(last=False)
    else:
        _tables.move_to_end(key)
    return found


def _captured(table: Tensor, device: torch.device) -> Tensor:
    """Sent by the graph itself; not kept, since the memory belongs to the graph and is filled at its replays only."""
    global _slab, _slab_used
    if _slab is None or _slab_used + table.numel() > _slab.numel():
        _slab = torch.empty(max(table.numel(), _SLAB_BYTES // 8), dtype=torch.int64, pin_memory=True)
        _kept.append(_slab)
        _slab_used = 0
    source = _slab[_slab_used : _slab_used + table.numel()]
    _slab_used += table.numel()
    source.copy_(table)
    result = torch.empty_like(table, device=device)
    result.copy_(source.view_as(table), non_blocking=True)
    return result


_kept: list[Tensor] = []  # slabs that a captured graph may read
