"""Everything to be known about the GPU kernels on one machine, in one command: `bash bench/gpu_check.sh`.

`plan` says what runs, `runner` runs each step in a process of its own, `child` is that process, `report` writes what
came of it.
"""
