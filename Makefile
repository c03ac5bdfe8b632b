# make quickstart   a small spoken corpus is made, trained on, compressed and decoded; ends with a WER table
# make test         the quick tests of both Python environments
# make docs         the docs site, in site/
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
UV = .venv/bin/python -m uv
COMPILE = $(UV) pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes \
          --custom-compile-command "make lock" $(LOCK_OPTIONS)

.PHONY: setup quickstart test test-slow lint docs lock clean

setup:
	@./setup.sh

quickstart: setup
	recipes/quickstart/run.sh

test: setup
	@local/test.sh

test-slow: setup
	@local/test.sh -m slow

lint: setup
	.venv/bin/python -m ruff check .
	.venv/bin/python -m mypy asrcompress
	find . -name '*.sh' -not -path './.venv*' -print0 | xargs -0 .venv/bin/shellcheck -x -P SCRIPTDIR:. .ci/run

docs: setup
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict

# LOCK_OPTIONS=--upgrade takes the newest versions. k2 keeps the one hash that requirements/k2.in explains.
lock: setup
	$(COMPILE) requirements/uv.in -o requirements/uv.txt
	$(COMPILE) requirements/main.in -o requirements/main.txt
	$(COMPILE) --no-emit-package k2 requirements/k2.in -o requirements/k2.txt
	grep '^k2==' requirements/k2.in >> requirements/k2.txt

clean:
	rm -rf .venv .venv-k2 .pytest_cache .ruff_cache .mypy_cache recipes/quickstart/data recipes/quickstart/exp site
