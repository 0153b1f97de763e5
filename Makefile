# make run: start the service    make test: check everything
# make quick: lint, types and the unit tests that are not marked `thorough`
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Another Python than that of the virtual environment would be ignored without a word.
ifeq ($(origin PYTHON),command line)
VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
ifneq ($(wildcard $(BIN)/python),)
ifneq ($(shell $(PYTHON) $(VERSION)),$(shell $(BIN)/python $(VERSION)))
$(error $(VENV) has Python $(shell $(BIN)/python $(VERSION)). Add VENV=.venv-$(shell $(PYTHON) $(VERSION)) to use $(PYTHON) beside it, or remove $(VENV) by make clean)
endif
endif
endif
# The tests start some 300 Python processes. Each would compile the project again.
unexport PYTHONDONTWRITEBYTECODE
# Invented settings for the mode with a login. They override a `.env` file.
ON_A_NETWORK := HOST=0.0.0.0 ALLOWED_HOSTS=panel.example.com DEBUG=0 REQUIRE_LOGIN=1 \
	SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(48))') \
	SECURE_PROXY_SSL_HEADER='X-Forwarded-Proto: https' DATABASE_URL=sqlite://:memory: REDIS_URL=unix:///nowhere/redis.sock

# Eight test processes share the processors, so a test that waits for a process may fail by load alone. Failed tests run
# once more, one at a time: a failure that repeats counts.
RERUN := $(BIN)/python -m pytest --last-failed --last-failed-no-failures none

# Independent of each other: three run at a time. Each prints its output in one piece, if this make can do so.
AT_ONCE = $(MAKE) --no-print-directory --jobs 3 $(if $(filter output-sync,$(.FEATURES)),--output-sync)
LINTS := lint-types lint-security lint-settings lint-network lint-style lint-layers lint-page

.PHONY: run test test-postgres test-deploy quick lint $(LINTS) audit bench bench-quick soak requirements upgrade clean

run: $(VENV)/installed
	@$(BIN)/python manage.py up

test: $(VENV)/installed-dev
	@$(AT_ONCE) $(LINTS) audit
	$(BIN)/python -m pytest --numprocesses 8 --dist loadfile --no-loadscope-reorder || $(RERUN)

# The same tests on a PostgreSQL of their own (Debian: postgresql), on a socket. Those about SQLite's file are skipped.
test-postgres: $(VENV)/installed-dev
	$(BIN)/python -m tests.on_postgresql --numprocesses 6 --dist loadfile --no-loadscope-reorder

# deploy/ for real: the image and its services, the units under a systemd, the sites. 10 minutes and 5 GB in /var/tmp.
# Needs root, a registry of Debian's and of Python's packages, and what it finds missing it names and skips. Debian:
# buildah podman runc netavark aardvark-dns docker-compose debootstrap systemd-container caddy chromium-headless-shell
test-deploy: $(VENV)/installed-dev
	$(BIN)/python -m pytest tests/deploy -rs

quick: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder --hypothesis-profile quick \
		-m 'not thorough' --ignore tests/system --ignore tests/browser

lint: $(VENV)/installed-dev
	@$(AT_ONCE) $(LINTS)

lint-style:
	$(BIN)/ruff check
	$(BIN)/ruff format --check

lint-types:
	$(BIN)/mypy

lint-layers:
	$(BIN)/lint-imports

lint-security:
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml instances novita_site manage.py

lint-settings:
	$(BIN)/python manage.py check --fail-level WARNING
	$(BIN)/python manage.py makemigrations --check --dry-run

lint-network:
	@echo 'manage.py check --deploy, as on a network'
	@$(ON_A_NETWORK) $(BIN)/python manage.py check --deploy --fail-level WARNING

# The page's scripts and styles, by biome (biome.json). Without npm, or a registry to install it from, they are skipped.
lint-page:
	@if ! command -v npm >/dev/null; then echo 'lint-page is skipped: npm is missing'; \
	elif ! [ node_modules/.package-lock.json -nt package-lock.json ] && \
		! npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --fetch-retries=1 --fetch-timeout=30000; then \
		echo 'lint-page is skipped: biome could not be installed'; \
	else node_modules/.bin/biome lint --error-on-warnings; fi

# Known vulnerabilities in the packages of both files.
audit: $(VENV)/installed-dev
	$(BIN)/python .ci/audit.py --requirement requirements.txt --requirement requirements-dev.txt

# 7 to 15 minutes, and 2. PEER=folder of a comparable program, to measure both in one run.
bench: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks $(if $(PEER),--peer $(PEER))

bench-quick: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks --quick $(if $(PEER),--peer $(PEER))

# 10 minutes of use while processes are killed (MINUTES=2 for a trial); the same SEED repeats the kills.
soak: $(VENV)/installed-dev
	$(BIN)/python -m soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

# A stamp for each file: a virtual environment made by `make run` gets the rest at the first `make test`.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11, 3.12 or 3.13 is needed; this is %d.%d. Name one: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --requirement requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	$(INSTALL) --requirement requirements.txt --requirement requirements-dev.txt
	@touch $@

# Compile the .in files again, without this machine's own pip settings (local wheels, another index). Versions stay, as
# far as they can; `make upgrade` takes the newest ones.
COMPILE = PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= $(BIN)/pip-compile --quiet $(UPGRADE) \
	--strip-extras --generate-hashes --allow-unsafe --no-annotate --no-emit-index-url --no-emit-find-links \
	--no-emit-trusted-host

requirements: $(VENV)/installed-dev
	$(COMPILE) --output-file requirements.txt requirements.in
	$(COMPILE) --output-file requirements-dev.txt requirements-dev.in

upgrade: UPGRADE := --upgrade
upgrade: requirements

clean:
	rm -rf $(VENV) node_modules var .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
