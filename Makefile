# Development of kinfolk. `make help` lists what there is to do.
#
# Everything runs in a virtual environment that the first command makes and later ones reuse: with uv when it is
# installed, else with Python's own venv and pip. It is set up again only when pyproject.toml, constraints.txt,
# PYTHON or the place of this directory changes.

VENV ?= .venv
PYTHON ?=
PYTEST_ARGS ?=
# Many tests wait for what other programs do: one worker more than there are processors.
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1) + 1)))

PY := $(VENV)/bin/python
# What an environment was made for is part of the stamp's name, so that a moved tree is set up afresh.
MADE_FOR := $(shell { pwd; echo "$(PYTHON)"; } | cksum | cut -d ' ' -f 1)
RUNTIME := $(VENV)/.ready-$(MADE_FOR)-runtime
TEST := $(VENV)/.ready-$(MADE_FOR)-test
CHECK := $(VENV)/.ready-$(MADE_FOR)-check
FUZZ := $(VENV)/.ready-$(MADE_FOR)-fuzz
DOCS := $(VENV)/.ready-$(MADE_FOR)-docs
SOAK := $(VENV)/.ready-$(MADE_FOR)-soak

# Measurements need what they are compared with, and nothing else does.
BENCH_VENV ?= .venv-bench
BENCH := $(BENCH_VENV)/.ready-$(MADE_FOR)-bench

# Tests of what is compiled run beside it as installed, not beside the sources.
COMPILED_VENV ?= .venv-compiled
COMPILED := $(COMPILED_VENV)/.ready-$(MADE_FOR)-compiled

MINUTES ?= 5

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check test-slow fuzz mutants soak docs bench bench-docs wheel-compiled test-compiled clean

help:
	@echo 'make demo       three nodes in three OS processes find each other, share names, die and return'
	@echo 'make test       the tests (PYTEST_ARGS="-k names -x" chooses among them)'
	@echo 'make check      lint, format, types and news: ruff, mypy, pyright, towncrier'
	@echo 'make test-slow  the tests that take long or need more than Python packages'
	@echo 'make soak       five processes under steady work and faults (MINUTES=30), on both event loops'
	@echo 'make fuzz       feed codec, handshake, sessions and a node with made-up bytes (MINUTES=5)'
	@echo 'make mutants    break each guarantee once, and see a test notice'
	@echo 'make docs       the documentation, into build/docs'
	@echo 'make bench      measure beside references, all in 15 minutes (ONLY=lookup,call a part, ROUNDS=3 fewer rounds)'
	@echo 'make wheel-compiled  a wheel of the same source whose hot modules are compiled; make test-compiled tests it'
	@echo 'make bench-docs tables and pictures of docs/performance.md from the last measurement'
	@echo 'make clean      remove the virtual environment, caches and builds'
	@echo
	@echo 'PYTHON=/path/to/python3.12 chooses the interpreter (3.11 or newer), VENV=dir the environment ($(VENV)).'

demo: $(RUNTIME)
	@$(PY) -m kinfolk demo

test: $(TEST)
	@$(PY) -m pytest $(or $(PYTEST_ARGS),-n $(WORKERS))

check: $(CHECK)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy --python-executable $(PY)
	$(PY) -m pyright --pythonpath $(PY)
	$(PY) -m towncrier build --draft --version Unreleased >/dev/null

# pytest ends with 5 when nothing was selected; every other end is passed on.
test-slow: $(FUZZ)
	@$(PY) -m pytest -m slow --timeout=600 $(or $(PYTEST_ARGS),-n auto) || test $$? -eq 5

fuzz: $(FUZZ)
	@$(PY) -m tests.fuzz --minutes $(MINUTES) $(FUZZ_ARGS)

mutants: $(TEST)
	@$(PY) -m tests.mutants

soak: $(SOAK)
	@$(PY) -m tests.soak --minutes $(or $(MINUTES),30)

# Warnings are errors, references that lead nowhere among them.
docs: $(DOCS)
	$(PY) -m sphinx --fail-on-warning --keep-going -q -b html docs build/docs
	@echo 'Open build/docs/index.html'

bench: $(BENCH)
	@$(BENCH_VENV)/bin/python -m bench --rounds $(or $(ROUNDS),5) $(ONLY)

bench-docs: $(BENCH)
	@$(BENCH_VENV)/bin/python -m bench.document

# The same source with its hot modules compiled (see pyproject.toml): a wheel for this Python and this kind of machine. It
# is built from a copy, or what the compiler leaves beside the sources would be imported in their place.
wheel-compiled: $(RUNTIME)
	@set -eu; rm -rf build/compiled; mkdir -p build/compiled/tree build/compiled/wheel; \
	cp -r pyproject.toml README.md LICENSE src build/compiled/tree; \
	if uv=$$(command -v uv); then HATCH_BUILD_HOOK_ENABLE_MYPYC=1 "$$uv" build --quiet --wheel --python "$(PY)" --out-dir build/compiled/wheel build/compiled/tree; \
	else HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(PY) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/compiled/wheel build/compiled/tree; fi; \
	mkdir -p dist; cp build/compiled/wheel/*.whl dist; echo dist/$$(basename build/compiled/wheel/*.whl)

test-compiled: wheel-compiled $(COMPILED)
	@if uv=$$(command -v uv); then "$$uv" pip install --quiet --python $(COMPILED_VENV)/bin/python --no-deps --reinstall build/compiled/wheel/*.whl; \
	else $(COMPILED_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall build/compiled/wheel/*.whl; fi
	@$(COMPILED_VENV)/bin/python -c 'import kinfolk.kernel as it; assert it.__file__.endswith((".so", ".pyd")), it.__file__'
	@$(COMPILED_VENV)/bin/python -m pytest $(or $(PYTEST_ARGS),-n $(WORKERS))

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(COMPILED_VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): pyproject.toml constraints.txt
	$(call set-up,.)

$(TEST): pyproject.toml constraints.txt
	$(call set-up,.[test])

$(CHECK): pyproject.toml constraints.txt
	$(call set-up,.[test$(comma)check])

$(SOAK): pyproject.toml constraints.txt
	$(call set-up,.[test$(comma)fast])

$(FUZZ): pyproject.toml constraints.txt
	$(call set-up,.[test$(comma)fuzz$(comma)slow])

$(DOCS): pyproject.toml constraints.txt
	$(call set-up,.[docs])

# Each reference is installed for itself: one that cannot be is reported as missing, and the others are measured.
$(BENCH): VENV := $(BENCH_VENV)
$(BENCH): PY := $(BENCH_VENV)/bin/python
$(BENCH): pyproject.toml constraints.txt bench/requirements.txt
	$(call set-up,.[fast])
	@uv=$$(command -v uv) || uv=; \
	grep -v '^#' bench/requirements.txt | while read -r wanted; do \
	    echo "Installing $$wanted ..."; \
	    if [ -n "$$uv" ]; then "$$uv" pip install --quiet --python "$(PY)" "$$wanted"; \
	    else "$(PY)" -m pip install --quiet --disable-pip-version-check "$$wanted"; fi \
	    || echo "$$wanted cannot be installed: what needs it will be reported as missing."; \
	done

$(COMPILED): VENV := $(COMPILED_VENV)
$(COMPILED): PY := $(COMPILED_VENV)/bin/python
$(COMPILED): pyproject.toml constraints.txt
	$(call set-up,.[test])

comma := ,

# $(call set-up,WHAT): find a Python, make the environment unless a fitting one is there, install WHAT into it.
define set-up
@set -eu; \
python=; too_old=; \
for candidate in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
    version=$$("$$candidate" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue; \
    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then python=$$candidate; break; fi; \
    too_old="$${too_old:+$$too_old and }$$candidate is $$version"; \
done; \
if [ -z "$$python" ] && [ -n "$$too_old" ]; then \
    echo "kinfolk needs Python 3.11 or newer, but $$too_old: install a newer one, or name it with make PYTHON=/path/to/python3." >&2; exit 1; \
elif [ -z "$$python" ]; then \
    echo "kinfolk needs Python 3.11 or newer, and no $(or $(PYTHON),python3) runs here: install one, or name it with make PYTHON=/path/to/python3." >&2; exit 1; \
fi; \
uv=$$(command -v uv) || uv=; \
if [ -z "$$uv" ] && ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
    echo "$$python has no venv module: install it (on Debian and Ubuntu: apt install python3-venv), or install uv." >&2; exit 1; \
fi; \
wanted=$$("$$python" -c 'import sys; print(sys.version_info[:2])'); \
if [ "$$("$(PY)" -c 'import sys; print(sys.version_info[:2])' 2>/dev/null || true)" != "$$wanted" ]; then \
    echo "Making $(VENV) with $$python $$version ..."; \
    if [ -n "$$uv" ]; then UV_VENV_CLEAR=1 "$$uv" venv --quiet --python "$$python" "$(VENV)"; \
    else "$$python" -m venv --clear "$(VENV)"; fi; \
fi; \
echo "Installing $(1) into $(VENV) ..."; \
if [ -n "$$uv" ]; then "$$uv" pip install --quiet --python "$(PY)" --constraint constraints.txt --editable '$(1)'; \
else \
    "$(PY)" -m pip --version >/dev/null 2>&1 || "$(PY)" -m ensurepip >/dev/null; \
    "$(PY)" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '$(1)'; \
fi; \
touch "$@"
endef
