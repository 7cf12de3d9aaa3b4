# Everything happens inside .venv; a stamp file records each step, so that nothing is done twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

NATIVE := setup.py CMakeLists.txt $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu')
CPP := $(shell find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu')

.PHONY: install train test fuzz bench bench-smoke gpu-check kernels sanitize lint format clean

install: $(VENV)/.installed

$(VENV)/.tools: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing torch and the build tools"
	$(PIP) torch==2.13.0
	$(PIP) setuptools wheel pybind11 cmake ninja
	touch $@

$(VENV)/.installed: $(VENV)/.tools pyproject.toml $(NATIVE)
	@echo "building and installing scdr"
	$(PIP) --no-build-isolation --editable .
	touch $@

$(VENV)/.test-extras: $(VENV)/.installed
	@echo "installing the test, bench and lint extras"
	$(PIP) --no-build-isolation --editable '.[test,lint]'
	-$(PIP) libmf || echo "libmf did not install: the bench leaves it out"
	touch $@

train: $(VENV)/.installed
	$(BIN)/python -m scdr.train $(ARGS)

# A process for each core and a thread in each: threads of small ops would only wait for each other.
test: $(VENV)/.test-extras
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

fuzz: $(VENV)/.test-extras
	SCDR_FUZZ=long OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests/fuzz $(ARGS)

bench: $(VENV)/.test-extras
	$(BIN)/python -m pytest bench --benchmark-only $(ARGS)

bench-smoke: $(VENV)/.test-extras
	SCDR_BENCH_SHORT=1 $(BIN)/python -m pytest bench --benchmark-only -q

gpu-check: $(VENV)/.test-extras
	$(BIN)/python bench/gpu_check.py

kernels: $(VENV)/.installed
	$(BIN)/python bench/kernels.py

sanitize: $(VENV)/.test-extras
	PYTHON=$(BIN)/python sh tests/sanitize.sh

lint: $(VENV)/.test-extras
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP)
	$(BIN)/lint-imports

format: $(VENV)/.test-extras
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CPP)

clean:
	rm -rf $(VENV) build dist *.egg-info scdr/*.so
