"""Independent oracles for the tests: written from the papers, sharing no code with what they judge.

Importable as `oracles` (tests/kernels/conftest.py puts this folder's parent on the path).
"""
