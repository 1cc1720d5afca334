# The whole interface. Every target builds .venv by itself; it needs Python >= 3.11 and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
FIGURE_FLAGS := $(if $(QUICK),--quick) $(if $(FRESH),--fresh)

.PHONY: figures test lab notebooks check bench llm-demo clean

figures: .venv/.ready  ## every figure of the paper's experiments, with the gallery (QUICK=1, FRESH=1)
	$(BIN)/gradlab figures $(FIGURE_FLAGS)

test: .venv/.ready  ## every test, notebooks included
	$(BIN)/python -m pytest -n 2 --dist loadfile
	$(BIN)/python -m pytest -n 2 --nbmake --nbmake-kernel=python3 notebooks

lab: .venv/.ready  ## JupyterLab with the notebooks
	$(BIN)/gradlab lab

notebooks: .venv/.ready  ## run the notebooks anew, and keep their outputs as they belong in git
	$(BIN)/python scripts/notebooks.py

check: .venv/.ready  ## style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

bench: .venv/.ready  ## speed of the lab, its engine, the explorers and language models; the cost of Balanced-DPO
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]'
	$(BIN)/python -m scripts.benchmarks.lab_speed
	$(BIN)/python -m scripts.benchmarks.engine_speed
	$(BIN)/python -m scripts.benchmarks.overhead_cost
	$(BIN)/python -m scripts.benchmarks.llm_speed
	$(BIN)/python -m scripts.benchmarks.sweep_speed
	$(BIN)/python -m scripts.benchmarks.explorer_speed

llm-demo: .venv/.ready  ## small language models from scratch, every loss: DATA=PAIRS (HH-RLHF's), SEEDS="0", SIZES="1M"
	$(BIN)/gradlab demo $(if $(DATA),--data $(DATA)) $(if $(SEEDS),--seeds $(SEEDS)) \
	  $(if $(SIZES),--sizes $(SIZES)) $(if $(KEEP),--keep)

clean:  ## what the other targets built, except results
	rm -rf .venv build dist .pytest_cache .ruff_cache .import_linter_cache figures/quick

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gradlab needs Python >= 3.11; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@
