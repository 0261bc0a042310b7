"""The example runs, and both ways train."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

pytest.importorskip("torchjd", reason="TorchJD is not installed")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "torchjd_weighting.py"


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    told = capsys.readouterr().out
    losses = [(float(begin), float(end)) for begin, end in re.findall(r"loss (\d+\.\d+) to (\d+\.\d+)", told)]
    assert len(losses) == 2 and all(end < 0.85 * begin for begin, end in losses)
    assert "4 groups: " in told
