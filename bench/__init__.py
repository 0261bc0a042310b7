"""Benchmarks on pytest-benchmark; `python bench/run.py` runs them and prints one table (docs/benchmarks.md)."""
