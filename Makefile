# Everything runs from .venv; no target needs more than Python 3.11, its venv module, libpython and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
LOCKS := deploy/constraints
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
MODELS ?= .models
DEMO ?=
DATA ?=
SCENARIO ?=
LOAD ?=
RECORDS ?= 100000
RESOLVE := uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml

.PHONY: help demo test test-gpu lint models bench-pair bench-edge bench-scoring bench-decision bench-policy bench-cache bench-queue bench-load prove-cache-kill lock clean

help: ## List the targets.
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.demo: $(LOCKS)/demo.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned dependencies into $(VENV) (some 300 MB, a minute or two) ..."
	$(PIP) --require-hashes -r $(LOCKS)/demo.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.demo $(LOCKS)/test.txt
	@echo "Installing what the tests need besides ..."
	$(PIP) --require-hashes -r $(LOCKS)/test.txt
	@touch $@

models: $(VENV)/.demo ## Prepare the demo pair and the embedding model in $(MODELS).
	@$(BIN)/hybrid models pull --store $(MODELS) --all

demo: models ## Start edge, Triton and router on loopback; DEMO="--help" lists options.
	@exec $(BIN)/python -m deploy.demo --store $(MODELS) $(DEMO)

lint: $(VENV)/.test ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint models ## Lint, type-check and run every test.
	$(BIN)/python -m pytest $(PYTEST)

test-gpu: $(VENV)/.test models ## The contract suite on the CUDA provider; skips with a reason where there is no GPU.
	$(BIN)/python -m pytest -m gpu $(PYTEST)

bench-pair: models ## Quality of the demo pair and of routing between its models.
	$(BIN)/python -m loadtests.bench_pair

bench-edge: $(VENV)/.test models ## Decoding speed beside onnxruntime-genai.
	$(BIN)/python -m loadtests.bench_edge

bench-scoring: models ## What the score is worth on labelled prompts (DATA=DIR, else the demo pair's), and costs.
	@status=0; $(BIN)/python -m loadtests.bench_scoring --store $(MODELS) $(if $(DATA),--data $(DATA)) || status=1; \
	$(BIN)/python -m loadtests.bench_decision --store $(MODELS) || status=1; exit $$status

bench-decision: models ## What a routing decision costs on one core.
	$(BIN)/python -m loadtests.bench_decision --store $(MODELS)

bench-policy: $(VENV)/.test ## What cloud_share and budget keep of their promises, on synthetic traffic.
	$(BIN)/python -m loadtests.bench_policy

bench-cache: $(VENV)/.test models ## What the caches cost, hold and get wrong (RECORDS=1000000 in full; DATA=DIR: natural questions).
	@status=0; run() { echo "== $$*"; $(BIN)/python -m loadtests.bench_cache_"$$@" || status=1; }; \
	run http; run embedding; run semantic; run tiers --records $(RECORDS); run faults; \
	run guard $(if $(DATA),--data $(DATA)); exit $$status

bench-queue: $(VENV)/.test models ## What lanes cost and keep of their promises, in virtual time and behind real servers.
	@status=0; for part in bench_queue_sim bench_queue bench_queue_pressure; do $(BIN)/python -m loadtests.$$part || status=1; done; exit $$status

bench-load: $(VENV)/.test models ## The demo pair routed, beside fixed mixes; SCENARIO=spike plays that (LOAD="--url ... --workers 2").
	$(BIN)/python -m $(if $(SCENARIO),loadtests.swarm run $(SCENARIO),loadtests.bench_load) $(LOAD)

prove-cache-kill: $(VENV)/.test models ## Kill the writing router 200 times; every later hit must be exact (resumable).
	$(BIN)/python -m loadtests.prove_cache_kill --folder .bench/cache-kill --kills 200

lock: ## Resolve pyproject.toml into deploy/constraints (needs uv).
	$(RESOLVE) --extra demo --group test -o $(LOCKS)/test.txt
	@for extra in router edge cloud; do $(RESOLVE) -c $(LOCKS)/test.txt --extra $$extra -o $(LOCKS)/$$extra.txt || exit 1; done
	$(RESOLVE) -c $(LOCKS)/test.txt --extra demo --group build -o $(LOCKS)/demo.txt

clean: ## Remove the environment, models and results.
	rm -rf $(VENV) $(MODELS) .bench .demo
