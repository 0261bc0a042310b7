"""What nvcc has made of csrc/cuda: the resources and the instructions of every kernel, read from the compiled objects.

The objects are those of the build (`setup_native`): nothing is compiled a second time.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 2


@dataclass(frozen=True)
class Kernel:
    """One kernel on one target."""

    source: str
    name: str  # readable
    target: str  # sm_..
    registers: int
    stack_bytes: int  # where registers are spilled to
    local_bytes: int
    shared_bytes: int  # static


def native() -> Any:
    """The build script's module."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    import setup_native

    return setup_native


def why_not() -> str | None:
    """What is missing."""
    if native().cuda_toolkit() is None:
        return "there is no nvcc"
    if cuobjdump() is None:
        return "there is no cuobjdump, neither in the CUDA toolkit nor in a wheel of Triton"
    return None


def cuobjdump() -> str | None:
    """That of the toolkit, or of Triton's wheel."""
    toolkit = native().cuda_toolkit()
    places = [toolkit[1] / "bin" / "cuobjdump"] if toolkit else []
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin is not None:
        places.append(Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
    return shutil.which("cuobjdump") or next((str(path) for path in places if path.exists()), None)


def compile_all() -> dict[str, Path]:
    """The object of each source in csrc/cuda, compiled if the build has not done so."""
    work, _ = native().cuda_work(native().cxx_compiler())
    device = [(command, source) for command, source in work if source.suffix == ".cu"]
    with ThreadPoolExecutor(PROCESSES) as pool:
        objects = pool.map(lambda one: native().compile_one(*one), device)
        return {source.name: ROOT / path for (_, source), path in zip(device, objects, strict=True)}


def kernels(source: str, path: Path) -> Iterator[Kernel]:
    """Every kernel of an object on every target."""
    for target, report in _per_target(_run("-res-usage", str(path))):
        for name, usage in re.findall(r"Function (\w+):\s*\n\s*(.*)", report):
            numbers = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", usage)}
            yield Kernel(
                source,
                readable(name),
                target,
                numbers["REG"],
                numbers["STACK"],
                numbers["LOCAL"],
                numbers["SHARED"],
            )


def instructions(path: Path, target: str) -> dict[str, Counter[str]]:
    """How often each instruction occurs in each kernel of an object."""
    counts: dict[str, Counter[str]] = {}
    for part in _run("-sass", "-arch", target, str(path)).split("Function : ")[1:]:
        name, _, code = part.partition("\n")
        found = re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?\s*([A-Z][\w.]*)", code, re.MULTILINE)
        counts[readable(name.strip())] = Counter(found)
    return counts


def _per_target(report: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^arch = ", report, flags=re.MULTILINE)[1:]:
        target, _, rest = part.partition("\n")
        yield target.strip(), rest


def _run(*arguments: str) -> str:
    tool = cuobjdump()
    assert tool is not None
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=True).stdout


@cache
def readable(mangled: str) -> str:
    """The name as the source has it, without namespaces and parameters; a dtype is its number."""
    if shutil.which("c++filt") is None:
        return mangled
    done = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True)
    name = re.sub(
        r"\((gradsim::Dtype|int|unsigned int)\)|\(anonymous namespace\)::|gradsim::gpu::|^void ", "", done.stdout
    )
    name = re.sub(r"_GLOBAL__N__\w+::", "", name)
    return re.sub(r"\(.*$", "", name).strip()
