"""Every Python example of the README and of `docs/` runs, file by file, as a reader would paste it: from top to bottom.

A block marked ```python no-run shows something that cannot run here; it is still compiled.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples(text: str, no_run: bool = False) -> str:
    """All blocks of a page as one program in which each line keeps its number: an error then names the page's line."""
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        if ("no-run" in block[1].split()) is no_run:
            first = text.count("\n", 0, block.start(2))
            body = block[2].splitlines()
            lines[first : first + len(body)] = body
    return "\n".join(lines)


def test_finds_the_blocks_and_keeps_their_lines() -> None:
    page = "text\n```python\na = 1\n```\nmore\n```python no-run\nb = a\n```\n```bash\nls\n```\n```python\nc = a\n```\n"
    assert examples(page).split("\n") == ["", "", "a = 1", "", "", "", "", "", "", "", "", "", "c = a", "", ""]
    assert examples(page, no_run=True).split() == ["b", "=", "a"]


def test_the_readme_has_examples() -> None:
    assert examples((ROOT / "README.md").read_text()).strip(), "README.md must show at least one example that runs"


@pytest.mark.parametrize("page", [p for p in PAGES if p.exists()], ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_run(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    compile(examples(text, no_run=True), str(page), "exec")
    program = examples(text)
    if not program.strip():
        pytest.skip("no example to run on this page")
    runner = "import sys, torch; torch.set_num_threads(2); exec(compile(open(sys.argv[1]).read(), sys.argv[2], 'exec'))"
    example = tmp_path / "example.py"
    example.write_text(program)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "MPLBACKEND": "Agg"}
    command = [sys.executable, "-c", runner, str(example), str(page)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{page.relative_to(ROOT)}: {done.stderr}"
