"""The timer measures what it is put around, and travels without its events."""

from __future__ import annotations

import math
import pickle
import time

import pytest
import torch

from gradsim.optim.timing import StepTimer

CPU = torch.device("cpu")


def test_the_mean_over_blocks() -> None:
    timer = StepTimer()
    assert math.isnan(timer.mean_ms())
    for _ in range(2):
        with timer.measure(CPU):
            time.sleep(0.02)
    assert timer.count == 2 and 20.0 <= timer.mean_ms() < 2000.0
    with pytest.raises(ValueError, match="broken"), timer.measure(CPU):
        raise ValueError("broken")
    assert timer.count == 2


def test_copies_leave_running_events_behind() -> None:
    timer = StepTimer()
    with timer.measure(CPU):
        pass
    timer._pending.append((lambda: None, lambda: None))  # type: ignore[arg-type]  # CUDA events cannot be pickled either
    copied = pickle.loads(pickle.dumps(timer))
    assert copied.count == 1 and copied.total_ms == timer.total_ms and not copied._pending
