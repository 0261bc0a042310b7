"""Parameters that every process has whole: DistributedDataParallel, or no wrapper at all."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from gradsim.distributed.presence import Presence
from gradsim.distributed.processes import Processes, Work
from gradsim.distributed.slices import Bucket, buckets

Rows = Sequence[Sequence[Tensor | None]]

AVERAGES = ("world", "present")
EXCHANGES = ("auto", "reduce_scatter", "all_reduce", "all_to_all")


class Slice:
    """The rows of a bucket on their way; then the slice of the mean rows that belongs to this process."""

    def __init__(self, bucket: Bucket, presence: Presence, rank: int | None, finish: Callable[[], Tensor]) -> None:
        self.bucket, self._presence, self._rank, self._finish = bucket, presence, rank, finish

    def rows(self) -> list[list[Tensor | None]]:
        """[T][parameters of the bucket]: 1-D pieces, None where no process has a gradient. Waits for them.

        With `exchange="all_reduce"` the slice is the whole, and the pieces have the shape of the parameters.
        """
        held = dict(zip(self._presence.tasks, self._finish(), strict=True))
        there = self._presence.somewhere[:, self.bucket.parameters].tolist()
        result: list[list[Tensor | None]] = []
        for t, each in enumerate(there):
            pieces: Sequence[Tensor | None] = [None] * len(each)
            if t in held:
                pieces = self.bucket.whole(held[t]) if self._rank is None else self.bucket.pieces(held[t], self._rank)
            result.append([x if is_there else None for x, is_there in zip(pieces, each, strict=True)])
        return result


class Replicas:
    """The exchange of rows between processes that compute with whole parameters.

    Each process gets the mean rows of one slice of the elements, [T, N / W]; it measures and combines that slice.

    Args:
        processes: between which the gradients are exchanged.
        parameters: P parameters. rows_dtype: that of their rows, where it is smaller than that of the gradients.
        average: `"world"` (over all processes, as DistributedDataParallel does) or `"present"` (over those with the
            task).
        exchange: `"reduce_scatter"`, `"all_to_all"` (for rows that few processes have), `"auto"` (one of these two), or
            `"all_reduce"` (every process gets all rows and does the whole surgery).
    """

    keeps_shards = False  # whether rows and results stay cut between the processes

    def __init__(
        self,
        processes: Processes,
        parameters: Sequence[Tensor],
        *,
        rows_dtype: torch.dtype | None = None,
        average: str = "world",
        exchange: str = "auto",
    ) -> None:
        self.processes, self.average, self.exchange = processes, average, exchange
        self.across = processes  # among whom the elements are divided
        self.device: torch.device | None = None  # where rows are made, if not where the parameters are
        self.alike: Processes | None = None  # who have the same slice, and add theirs up
        self.shapes = [p.shape for p in parameters]
        own = [getattr(p, "grad_dtype", None) or p.dtype for p in parameters]
        self.dtypes = [rows_dtype if rows_dtype and rows_dtype.itemsize < x.itemsize else x for x in own]

    def buckets(self, numbers: Sequence[int], num_tasks: int) -> list[Bucket]:
        """These parameters in buckets for the rows of so many tasks."""
        shapes, dtypes = [self.shapes[i] for i in numbers], [self.dtypes[i] for i in numbers]
        return buckets(numbers, shapes, dtypes, self.across.size, num_tasks)

    def send(self, bucket: Bucket, rows: Rows, presence: Presence, device: torch.device) -> Slice:
        """Start to exchange the rows [T][parameters of the bucket]; they may be freed when this returns.

        device: of the rows.
        """
        world, rank, tasks = self.across.size, self.across.rank, presence.tasks
        sparse = self._is_sparse(presence)
        mine = presence.ranks[rank] if sparse else tasks
        laid = self._laid(bucket, rows, mine, device).to(self.across.device(device))
        divisors = dict(zip(tasks, presence.divisors(self.average), strict=True))
        early = bucket.dtype == torch.float16  # whose sums may overflow where the mean does not
        if early:
            own = bucket.size * (bucket.world if self.exchange == "all_reduce" else 1)
            for x, t in zip(laid.view(-1, max(len(mine), 1), own).unbind(1), mine, strict=bool(mine)):
                x.div_(divisors[t])
        if self.exchange == "all_reduce":
            got, work = laid, self.across.all_reduce(laid)
        elif sparse:
            counts = [len(held) for held in presence.ranks]
            got = laid.new_empty(sum(counts) * bucket.size)
            sizes = [n * bucket.size for n in counts]
            work = self.across.all_to_all(got, laid.view(-1), sizes, [sizes[rank]] * world)
        else:
            got = laid.new_empty(len(tasks) * bucket.size)
            work = self.across.reduce_scatter(got, laid.view(-1))

        def finish() -> Tensor:
            work.wait()
            held = _added(got.view(-1, bucket.size), presence, bucket) if sparse else got.view(len(tasks), -1)
            held = held if self.alike is None else self.alike.sum_(held)
            if not early:
                for row, divisor in zip(held, divisors.values(), strict=True):
                    row.div_(divisor)  # as a number: in bfloat16 1 / 3 would be off by 0.2 %
            return held.to(device)

        return Slice(bucket, presence, None if self.exchange == "all_reduce" else rank, finish)

    def gather(self, bucket: Bucket, held: Tensor) -> Callable[[], list[Tensor]]:
        """Start to bring the combined slices [size] together; what is returned waits, and gives whole parameters."""
        there = self.processes.device(held.device)
        laid = torch.empty(self.processes.size * bucket.size, dtype=held.dtype, device=there)
        work: Work = self.processes.all_gather(laid, held.to(there))

        def finish() -> list[Tensor]:
            work.wait()
            return bucket.whole(laid.to(held.device))

        return finish

    def wrapped(self, i: int, piece: Tensor) -> Tensor:
        """A piece that stays cut as the gradient of parameter i."""
        raise RuntimeError("the pieces of whole parameters do not stay cut")

    def parts(self, parameters: Sequence[int], positions: list[int]) -> dict[Hashable, list[int]]:
        """All processes share all parameters."""
        return {None: positions}

    def added_up(self, key: Hashable, M: Tensor) -> Tensor:
        """The Gramians of all slices together."""
        return self.processes.sum_(M.clone())

    def same(self, weights: Tensor) -> Tensor:
        """The weights of rank 0, in all processes."""
        self.processes.from_first_([weights])
        return weights

    def _laid(self, bucket: Bucket, rows: Rows, tasks: Sequence[int], device: torch.device) -> Tensor:
        """The rows of these tasks in one tensor: slice by slice, or task by task to be reduced as they are."""
        zeros = torch.zeros(bucket.size, dtype=bucket.dtype, device=device)
        cut = [bucket.cut(rows[t], zeros) for t in tasks]
        if self.exchange == "all_reduce":
            parts = [piece for each in cut for pieces in each for piece in pieces]
        else:
            parts = [piece for w in range(bucket.world) for each in cut for piece in each[w]]
        return torch.cat(parts) if parts else zeros[:0]

    def _is_sparse(self, presence: Presence) -> bool:
        if self.exchange == "auto":
            return 2 * max(len(held) for held in presence.ranks) <= len(presence.tasks)
        return self.exchange == "all_to_all"


def _added(got: Tensor, presence: Presence, bucket: Bucket) -> Tensor:
    """The rows that came from each process, added by task in the order of the ranks."""
    tasks = presence.tasks
    held = got.new_zeros(len(tasks), bucket.size)
    begin = 0
    for each in presence.ranks:
        places = torch.tensor([tasks.index(t) for t in each], dtype=torch.int64, device=got.device)
        held[places] += got[begin : begin + len(each)]
        begin += len(each)
    return held
