# What a newcomer needs: `make demo` and `make test`. Each makes .venv with the pinned versions when it is missing.
#   make PYTHON=/path/to/python3.12 test    another Python (3.10 or newer)
#   make DEMO_FLAGS="resnet18 --epochs 1" demo   another comparison
#   make WORKERS=8 test                     more test processes
#   make BENCH_FLAGS=--quick bench          fewer benchmarks (--help names every flag)
PYTHON ?= python3
WORKERS ?= 2
TORCH ?= 2.11.0
OUT ?= runs/gpu-check
# The extras whose packages are pinned.
EXTRAS := train data detection inspect export serve docs dev
DEMO_FLAGS ?= test_resnet --model-kwargs "channels=[8,16,16,32]" --epochs 3 --batch-size 32 --lr 0.01 --threads 1 --workers 1

BIN := .venv/bin
READY := .venv/installed

.PHONY: help demo test test-all test-torch test-aarch64 lint format bench gpu-check site links wheels pins clean

help:
	@echo "make demo      compare a static network with its dynamic twins on scikit-learn's digits"
	@echo "make test      the fast tests"
	@echo "make test-all  every test, the slow ones too"
	@echo "make lint      ruff, mypy, import-linter"
	@echo "make format    let ruff rewrite what it can"
	@echo "make bench     time networks against their static twins; what got slower since the last commit (minutes per case)"
	@echo "make gpu-check on a GPU: laws, kernels and timings, in less than nine minutes; results into OUT=runs/gpu-check"
	@echo "make test-torch TORCH=2.11.0   the core's tests on another torch (gigabytes; TORCH=newest too)"
	@echo "make site      the documentation as a web site, in docs/_build/html; executes the notebooks"
	@echo "make links     ask every outside link of the documentation for a sign of life (needs the internet)"
	@echo "make wheels    the wheels in dist/: for any platform, and with the kernels compiled for Linux on x86-64 and aarch64"
	@echo "make test-aarch64  the kernels' own checks with the aarch64 wheel, under qemu (Debian, 700 MB)"
	@echo "make pins      resolve requirements.txt anew (needs uv)"
	@echo "make clean     remove .venv and every cache"

demo: $(READY)
	$(BIN)/dynaconv compare $(DEMO_FLAGS)

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python tools/benchmarks.py $(BENCH_FLAGS)

# Everything that only a GPU can show, in less than nine minutes; says so where there is none.
gpu-check: $(READY)
	$(BIN)/python tools/gpu_check.py --out $(OUT)

# The core's tests on another torch, in .venv-torch-$(TORCH); gigabytes. `make test-torch TORCH=newest` is the other end.
test-torch:
	@$(PYTHON) tools/test_torch.py $(TORCH) --workers $(WORKERS)

# The stamp is written last: an interrupted installation is done again, never half used.
$(READY): requirements.txt pyproject.toml tools/make_venv.py
	@command -v "$(PYTHON)" >/dev/null || { echo "no $(PYTHON) here; name one: make PYTHON=/path/to/python3.12 ..."; exit 2; }
	@"$(PYTHON)" tools/make_venv.py

site: $(READY)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Links between pages are checked by the tests; these need the internet. The list is docs/_build/links/output.txt.
links: $(READY)
	$(BIN)/python -m sphinx --keep-going --quiet -b linkcheck -D nb_execution_mode=off docs docs/_build/links

wheels: $(READY)
	$(BIN)/python tools/build_wheels.py

test-aarch64: $(READY)
	$(BIN)/python tools/test_aarch64.py

# One file for every Python and platform that torch supports. Versions already in it stay unless they no longer fit;
# `make pins UPGRADE=--upgrade` takes the newest.
pins:
	uv pip compile --universal --python-version 3.10 $(addprefix --extra ,$(EXTRAS)) --no-annotate \
		--quiet $(UPGRADE) \
		--custom-compile-command "make pins" --output-file requirements.txt pyproject.toml

clean:
	rm -rf .venv build dist docs/_build .aarch64 src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
