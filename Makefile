# Each target first makes the virtual environment it needs, once; `make help` lists the targets and the variables.

PYTHON ?= python3
VENV ?= .venv
VENV_FLAGS ?=
ARGS ?=

# Without a GPU an unpinned torch would bring gigabytes of CUDA libraries where the index offers a CPU build of this one.
ifeq ($(origin TORCH),undefined)
TORCH := $(if $(shell nvidia-smi -L 2>/dev/null),torch>=2.10,torch==2.13.0)
endif
TORCH_INDEX ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip -qq --disable-pip-version-check
# Torch comes first and alone, and nothing that is installed after it may replace it.
HELD := -c $(VENV)/held.txt
# TORCH= takes the torch that is there; then there may be no index to install from either, and what is there has to do.
AS_IT_IS := { echo "make: not everything could be installed; going on with what is there"; \
  $(PIP) install --no-index --no-deps --no-build-isolation -e .; }
OR_OFFLINE := $(if $(TORCH),,|| $(AS_IT_IS))

# A CUDA build of torch pins its own Triton. Beside a CPU build any will do: kernels are interpreted and compiled, not run.
TRITON := $(PIP) install $(HELD) 'triton>=3.7.1' || echo "make: no Triton to be had; the tests of its kernels will be skipped"

# Files of tests side by side, each process with one thread; what is there without pytest-xdist runs one after another.
PARALLEL = $(shell $(PY) -c 'import xdist' 2>/dev/null && printf '%s' '-n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder')

# Another GRADSIM_NATIVE is another build.
NATIVE := $(VENV)/.native-$(or $(GRADSIM_NATIVE),auto)
CSRC := $(shell find csrc -type f 2>/dev/null)
CXX_FILES := $(filter %.h %.hpp %.inl %.cpp %.cu %.cuh,$(CSRC) $(shell find tests/emulation -type f))

.PHONY: help demo test test-all bench lint build clean distclean
.DELETE_ON_ERROR:

help:
	@echo "make demo      measure, group and train 36 languages; leaves demo-out/"
	@echo "make test      everything that must never break; at most 15 minutes on two cores"
	@echo "make test-all  the same and the long matrices"
	@echo "make bench     the kernels against the roofline, PyTorch and TorchJD; one backward against plain training"
	@echo "make lint      ruff, mypy --strict, clang-format"
	@echo "make build     the environment and the native library, nothing more"
	@echo "make clean     remove what was built; make distclean: $(VENV) too"
	@echo
	@printf '%-16s %-16s %s\n' \
	  PYTHON '$(PYTHON)' 'the interpreter that makes $(VENV)' \
	  TORCH '$(TORCH)' 'the torch to install; empty: the one that is there' \
	  TORCH_INDEX '$(TORCH_INDEX)' 'an index for torch alone, such as https://download.pytorch.org/whl/cpu' \
	  VENV_FLAGS '$(VENV_FLAGS)' 'for python -m venv, such as --system-site-packages' \
	  GRADSIM_NATIVE '$(GRADSIM_NATIVE)' 'auto, off, cpu or cuda: which native library to build' \
	  ARGS '$(ARGS)' 'more arguments for the command behind the target'

demo: $(VENV)/.demo $(NATIVE)
	$(VENV)/bin/gradsim demo --out demo-out $(ARGS)

test: $(VENV)/.dev $(NATIVE)
	$(PY) -m pytest -q -m "not slow" $(PARALLEL) $(ARGS)

test-all: $(VENV)/.dev $(NATIVE)
	$(PY) -m pytest -q $(PARALLEL) $(ARGS)

bench: $(VENV)/.dev $(NATIVE)
	$(PY) bench/run.py $(ARGS)

lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(CXX_FILES)

build: $(NATIVE)

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "make: $(PYTHON) must be Python 3.10 or newer; name another: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	@touch $@

$(VENV)/.torch: $(VENV)/.python
	$(if $(TORCH),$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)')
	@$(PY) -c 'from importlib.metadata import version; print("torch==" + version("torch"))' > $(VENV)/held.txt || \
	  { echo "make: no torch in $(VENV); say which one to install, such as TORCH=torch==2.13.0"; exit 1; }
	$(PIP) install $(HELD) 'setuptools>=77' $(if $(TORCH),,|| true)
	@touch $@

# The library, and both packages as an editable installation.
$(NATIVE): $(VENV)/.torch pyproject.toml setup.py setup_native.py $(CSRC)
	$(PIP) install $(HELD) --no-build-isolation -e . $(OR_OFFLINE)
	@$(PY) -c 'from gradsim_kernels import native as n; print("native library:", n.path if n.loaded else n.reason)'
	@rm -f $(VENV)/.native-*
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml | $(NATIVE)
	$(PIP) install $(HELD) --no-build-isolation -e '.[demo]' $(OR_OFFLINE)
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml | $(NATIVE)
	$(PIP) install $(HELD) --no-build-isolation -e '.[dev]' $(OR_OFFLINE)
	@$(PY) -c 'import triton' 2>/dev/null || $(TRITON)
	@touch $@ $(VENV)/.demo

clean:
	rm -rf build dist *.egg-info demo-out bench-out .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f gradsim_kernels/_native.so gradsim_kernels/_native_reason.txt $(VENV)/.native-*
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
