# Everything runs from .venv; no target needs more than Python 3.11, its venv module, libpython and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
LOCKS := deploy/constraints
PEER_LOCKS := loadtests/peers/requirements
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
MODELS ?= .models
DEMO ?=
DATA ?=
PEERS ?=
SCENARIO ?=
LOAD ?=
RECORDS ?= 100000
REQUESTS ?= 1000000
RESOLVE := uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

.PHONY: help demo test test-deploy image-base wheelhouse images image-sizes sbom scan release test-gpu lint models bench-pair bench-edge bench-scoring bench-decision bench-policy bench-cache bench-queue bench-cores bench-streams bench-peers bench-load prove-cache-kill prove-memory lock clean

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
	$(BIN)/python -m pytest -m "not deploy" $(PYTEST)

test-deploy: $(VENV)/.test models ## Build the images and try the sites in containers; skips with a reason where no engine runs.
	$(BIN)/python -m pytest -m deploy $(PYTEST)

image-base: $(VENV)/.test ## Make the images' base from Debian's packages (mmdebstrap), where no registry is reachable.
	$(BIN)/python -m deploy.images base

wheelhouse: $(VENV)/.test ## Fetch the images' dependencies as wheels.
	$(BIN)/python -m deploy.images wheelhouse

images: image-base wheelhouse ## Build the images of router, edge and cloud (VERSION=dev, BASE=...).
	$(BIN)/python -m deploy.images build $(if $(VERSION),--version $(VERSION)) $(if $(BASE),--base $(BASE))

image-sizes: ## Each image's size by package.
	$(BIN)/python -m deploy.images sizes

sbom: ## Write each image's bill of materials to dist/sbom.
	$(BIN)/python -m deploy.images sbom

scan: ## Look for known vulnerabilities in the images (trivy, else pip-audit).
	$(BIN)/python -m deploy.images scan

release: ## Build for all architectures, push to REGISTRY=..., sign (needs buildx and cosign).
	$(BIN)/python -m deploy.images release --registry $(REGISTRY)

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

bench-peers: $(VENV)/.test models ## This router beside nginx, vllm-router, sglang-router and LiteLLM (PEERS="--help" lists options).
	@$(BIN)/python -m loadtests.peers.environments
	@$(BIN)/python -m loadtests.bench_peers $(PEERS)

bench-queue: $(VENV)/.test models ## What lanes cost and keep of their promises, in virtual time and behind real servers.
	@status=0; for part in bench_queue_sim bench_queue bench_queue_pressure; do $(BIN)/python -m loadtests.$$part || status=1; done; exit $$status

bench-cores: $(VENV)/.test ## What a second process of the router costs and brings.
	$(BIN)/python -m loadtests.bench_cores

bench-streams: $(VENV)/.test ## 2,000 streams open at once on one core: exact, and in how much memory.
	$(BIN)/python -m loadtests.bench_streams

prove-memory: $(VENV)/.test ## Resident memory over REQUESTS=1000000 distinct requests.
	$(BIN)/python -m loadtests.prove_memory --requests $(REQUESTS)
bench-load: $(VENV)/.test models ## The demo pair routed, beside fixed mixes; SCENARIO=spike plays that (LOAD="--url ... --workers 2").
	$(BIN)/python -m $(if $(SCENARIO),loadtests.swarm run $(SCENARIO),loadtests.bench_load) $(LOAD)

prove-cache-kill: $(VENV)/.test models ## Kill the writing router 200 times; every later hit must be exact (resumable).
	$(BIN)/python -m loadtests.prove_cache_kill --folder .bench/cache-kill --kills 200

lock: ## Resolve pyproject.toml into deploy/constraints (needs uv).
	$(RESOLVE) pyproject.toml --extra demo --group test -o $(LOCKS)/test.txt
	$(RESOLVE) -c $(LOCKS)/test.txt pyproject.toml --extra router --extra tracing -o $(LOCKS)/router.txt
	@for extra in edge cloud; do $(RESOLVE) -c $(LOCKS)/test.txt pyproject.toml --extra $$extra -o $(LOCKS)/$$extra.txt || exit 1; done
	$(RESOLVE) -c $(LOCKS)/test.txt pyproject.toml --extra demo --group build -o $(LOCKS)/demo.txt
	$(RESOLVE) -c $(LOCKS)/test.txt --group build -o $(LOCKS)/build.txt
	printf 'onnxruntime-gpu>=1.22\n' | $(subst version 3.11,version 3.12,$(RESOLVE)) --no-emit-package onnxruntime -c $(LOCKS)/test.txt pyproject.toml - --extra cloud -o $(LOCKS)/cloud-gpu.txt
	@for peer in vllm-router sglang-router litellm; do $(RESOLVE) $(PEER_LOCKS)/$$peer.in -o $(PEER_LOCKS)/$$peer.txt || exit 1; done
	@# the CPU cloud's image has the wheel's tritonserver, not the Python packages of its API
	@cp $(LOCKS)/cloud.txt $(LOCKS)/cloud-cpu.txt && awk '/^[a-z]/ {own = /^nvidia-pytriton==/} own' $(LOCKS)/demo.txt >> $(LOCKS)/cloud-cpu.txt

clean: ## Remove the environment, models and results.
	rm -rf $(VENV) $(MODELS) .bench .demo
