"""Every script of examples/ runs as its docstring says, and shows what it promises."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed.launch import torchrun

FOLDER = Path(__file__).resolve().parents[2] / "examples"
LIMIT = 300.0  # s: each takes a few seconds, or a few minutes where many tests share two cores
LOSS = r"loss.* \d+\.\d"


@dataclass(frozen=True)
class Example:
    """How a script is started, and what it must print.

    `shows`: expressions that must be found in what it prints. `needs`: packages without which it is skipped.
    `processes`: under torchrun with as many; 0: plainly. `slow`: left to `make test-all`; other tests of its stack are
    always run.
    """

    shows: tuple[str, ...]
    needs: tuple[str, ...] = ()
    processes: int = 0
    slow: bool = False


EXAMPLES = {
    "plain.py": Example((r"plain sum", r"100 .* 0%\n", r"GradVac:", r"100 .* [1-9]\d*%\n", r"am( +-?\d\.\d{3}){3}")),
    "with_accelerate.py": Example(
        (r"epoch 2, step 40: loss de \d\.\d{3}", r"cosine -?\d\.\d+, [1-9]\d*% corrected", r"am( +-?\d\.\d{3}){3}"),
        needs=("accelerate",),
    ),
    "with_lightning.py": Example(
        (r"epoch 3: loss \d\.\d{3}", r"surgery/cosine_mean -?\d\.\d+, surgery/corrections 0\.\d+, surgery/ms \d"),
        needs=("lightning",),
    ),
    "lora.py": Example(
        (r"trainable params: 3,776", r"step 15: loss \d\.\d+", r"[1-9]\d*% corrected", r"in 7 groups of adapters"),
        needs=("transformers", "peft"),
    ),
    "trainer.py": Example((LOSS,), needs=("transformers", "accelerate")),
    "torchjd_weighting.py": Example((LOSS,), needs=("torchjd",)),
    "ddp.py": Example((LOSS,), processes=2),
    "fsdp2.py": Example((LOSS,), processes=2),
}
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))


MARKED = [
    pytest.param(name, marks=pytest.mark.slow if name in EXAMPLES and EXAMPLES[name].slow else ()) for name in SCRIPTS
]


def run(name: str, folder: Path, processes: int) -> str:
    """Run a script from another folder; what it printed. It must leave nothing behind there."""
    if processes:
        done = torchrun(FOLDER / name, processes, timeout=LIMIT)
    else:
        done = subprocess.run(
            [sys.executable, str(FOLDER / name)],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=LIMIT,
        )
    assert done.returncode == 0, done.stdout[-4000:]
    assert list(folder.iterdir()) == []
    return done.stdout


def check(name: str, output: str) -> None:
    for expression in EXAMPLES[name].shows:
        assert re.search(expression, output), f"{name} does not print {expression!r}:\n{output[-4000:]}"
    assert not re.search(r"\bnan\b", output), output[-4000:]


def test_every_script_is_known() -> None:
    assert sorted(EXAMPLES) == SCRIPTS


@pytest.mark.parametrize("name", MARKED)
def test_it_runs(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    for package in example.needs:
        pytest.importorskip(package)
    check(name, run(name, tmp_path, example.processes))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["with_accelerate.py"])
def test_it_runs_on_two_processes_too(name: str, tmp_path: Path) -> None:
    """Its docstring says so. Accelerate reads torchrun's environment as it does its own launcher's."""
    pytest.importorskip(EXAMPLES[name].needs[0])
    output = run(name, tmp_path, 2)
    assert len(re.findall(r"epoch 2, step 20: loss", output)) == 1, output[-4000:]  # half the batches on each


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_is_short_and_says_how_to_run_it(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring is not None
    assert f"examples/{name}" in docstring
    assert len(text.splitlines()) <= 75
