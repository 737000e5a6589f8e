# make run    sets everything up, builds, then builds an image and runs it as a pod, showing each command
# make test   sets everything up, builds, runs all tests, linters and type checkers among them
# make build  what is C, in place, and an editable install into .venv; only what changed
# make wheel  dist/*.whl, the same bytes for the same commit
# make bench  the tables of docs/performance.md, beside the peers
# make clean  removes what was built; `make distclean` also removes .venv

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

# By its path: the first `python3` on PATH may be a shim of a version manager.
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check --quiet

# Debian's packages. What is needed to build and run; to test; to measure against.
BUILD_PACKAGES := ca-certificates gcc libc6-dev musl-tools python3-dev python3-venv libcap-dev libseccomp-dev \
	zlib1g-dev libzstd-dev liblzma-dev libbz2-dev libisal-dev libssl-dev
RUN_PACKAGES := busybox-static libisal2 nftables
TEST_PACKAGES := attr binutils bzip2 clang git iproute2 libarchive-tools procps strace util-linux xz-utils zstd
ifeq ($(shell uname -m),x86_64)
# cgroup v2 with all controllers, where the host's are v1's.
TEST_PACKAGES += user-mode-linux
endif
PEER_PACKAGES := crun podman runc skopeo umoci

# $(call install,PACKAGES): what of them is missing; no network and no root when nothing is.
install = missing=$$(comm -13 \
	<(dpkg-query -Wf '$${db:Status-Status} $${Package}\n' $(1) 2>/dev/null | sed -n 's/^installed //p' | sort -u) \
	<(printf '%s\n' $(1) | sort -u)); \
	if [ -n "$$missing" ] && ! command -v apt-get >/dev/null; then \
		echo "Not a Debian: assuming that this is here under its names:" $$missing; \
	elif [ -n "$$missing" ]; then \
		echo "Installing" $$missing; \
		apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
	fi

.PHONY: run test build wheel bench clean distclean build-packages
.DELETE_ON_ERROR:

run: build
	@$(call install,$(RUN_PACKAGES))
	@RKT=$(CURDIR)/$(BIN)/rkt-py docs/demo.sh

test: build $(VENV)/.dev
	@$(call install,$(RUN_PACKAGES) $(TEST_PACKAGES) $(PEER_PACKAGES))
	@$(BIN)/python -m pytest $(PYTEST)

build: build/.built

# The last line: a launcher in .venv/bin that is older than the tree's would still be what tests run.
build/.built: setup.py $(wildcard csrc/*) $(VENV)/.installed
	@mkdir -p build
	@$(BIN)/python setup.py --quiet build_ext --inplace
	@cmp -s rkt_py/bin/rkt-py $(BIN)/rkt-py || install -m 755 rkt_py/bin/rkt-py $(BIN)/rkt-py
	@touch $@

build-packages:
	@$(call install,$(BUILD_PACKAGES))

$(VENV)/bin/python: | build-packages
	@$(PYTHON) -m venv $(VENV)

# Without build isolation, which would fetch setuptools and cffi again for each build.
$(VENV)/.installed: pyproject.toml | build-packages $(VENV)/bin/python
	@$(PIP) install 'setuptools>=77' wheel 'cffi>=1.17'
	@$(PIP) install --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.installed
	@$(PIP) install $$($(BIN)/python -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["dev"])')
	@touch $@

wheel: $(VENV)/.installed
	@rm -rf build/lib.* build/bdist.*
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(PIP) wheel --no-deps --no-build-isolation -w dist .
	@ls -l dist/*.whl

bench: build $(VENV)/.dev
	@$(call install,$(RUN_PACKAGES) $(TEST_PACKAGES) $(PEER_PACKAGES))
	@for table in benchmarks/[!_]*.py; do echo "== $$table"; $(BIN)/python $$table; done

clean:
	rm -rf build dist *.egg-info rkt_py/bin runtime/*.so

distclean: clean
	rm -rf $(VENV)
