# `make help` lists the targets. Only make and Python 3.11 or newer are needed; the rest is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export TF_CPP_MIN_LOG_LEVEL := 3
# JupyterLab and nbval offer this Python first; `artpaper run` takes no other
export JUPYTER_PATH := $(CURDIR)/$(VENV)/share/jupyter$(if $(JUPYTER_PATH),:$(JUPYTER_PATH))

# tests that call what has shapes in its signature: they alone are run with the shapes checked, which doubles their time
SHAPED := tests/attacks/test_ordering.py tests/attacks/test_objectives.py tests/attacks/test_ball.py tests/test_models.py \
  tests/test_losses.py tests/test_defences.py tests/test_attention.py tests/test_metrics.py tests/test_evaluation.py \
  tests/data/test_features.py tests/data/test_store.py tests/report/test_tables.py tests/report/test_robustness.py

.DEFAULT_GOAL := help
.PHONY: help setup ready repro stress test browser docs report bench check nbval lab clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ready  ## make .venv with the pinned versions of requirements.lock

$(READY): requirements.lock pyproject.toml pipeline/pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "make: Python 3.11 or newer is needed, $(PYTHON) is %d.%d; name another with: make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable . --editable ./pipeline
	@touch $(READY)

ready: $(READY)
	@$(BIN)/python -m pipeline.base.git  # DVC stops in a downloaded archive, which has no Git, unless it is told

repro: ready  ## run the pipeline: prepare, train, attack, Tables 1-3, Figures 1-4, the claims
	@$(BIN)/dvc repro

report: ready  ## bring the run up to date and render it: report.html, one file to read
	@$(BIN)/dvc repro report
	@echo "open $(CURDIR)/report.html"

stress: ready  ## strong attacks on the paper's models and their controls, and the verdict: hours (README says how many)
	@$(BIN)/dvc repro stress/dvc.yaml

test: ready check  ## run the checks and every test, notebooks included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=2 --jaxtyping-packages=artpaper,pipeline,beartype.beartype $(SHAPED)
	$(MAKE) --no-print-directory nbval

browser: ready  ## look at the explorer and the report in Chromium; screenshots in reports/browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser

nbval: ready  ## run every notebook on the small profile and compare its checked outputs
	rm -rf small
	env -u PYTHONSTARTUP IPYTHONDIR=$(CURDIR)/small/ipython $(BIN)/python -m pytest -o addopts= --nbval-lax --nbval-current-env --nbval-cell-timeout=900 --timeout=1000 notebooks

bench: ready  ## measure speed and memory side by side: benchmarks/results/bench.md (a quarter of an hour, on a quiet machine)
	$(BIN)/python -m benchmarks

docs: ready  ## build the documentation site into docs/_build/html; any warning is an error
	$(BIN)/sphinx-build -E -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

check: ready  ## format, lint and type check
	$(BIN)/ruff format --check artpaper pipeline tests benchmarks
	$(BIN)/ruff check artpaper pipeline tests benchmarks
	$(BIN)/mypy

lab: ready  ## open JupyterLab on this machine only, with a token
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 notebooks

clean:  ## remove what the pipeline made and the environment (the DVC cache stays)
	rm -rf $(VENV) .clean .resume small study frames models predictions robustness tables claims reports dvc_plots verdict
	rm -rf stress/predictions stress/minimum_norm stress/training.csv stress/quick
	rm -f report.html figures/figure* figures/attention.* figures/curves.* figures/epsilon.* figures/stress.* figures/sweeps.*
	rm -rf docs/_build docs/notebooks docs/results docs/CLAIMS.md docs/CHANGELOG.md
