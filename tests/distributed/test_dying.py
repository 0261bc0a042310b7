"""A process that dies, raises or ends early ends the whole job with an error, within seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed.launch import torchrun

SCRIPT = Path(__file__).with_name("dying.py")


@pytest.mark.parametrize(
    ("how", "stack"),
    [
        ("exit", "ddp"),
        *[
            pytest.param(how, stack, marks=pytest.mark.slow)
            for stack in ("ddp", "group", "fsdp2")
            for how in ("exit", "raise", "kill", "early")
            if (how, stack) != ("exit", "ddp")
        ],
    ],
)
def test_one_process_goes_wrong(how: str, stack: str) -> None:
    done = torchrun(SCRIPT, 2, how, stack, timeout=150)
    assert "rank 0 reached step 2" in done.stdout and "rank 1 reached step 2" in done.stdout
    assert done.returncode != 0 and "reached the end" not in done.stdout
    if how == "raise":
        assert "ValueError: a broken batch" in done.stdout
