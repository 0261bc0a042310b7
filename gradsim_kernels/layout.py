"""Where task gradients lie on a GPU, as its kernels see them: a flat buffer, or the tensors that autograd left.

Columns are numbered by position. Segment s holds the positions [position[s], position[s] + size[s]): of a buffer a
group (its offsets are the positions), of a list one parameter. Kernels cut the positions into items (see
`csrc/cuda/items.cuh`) and find the memory of a row through this table, so that one kernel serves both forms.

The table of a list is one int64 tensor, section after section, S segments sorted by group:
position [S + 1], size [S], group [S], dtype [S] (index into DTYPES), first [G + 1] (group k owns the segments first[k]
to first[k + 1] - 1), outs [S] (addresses; 0: nothing is written), rows [S, T] (addresses; 0: no gradient).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradsim_kernels import upload

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # the Dtype of csrc/include/gradsim/gradients.h
SEGMENT_COLUMNS = 64  # positions of a list start at multiples of this: cuts inside a segment stay aligned to 16 bytes
ALIGNMENT_BYTES = 16  # of a vector load


@dataclass(frozen=True)
class Layout:
    """The gradients of one call. `aligned`: each row (and output) of each segment of a list, or each row of the buffer,
    starts at a multiple of 16 bytes."""

    J: Tensor | None  # [T, N]; None: a list
    out: Tensor | None  # [N] beside J; None: a list, or nothing is written
    table: Tensor  # int64 on the device of the gradients: the offsets [G + 1] of J, or the table of a list
    device: torch.device
    tasks: int
    groups: int
    segments: int
    columns: int  # the last position
    dtypes: tuple[torch.dtype, ...]  # those that occur
    aligned: bool

    @property
    def eps(self) -> float:
        """eps_M, the relative accuracy of a Gramian of these gradients: 2^-52 where all are float64, else 2^-23."""
        return 2.0**-52 if all(x is torch.float64 for x in self.dtypes) else 2.0**-23

    @property
    def dtype_bits(self) -> int:
        """Bit d for each `DTYPES[d]` that occurs."""
        return sum(1 << DTYPES.index(x) for x in self.dtypes)


def of_buffer(J: Tensor, offsets: Tensor, out: Tensor | None = None) -> Layout:
    """The buffer J [T, N] cut at offsets [G + 1], which may still be on the CPU."""
    G = offsets.shape[0] - 1
    row_bytes = J.stride(0) * J.element_size() if J.shape[0] > 1 else 0
    addresses = J.data_ptr() | row_bytes | (0 if out is None else out.data_ptr())
    table = upload.to_device(offsets, J.device)
    aligned = addresses % ALIGNMENT_BYTES == 0
    return Layout(J, out, table, J.device, J.shape[0], G, G, J.shape[1], (J.dtype,), aligned)


def of_list(
    gradients: Sequence[Tensor], tasks: int, groups: int, group_of: Tensor, out: Sequence[Tensor] | None = None
) -> Layout:
    """T x P contiguous tensors, row-major, an empty one for a missing gradient; `group_of` int64 [P] on the CPU, -1 for
    a parameter in no group; `out`: P tensors."""
    (layout,) = of_lists([gradients], [tasks], groups, group_of, out)
    return layout


def of_lists(
    lists: Sequence[Sequence[Tensor]],
    tasks: Sequence[int],
    groups: int,
    group_of: Tensor,
    out: Sequence[Tensor] | None = None,
) -> list[Layout]:
    """Several lists of the same P parameters, each like that of `of_list`: layouts with the same segments."""
    P = group_of.shape[0]
    gradients = [x for part in lists for x in part]
    T = sum(tasks)
    sizes = np.fromiter((x.numel() for x in gradients), np.int64, T * P).reshape(T, P)
    rows = np.fromiter((x.data_ptr() for x in gradients), np.int64, T * P).reshape(T, P)
    rows[sizes == 0] = 0
    outs = np.zeros(P, np.int64) if out is None else np.fromiter((x.data_ptr() for x in out), np.int64, P)
    first_present = (sizes > 0).argmax(axis=0)
    code = {dtype: d for d, dtype in enumerate(DTYPES)}
    dtype = np.fromiter((code[gradients[t * P + p].dtype] for p, t in enumerate(first_present)), np.int64, P)
    size, group = sizes.max(axis=0, initial=0), group_of.numpy()
    chosen = np.argsort(group, kind="stable")
    chosen = chosen[(group[chosen] >= 0) & (size[chosen] > 0)]
    size, group, dtype, outs, rows = size[chosen], group[chosen], dtype[chosen], outs[chosen], rows[:, chosen]
    position = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum(-(-size // SEGMENT_COLUMNS) * SEGMENT_COLUMNS, out=position[1:])
    head = [position, size, group, dtype, np.searchsorted(group, np.arange(groups + 1)), outs]
    device = gradients[0].device if gradients else group_of.device
    bounds = np.cumsum([0, *tasks])
    layouts = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        table = torch.from_numpy(np.concatenate([*head, rows[start:end].T.ravel()]))
        addresses = np.bitwise_or.reduce(rows[start:end], axis=None) | np.bitwise_or.reduce(outs)
        layouts.append(
            Layout(
                J=None,
                out=None,
                table=upload.to_device(table, device),
                device=device,
                tasks=int(end - start),
                groups=groups,
                segments=len(chosen),
                columns=int(position[-1]),
                dtypes=tuple(DTYPES[d] for d in np.unique(dtype)),
                aligned=bool(addresses % ALIGNMENT_BYTES == 0),
            )
        )
    return layouts
