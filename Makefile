# `make repro` and `make test` are all a newcomer needs; `make help` lists the rest.
# Not the default, so that an old make asks the shell, which knows the PATH below.
SHELL := /bin/bash
VENV := .venv
# Given on the command line, never by the environment: other programs read variables of these names too.
PYTHON := python3
JOBS :=
REMOTE :=
UPGRADE :=
# Containers may run as a user without a name, which DVC asks for.
export LOGNAME ?= $(shell id -un 2>/dev/null || id -u)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help install repro extended sweep compare exps watch bench test coverage test-slow browser servers share-demo \
	lint stale audit format plots-page readme lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

repro: install  ## get CIFAR-10, run what changed in the pipeline, JOBS configurations at a time, show the metrics
	python -m tools.repro $(if $(JOBS),--jobs '$(JOBS)')
	dvc metrics show

extended: repro  ## the extended pipeline: the CNN, fine-tuning, the ablation (over an hour)
	cd extended && dvc repro && dvc metrics show

sweep: install  ## try many configurations on Ray (params.yaml: sweep), here or where RAY_ADDRESS says
	python stages/check_params.py
	dvc repro verify features
	python stages/sweep.py

compare: install  ## compare the metrics of the last run with the committed ones
	python -m tools.compare

exps: install  ## compare experiments: accuracy by configuration, the selected one and its test accuracy
	@python -m tools.exps

watch: install  ## watch what is training now, from another terminal
	@python -m tools.watch

bench: install  ## measure how fast it is, against PyTorch (an hour; writes benchmarks/results.*)
	python -m benchmarks

# A process for each core, as far as memory goes: each takes a gigabyte.
PARALLEL = --numprocesses logical --maxprocesses 8
test: install  ## run the tests on all cores (three to six minutes on two)
	pytest $(PARALLEL) --dist worksteal

coverage: install  ## the same, and which lines of cifar2/ and stages/ none of them runs (half as long again)
	coverage erase
	coverage run -m pytest $(PARALLEL) --dist worksteal
	coverage report

test-slow: install  ## run the tests that need the real data, servers or minutes
	pytest -m slow --ignore tests/sweep/test_cluster.py $(PARALLEL) --dist loadfile --durations 30
	pytest -m slow tests/sweep/test_cluster.py --durations 10

# The report's test opens it in a real browser; without one it says so and is skipped.
browser: install  ## install what that test needs: Chromium (Debian's, as root) and axe-core (npm's)
	command -v chromium || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends chromium; }
	test -d $(VENV)/axe/node_modules/axe-core || npm install --silent --no-save --no-package-lock --prefix $(VENV)/axe axe-core@4.14.1

# Where an init system runs, Debian starts a server of its own with it, on port 22; the tests and the demo do not use it.
servers:  ## install what the tests of sharing need: an OpenSSH server (Debian's, as root)
	PATH="$$PATH:/usr/sbin" command -v sshd || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends openssh-server; }

share-demo: install  ## two people share results over a directory, S3 and SSH, or one of them: REMOTE=ssh
	python -m tools.share_demo $(REMOTE)

lint: install  ## check style (ruff), types (mypy) and the workflow (actionlint)
	ruff check
	ruff format --check
	mypy
	actionlint

stale: install  ## name what changed since dvc.lock was written, and the stages that must run again (needs no data)
	python -m tools.stale

audit: install  ## look up known vulnerabilities of the locked packages (bandit's rules are ruff's S, in lint)
	pip-audit --requirement requirements.txt --require-hashes --disable-pip --progress-spinner off

format: install  ## let ruff rewrite the code
	ruff check --fix
	ruff format

plots-page: install  ## write the page of `dvc plots` again, after an upgrade of vl-convert-python
	python -m tools.plots_page

readme: install  ## update the tables, code and transcripts in README.md and docs/, from the last commit
	python -m tools.readme

install:  ## create or repair .venv, from the locked, hashed requirements
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is no Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) tools/install.py

# uv reads no groups from a project that it does not manage.
COMPILE = uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" \
	$(UPGRADE) --output-file $(CURDIR)
lock: install  ## pin every dependency again (UPGRADE=--upgrade for the newest)
	mkdir -p $(VENV)/lock && grep -v '^managed = false' pyproject.toml > $(VENV)/lock/pyproject.toml
	cd $(VENV)/lock && $(COMPILE)/requirements.txt pyproject.toml --group dev --group remotes --group sweep --group transfer
	cd $(VENV)/lock && $(COMPILE)/requirements-uv.txt --group uv

clean:  ## delete the environment and the downloads, checkpoints and trials (DVC's cache stays)
	rm -rf $(VENV) data/raw .checkpoints .sweep
