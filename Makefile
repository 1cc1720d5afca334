# The whole interface. Every target builds .venv by itself; it needs Python >= 3.11 and make, nothing else.
# make PYTHON=python3.13 CONSTRAINTS= test: another Python, and the newest versions that pyproject.toml allows.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install -q $(addprefix -c ,$(CONSTRAINTS))
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
# As on lesser processors: PyTorch's own loops, its matrix products (MKL, oneDNN), numpy's loops and products, the engine.
AS := PYTHONPATH=$(CURDIR)/tests/other_processor
OLD := $(AS) ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41 \
  NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL AVX512_SPR" OPENBLAS_CORETYPE=Nehalem GRADLAB_TEST_PROCESSOR=x86-64
AVX2 := $(AS) ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 \
  NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR" OPENBLAS_CORETYPE=Haswell GRADLAB_TEST_PROCESSOR=haswell
FIGURE_FLAGS := $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

.PHONY: figures questions atlas test test-all test-long lab notebooks site check web bench study study-demo llm-demo llm-real chromium firefox node qlora versions dist clean

figures: .venv/.ready  ## every figure of the paper's experiments, with the gallery (QUICK=1, FRESH=1)
	$(BIN)/gradlab figures $(FIGURE_FLAGS)

questions: .venv/.ready  ## the experiments on the paper's open questions, an hour at most, resumable (QUICK=1, FRESH=1)
	$(BIN)/gradlab figures questions $(FIGURE_FLAGS)

atlas: .venv/.ready  ## every registered loss trained in the lab, ten minutes at most (QUICK=1 one minute, FRESH=1 all anew)
	$(BIN)/gradlab figures atlas $(FIGURE_FLAGS)

test: .venv/.ready  ## tests and the notebooks' cells, in four to nine minutes: no browser, no whole training runs
	$(PYTEST) -m "not (slow or browser or long)"

test-all: .venv/.ready  ## every test but those that run weekly, in 25 to 45 minutes
	$(PYTEST) -m "not long" --nbmake --nbmake-kernel=python3 tests notebooks \
	  --deselect tests/test_notebooks.py::test_its_cells_run_one_after_the_other  # by nbmake, in kernels of their own

test-long: .venv/.ready  ## what runs weekly: kills, whole scans, and every comparison of numbers as on other processors
	$(PYTEST) -m "long or faults" --faults figures/benchmarks/faults.md
	$(AVX2) $(PYTEST) -m "numbers and not (browser or long)"
	$(OLD) $(PYTEST) -m "numbers and not (browser or long)"

lab: .venv/.ready  ## JupyterLab with the notebooks
	$(BIN)/gradlab lab

notebooks: .venv/.ready  ## run the notebooks anew, and keep their outputs as they belong in git
	$(BIN)/python scripts/notebooks.py

site: .venv/.ready  ## the site in build/site/html; VERSIONS=FOLDER adds it to a folder of versions, as latest or TAG=v1.2.3
	$(BIN)/python -m scripts.site $(if $(VERSIONS),--versions $(VERSIONS)) $(if $(TAG),--tag $(TAG))

check: .venv/.ready  ## style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# What runs in a browser; the packages that build it are those of its lock file.
PACKAGES := gradlab/web/node_modules/.package-lock.json

web: $(PACKAGES)  ## gradlab/web/gradlab.js and its licences, from gradlab/web/src; needs Node and npm
	cd gradlab/web && npm run --silent build

$(PACKAGES): gradlab/web/package-lock.json
	cd gradlab/web && npm ci --silent --ignore-scripts
	@touch $@

bench: .venv/.ready  ## speed of all parts; with MODEL=FOLDER DATA=PAIRS also that of training a pretrained model, an hour
	$(INSTALL) -e '.[bench]'
	$(BIN)/python -m scripts.benchmarks.lab_speed
	$(BIN)/python -m scripts.benchmarks.engine_speed
	$(BIN)/python -m scripts.benchmarks.loss_speed
	$(BIN)/python -m scripts.benchmarks.sampler_speed
	$(BIN)/python -m scripts.benchmarks.overhead_cost
	$(BIN)/python -m scripts.benchmarks.llm_speed
	$(if $(MODEL),$(BIN)/python -m scripts.benchmarks.pretrained_speed --model $(MODEL) --data $(DATA))
	$(BIN)/python -m scripts.benchmarks.sweep_speed
	$(BIN)/python -m scripts.benchmarks.explorer_speed
	$(BIN)/python -m scripts.benchmarks.page_speed
	$(BIN)/python -m scripts.benchmarks.large_inputs

llm-demo: .venv/.ready  ## small language models from scratch, every loss: DATA=PAIRS (HH-RLHF's), SEEDS="0", SIZES="1M"
	$(BIN)/gradlab demo $(if $(DATA),--data $(DATA)) $(if $(SEEDS),--seeds $(SEEDS)) \
	  $(if $(SIZES),--sizes $(SIZES)) $(if $(KEEP),--keep)

llm-real: .venv/.ready  ## a pretrained model, every method, a small frame per run: MODEL=FOLDER DATA=PAIRS, MINUTES=60 for a slice
	$(if $(MODEL),,$(error MODEL must be the folder of SmolLM2-135M-Instruct, as scripts/README.md gets it: make llm-real MODEL=FOLDER DATA=PAIRS))
	$(BIN)/gradlab real --model $(MODEL) $(if $(DATA),--data $(DATA)) $(if $(TASKS),--tasks $(TASKS)) \
	  $(if $(SEEDS),--seeds $(SEEDS)) $(if $(MINUTES),--minutes $(MINUTES))

study: .venv/.ready  ## the human study validated by simulated raters, ten minutes at most, resumable (QUICK=1 a minute)
	$(BIN)/gradlab study validate $(if $(QUICK),--quick)

study-demo: .venv/.ready  ## a complete human study with simulated raters, in runs/study-demo: plan, pages, answers, report
	$(BIN)/gradlab study demo

chromium:  ## Chromium for the browser tests, where there is none (Debian and its like)
	command -v chromium || { as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$as_root apt-get update -q && $$as_root apt-get install -q -y chromium; }
	command -v chromium  # without one they would be skipped

firefox:  ## Firefox for the browser tests, where there is none (Debian and its like)
	command -v firefox-esr || command -v firefox || { as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$as_root apt-get update -q && $$as_root apt-get install -q -y firefox-esr; }

node:  ## Node for the tests of gradlab/web, where there is none (Debian and its like), and the packages that build it
	command -v npm || { as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$as_root apt-get update -q && $$as_root apt-get install -q -y nodejs npm; }
	$(MAKE) $(PACKAGES)

qlora: .venv/.ready  ## bitsandbytes into .venv: without it the tests of a base in 4 bits are skipped
	$(INSTALL) -e '.[qlora]'

versions: .venv/.ready  ## the versions in .venv, as constraints.txt has them
	@$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'

dist: .venv/.ready  ## sdist and wheel in dist/; TAG=v1.2.3 also checks that everything names this version
	$(if $(TAG),$(BIN)/python scripts/release.py $(TAG))
	rm -rf dist
	$(BIN)/python -m build

clean:  ## what the other targets built, except results
	rm -rf .venv gradlab/web/node_modules build dist .pytest_cache .ruff_cache .import_linter_cache figures/quick

# .venv/.ready names what .venv was built with. Where the command line names something else, or another tool made
# .venv, it is built from nothing.
BUILT_WITH := $(PYTHON) $(or $(CONSTRAINTS),without constraints)
NAMED := $(filter command,$(origin PYTHON) $(origin CONSTRAINTS))
OTHER := $(if $(NAMED),$(shell echo '$(BUILT_WITH)' | cmp -s - .venv/.ready || echo yes))
ifneq ($(OTHER),)
.PHONY: .venv/.ready
endif

.venv/.ready: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gradlab needs Python >= 3.11; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(if $(OTHER)$(if $(wildcard .venv/.ready),,yes),rm -rf .venv)
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[dev]'
	@echo '$(BUILT_WITH)' > $@
