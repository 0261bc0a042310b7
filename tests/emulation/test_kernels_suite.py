"""The tests of the ops (tests/kernels) on the emulated CUDA kernels: the fixture `backend` is that of conftest.py."""

from __future__ import annotations

from importlib import import_module

import pytest

MODULES = (
    "test_combine",
    "test_cosine_similarity",
    "test_cross_gramian",
    "test_gradient_list_layouts",
    "test_gradient_lists",
    "test_gradvac_fused",
    "test_properties",
    "test_random_order",
    "test_weights_against_vectors",
    "test_weights_edge_cases",
    "test_weights_over_steps",
)
SLOW_MODULES = ("test_gradvac_large_groups", "test_gramian_accuracy", "test_gramian_layouts")

for _module in (*MODULES, *SLOW_MODULES):
    for _name, _test in vars(import_module(f"kernels.{_module}")).items():
        if _name.startswith("test_"):
            _slow = _module in SLOW_MODULES
            globals()[f"{_name}__{_module.removeprefix('test_')}"] = pytest.mark.slow(_test) if _slow else _test
