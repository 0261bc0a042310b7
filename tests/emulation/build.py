"""Compile the CUDA kernels for the host (g++ and `emulator/`), again only what has changed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CUDA = ROOT / "csrc" / "cuda"
CACHE = ROOT / "build" / "emulation"
PROCESSES = 2

_FLAGS = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-pthread", "-DGRADSIM_EMULATED"]
_WARNINGS = ["-Wall", "-Wextra", "-Wno-unknown-pragmas"]
_SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g1"]


def compiler() -> str | None:
    """g++, if it is there and can do this."""
    return shutil.which("g++") if os.uname().machine == "x86_64" and os.uname().sysname == "Linux" else None


def kernels(*, sanitize: bool = False) -> Path:
    """All device code behind the interface of `library.cpp`."""
    return _library([HERE / "library.cpp", *sorted(CUDA.glob("*.cu"))], CUDA, ["-O1"], sanitize)


def changed_kernels(cuda: Path) -> Path:
    """Those of another folder, compiled fast."""
    return _library([HERE / "library.cpp", *sorted(cuda.glob("*.cu"))], cuda, ["-O0"], sanitize=False)


def emulator_checks(*, sanitize: bool = False) -> Path:
    """The kernels that check the emulator."""
    return _library([HERE / "emulator_checks.cpp"], CUDA, ["-O1"], sanitize)


def schedule_checks() -> Path:
    """The kernel that lists the tickets of the fused step."""
    return _library([HERE / "schedule_checks.cpp"], CUDA, ["-O1"], sanitize=False)


def _library(sources: list[Path], cuda: Path, flags: list[str], sanitize: bool) -> Path:
    flags = [*flags, *_FLAGS, *_WARNINGS, *(_SANITIZERS if sanitize else [])]
    include = [cuda.parent, ROOT / "csrc", ROOT / "csrc" / "include", HERE]
    CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(), ThreadPoolExecutor(PROCESSES) as pool:
        objects = list(pool.map(lambda source: _compile(source, include, flags), sources))
        library = CACHE / f"{_digest([path.name for path in objects], [])}.so"
        if not library.exists():
            _run(["g++", *flags, "-shared", *map(str, objects)], library)
    return library


def _compile(source: Path, include: list[Path], flags: list[str]) -> Path:
    result = CACHE / f"{source.stem}-{_digest(flags, _with_headers(source, include))}.o"
    if not result.exists():
        _run(["g++", *flags, *(f"-I{path}" for path in include), "-c", "-x", "c++", str(source)], result)
    return result


def _with_headers(source: Path, include: list[Path]) -> list[Path]:
    """The source and all that it includes in quotation marks."""
    found, new = [source], [source]
    while new:
        names = re.findall(r'^#include "(.+)"', new.pop().read_text(), re.MULTILINE)
        places = [next((folder / name for folder in include if (folder / name).exists()), None) for name in names]
        headers = [path for path in places if path is not None and path not in found]
        found += headers
        new += headers
    return sorted(found)


def _run(command: list[str], result: Path) -> None:
    """The command with `-o result`; nothing half done stays."""
    partial = result.with_suffix(f".{os.getpid()}{result.suffix}")
    done = subprocess.run([*command, "-o", str(partial)], capture_output=True, text=True)
    if done.returncode != 0 or " warning: " in done.stderr:
        partial.unlink(missing_ok=True)
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    partial.replace(result)


def _digest(texts: list[str], files: list[Path]) -> str:
    sha = hashlib.sha256()
    for text in texts:
        sha.update(text.encode() + b"\0")
    for path in files:
        sha.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return sha.hexdigest()[:20]


@contextmanager
def _locked() -> Iterator[None]:
    """One build at a time, also between test processes."""
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
