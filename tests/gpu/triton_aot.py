"""Compiles the Triton kernels for GPUs that need not be here: `python triton_aot.py TARGET:EVERY:FIRST...`.

TARGET is 80, 90, 100, ...; of the configurations that `gradsim_kernels.triton.configuration` can choose, every
EVERY-th is compiled, from the FIRST on. Prints a line of JSON for each: registers, spills, shared memory, and what the
machine code holds. Needs triton and nothing else, so that any release of it can be tried.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import types
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
os.environ.pop("TRITON_INTERPRET", None)
os.environ.setdefault("TRITON_CACHE_DIR", str(ROOT / "build" / "triton"))
package = types.ModuleType("gradsim_kernels")  # without its __init__, which needs torch
package.__path__ = [str(ROOT / "gradsim_kernels")]
sys.modules["gradsim_kernels"] = package

import triton  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from gradsim_kernels.triton.configuration import Configuration, configurations  # noqa: E402

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
TENSOR_CORES = r"\b(?:HMMA|HGMMA|UTC\w*MMA|DMMA|OMMA|QMMA)\b"
WIDE_LOADS = r"\b(?:LDG|LDGSTS)\.\S*\.128\b"
SPILLS = r"\b(?:STL|LDL)\b"


def compiled(configuration: Configuration, target: int) -> Any:
    """What `triton.compile` makes of a configuration as it is launched on a GPU."""
    kernel, constants = configuration.kernel, dict(configuration.constants)
    names = kernel.arg_names
    if "INTERPRETED" in names:
        constants["INTERPRETED"] = False
    signature = {name: "constexpr" if name in constants else "i64" for name in names}
    source = ASTSource(fn=kernel, signature=signature, constexprs={(names.index(k),): v for k, v in constants.items()})
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=configuration.options)


def report(index: int, target: int) -> dict[str, Any]:
    """Compile the configuration with this index and look at its machine code."""
    configuration = list(configurations())[index]
    start = time.perf_counter()
    result = compiled(configuration, target)
    seconds = time.perf_counter() - start
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(result.asm["cubin"])
        file.flush()
        resources = _run("cuobjdump", "-res-usage", file.name)
        code = _run("nvdisasm", "-c", file.name)
    registers, stack, local = (int(re.search(rf"{name}:(\d+)", resources)[1]) for name in ("REG", "STACK", "LOCAL"))
    return {
        "kernel": configuration.kernel.__name__,
        "constants": {k: str(v) for k, v in configuration.constants.items()},
        "target": target,
        "seconds": round(seconds, 1),
        "registers": registers,
        "spilled_bytes": stack + local,
        "spills": len(re.findall(SPILLS, code)),
        "shared_bytes": result.metadata.shared,
        "wide_loads": len(re.findall(WIDE_LOADS, code)),
        "wide_loads_wanted": configuration.wide_loads,
        "tensor_cores": len(re.findall(TENSOR_CORES, code)),
        "tensor_cores_wanted": configuration.tensor_cores,
    }


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([str(TOOLS / tool), *arguments], capture_output=True, text=True, check=True).stdout


def main(choices: list[str]) -> None:
    count = len(list(configurations()))
    with ProcessPoolExecutor(2) as pool:  # one a core of the smallest machine that tests run on
        jobs = []
        for choice in choices:
            target, every, first = map(int, choice.split(":"))
            jobs += [pool.submit(report, index, target) for index in range(first, count, every)]
        for job in jobs:
            print(json.dumps(job.result()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
