# Every target works in a fresh clone: it first installs what it needs into .venv.
#   PYTHON=/path/to/python3.11   Python for .venv
#   ARGS="-k matcher"            additional arguments for pytest
#   SEQFORMER_TEST_DEVICE=cuda   device of networks and operators in tests; `make gpu` sets it
#   MINUTES=10 or SEED=123       for `make fuzz`: how long to run, or the round to repeat (fuzz-files: only MINUTES)

PYTHON ?=
ARGS ?=
MINUTES ?= 10
SEED ?=

VENV_PYTHON := .venv/bin/python
INSTALLED := .venv/.installed
DOCS_INSTALLED := .venv/.docs-installed
CSRC := $(addprefix projects/SeqFormer/seqformer/ops/csrc/,*.* cpu/*.* cuda/*.*)
# Tests that can run on a GPU are in these, and need no video decoder.
GPU_TESTS := tests/ops tests/modeling tests/inference/test_video.py tests/inference/test_streaming.py \
	tests/inference/test_postprocess.py tests/test_meta_arch.py tests/test_overfit.py tests/test_fidelity.py \
	tests/test_fidelity_public.py tests/test_fidelity_original.py
INSTALLED_FROM := requirements/install.sh $(wildcard requirements/*.txt setup.py $(CSRC)) setup.cfg pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz fuzz-files matrix matrix-short lint docs cuda gpu install clean distclean

help:
	@echo "make demo       segment and track the people of demo/assets/street.mp4 into output/street.mp4"
	@echo "make test       run the tests and measure coverage (ARGS=\"-k matcher\" runs a selection without coverage)"
	@echo "make fuzz       run the property tests on new examples for MINUTES=10, or repeat one round with SEED=..."
	@echo "make fuzz-files give damaged files to every reader for MINUTES=10 (one input: ARGS=\"--only results --seed 7\")"
	@echo "make matrix     run the tests with every instruction set, one thread and two, in random orders (hours);"
	@echo "                matrix-short: only tests that depend on rounding, with older instruction sets (minutes)"
	@echo "make lint       check style, types and import layers"
	@echo "make docs       build the documentation in site/"
	@echo "make cuda       also compile the operators for CUDA; needs the toolkit (CUDA_HOME=/path/to/it) but no GPU"
	@echo "make gpu        on a machine with a GPU: make cuda, run tests on the GPU, and print tables of its speed"
	@echo "make install    only install into .venv (other targets do this when something has changed)"
	@echo "make clean      remove caches and build files (distclean: also .venv)"

demo: $(INSTALLED)
	$(VENV_PYTHON) demo/demo.py --input demo/assets/street.mp4 --output output/street.mp4
	@echo "The video is output/street.mp4; the results are saved next to it as JSON."

test: $(INSTALLED)
	$(VENV_PYTHON) -m pytest -n auto --maxprocesses 8 $(or $(ARGS),--cov)

fuzz: $(INSTALLED)
	$(VENV_PYTHON) tests/fuzz.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz-files: $(INSTALLED)
	$(VENV_PYTHON) tests/fuzz_files.py --minutes $(MINUTES) $(ARGS)

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

# The tables are printed even if tests fail. Neither can run for longer than ten minutes.
gpu: cuda
	@status=0; \
	SEQFORMER_TEST_DEVICE=cuda timeout 600 $(VENV_PYTHON) -m pytest -n auto --maxprocesses 4 \
		-m "cuda or device" $(ARGS) $(GPU_TESTS) || status=1; \
	timeout 600 $(VENV_PYTHON) benchmarks/gpu.py || status=1; \
	exit $$status

install: $(INSTALLED)

$(INSTALLED): $(INSTALLED_FROM)
	@PYTHON="$(PYTHON)" requirements/install.sh

clean:
	rm -f projects/SeqFormer/seqformer/*.so
	rm -rf build dist site .coverage* .pytest_cache .ruff_cache .mypy_cache .hypothesis projects/SeqFormer/*.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv
