# `make help` lists the targets. Only make and Python 3.11 or newer are needed; the rest is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export TF_CPP_MIN_LOG_LEVEL := 3
# a hundred processes are started: what they import is compiled once, and kept in __pycache__
unexport PYTHONDONTWRITEBYTECODE
# JupyterLab and nbval offer this Python first; `artpaper run` takes no other
export JUPYTER_PATH := $(CURDIR)/$(VENV)/share/jupyter$(if $(JUPYTER_PATH),:$(JUPYTER_PATH))

# How tests are spread over two processes: one by one, but those that share what their file makes for all of them stay
# together; files that take long come first (tests/conftest.py), so that none of them begins when the others end.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=2 --dist=loadscope --no-loadscope-reorder
# The files that between them call every public function that has shapes in its signature (tests/shapes.py tells of any
# that they do not); they are run with the shapes checked, which all others need not be.
SHAPED := $(addprefix tests/,test_models.py test_losses.py test_defences.py test_attention.py test_metrics.py \
  test_statistics.py test_evaluation.py test_checks.py attacks/test_entry.py attacks/test_objectives.py \
  attacks/test_ball.py attacks/test_structured.py attacks/test_attention.py attacks/test_ensemble.py \
  data/test_features.py data/test_prepare.py data/test_synthetic.py data/test_tfrecord.py data/test_arrays.py \
  data/test_arrays_hdf5.py report/test_tables.py report/test_robustness.py report/test_attention.py \
  report/test_explorer.py test_trial.py)
NBVAL = env -u PYTHONSTARTUP IPYTHONDIR=$(CURDIR)/small/ipython $(PYTEST) -o addopts= -p tests.replay --dist=loadfile \
  --executed=small/run/reports --nbval-lax --nbval-current-env --nbval-cell-timeout=900 --timeout=1000 notebooks

.DEFAULT_GOAL := help
.PHONY: help setup ready repro stress quick test shapes nbval faults browser docs report bench check lab archive clean

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
	@$(BIN)/artpaper repro

report: ready  ## bring the run up to date and render it: report.html, one file to read
	@$(BIN)/artpaper repro report
	@echo "open $(CURDIR)/report.html"

stress: ready  ## strong attacks on the paper's models and their controls, and the verdict: hours (docs/stress.md)
	@$(BIN)/dvc repro stress/dvc.yaml

quick: ready  ## the fast tests alone, in a minute or so: at every save
	$(PYTEST) -m "not slow and not browser and not fault"

# The run of the small profile is begun first, and made beside the checks and the tests that do not need it.
test: ready  ## run the checks and every test, notebooks included
	@mkdir -p small
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.small_run >small/run.log 2>&1 & \
	  $(MAKE) --no-print-directory check shapes && $(PYTEST) $(addprefix --ignore=,$(SHAPED)) && wait
	$(NBVAL)

shapes: ready  ## run the tests of what has shapes in its signature, with the shapes checked
	$(PYTEST) -p tests.shapes --jaxtyping-packages=artpaper,pipeline,tests.shapes.checked $(SHAPED)

# One run of the pipeline on the small profile, in small/run, serves its own tests, this and the browser tests. The run has
# executed the notebooks, and keeps them; nbval compares them with the committed ones, instead of executing each a second
# time (tests/replay.py). Those that are no stage, such as attack_your_model, it executes itself, on that run's results.
nbval: ready  ## compare the notebooks' checked outputs with those of a run on the small profile
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.small_run
	$(NBVAL)

faults: ready  ## the long ones: killed workers, trainings on a cluster, faults injected into every stage, 120,000 hostile inputs, mutants of the code, a hundred Run Alls of the explorer in Chromium (hours)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m fault
	$(BIN)/python -m tests.faults.inject
	$(BIN)/python -m tests.faults.fuzz
	$(BIN)/python -m tests.faults.mutants
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.run_alls

browser: ready  ## look at the explorer, the report and the site in Chromium; screenshots in reports/browser
	$(PYTEST) -m browser tests/browser

bench: ready  ## measure speed and memory side by side: benchmarks/results/bench.md (a quarter of an hour, on a quiet machine)
	$(BIN)/python -m benchmarks

docs: ready  ## build the documentation site into docs/_build/html; any warning is an error
	$(BIN)/sphinx-build -E -W --keep-going -q -j 2 -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

check: ready  ## format, lint and type check
	$(BIN)/ruff format --check artpaper pipeline tests benchmarks
	$(BIN)/ruff check artpaper pipeline tests benchmarks
	$(BIN)/mypy

lab: ready  ## open JupyterLab on this machine only, with a token
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --ContentsManager.pre_save_hook=pipeline.run.notebooks.before_saving notebooks

archive:  ## all that is committed in one file, dist/artpaper.tar.gz; `make repro` runs from it, without Git
	mkdir -p dist && git archive --prefix=artpaper/ --output=dist/artpaper.tar.gz HEAD

clean:  ## remove what the pipeline made and the environment (the DVC cache stays)
	rm -rf $(VENV) .clean .resume small study frames models predictions robustness tables claims reports dvc_plots verdict
	rm -rf stress/predictions stress/minimum_norm stress/training.csv stress/quick
	rm -f report.html figures/figure* figures/attention.* figures/curves.* figures/epsilon.* figures/stress.* figures/sweeps.*
	rm -rf docs/_build docs/notebooks docs/results docs/CLAIMS.md docs/CHANGELOG.md
