"""The Triton kernels: imported at the first use of the backend, never by `import gradsim_kernels`.

`launch.Triton` is the `gpu.Kernels`; the files of kernels (`kernels_*.py`, `items.py`, `tiles.py`, ...) need
nothing but triton, so that they can be compiled for any GPU on a machine that has neither a GPU nor torch.
"""
