# make            build the release binary
# make test       everything that has to pass: checks, tests, documentation (CI runs this)
# make test-all   the same, and the long runs
# make bench      the numbers of docs/performance.md, as ratios measured in one run
# make setup      install what the tests use: Debian packages when root, Python packages under target/

CARGO ?= cargo
export RUSTDOCFLAGS = -D warnings
# Tests that cannot run here say so, and append a line to this file.
export LISTEND_TEST_SKIPS = $(CURDIR)/target/skipped-tests.txt

MAN_PAGES = $(wildcard man/*.[1-8])

.PHONY: all setup test test-all check fmt clippy doc man unit bench clean

all:
	$(CARGO) build --release

setup:
	sh scripts/test-setup

test: setup check

check: fmt clippy doc man unit

fmt:
	$(CARGO) fmt --check

clippy:
	$(CARGO) clippy --all-targets -- -D warnings

# nextest runs each test in a process of its own, which is what tests of signals and umask want;
# it does not run documentation tests.
unit:
	@mkdir -p target && : > $(LISTEND_TEST_SKIPS)
	if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) test --doc && $(CARGO) nextest run --no-fail-fast; \
	else \
		$(CARGO) test --no-fail-fast; \
	fi
	@skipped=$$(sort -u $(LISTEND_TEST_SKIPS) | wc -l); \
	echo "skipped on this machine: $$skipped"; sort -u $(LISTEND_TEST_SKIPS) | sed 's/^/  /'

doc:
	$(CARGO) doc --no-deps --document-private-items

man:
	@if command -v mandoc >/dev/null 2>&1; then \
		mandoc -T lint -W warning $(MAN_PAGES) && echo "man pages: clean"; \
	else \
		echo "skipped: mandoc is not installed, the man pages were not checked"; \
	fi

test-all: test
	LISTEND_TEST_LONG=1 $(CARGO) test --release --test soak -- --nocapture
	SIM_SEEDS=20000 $(CARGO) test --release --test sim
	PROPTEST_CASES=20000 $(CARGO) test --release --test config

bench:
	$(CARGO) bench --bench bench

clean:
	$(CARGO) clean
