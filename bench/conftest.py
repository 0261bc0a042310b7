"""The option --quick, the fixtures of the cells, and what of the machine goes into the JSON."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench import ceilings, machine, shapes
from bench.measure import FULL, QUICK, Cell

LOAD = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # of other work: this is before anything runs here


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="fewer rounds: the whole suite in less than a minute")


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    return {**machine.facts(), "load": round(LOAD, 1), "quick": bool(config.getoption("--quick"))}


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    output_json["commit_info"].pop("project", None)  # the name of a folder, nothing else


@pytest.fixture
def cell(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Cell:
    """Measures one row of the table."""
    return Cell(benchmark, QUICK if request.config.getoption("--quick") else FULL)


@pytest.fixture(scope="session")
def base() -> Tensor:
    """2^26 normal fp32 numbers: what is read for the ceiling, and every gradient buffer of that size a view of it."""
    return shapes.gradients(1, ceilings.ELEMENTS).view(-1)


@pytest.fixture(scope="session")
def copied(base: Tensor) -> Tensor:
    """Where the ceiling of copying writes to."""
    return torch.empty_like(base)


@pytest.fixture(scope="session")
def fma() -> ceilings.FmaProbe:
    """The rate of multiply-adds, measured when asked."""
    return ceilings.FmaProbe()
