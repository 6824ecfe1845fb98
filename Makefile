# Two commands do everything: `make study` and `make test`. Both make the environment first.
PYTHON ?= python3
BIN := .venv/bin
PARALLEL := -n auto --maxprocesses 4 --dist worksteal
HASTE := XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true \
	--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

.PHONY: all study test test-fast fuzz bench lint types clean

all: .venv/dev

# What studies need; PyTorch is no part of it
.venv/done: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Steppe needs Python 3.11 or later; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $@

# What the tests need besides, PyTorch among it
.venv/dev: .venv/done
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

study: .venv/done
	$(BIN)/steppe run fa-breast-cancer

# Nearly all the time of the tests is compilation. What depends on what the compiler makes of a program (rounding in
# float32, resumed bits, memory, whole studies) is compiled as users do; the rest in haste, in an eighth of the time.
# A failure of the first part does not hide those of the second.
test: types
	$(BIN)/pytest $(PARALLEL) -m optimised; optimised=$$?; \
	$(HASTE) $(BIN)/pytest $(PARALLEL) -m "not optimised" && exit $$optimised

test-fast: .venv/dev
	$(HASTE) $(BIN)/pytest $(PARALLEL) -m "not slow"

# Thousands of odd specifications, files, command lines and kills; the tests try a few of each
fuzz: .venv/dev
	cd tests && ../$(BIN)/python -m fuzzing

# What comparisons need; where it does not install, the rest runs without it
.venv/bench: .venv/dev
	-$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]' && touch $@

bench: .venv/bench
	$(BIN)/python benchmarks

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/dev
	$(BIN)/mypy

clean:
	rm -rf .venv out build dist
