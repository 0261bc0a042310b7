"""Rows that go from a GPU to the CPU and back: on tensors without values, in which order things are enqueued.

What is enqueued on a stream runs in that order; between two streams only `wait_stream` orders anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from gradsim import GradientBuffer


class Streams:
    """In place of torch.cuda's: `done` tells what was enqueued where."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.now, self.made = "main", 0
        streams = self

        class Stream:
            def __init__(self, device: Any = None, name: str | None = None) -> None:
                streams.made += name is None
                self.name = name or "side"

            def wait_stream(self, other: Any) -> None:
                streams.done.append((self.name, "waits for", other.name))

        @contextlib.contextmanager
        def chosen(stream: Any) -> Iterator[None]:
            before, streams.now = streams.now, stream.name
            yield
            streams.now = before

        copy, to = Tensor.copy_, Tensor.to

        def copying(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
            if x.device != source.device:
                streams.done.append((streams.now, "copies to", x.device.type, non_blocking))
            return copy(x, source, non_blocking)

        def moving(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            result = to(x, *args, **kwargs)
            if result.device != x.device:
                streams.done.append((streams.now, "copies to", result.device.type, bool(kwargs.get("non_blocking"))))
            return result

        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream(name=streams.now))
        monkeypatch.setattr(torch.cuda, "stream", chosen)
        monkeypatch.setattr(Tensor, "copy_", copying)
        monkeypatch.setattr(Tensor, "to", moving)
        monkeypatch.setattr(
            Tensor, "record_stream", lambda x, stream: streams.done.append((stream.name, "uses", x.dtype))
        )

    def taken(self) -> list[tuple[Any, ...]]:
        done, self.done = self.done, []
        return done


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_row_is_copied_beside_the_next_backward(dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTensorMode():
        p = torch.empty(3, 4, device="cuda")
        buffer = GradientBuffer([p], 2, "cpu", dtype)
        pinned: list[bool] = []
        empty_like = torch.empty_like
        monkeypatch.setattr(
            torch,
            "empty_like",
            lambda x, **options: (pinned.append(options.pop("pin_memory", False)), empty_like(x, **options))[1],
        )
        streams = Streams(monkeypatch)
        buffer.open(0)
        p.grad = torch.empty(3, 4, device="cuda")
        buffer.close(0)
        kept = dtype or torch.float32
        down = [("side", "waits for", "main"), ("side", "copies to", "cpu", True), ("side", "uses", kept)]
        assert streams.taken() == down and pinned == [True] and p.grad is None
        row = buffer.rows[0][0]
        assert row is not None and (row.device.type, row.dtype) == ("cpu", kept)

        (back, absent) = buffer.column(0, widened=False)
        assert absent is None and back is not None and (back.device.type, back.dtype) == ("cuda", kept)
        assert streams.taken() == [("main", "waits for", "side"), ("main", "copies to", "cuda", True)]
        (back, _) = buffer.column(0, widened=True)
        assert back is not None and (back.device.type, back.dtype) == ("cuda", torch.float32)
        result = buffer.result(0, torch.empty(3, 4, dtype=kept, device="cuda"))
        assert result is not None and (result.device.type, result.dtype) == ("cuda", torch.float32)
        streams.taken()

        buffer.clear()
        buffer.open(0)
        p.grad = torch.empty(3, 4, device="cuda")
        buffer.close(0)
        # After the uploads, which may still be under way; into the same memory.
        assert streams.taken() == down and buffer.rows[0][0] is row and pinned == [True] and streams.made == 1


def test_a_second_micro_batch_waits_for_the_first_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTensorMode():
        p = torch.empty(3, 4, device="cuda")
        buffer = GradientBuffer([p], 1, "cpu")
        buffer.parameters[0].grad = None
        monkeypatch.setattr(Tensor, "add_", lambda x, other: streams.done.append(("main", "adds", other.device.type)))
        empty_like = torch.empty_like
        monkeypatch.setattr(torch, "empty_like", lambda x, pin_memory=False, **options: empty_like(x, **options))
        streams = Streams(monkeypatch)
        for _ in range(2):
            buffer.open(0)
            assert p.grad is None
            p.grad = torch.empty(3, 4, device="cuda")
            buffer.close(0)
        down = [("side", "waits for", "main"), ("side", "copies to", "cpu", True), ("side", "uses", torch.float32)]
        up = [("main", "waits for", "side"), ("main", "copies to", "cuda", True), ("main", "adds", "cuda")]
        assert streams.taken() == [*down, *up, *down]
