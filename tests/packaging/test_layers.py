"""Imports point down only: `gradsim` stands on `gradsim_kernels`, and each package of it on those below."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# From the ground up: a package imports from itself and from those before it.
LAYERS = [
    "gradients",
    "similarity",
    "one_backward",
    "distributed",
    "optim",
    "grouping",
    "data",
    "models",
    "training",
    "report",
    "integrations",
    "cli",
]
# Where a method of a container hands itself to what draws it; inside the method only.
LAZY_UPWARDS = {("similarity", "report")}
KERNEL_PACKAGES = {"torch", "numpy", "gradsim_kernels"}
CODE = sorted((ROOT / "csrc").rglob("*.*"))


def imports(file: Path, package: str) -> list[tuple[str, bool]]:
    """`(module, at module level)` of every import in a file; relative ones are made absolute."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, outermost: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, outermost) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.append((module, outermost))
            # `from gradsim import optim` imports a package by its name in the list
            found.extend((f"{module}.{alias.name}", outermost) for alias in node.names)
        inside = outermost and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(file.read_text()), True)
    return found


def modules(folder: Path, name: str) -> list[tuple[Path, str]]:
    """Every Python file below a folder and the package that it belongs to."""
    return [(f, ".".join([name, *f.relative_to(folder).parent.parts])) for f in sorted(folder.rglob("*.py"))]


KERNELS = modules(ROOT / "gradsim_kernels", "gradsim_kernels")
TRAINING = modules(ROOT / "python" / "gradsim", "gradsim")


def test_reads_imports_of_every_form(tmp_path: Path) -> None:
    """The tests below stand on this."""
    file = tmp_path / "m.py"
    file.write_text("import a.b\nfrom .. import c\nfrom ..d import e\ndef f():\n    from x import y\n")
    expected = {("a.b", True), ("p", True), ("p.c", True), ("p.d", True), ("p.d.e", True), ("x", False), ("x.y", False)}
    assert set(imports(file, "p.q")) == expected


def test_the_kernel_layer_stands_on_torch_alone() -> None:
    assert len(KERNELS) > 5
    wrong = []
    for file, package in KERNELS:
        allowed = KERNEL_PACKAGES | sys.stdlib_module_names
        if package.startswith("gradsim_kernels.triton"):
            allowed = allowed | {"triton"}
        wrong += [(file.name, module) for module, _ in imports(file, package) if module.split(".")[0] not in allowed]
    assert wrong == []


def test_every_package_has_its_layer() -> None:
    folders = {f.parent.name for f in (ROOT / "python" / "gradsim").glob("*/__init__.py")}
    assert folders
    assert folders - set(LAYERS) == set()


def test_imports_point_down() -> None:
    wrong = []
    for file, package in TRAINING:
        own = package.split(".")[1:2]
        if not own:  # gradsim/__init__.py gathers the names of all
            continue
        for module, at_top in imports(file, package):
            other = module.split(".")[1:2] if module.startswith("gradsim.") else []
            if not other or other[0] not in LAYERS or LAYERS.index(other[0]) <= LAYERS.index(own[0]):
                continue
            if at_top or (own[0], other[0]) not in LAZY_UPWARDS:
                wrong.append(f"{file.relative_to(ROOT)} imports {module}")
    assert wrong == []


def test_nothing_below_imports_the_gathered_names() -> None:
    """`from gradsim import GradVac` inside the package would be a circle."""
    wrong = []
    for file, package in TRAINING:
        if package.split(".")[1:2] in ([], ["cli"], ["integrations"]):
            continue
        names = [m for m, _ in imports(file, package) if m == "gradsim"]
        wrong += [f"{file.relative_to(ROOT)}" for _ in names]
    assert wrong == []


@pytest.mark.parametrize("folder", ["include", "cpu", "cuda", "grouping"])
def test_compiled_code_knows_neither_python_nor_torch(folder: str) -> None:
    """Only `torch_shim.h` knows LibTorch, and only by the declarations of its stable interface."""
    files = [f for f in CODE if f.relative_to(ROOT / "csrc").parts[0] == folder]
    if not files:
        pytest.skip(f"csrc/{folder} has no files yet")
    foreign = re.compile(r"#\s*include\s*[<\"](Python|torch/|ATen|c10|pybind11)")
    declared = re.compile(r"^[\w\s*]*\b(?:int32_t|void|AOTITorchError)\s+(?:aoti_)?torch_\w+\s*\(", re.MULTILINE)
    assert [f.name for f in files if foreign.search(f.read_text())] == []
    assert [f.name for f in files if declared.search(f.read_text())] == []
    assert [f.name for f in files if f.suffix == ".py"] == []


def test_kernels_do_not_know_torch() -> None:
    """Bindings stand between: kernels and their interfaces take raw pointers and sizes."""
    knows = re.compile(r"#\s*include\s*[<\"](\w+/)*torch_\w+\.h")
    allowed = re.compile(r"(cpu|cuda|grouping)/(binding|inputs)\w*\.(cpp|h)|torch_\w+\.h")
    assert CODE
    names = [f.relative_to(ROOT / "csrc").as_posix() for f in CODE if knows.search(f.read_text())]
    assert [name for name in names if not allowed.fullmatch(name)] == []
