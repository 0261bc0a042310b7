"""`gradsim.GradVac` around a Transformer: what surgery adds to a training step in time, launches and memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import gradsim
from bench.gpu import launches, timing
from bench.gpu.context import GPU_BACKENDS, Context
from bench.gpu.lines import Line, NotRun, rival
from gradsim_kernels import use_backend

SEED = 0
T, DRY_T = 8, 2
ROUNDS, DRY_ROUNDS = 7, 1
SIZES = {"layers": 12, "width": 768, "heads": 12, "words": 30_000, "batch": 4, "length": 64}  # as large as BERT-base
DRY_SIZES = {"layers": 1, "width": 8, "heads": 2, "words": 20, "batch": 1, "length": 4}


class Model(nn.Module):
    """Embedding, encoder, classifier of each position."""

    def __init__(self, layers: int, width: int, heads: int, words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 16)

    def forward(self, words: Tensor, labels: Tensor) -> Tensor:
        logits = self.head(self.encoder(self.embedding(words)))
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


class Training:
    """A model, a batch for each task, and the ways to make a step with them."""

    def __init__(self, context: Context) -> None:
        self.context = context
        sizes = DRY_SIZES if context.dry else SIZES
        torch.manual_seed(SEED)
        self.model = Model(*(sizes[x] for x in ("layers", "width", "heads", "words"))).to(context.device)
        shape = sizes["batch"], sizes["length"]
        self.rounds = DRY_ROUNDS if context.dry else ROUNDS
        self.tasks = [f"task {t}" for t in range(DRY_T if context.dry else T)]
        self.batches = [
            tuple(torch.randint(n, shape, device=context.device) for n in (sizes["words"], 16)) for _ in self.tasks
        ]

    def losses(self) -> list[Tensor]:
        """One a task, each with a graph of its own."""
        return [self.model(*batch) for batch in self.batches]

    def plain(self) -> None:
        """The gradients summed, without surgery."""
        self.model.zero_grad()
        for batch in self.batches:
            self.model(*batch).backward()

    def surgical(self, storage: str) -> tuple[Callable[[], None], Callable[[], None]]:
        """The backward passes of all tasks, and the surgery that follows them."""
        base = torch.optim.SGD(self.model.parameters(), lr=0.0)
        optimizer = gradsim.GradVac(base, tasks=self.tasks, model=self.model, storage=storage)

        def capture() -> None:
            optimizer.zero_grad()
            for task, batch in zip(self.tasks, self.batches, strict=True):
                with optimizer.task(task):
                    self.model(*batch).backward()

        return capture, optimizer.finish


def lines(context: Context) -> list[Line]:
    """The step without surgery, then with each backend and storage, then with another package."""
    training = Training(context)
    named: list[Line] = [("plain backward passes", partial(_plain, training))]
    for who in GPU_BACKENDS:
        for storage in ("autograd", "flat"):
            named.append((f"GradVac, {storage}: {who}", partial(_ours, training, who, storage)))
    return [*named, ("PCGrad of pytorch_optimizer", partial(_pytorch_optimizer, training))]


def _plain(training: Training) -> str:
    training.context.needs_seconds(5)
    training.plain()
    taken = timing.wall(training.context, training.plain, training.rounds)
    peak = _peak(training, training.plain)
    size = sum(x.numel() for x in training.model.parameters())
    _emit(training, "plain", {"whole": taken.record(), "peak_bytes": peak, "parameters": size})
    return f"{taken.seconds * 1e3:.2f} ms, {_gib(peak)}, {size / 1e6:.1f}M parameters, {len(training.tasks)} tasks"


def _ours(training: Training, who: str, storage: str) -> str:
    context = training.context
    context.needs_seconds(8)
    capture, finish = training.surgical(storage)
    with use_backend(who):
        finishes = []

        def whole() -> None:
            capture()
            finish()

        whole()
        gradients = [p.grad for p in training.model.parameters()]
        assert all(x is not None and bool(x.isfinite().all()) for x in gradients), "a gradient is missing or not finite"
        wholes = timing.wall(context, whole, training.rounds)
        for _ in range(training.rounds):
            capture()
            finishes.append(timing.wall(context, finish, 1).seconds)
        peak = _peak(training, whole)
        capture()
        counted = None
        if not context.dry:
            try:
                counted = launches.count(finish)[0]
            except NotRun:
                counted = None  # the times stand without it
    finish_seconds = sorted(finishes)[len(finishes) // 2]
    found = {"whole": wholes.record(), "finish_seconds": finish_seconds, "peak_bytes": peak}
    found["launches"] = None if counted is None else vars(counted)
    _emit(training, f"{who}, {storage}", found)
    how = f", {counted.kernels} kernels in finish()" if counted else ", launches not counted"
    return f"finish() {finish_seconds * 1e3:.2f} ms, whole step {wholes.seconds * 1e3:.2f} ms, {_gib(peak)}{how}"


def _pytorch_optimizer(training: Training) -> str:
    """PCGrad over the whole model, another method: only to compare what a step costs."""
    training.context.needs_seconds(10)
    try:
        from pytorch_optimizer import PCGrad  # type: ignore[import-not-found]
    except ImportError as e:
        raise NotRun("pytorch_optimizer is not installed") from e
    optimizer = PCGrad(torch.optim.SGD(training.model.parameters(), lr=0.0))

    def whole() -> None:
        optimizer.zero_grad()
        optimizer.pc_backward(training.losses())

    with rival("pytorch_optimizer"):
        whole()
        taken = timing.wall(training.context, whole, 3)
        peak = _peak(training, whole)
    _emit(training, "pytorch_optimizer", {"whole": taken.record(), "peak_bytes": peak})
    return f"whole step {taken.seconds * 1e3:.2f} ms, {_gib(peak)}"


def _peak(training: Training, call: Callable[[], None]) -> int | None:
    """Bytes that were allocated at most during a call, from no gradients on."""
    if training.context.dry:
        return None
    training.model.zero_grad()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    peak: int = torch.cuda.max_memory_allocated()
    return peak


def _gib(peak: int | None) -> str:
    return "memory not measured" if peak is None else f"peak {peak / 2**30:.2f} GiB"


def _emit(training: Training, who: str, found: dict[str, object]) -> None:
    training.context.emit({"kind": "optimizer", "contender": who, **found})
