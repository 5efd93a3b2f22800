# Everything runs from .venv; no target needs more than Python 3.11, its venv module, libpython and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := deploy/constraints/test.txt
MODELS ?= .models
DEMO ?=

.PHONY: help demo test test-gpu lint models bench-pair bench-edge lock clean

help: ## List the targets.
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

models: $(STAMP) ## Prepare the demo pair and the embedding model in $(MODELS).
	@$(BIN)/hybrid models pull --store $(MODELS) --all

demo: models ## Start edge, Triton and router on loopback; DEMO="--help" lists options.
	@exec $(BIN)/python -m deploy.demo --store $(MODELS) $(DEMO)

lint: $(STAMP) ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint models ## Lint, type-check and run every test.
	$(BIN)/python -m pytest $(PYTEST)

test-gpu: models ## The contract suite on the CUDA provider; skips with a reason where there is no GPU.
	$(BIN)/python -m pytest -m gpu $(PYTEST)

bench-pair: models ## Quality of the demo pair and of routing between its models.
	$(BIN)/python -m loadtests.bench_pair

bench-edge: models ## Decoding speed beside onnxruntime-genai.
	$(BIN)/python -m loadtests.bench_edge

lock: ## Resolve pyproject.toml into deploy/constraints (needs uv).
	@for extra in router edge cloud demo; do \
	  uv pip compile -q --python-version 3.11 --extra $$extra --generate-hashes --no-emit-index-url --no-annotate --no-header \
	    -o deploy/constraints/$$extra.txt pyproject.toml || exit 1; done
	@uv pip compile -q --python-version 3.11 --extra demo --group test --generate-hashes --no-emit-index-url --no-annotate --no-header \
	    -o $(LOCK) pyproject.toml

clean: ## Remove the environment, models and results.
	rm -rf $(VENV) $(MODELS) .bench .demo
