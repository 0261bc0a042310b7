"""The examples of docs/optimizers.md run as they are, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "optimizers.md"


def test_examples(capsys: pytest.CaptureFixture[str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = [(m.start(1), m.group(1)) for m in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)]
    assert len(blocks) >= 8
    namespace: dict[str, Any] = {"__name__": "example"}
    for start, block in blocks:
        line = text.count("\n", 0, start)
        exec(compile("\n" * line + block, str(PAGE), "exec"), namespace)
    assert "of the visits led to a correction" in capsys.readouterr().out
    assert namespace["resumed"].tasks == ["sw", "am", "de"]
