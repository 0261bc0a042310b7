"""Builds `gradsim_kernels/_native.so` from `csrc/` (see `setup_native.py`); everything else is in `pyproject.toml`.

GRADSIM_NATIVE says what to build: "auto" (the default), "off", "cpu" or "cuda". Under "auto" what cannot be built is
left out with one line of explanation; "cpu" and "cuda" fail if they cannot be met.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path(__file__).resolve().parent))  # a build front end does not put it there
import setup_native

PACKAGE = setup_native.ROOT / "gradsim_kernels"
LIBRARY, REASON = "_native.so", "_native_reason.txt"  # the library, or else the sentence that says why there is none

MODE = os.environ.get("GRADSIM_NATIVE") or "auto"
if MODE not in ("auto", "off", "cpu", "cuda"):
    raise SystemExit(f"gradsim-kernels: GRADSIM_NATIVE must be auto, off, cpu or cuda, not {MODE!r}")


def build() -> tuple[Path | None, str]:
    """The library, or the reason why there is none; a BuildError where it was asked for by name and cannot be built."""
    no_cuda = ""
    try:
        if MODE == "cuda" or (MODE == "auto" and setup_native.can_try_cuda()):
            try:
                return setup_native.build_library(with_cuda=True), ""
            except setup_native.BuildError as e:
                if MODE == "cuda":
                    raise
                no_cuda = str(e)
        library = setup_native.build_library(with_cuda=False)
    except setup_native.BuildError as e:
        if MODE != "auto":
            raise
        print(f"gradsim-kernels: the native library was not built: {e}; the package works on its reference", flush=True)
        return None, str(e)
    if no_cuda:
        print(f"gradsim-kernels: the CUDA kernels were left out: {no_cuda}", flush=True)
    return library, ""


def place(library: Path | None, reason: str, folder: Path) -> None:
    """Put the library or the reason into a folder, and take away what an earlier build left there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (LIBRARY, REASON):
        (folder / name).unlink(missing_ok=True)
    if library is not None:
        shutil.copy2(library, folder / LIBRARY)
    else:
        (folder / REASON).write_text(reason + "\n")


class BuildNative(build_ext):
    """Builds the library where setuptools expects an extension; no Python ABI in its name, and it may be missing."""

    def run(self) -> None:
        folders = [self.folder, PACKAGE] if self.inplace else [self.folder]
        try:
            library, reason = build()
        except setup_native.BuildError as e:
            for folder in folders:
                place(None, str(e), folder)
            raise SystemExit(f"{e.output}gradsim-kernels: GRADSIM_NATIVE={MODE} cannot be met: {e}") from e
        for folder in folders:
            place(library, reason, folder)

    @property
    def folder(self) -> Path:
        return Path(self.build_lib, PACKAGE.name)

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(PACKAGE.name, LIBRARY))

    def get_outputs(self) -> list[str]:
        return [str(self.folder / name) for name in (LIBRARY, REASON) if (self.folder / name).exists()]

    def get_output_mapping(self) -> dict[str, str]:
        return {path: str(PACKAGE / Path(path).name) for path in self.get_outputs()} if self.inplace else {}


class Wheel(bdist_wheel):
    """One wheel for every Python; with GRADSIM_NATIVE=off also for every platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


if MODE == "off":
    place(None, "the package was built with GRADSIM_NATIVE=off", PACKAGE)

setup(
    ext_modules=[] if MODE == "off" else [Extension("gradsim_kernels._native", sources=[])],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": Wheel},
)
