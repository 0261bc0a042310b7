"""The CUDA kernels on the host: `emulator/` stands in for CUDA, `backend.Emulated` for a GPU."""
