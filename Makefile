# Every command is enough on its own after a clone: what it needs is installed into .venv first.
#   PYTHON=/path/to/python3.11   the Python that .venv is made with
#   ARGS="-k matcher"            more arguments for pytest
#   MINUTES=10 or SEED=123       how long `make fuzz` goes on, or the round that it repeats

PYTHON ?=
ARGS ?=
MINUTES ?= 10
SEED ?=

VENV_PYTHON := .venv/bin/python
INSTALLED := .venv/.installed
DOCS_INSTALLED := .venv/.docs-installed
CSRC := $(addprefix projects/SeqFormer/seqformer/ops/csrc/,*.* cpu/*.* cuda/*.*)
INSTALLED_FROM := requirements/install.sh $(wildcard requirements/*.txt setup.py $(CSRC)) setup.cfg pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz matrix matrix-short lint docs cuda install clean distclean

help:
	@echo "make demo       segment and track the people of demo/assets/street.mp4 into output/street.mp4"
	@echo "make test       run the tests and measure coverage (ARGS=\"-k matcher\" runs some of them, without coverage)"
	@echo "make fuzz       run the property tests on new examples for MINUTES=10, or repeat the round of SEED=..."
	@echo "make matrix     run the tests under every instruction set, on one thread and two, in random orders (hours);"
	@echo "                matrix-short: what depends on rounding, under the lesser instruction sets (minutes)"
	@echo "make lint       check style, types, and the order of imports"
	@echo "make docs       build the documentation, in site/"
	@echo "make cuda       compile the operator for CUDA, too; needs the toolkit, not a GPU (CUDA_HOME=/path/to/it)"
	@echo "make install    only install, into .venv (the others do so when something changed)"
	@echo "make clean      remove caches and build files; distclean removes .venv, too"

demo: $(INSTALLED)
	$(VENV_PYTHON) demo/demo.py --input demo/assets/street.mp4 --output output/street.mp4
	@echo "The result is output/street.mp4; its instances are in the JSON file beside it."

test: $(INSTALLED)
	$(VENV_PYTHON) -m pytest -n auto --maxprocesses 8 $(or $(ARGS),--cov)

fuzz: $(INSTALLED)
	$(VENV_PYTHON) tests/fuzz.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

matrix: $(INSTALLED)
	$(VENV_PYTHON) tests/matrix.py $(ARGS)

matrix-short: $(INSTALLED)
	$(VENV_PYTHON) tests/matrix.py --short $(ARGS)

lint: $(INSTALLED)
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	.venv/bin/clang-format --dry-run -Werror $(wildcard $(CSRC))
	$(VENV_PYTHON) -m mypy
	.venv/bin/lint-imports --no-logo --no-cache

docs: $(DOCS_INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs build --strict --quiet
	@echo "The documentation is site/index.html."

$(DOCS_INSTALLED): $(INSTALLED) requirements/docs.txt
	$(VENV_PYTHON) -m pip --disable-pip-version-check install -r requirements/docs.txt
	touch $@

cuda: $(INSTALLED)
	PATH="$(CURDIR)/.venv/bin:$$PATH" FORCE_CUDA=1 $(VENV_PYTHON) setup.py --quiet build_ext --inplace
	$(VENV_PYTHON) -c "import sys; from seqformer.ops import implementation; print(implementation()); \
		sys.exit('CUDA' not in implementation())"

install: $(INSTALLED)

$(INSTALLED): $(INSTALLED_FROM)
	@PYTHON="$(PYTHON)" requirements/install.sh

clean:
	rm -f projects/SeqFormer/seqformer/*.so
	rm -rf build dist site .coverage* .pytest_cache .ruff_cache .mypy_cache .hypothesis projects/SeqFormer/*.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv
