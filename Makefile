# A newcomer needs `make repro` and `make test`; `make help` lists the other targets.
# An old make looks up programs in its own PATH, not in the one set below, unless SHELL differs from the default.
SHELL := /bin/bash
VENV := .venv
# Set on the command line only, not in the environment: other programs read variables of these names too.
PYTHON := python3
JOBS :=
UPGRADE :=
MODULES :=
TORCH :=
SITE := site
# DVC needs the user's name, which is unknown in some containers.
export LOGNAME ?= $(shell id -un 2>/dev/null || id -u)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help install repro extended sweep compare exps watch tensorboard demo bench docs site links test coverage \
	test-slow browser servers lint hooks stale audit format plots-page readme lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

repro: install-pipeline  ## get CIFAR-10, run the stages that changed (JOBS at a time), show the metrics
	python -m tools.repro $(if $(JOBS),--jobs '$(JOBS)')
	dvc metrics show

extended: repro  ## run the extended pipeline: the CNN, fine-tuning, the ablation (one to two hours)
	cd extended && dvc repro && dvc metrics show

sweep: install-sweep  ## try many configurations on Ray (params.yaml: sweep), here or on the cluster at RAY_ADDRESS
	python stages/check_params.py
	dvc repro verify features
	python stages/sweep.py

compare: install-pipeline  ## compare the metrics of the last run with the committed ones
	python -m tools.compare

exps: install-pipeline  ## compare experiments: validation accuracy by configuration, selected configuration
	@python -m tools.exps

watch: install-pipeline  ## follow the training in progress, from another terminal
	@python -m tools.watch

tensorboard: install-tensorboard  ## draw the curves of the training in progress, in a browser
	@python -m tools.tensorboard

demo: install-demo  ## try the models on any image, on a page in the browser
	@python -m tools.demo

bench: install-test  ## measure the speed (Linux; MODULES="families scale pipeline" takes hours; benchmarks/record.json)
	python -m benchmarks $(MODULES)

SPHINX = sphinx-build --quiet --fresh-env --fail-on-warning --keep-going --conf-dir docs/site
docs: install-docs  ## build the documentation as a site (site/index.html)
	$(SPHINX) --doctree-dir $(VENV)/doctrees . '$(SITE)'

# The documentation's side bar then links to the report.
site: SPHINX += --define html_extra_path=../../metrics/report.html --html-define report=1
site: metrics/report.html docs  ## build the documentation and the report as a site (site/index.html)

metrics/report.html:
	@echo "error: $@ is missing; run \`make repro\`, or \`dvc pull\` if your team has it" >&2; exit 1

links: install-docs  ## look up the addresses in the documentation, on the internet
	$(SPHINX) --builder linkcheck --doctree-dir $(VENV)/doctrees . $(VENV)/links

# A process per core, at most eight: each takes a gigabyte of memory.  None is restarted: the new one would
# run the test again at which the last one ended.
PARALLEL = --numprocesses logical --maxprocesses 8 --max-worker-restart 0
test: install-test  ## run the tests on all cores
	pytest $(PARALLEL) --dist worksteal

coverage: install-test  ## run the tests (half as long again), and list the lines of cifar2/ and stages/ that they miss
	coverage erase
	coverage run -m pytest $(PARALLEL) --dist worksteal
	coverage report

test-slow: install-test  ## run the tests that start other programs or need the real data (half an hour)
	pytest -m slow --ignore tests/sweep/test_cluster.py $(PARALLEL) --dist loadfile --durations 30
	pytest -m slow tests/sweep/test_cluster.py --durations 10

# Some tests open the report, the demo and the site in a real browser; without a browser they are skipped.
browser: install  ## install Chromium (Debian, as root) and axe-core (npm), for the tests of report, demo and site
	command -v chromium || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends chromium; }
	test -d $(VENV)/axe/node_modules/axe-core || npm install --silent --no-save --no-package-lock --prefix $(VENV)/axe axe-core@4.14.1

# If an init system is running, Debian starts a server on port 22; the tests do not use it.
servers:  ## install an OpenSSH server (Debian, as root), for the tests of sharing
	PATH="$$PATH:/usr/sbin" command -v sshd || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends openssh-server; }

lint: install-lint  ## check style (ruff), types (mypy), workflows, the Dockerfile and files with a schema
	ruff check
	ruff format --check
	mypy
	actionlint
	hadolint Dockerfile
	check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	check-jsonschema --quiet --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml \
		.github/ISSUE_TEMPLATE/idea.yml
	check-jsonschema --quiet --builtin-schema vendor.citation-file-format CITATION.cff
	pre-commit validate-config

hooks: install-lint  ## let git run `make lint` before a commit, and DVC's hooks
	pre-commit install

stale: install-pipeline  ## list the changes since dvc.lock was written, and the stages to rerun (needs no data)
	python -m tools.stale

audit: install-audit  ## look up known vulnerabilities of the locked packages
	python -m tools.audit

format: install-lint  ## format the code (ruff)
	ruff check --fix
	ruff format

plots-page: install-pipeline  ## rewrite the page of `dvc plots` after an upgrade of vl-convert-python
	python -m tools.plots_page

readme: install-docs  ## update tables, code and transcripts in README.md and docs/ from the last commit; the notebook
	python -m tools.readme
	python -m tools.notebook

install: install-pipeline  ## install what `make repro` needs into .venv (TORCH=cpu: without GPU libraries)

# A group of pyproject.toml, besides those installed before: install-sweep, install-remotes, install-test, install-lint.
install-%:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is no Python 3.11 or newer; name one: make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) tools/install.py $(if $(TORCH),--torch '$(TORCH)') $*

COMPILE = uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" \
	$(UPGRADE) --output-file $(CURDIR)
# Installs nothing, as a package that was just added to pyproject.toml is not locked yet; `make install` gets uv.
lock:  ## pin every dependency again (UPGRADE=--upgrade for the newest)
	mkdir -p $(VENV)/groups && sed 's/^managed = false/managed = true/' pyproject.toml > $(VENV)/groups/pyproject.toml
	cd $(VENV)/groups && $(COMPILE)/requirements.txt pyproject.toml --group lint --group audit
	cd $(VENV)/groups && $(COMPILE)/requirements-uv.txt --group uv
	rm -f requirements-cpu.txt  # `make install TORCH=cpu` writes it again

clean:  ## delete the environment and the downloads, checkpoints and trials (DVC's cache stays)
	rm -rf $(VENV) .checkpoints .sweep
	git clean -fdXq data/raw
