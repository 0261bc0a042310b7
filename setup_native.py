"""Compiles `csrc/` into one library; `setup.py` decides when, and where it goes.

The compiled code uses only LibTorch's stable C interface, declared by hand in `csrc/torch_shim.h`, and no header of
torch or Python. So a C++17 compiler is all that a build needs, and the library fits every Python and every torch from
2.10 on.

CXX, CXXFLAGS, LDFLAGS, CUDACXX, CUDA_HOME and NVCC_CCBIN mean what they usually do. GRADSIM_CUDA_ARCHS: the compute
capabilities of the CUDA kernels, "80;90;100" by default (and PTX of the last).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OBJECTS = Path("build", "native")  # relative: the sources are compiled from the root of the project

# -ffp-contract=fast: fused multiply-adds, also where a compiler would keep to the letter of the source.
CXX_FLAGS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-fvisibility=hidden"]
# GCC 12 finds uninitialised values in its own AVX-512 headers; Clang does not know that warning.
CXX_FLAGS += ["-Wall", "-Wextra", "-Wno-psabi", "-Wno-maybe-uninitialized", "-Wno-unknown-warning-option"]
NVCC_FLAGS = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden", "--threads=0"]
INCLUDE = ["-Icsrc", "-Icsrc/include"]


class BuildError(Exception):
    """One sentence on what failed, and the whole output of the command that failed."""

    def __init__(self, sentence: str, output: str = "") -> None:
        super().__init__(sentence)
        self.output = output


def execute(command: list[str], what: str) -> None:
    """Run a command; its warnings are passed on, its failure is a BuildError with its first line that says "error"."""
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as e:
        raise BuildError(f"{command[0]} cannot be run ({e.strerror})") from e
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        first = next((line for line in lines if "error" in line.lower()), f"exit code {done.returncode}")
        raise BuildError(f"{what} failed: {first}", f"{shlex.join(command)}\n{done.stdout}")
    if done.stdout:
        sys.stderr.write(done.stdout)


def compile_one(command: list[str], source: Path) -> str:
    """Compile one file, unless its object is newer than all that it was made from and came from the same command."""
    target = OBJECTS / source.relative_to("csrc").with_suffix(source.suffix + ".o")
    depends, record = target.with_suffix(".d"), target.with_suffix(".cmd")
    command = [*command, "-MMD", "-MF", str(depends), "-c", str(source), "-o", str(target)]
    (ROOT / target).parent.mkdir(parents=True, exist_ok=True)
    if not up_to_date(ROOT / target, ROOT / depends, ROOT / record, command):
        execute(command, f"compiling {source}")
        (ROOT / record).write_text(shlex.join(command))
    return str(target)


def up_to_date(target: Path, depends: Path, record: Path, command: list[str]) -> bool:
    if not all(f.exists() for f in (target, depends, record)) or record.read_text() != shlex.join(command):
        return False
    inputs = depends.read_text().replace("\\\n", " ").split()[1:]
    made = target.stat().st_mtime
    return all((ROOT / f).exists() and (ROOT / f).stat().st_mtime <= made for f in inputs)


def cxx_compiler() -> list[str]:
    named = shlex.split(os.environ.get("CXX", ""))
    for candidate in [named] if named else [["c++"], ["g++"], ["clang++"]]:
        if shutil.which(candidate[0]):
            return candidate
    wanted = f"CXX={shlex.join(named)} is not there" if named else "none of c++, g++ and clang++ is there"
    raise BuildError(f"no C++ compiler was found ({wanted})")


def cuda_toolkit() -> tuple[str, Path] | None:
    """nvcc and the root of its toolkit."""
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    named = [os.environ.get("CUDACXX"), *(f"{home}/bin/nvcc" for home in homes if home)]
    for candidate in [*named, "nvcc", "/usr/local/cuda/bin/nvcc"]:
        found = shutil.which(candidate) if candidate else None
        if found:
            return found, Path(found).resolve().parent.parent
    return None


def can_try_cuda() -> bool:
    return bool(sources("cuda/*.cu")) and cuda_toolkit() is not None


def cuda_work(host: list[str]) -> tuple[list[tuple[list[str], Path]], list[str]]:
    """What to compile for CUDA, as (command, source), and what to link with it."""
    if not sources("cuda/*.cu"):
        raise BuildError("csrc/cuda has no sources")
    toolkit = cuda_toolkit()
    if toolkit is None:
        raise BuildError("no nvcc was found (CUDACXX, CUDA_HOME, CUDA_PATH, PATH and /usr/local/cuda were tried)")
    nvcc, home = toolkit
    homes = [home, Path("/usr/local/cuda")]
    libraries = [d for h in homes for d in (h / "lib64", *h.glob("targets/*/lib"), h / "lib")]
    static = next((d for d in libraries if (d / "libcudart_static.a").exists()), None)
    if static is None:
        raise BuildError(f"libcudart_static.a was not found in the CUDA toolkit at {home}")
    archs = [a.strip() for a in (os.environ.get("GRADSIM_CUDA_ARCHS") or "80;90;100").split(";")]
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs]
    targets.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    device = [nvcc, *NVCC_FLAGS, *targets, *INCLUDE]
    host = [*host, f"-I{static.parent / 'include'}", f"-I{home / 'include'}"]
    work = [(device, f) for f in sources("cuda/*.cu")] + [(host, f) for f in sources("cuda/*.cpp")]
    return work, [f"-L{static}", "-lcudart_static", "-lrt", "-ldl", "-lpthread"]


def sources(pattern: str) -> list[Path]:
    return sorted(f.relative_to(ROOT) for f in (ROOT / "csrc").glob(pattern))


def build_library(with_cuda: bool) -> Path:
    """Compile and link everything; the path of the library under `build/`."""
    if sys.platform == "win32":
        raise BuildError("the native library is built on Linux and macOS only")
    cxx = cxx_compiler()
    host = [*cxx, *CXX_FLAGS, *INCLUDE, *shlex.split(os.environ.get("CXXFLAGS", ""))]
    if with_cuda:
        host.append("-DGRADSIM_WITH_CUDA")
    work = [(host, f) for f in sources("cpu/*.cpp") + sources("grouping/*.cpp")]
    if not work:
        raise BuildError("csrc/cpu has no sources")
    libraries: list[str] = []
    if with_cuda:
        more, libraries = cuda_work(host)
        work = more + work  # the longest first
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda job: compile_one(*job), work))
    library = OBJECTS / "_native.so"
    libraries += shlex.split(os.environ.get("LDFLAGS", ""))
    execute([*cxx, *link_flags(cxx), "-o", str(library), *objects, *libraries], f"linking {library.name}")
    return ROOT / library


def link_flags(cxx: list[str]) -> list[str]:
    """Only `gradsim_*` is exported, and the symbols of LibTorch stay open until torch is there."""
    if sys.platform == "darwin":
        return ["-dynamiclib", "-undefined", "dynamic_lookup", "-Wl,-exported_symbol,_gradsim_*"]
    exports, stub = OBJECTS / "exports.map", OBJECTS / "libtorch.so"
    (ROOT / exports).write_text("{ global: gradsim_*; local: *; };\n")
    # An empty library of that name makes ours depend on libtorch.so, which brings libtorch_cpu.so in every build of
    # torch and libtorch_cuda.so in a CUDA build: there the weak CUDA symbols of csrc/torch_shim.h resolve.
    stand_in = ["-shared", "-Wl,-soname,libtorch.so", "-x", "c++", os.devnull, "-o", str(stub)]
    execute([*cxx, *stand_in], "linking a stand-in for libtorch")
    only_ours = [f"-Wl,--version-script={exports}", "-Wl,--exclude-libs,ALL"]
    return ["-shared", *only_ours, "-Wl,--no-as-needed", str(stub), "-Wl,--as-needed"]
