# `make demo` and `make test` set up .venv and run; `make help` lists the rest.
# The plain pip lines they stand for are in the README.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MINUTES ?= 8
DEVICE ?= cpu

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo gallery lessons page browser test faults strict smoke lint bench kernels mutation clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*##/\t/'

demo: $(VENV)/demo.stamp  ## train on MNIST for MINUTES=8 minutes and draw what was learned into out/
	$(BIN)/python demo/mnist.py --minutes $(MINUTES) --out out

gallery: $(VENV)/demo.stamp  ## draw docs/gallery/: what else a trained model can do
	$(BIN)/python demo/learn/gallery.py

lessons: $(VENV)/test.stamp  ## run every lesson of demo/learn at full size, and time it: about five minutes
	$(BIN)/python tests/bench/lessons.py

page: $(VENV)/demo.stamp  ## a page in which a browser trains and samples: out/page, or with SINGLE=1 out/tinyddpm.html
	$(BIN)/python demo/page/build.py $(if $(SINGLE),--single)

browser: $(VENV)/page.stamp  ## build the page, and use it in a headless Chromium, where both can be had
	-$(BIN)/python demo/page/build.py
	$(BIN)/python -m pytest -q tests/demo/test_page.py

test: lint  ## lint, then every test
	$(BIN)/python -m pytest -q -n auto --dist loadfile

strict: lint  ## the tests of nn and tinyddpm on a stand-in for a GPU that refuses what CuPy refuses
	$(BIN)/python -m pytest -q -n auto --dist loadfile --device strict tests/nn tests/tinyddpm

smoke: $(VENV)/test.stamp  ## the demo in some seconds, drawn into a folder that is removed
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && \
	$(BIN)/python demo/mnist.py --minutes 0.2 --images 32 --out "$$out"

lint: $(VENV)/test.stamp  ## ruff: faults, and the format
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

faults: $(VENV)/test.stamp  ## look for what is wrong and silent, for half an hour: drawn programs and networks, runs that are harmed
	$(BIN)/python tests/faults/programs.py --programs 20000 --seed 0
	$(BIN)/python tests/faults/networks.py --networks 1000 --seed 0
	$(BIN)/python tests/faults/campaign.py --scale 1 --seed 0

bench: $(VENV)/bench.stamp  ## the speed beside PyTorch's and the machine's own; on a GPU: DEVICE=cuda
	$(BIN)/python tests/bench/bench.py --device $(DEVICE)
	$(BIN)/python tests/bench/floor.py
	$(BIN)/python tests/bench/convolution.py

kernels: $(VENV)/kernels.stamp  ## compile the GPU's kernels, by NVIDIA's compiler and as C++, and test them without a GPU
	$(BIN)/python -m pytest -q tests/nn/gpu

mutation: $(VENV)/mutation.stamp  ## change the code line by line: which changes does no test notice?
	$(BIN)/python -m mutmut run
	$(BIN)/python -m mutmut results

clean:  ## remove all that make, the demo and the tools have made
	rm -rf $(VENV) out runs build dist mutants *.egg-info .pytest_cache .ruff_cache .hypothesis
	find nn tinyddpm demo tests -name __pycache__ -prune -exec rm -rf {} +

# ---- the virtual environment: one, to which each stamp adds what its extras name ----

$(VENV)/demo.stamp: EXTRAS = demo
$(VENV)/test.stamp: EXTRAS = demo,test
$(VENV)/page.stamp: EXTRAS = demo,test,page
$(VENV)/bench.stamp: EXTRAS = bench
$(VENV)/bench.stamp: NOTE = , or more: on Linux PyTorch may come with CUDA, 6 GB; where pip is told of PyTorch's own \
	index for the CPU, it takes that wheel of 0.2 GB
$(VENV)/kernels.stamp: EXTRAS = test,ctk
$(VENV)/mutation.stamp: EXTRAS = demo,test,mutation

# Where no package index answers, what is installed beside $(PYTHON) may be enough.
$(VENV)/%.stamp: setup.py pyproject.toml | $(VENV)/bin/python
	@echo "Installing tinyddpm[$(EXTRAS)] into $(VENV): about a minute$(NOTE)"
	@$(BIN)/python -m pip install -q -e '.[$(EXTRAS)]' || { $(PYTHON) -m venv --system-site-packages $(VENV) && \
	$(BIN)/python -m pip install -q --no-index --no-build-isolation -e '.[$(EXTRAS)]'; }
	@touch $@

$(VENV)/bin/python:
	@command -v $(PYTHON) > /dev/null || { \
	  echo "make: there is no $(PYTHON); name a Python of version 3.11 or later: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: Python 3.11 or later is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	  echo "make: name a later one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
