# `make help` lists the targets. All work in .venv, made on the first call; a later call installs
# nothing unless pyproject.toml has changed.
SHELL := /bin/bash
PYTHON_OF_VENV := .venv/bin/python
INSTALLED := .venv/.installed
INSTALLED_DEV := .venv/.installed-dev
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help train losses every-loss compare quick test slow guarantees outsider check tensorboard clean

help: ## list the targets
	@echo 'make TARGET [ARGS="..."] [PYTHON=/path/to/python3.11]'
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 16

# Called again, it goes on with a run that was stopped and scores one that has ended.
train: $(INSTALLED) ## train and evaluate; ARGS are overrides, such as ARGS="loss=ssd"
	$(PYTHON_OF_VENV) tools/train.py $(if $(findstring resume=,$(ARGS)),,resume=auto) $(ARGS)

# A thread per worker: the workers share the processors already.
LOSSES := focal ssd yolo cross_entropy balanced_cross_entropy ohem
FOLDER := runs/losses

losses: $(INSTALLED) ## train LOSSES on the generated set, one after another, into FOLDER: a table
	set -e; for loss in $(LOSSES); do \
	  $(PYTHON_OF_VENV) tools/train.py loss=$$loss output_dir=$(FOLDER)/$$loss resume=auto $(ARGS); \
	done
	$(PYTHON_OF_VENV) tools/table.py folder=$(FOLDER)

every-loss: ## the same with every loss there is, for seconds each: whether they all train
	$(MAKE) --no-print-directory losses FOLDER=runs/every-loss \
	  LOSSES="$(basename $(notdir $(wildcard configs/loss/*.yaml)))" ARGS="experiment=smoke $(ARGS)"

compare: $(INSTALLED) ## train 6 losses with 3 seeds on generated data: a report (half an hour)
	$(PYTHON_OF_VENV) tools/compare.py experiment=compare_generated output_dir=runs/compare $(ARGS)

# A thread per process: they share the processors already.
PYTEST := OMP_NUM_THREADS=1 $(PYTHON_OF_VENV) -m pytest -n auto --maxprocesses 8 --dist loadfile

quick: $(INSTALLED_DEV) ## the tests that take no seconds each: a minute, while working
	$(PYTEST) -m "not long and not slow" $(ARGS)

test: $(INSTALLED_DEV) ## the tests of every change; ARGS go to pytest, such as ARGS="-k focal"
	$(PYTEST) -m "not slow" --durations=15 $(ARGS)

slow: $(INSTALLED_DEV) ## every test there is, every cell of every matrix
	$(PYTEST) --durations=15 $(ARGS)

guarantees: $(INSTALLED_DEV) ## make the figures of docs/guarantees.md (20 minutes); ARGS name cases
	OMP_NUM_THREADS=1 $(PYTHON_OF_VENV) -m tests.guarantees $(ARGS)

outsider: $(INSTALLED_DEV) ## faults put in from outside (hours; DETECTOR_FAULTS=N random ones); ARGS name rows
	OMP_NUM_THREADS=1 $(PYTHON_OF_VENV) -m tests.outsider $(ARGS)

check: $(INSTALLED_DEV) ## lint, format, types and tests
	scripts/check.sh

tensorboard: $(INSTALLED) ## show runs/ on this machine's own address only
	$(PYTHON_OF_VENV) -m tensorboard.main --host 127.0.0.1 --logdir runs $(ARGS)

clean: ## remove what tools and builds leave behind; runs/ and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml scripts/install.sh
	scripts/install.sh
	@touch $@

$(INSTALLED_DEV): pyproject.toml scripts/install.sh
	scripts/install.sh --group dev
	@touch $(INSTALLED) $@
