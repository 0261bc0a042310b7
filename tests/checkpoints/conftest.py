"""The models here are tiny."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread(same_start: None) -> None:
    """A second thread only costs time, most of all on a busy machine; `same_start` sets it back."""
    torch.set_num_threads(1)
