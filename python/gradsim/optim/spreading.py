"""What an optimizer knows about the other processes of its training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gradsim.distributed import (
    Facts,
    Forwards,
    Group,
    Replicas,
    check_syncing,
    ddp_of,
    find_spread,
    meet,
    settle,
)
from gradsim.gradients.buffer import GradientBuffer
from gradsim.one_backward import Samples, Together
from gradsim.optim.parameters import Layout
from gradsim.optim.spread import from_replicas, from_shards
from gradsim.optim.streamed_exchange import StreamedExchange
from gradsim.optim.surgery import Surgery

if TYPE_CHECKING:
    from gradsim.distributed.fsdp import Gathered, ShardedReplicas
    from gradsim.distributed.shards import Shards


class Spreading:
    """How the gradients of an optimizer are spread over processes, found out at the first capture.

    Only then, because frameworks wrap the model and replace its parameters after the optimizer was made.

    Attributes:
        replicas, shards: at most one of them is there; neither: everything is in this process.
        blocks: the tasks captured in this step, in their order.
        is_lost: an exchange with the other processes was left unfinished.
        is_finished: the gradients of the step are in p.grad; the next `finish` has nothing to do.
    """

    def __init__(self, process_group: Group | None = None, average: str = "world", exchange: str = "auto") -> None:
        self._process_group, self.average, self._exchange = process_group, average, exchange
        self.is_finished = self.is_lost = False
        self.blocks: list[int] = []
        self.forget()

    def forget(self) -> None:
        """Find out anew at the next capture."""
        self.replicas: Replicas | None = None
        self.shards: Shards | None = None
        self._cut: ShardedReplicas | None = None
        self._forwards: Forwards | None = None
        self._order: list[int] | None = None  # in which the groups of a mixed batch travel
        self._is_found = False
        self._facts: Facts | None = None

    def doubt(self) -> None:
        """Something was loaded: compare with the other processes at the next occasion."""
        self._facts = None

    def check_lost(self) -> None:
        """Refuse to meet the other processes after this one has left them in the middle of something (RuntimeError)."""
        if self.is_lost:
            raise RuntimeError(
                "an exception inside mixed_batch() left the other processes in the middle of an exchange; end the job, "
                "or build the process group and the optimizer anew"
            )

    def may_be_several(self, model: nn.Module | None) -> bool:
        """Whether there may be other processes, without looking for them."""
        if not dist.is_available() or not dist.is_initialized():
            return False
        return self._is_found or self._process_group is not None or ddp_of(model) is not None

    def size(self, model: nn.Module | None) -> int:
        """The number of processes between which gradients are averaged, or will be."""
        if self.replicas is not None:
            return self.replicas.processes.size
        return dist.get_world_size() if self.shards is None and self.may_be_several(model) else 1

    def find(self, model: nn.Module | None, layout: Layout, buffer: GradientBuffer) -> None:
        """Find out, once (what `find_spread` raises; ValueError: a storage that DTensors cannot have)."""
        if self._is_found:
            return
        found = find_spread(
            model,
            layout.parameters,
            layout.names,
            self._process_group,
            rows_dtype=buffer.rows_dtype,
            average=self.average,
            exchange=self._exchange,
        )
        if (
            found is not None
            and not isinstance(found, Replicas)
            and (buffer.storage != "autograd" or buffer.rows_dtype is not None)
        ):
            raise ValueError(
                "the rows of DTensors stay as FSDP makes them: use storage='autograd' and rows_dtype=None (each "
                "process holds its part of them only)"
            )
        self.replicas = found if isinstance(found, Replicas) else None
        self.shards = None if isinstance(found, Replicas) else found
        ddp = ddp_of(model)
        self._forwards = None if ddp is None else Forwards(ddp)
        self._is_found, self._facts = True, None

    @contextmanager
    def capturing(self, model: nn.Module | None, what: str) -> Iterator[None]:
        """Around forward and backward of a block: each process keeps its own gradients."""
        self.is_finished = False
        if self.shards is not None:
            check_syncing(model)
        if self._forwards is None:
            yield
        else:
            with self._forwards.inside(what):
                yield

    def combined(self, surgery: Surgery, layout: Layout, buffer: GradientBuffer) -> tuple[list[Tensor | None], int]:
        """The combined gradients of all processes, and how many tasks took part."""
        facts = self._facts_of(surgery, layout)
        if self.replicas is not None:
            presence = settle(self.replicas.processes, "finish()", facts, _present(buffer))
            combined, present = from_replicas(surgery, self.replicas, buffer, presence), len(presence.tasks)
            self.share_buffers()
        else:
            assert self.shards is not None
            self.shards.settle(facts, buffer.rows, self.blocks)
            combined, present = from_shards(surgery, self.shards, buffer), sum(buffer.captured)
        self.blocks = []
        return combined, present

    def gathered(self, model: nn.Module | None, layout: Layout) -> Gathered | None:
        """With FSDP2: the whole parameters that a mixed batch meets (RuntimeError: some cannot be followed)."""
        if self.shards is None:
            return None
        if model is None:
            raise RuntimeError("mixed_batch() needs model= to know the whole parameters of FSDP2")
        from gradsim.distributed.fsdp import Gathered, ShardedReplicas

        gathered = Gathered(model, layout.parameters, layout.names)
        if self._cut is None:
            self._cut = ShardedReplicas(self.shards, gathered.dtypes, gathered.parameters[0].device)
        return gathered

    def stream(
        self, surgery: Surgery, layout: Layout, buffer: GradientBuffer, samples: Samples, last: bool
    ) -> StreamedExchange | None:
        """What takes the task gradients of a mixed batch as they come, in several processes; None: nothing special."""
        replicas = self._cut or self.replicas
        if replicas is None or not (last or replicas.keeps_shards):
            return None
        here = _present(buffer)
        here[samples.present] = True
        facts = self._facts_of(surgery, layout)
        kind = f"mixed_batch(last={last})"
        if replicas.keeps_shards:  # a block of a task was a common effort of all
            kind += f" after blocks of the tasks {self.blocks}"
        presence = settle(replicas.processes, kind, facts, here)
        exchange = StreamedExchange(surgery, layout, buffer, samples, replicas, presence, self._order, last)
        exchange.facts = facts
        return exchange

    def after_stream(self, streamed: object) -> None:
        """Once a step has been streamed: go by the order in which the groups of one process were complete."""
        if isinstance(streamed, StreamedExchange):
            if self._order is None:
                said = streamed.replicas.processes.say([int(streamed.is_timely), *streamed.finished])
                self._order = next((order for timely, *order in said if timely), None)
            self.share_buffers()

    def together(self, surgery: Surgery, layout: Layout) -> Together | None:
        """Adds the counts of all replicas up, for `one_backward.Scale`."""
        replicas = self._cut or self.replicas
        if replicas is None:
            return None
        facts = self._facts_of(surgery, layout)

        def together(counts: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
            meet(replicas.processes, "the counts of a mixed_batch()", facts)
            everywhere, having = replicas.processes.sum_(torch.stack([counts, here]))
            is_world = replicas.average == "world"
            return everywhere, torch.full_like(having, replicas.processes.size) if is_world else having

        return together

    def share_buffers(self) -> None:
        """What DistributedDataParallel does with the buffers of its module."""
        if self._forwards is not None and self.replicas is not None:
            self._forwards.share_buffers(self.replicas.processes)

    def _facts_of(self, surgery: Surgery, layout: Layout) -> Facts:
        """What all processes must have been given alike."""
        if self._facts is None:
            self._facts = Facts(lambda: self._tell(surgery, layout))
        return self._facts

    def _tell(self, surgery: Surgery, layout: Layout) -> list[tuple[str, object]]:
        state = surgery.state_dict()
        facts: list[tuple[str, object]] = [
            ("tasks", surgery.tasks),
            ("parameters", [(n, tuple(p.shape)) for n, p in zip(layout.names, layout.parameters, strict=True)]),
            ("groups", (layout.groups.names, layout.groups.members, layout.groups.excluded)),
            ("settings", (surgery.method, surgery.beta, surgery.order, surgery.seed, surgery.reduction)),
            ("settings", (surgery.vaccinate, surgery.max_target, surgery.monitor, self.average, self._exchange)),
            ("states of the surgery (load the checkpoint in all of them)", _values(state.get("tensors", {}))),
            ("weightings", state.get("weighting")),
        ]
        if self.replicas is not None:
            facts.append(("dtypes of the rows", [str(x) for x in self.replicas.dtypes]))
        if self.replicas is not None and self._forwards is None:  # DistributedDataParallel makes them the same itself
            facts.append(("parameter values (start from the same ones)", _bits(layout.parameters)))
        return facts

    def __getstate__(self) -> dict[str, Any]:
        # Neither process groups nor what was found: a copy finds out for itself.
        return {"average": self.average, "exchange": self._exchange}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(None, state["average"], state["exchange"])  # type: ignore[misc]


def check_ready_losses(model: nn.Module | None) -> None:
    """Refuse losses whose forwards ran outside of the blocks (RuntimeError)."""
    name = None
    if ddp_of(model) is not None:
        name = "a DistributedDataParallel"
    elif model is not None and any("FSDPModule" in {k.__name__ for k in type(m).__mro__} for m in model.modules()):
        name = "an FSDP2 module"
    if name is not None:
        raise RuntimeError(
            f"backward() takes losses whose forwards ran already, but the model is {name}, which would reduce the "
            "gradients of several tasks together; run forward and backward of each task inside task()"
        )


def _present(buffer: GradientBuffer) -> Tensor:
    """bool [T, P]: which gradients are in the rows."""
    return torch.tensor([[x is not None for x in row] for row in buffer.rows])


def _bits(parameters: Sequence[Tensor]) -> list[int]:
    """A number for the bits of each parameter, whatever adds them up in which order."""
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    flat = [p.detach().contiguous().view(-1) for p in parameters]
    return list(torch.stack([x.view(kinds[x.element_size()]).sum(dtype=torch.int64) for x in flat]).tolist())


def _values(tensors: dict[str, Tensor]) -> list[tuple[str, str]]:
    raw = {name: x.cpu().contiguous().view(-1).view(torch.uint8).numpy() for name, x in tensors.items()}
    return [(name, hashlib.sha256(raw[name].tobytes()).hexdigest()) for name in sorted(raw)]
