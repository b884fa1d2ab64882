# The two commands that a fresh machine needs: `make explore` and `make test`. Both make the environment.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup explore test check bench docs

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

explore: $(READY)
	$(BIN)/hourglass explore docstrings: --by package --limit 6000 --out hourglass-explore --force

# A process a core and a thread a process: the suite takes little more than half the time. A file's tests stay together, for they share what they make.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/encoding.py
	$(BIN)/python benchmarks/mlm_training.py
	$(BIN)/python benchmarks/sae_training.py
	$(BIN)/python benchmarks/sae_variants.py
	$(BIN)/python benchmarks/explore.py
	$(BIN)/python benchmarks/noising.py
	$(BIN)/python benchmarks/search.py --only dense hamming bm25
	$(BIN)/python benchmarks/index.py
	$(BIN)/python benchmarks/sentence_generation.py
	$(BIN)/python benchmarks/states_cache.py
	$(BIN)/python benchmarks/target_l0.py
	$(BIN)/python benchmarks/verbs.py

docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict
