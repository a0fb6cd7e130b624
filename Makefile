# Every target sets up what it needs in .venv, once: Python 3.11 or newer is all a fresh machine must have.
# (The library itself runs on Python 3.10; constraints.txt pins releases that do not. `make test CONSTRAINTS=` installs
# the newest that the Python at hand has.)

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
OLDEST_BIN := $(subst .venv,.venv-oldest,$(BIN))
PY := $(BIN)/python
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-browser oldest check docs docs-links package dist container bench gpu-compile gpu-report clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 13

demo: .venv/.installed-demo  ## rebuild a real photograph from another; the images go to out/
	@$(PY) examples/demo.py

test: .venv/.installed-all  ## run the tests
	@$(PY) -m pytest --numprocesses auto --dist worksteal

test-browser: .venv/.installed-browser  ## test the page in a browser (CHROMIUM=PATH); Chromium is installed, for root
	@browser=$$(tests/browser/chromium "$(CHROMIUM)") && PATCHATTN_BROWSER="$$browser" $(PY) -m pytest tests/browser

# One file for each part: importing, fields, similarities, search, attention, a tool.
OLDEST_TESTS := tests/test_package.py tests/test_deprecation.py tests/test_field.py tests/test_similarity.py \
	tests/matching/test_match.py tests/attention/test_patch.py tests/tasks/test_reconstruct.py

oldest: .venv-oldest/.installed  ## run a quick part of the tests with the oldest releases of all dependencies
	@$(OLDEST_BIN)/python -m pytest --numprocesses auto --dist worksteal --backends cpu,reference $(OLDEST_TESTS)

check: .venv/.installed-all  ## lint, format, types, direction of imports, words
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(BIN)/lint-imports
	@$(PY) tools/words.py

docs: .venv/.installed-docs  ## build the manual: out/docs/index.html
	@$(PY) -m sphinx --fresh-env --fail-on-warning --keep-going --quiet --doctree-dir out/docs-cache docs out/docs

docs-links: .venv/.installed-docs  ## ask every address that the manual leads to; needs the network
	@$(PY) -m sphinx --builder linkcheck --quiet --doctree-dir out/docs-cache docs out/docs-links

# All that is built bears the time of the last commit, so that building it again gives the same bytes; where there is no
# git, the time that hatchling has for that.
package dist: export SOURCE_DATE_EPOCH := $(or $(shell git log -1 --format=%ct 2>/dev/null),1580601600)

package: .venv/.installed-release  ## build wheel and sdist in out/dist; check what they hold, and that the wheel installs
	@rm -rf out/dist
	@$(PY) tools/build_kernels.py
	@# Each from the checkout: a wheel made of the sdist would lack the machine code.
	@$(PY) -m build --no-isolation --sdist --wheel --outdir out/dist . > /dev/null
	@$(PY) -m twine check --strict out/dist/*
	@$(PY) tools/package.py out/dist

dist: package  ## a release, short of the upload: the package built twice and compared, bill of materials, checksums, Hub kernel
	@$(PY) tools/reproduce.py out/dist
	@$(PY) tools/sbom.py out/dist
	@$(PY) tools/checksums.py out/dist
	@$(PY) tools/hub_kernel.py out/hub

container: .venv/.installed-release  ## follow the Containerfile with the wheel of `make package`, and try the page; minutes
	@$(PY) tools/container.py out/dist

bench: .venv/.installed-bench  ## measure the layers, faults and damaged files; with DATA=DIR (images, see the scripts' --help) search, SCRAM and errors too
	@$(PY) benchmarks/memory.py
	@$(PY) benchmarks/flops.py --results out
	@$(PY) benchmarks/features.py --results out
	@$(PY) benchmarks/table1.py --results out
	@$(PY) benchmarks/faults.py --results out
	@$(PY) benchmarks/fuzzing.py --results out
	@$(PY) benchmarks/sequences.py --results out
	@$(PY) benchmarks/block_selectors.py --results out
ifdef DATA
	@$(PY) benchmarks/transforms.py --images $(DATA)/bsds500 --results out
	@$(PY) benchmarks/search.py --data $(DATA) --plot out/search.png --json out/search.json
	@$(PY) benchmarks/scram.py --data $(DATA) --plots out/scram --json out/scram.json
	@$(PY) benchmarks/reconstruction.py --data $(DATA) --results out
	@$(PY) benchmarks/colorize.py --data $(DATA) --model default --results out
	@$(PY) benchmarks/colorization_tables.py --data $(DATA) --results out
	@$(PY) benchmarks/inpainting.py --data $(DATA) --set places2 bsds500 removal --results out
	@$(PY) benchmarks/inpainting_highres.py --data $(DATA) --results out
	@$(PY) benchmarks/inpainting_training.py --data $(DATA)/bsds500 --results out
	@$(PY) benchmarks/inpainting_network_scaling.py --data $(DATA) --results out
	@$(PY) benchmarks/superresolution.py --data $(DATA) --results out
	@$(PY) benchmarks/superresolution_large.py --data $(DATA) --results out
else
	@echo "Speed and cost are measured on images: make bench DATA=DIR"
endif

gpu-compile: .venv/.installed-all  ## build every GPU kernel for sm_80, sm_90, sm_100 and gfx942; no GPU is needed
	@$(PY) benchmarks/gpu_compile.py $(if $(QUICK),--quick,--results docs/results)

gpu-report: .venv/.installed-all  ## compare, time and rate every GPU kernel on this machine's GPU; MINUTES=8, RESUME=1 goes on
	@$(PY) benchmarks/gpu_report.py --results out/gpu_report --minutes $(or $(MINUTES),8) $(if $(RESUME),--resume)

clean:  ## remove .venv and what the tools leave behind
	rm -rf .venv .venv-oldest .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# A stamp is written after its installation succeeded, and only then.
.venv/.installed-demo: pyproject.toml $(CONSTRAINTS) | .venv/.created
	@echo "Installing patchattn and what the demo needs into .venv"
	@$(PIP_INSTALL) hatchling editables
	@$(PIP_INSTALL) --no-build-isolation --editable ".[tools]" scikit-image
	@touch $@

.venv/.installed-all: pyproject.toml $(CONSTRAINTS) | .venv/.created
	@echo "Installing patchattn and all development tools into .venv"
	@$(PIP_INSTALL) hatchling editables
	@$(PIP_INSTALL) --no-build-isolation --editable ".[tools,video,train,test,dev,baselines]"
	@touch .venv/.installed-demo $@

.venv/.installed-browser: pyproject.toml $(CONSTRAINTS) | .venv/.created
	@echo "Installing patchattn, the page and what drives a browser into .venv"
	@$(PIP_INSTALL) hatchling editables
	@$(PIP_INSTALL) --no-build-isolation --editable ".[browser]"
	@touch .venv/.installed-demo $@

.venv/.installed-docs: pyproject.toml $(CONSTRAINTS) | .venv/.created
	@echo "Installing patchattn and what builds the manual into .venv"
	@$(PIP_INSTALL) hatchling editables
	@$(PIP_INSTALL) --no-build-isolation --editable ".[tools,video,train,docs]"
	@touch $@

.venv/.installed-release: pyproject.toml $(CONSTRAINTS) | .venv/.created
	@echo "Installing what builds and checks packages into .venv"
	@$(PIP_INSTALL) hatchling editables
	@$(PIP_INSTALL) --no-build-isolation --editable ".[release]"
	@touch $@

.venv/.installed-bench: pyproject.toml $(CONSTRAINTS) | .venv/.created
	@echo "Installing patchattn, all development tools and what the benchmarks compare with into .venv"
	@# Some are built here from source, each with build tools of its own.
	@$(PIP_INSTALL) --editable ".[tools,video,train,test,dev,baselines,bench]"
	@touch .venv/.installed-demo .venv/.installed-all $@

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, $(if $(CONSTRAINTS),11,10)) or sys.exit("Python 3.$(if $(CONSTRAINTS),11,10) or newer is needed here, this is " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@touch $@

# Tests need no old releases of what they are written with, but such as go with NumPy 1. A host whose pip knows PyTorch's
# index of builds without CUDA downloads a tenth.
.venv-oldest/.installed: pyproject.toml tools/oldest.py
	@echo "Installing the oldest releases that pyproject.toml allows into .venv-oldest"
	@rm -rf .venv-oldest
	@$(PYTHON) -m venv .venv-oldest
	@$(OLDEST_BIN)/python tools/oldest.py tools > .venv-oldest/oldest.txt
	@# Of thousands of files few are imported; Python compiles those.
	@$(OLDEST_BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r .venv-oldest/oldest.txt \
		hatchling editables pytest pytest-xdist hypothesis beartype scikit-image
	@$(OLDEST_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
