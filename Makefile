# make            build the release binary
# make test       everything that must pass: checks, tests, documentation (CI runs this)
# make test-all   the same, and the long-running tests
# make install    install everything: DESTDIR, PREFIX, SYSCONFDIR, UNITDIR … see below
# make uninstall  remove it again, except for the configuration
# make deb, rpm   build packages in target/packages
# make dist       everything of a release, in target/packages: `source`, `vendor`, `tarball`, deb, rpm, `sbom`, checksums
# make deny       check the dependencies with cargo-deny (part of make test)
# make elsewhere  compile with the oldest Rust and dependencies, with musl and for aarch64, as far as installed
# make soak       one daemon under load against an adversary: MINUTES=60 SEED=…
# make bench      measure the numbers of docs/performance.md
# make setup      install what the tests need: Debian packages as root, Python packages in a cache

CARGO ?= cargo
export RUSTDOCFLAGS = -D warnings
# Tests that cannot run on this machine append a line to this file.
export LISTEND_TEST_SKIPS = $(CURDIR)/target/skipped-tests.txt

# CI retries a failed test, and reports it as flaky if it then passes.
# The lives that each simulation tries.
export SIM_SEEDS ?= 300
NEXTEST_FLAGS = --profile $(if $(CI),ci,full)

MAN_PAGES = $(wildcard man/*.[1-8])

.PHONY: all setup test test-all check fmt clippy deny doc man unit elsewhere soak bench clean
.PHONY: install install-openrc install-runit install-s6 uninstall stage deb rpm rpm-tool
.PHONY: dist portable source vendor tarball sbom

# Installation directories, below DESTDIR if it is set.
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/listend
DATADIR ?= $(PREFIX)/share/listend
UNITDIR ?= $(PREFIX)/lib/systemd/system
USERUNITDIR ?= $(PREFIX)/lib/systemd/user
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
BASHCOMPDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHCOMPDIR ?= $(PREFIX)/share/zsh/site-functions
FISHCOMPDIR ?= $(PREFIX)/share/fish/vendor_completions.d
OPENRCDIR ?= $(SYSCONFDIR)/init.d
OPENRCCONFDIR ?= $(SYSCONFDIR)/conf.d
RUNITDIR ?= $(SYSCONFDIR)/sv
S6DIR ?= $(SYSCONFDIR)/s6/sv

# The program to install, and the one that prints the completions: when listend is cross-compiled, the
# latter must be able to run on this machine.
LISTEND ?= target/release/listend
NATIVE_LISTEND ?= $(LISTEND)

all:
	$(CARGO) build --release

setup:
	sh scripts/test-setup

test: setup check

check: fmt clippy deny doc man unit

fmt:
	$(CARGO) fmt --check

clippy:
	$(CARGO) clippy --all-targets -- -D warnings

# Licences, sources and duplicates of the dependencies, from Cargo.lock alone; the list of advisories
# has to be fetched.
deny:
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
		echo "skipped: cargo-deny is not installed, the dependencies were not checked"; \
	else \
		$(CARGO) deny check bans licenses sources && \
		if $(CARGO) deny fetch db >/dev/null 2>&1; then \
			$(CARGO) deny check --disable-fetch advisories; \
		else \
			echo "skipped: the list of advisories cannot be fetched"; \
		fi; \
	fi

# nextest runs each test in its own process, as tests of signals and umask need.
unit:
	@mkdir -p target && : > $(LISTEND_TEST_SKIPS)
	@# Skipped tests are listed even if the run fails.
	@status=0; set -x; \
	if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --no-fail-fast $(NEXTEST_FLAGS) || status=$$?; \
	else \
		$(CARGO) test --no-fail-fast || status=$$?; \
	fi; set +x; \
	skipped=$$(sort -u $(LISTEND_TEST_SKIPS) | wc -l); \
	echo "skipped on this machine: $$skipped"; sort -u $(LISTEND_TEST_SKIPS) | sed 's/^/  /'; \
	exit $$status

doc:
	$(CARGO) doc --no-deps --document-private-items

man:
	@if command -v mandoc >/dev/null 2>&1; then \
		mandoc -T lint -W warning $(MAN_PAGES) && echo "man pages: clean"; \
	else \
		echo "skipped: mandoc is not installed, the man pages were not checked"; \
	fi

# Before the tests, which use it only if it is already installed.
rpm-tool:
	-sh scripts/package-tools cargo-generate-rpm

test-all: rpm-tool test elsewhere
	sh scripts/server-setup
	LISTEND_TEST_LONG=1 $(CARGO) test --release --test it servers::servers_take -- --nocapture
	LISTEND_TEST_LONG=1 $(CARGO) test --release --test it flows::quic:: -- --nocapture
	$(CARGO) test --release --test it web::browser::
	LISTEND_TEST_LONG=1 $(CARGO) test --release --test it soak:: -- --nocapture
	LISTEND_TEST_LONG=1 $(CARGO) test --release --test it booted::store:: -- --nocapture
	LISTEND_TEST_LONG=1 $(CARGO) test --release --test it survival:: -- --nocapture
	LISTEND_TEST_LONG=1 $(CARGO) test --release --test it upgrade::upgrades_under_load -- --nocapture
	SIM_SEEDS=20000 $(CARGO) test --release --test it sim::workers::
	PROPTEST_CASES=20000 $(CARGO) test --release --test it config::reading::
	@if $(CARGO) +nightly fuzz --version >/dev/null 2>&1; then fuzz/run 300; \
	else echo "skipped: nothing was fuzzed, without cargo-fuzz and a nightly compiler"; fi

elsewhere:
	sh scripts/check-elsewhere

# One daemon with every feature under load, and an adversary; the seed gives the order of its acts.
MINUTES ?= 60
SEED ?= $(shell date +%s)
soak:
	LISTEND_SOAK_MINUTES=$(MINUTES) LISTEND_SOAK_SEED=$(SEED) \
		$(CARGO) test --release --test it soak::chaos:: -- --nocapture

# With the programs that listend is compared with.
bench: setup
	$(CARGO) bench --bench bench

clean:
	$(CARGO) clean

# Adapts the paths in units and scripts, which are those of a system package, to this installation.
PLACES = sed -e 's|/usr/bin/listend|$(BINDIR)/listend|g' -e 's|/etc/listend|$(SYSCONFDIR)/listend|g' \
	-e 's|/usr/share/listend|$(DATADIR)|g'
# $(call place,MODE,FROM,TO)
place = install -d $(dir $(DESTDIR)$(3)) && $(PLACES) $(2) >$(DESTDIR)$(3) && chmod $(1) $(DESTDIR)$(3)

# $(call documents,FILES,TO): they name the program and its data where these are installed. Where the program looks
# for its configuration does not depend on that.
documents = for file in $(1); do \
	sed -e 's|/usr/bin/listend|$(BINDIR)/listend|g' -e 's|/usr/share/listend|$(DATADIR)|g' \
		$$file >$(DESTDIR)$(2)/$${file\#\#*/} && chmod 644 $(DESTDIR)$(2)/$${file\#\#*/} || exit 1; done

# Builds nothing, so that root does not run cargo: `make && sudo make install`.
install:
	@test -x $(LISTEND) || { echo '$(LISTEND) is not there: run `make` first' >&2; exit 1; }
	install -d $(DESTDIR)$(BINDIR)
	install -m 755 $(LISTEND) $(DESTDIR)$(BINDIR)/listend
	$(call place,644,units/listend.service,$(UNITDIR)/listend.service)
	$(call place,644,units/listend@.service,$(UNITDIR)/listend@.service)
	$(call place,644,units/user/listend.service,$(USERUNITDIR)/listend.service)
	$(call place,644,packaging/sysusers.d/listend.conf,$(SYSUSERSDIR)/listend.conf)
	$(call place,644,packaging/tmpfiles.d/listend.conf,$(TMPFILESDIR)/listend.conf)
	install -d $(DESTDIR)$(MANDIR)/man5 $(DESTDIR)$(MANDIR)/man7 $(DESTDIR)$(MANDIR)/man8
	$(call documents,man/*.5,$(MANDIR)/man5)
	$(call documents,man/*.7,$(MANDIR)/man7)
	$(call documents,man/*.8,$(MANDIR)/man8)
	install -d $(DESTDIR)$(BASHCOMPDIR) $(DESTDIR)$(ZSHCOMPDIR) $(DESTDIR)$(FISHCOMPDIR)
	$(NATIVE_LISTEND) completions bash >$(DESTDIR)$(BASHCOMPDIR)/listend
	$(NATIVE_LISTEND) completions zsh >$(DESTDIR)$(ZSHCOMPDIR)/_listend
	$(NATIVE_LISTEND) completions fish >$(DESTDIR)$(FISHCOMPDIR)/listend.fish
	chmod 644 $(DESTDIR)$(BASHCOMPDIR)/listend $(DESTDIR)$(ZSHCOMPDIR)/_listend \
		$(DESTDIR)$(FISHCOMPDIR)/listend.fish
	install -d $(DESTDIR)$(DOCDIR)/examples/workers
	$(call documents,README.md LICENSE-MIT LICENSE-APACHE docs/*.md,$(DOCDIR))
	$(call documents,examples/*.yaml examples/*.conf,$(DOCDIR)/examples)
	$(call documents,examples/workers/*,$(DOCDIR)/examples/workers)
	install -d $(DESTDIR)$(DATADIR)
	install -m 644 units/*.conf units/examples/* $(DESTDIR)$(DATADIR)
	$(NATIVE_LISTEND) schema >$(DESTDIR)$(DATADIR)/listend.schema.json
	chmod 644 $(DESTDIR)$(DATADIR)/listend.schema.json
	$(call place,644,packaging/upgrade-running,$(DATADIR)/upgrade-running)
	@# Packages cannot contain empty directories, so it has a README.
	$(call place,644,packaging/conf.d.README,$(SYSCONFDIR)/listend/conf.d/README)
	@# An existing configuration is never replaced.
	test -e $(DESTDIR)$(SYSCONFDIR)/listend/listend.yaml || \
		{ $(call documents,packaging/listend.yaml,$(SYSCONFDIR)/listend); }

# For machines without systemd; each in addition to `make install`.
install-openrc:
	$(call place,755,packaging/openrc/listend.initd,$(OPENRCDIR)/listend)
	test -e $(DESTDIR)$(OPENRCCONFDIR)/listend || \
		{ $(call place,644,packaging/openrc/listend.confd,$(OPENRCCONFDIR)/listend); }

install-runit:
	$(call place,755,packaging/runit/listend/run,$(RUNITDIR)/listend/run)
	$(call place,755,packaging/runit/listend/finish,$(RUNITDIR)/listend/finish)
	$(call place,755,packaging/runit/listend/control/h,$(RUNITDIR)/listend/control/h)

install-s6:
	$(call place,755,packaging/s6/listend/run,$(S6DIR)/listend/run)
	$(call place,755,packaging/s6/listend/finish,$(S6DIR)/listend/finish)
	$(call place,644,packaging/s6/listend/timeout-kill,$(S6DIR)/listend/timeout-kill)

# Keeps the configuration, including OpenRC's.
uninstall:
	rm -f $(DESTDIR)$(BINDIR)/listend
	rm -f $(DESTDIR)$(UNITDIR)/listend.service $(DESTDIR)$(UNITDIR)/listend@.service
	rm -f $(DESTDIR)$(USERUNITDIR)/listend.service
	rm -f $(DESTDIR)$(SYSUSERSDIR)/listend.conf $(DESTDIR)$(TMPFILESDIR)/listend.conf
	rm -f $(foreach page,$(MAN_PAGES),$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(notdir $(page)))
	rm -f $(DESTDIR)$(BASHCOMPDIR)/listend $(DESTDIR)$(ZSHCOMPDIR)/_listend
	rm -f $(DESTDIR)$(FISHCOMPDIR)/listend.fish
	rm -rf $(DESTDIR)$(DOCDIR) $(DESTDIR)$(DATADIR)
	rm -f $(DESTDIR)$(OPENRCDIR)/listend
	rm -rf $(DESTDIR)$(RUNITDIR)/listend $(DESTDIR)$(S6DIR)/listend

# The content of both kinds of packages.
STAGE = target/package
PACKAGES = target/packages
# Of cargo-deb and cargo-generate-rpm.
DEB_FLAGS ?=
RPM_FLAGS ?=
# Packages are reproducible: the same sources give the same package.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

STRIP ?= strip
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

stage:
	rm -rf $(STAGE)
	$(MAKE) install DESTDIR=$(STAGE) PREFIX=/usr
	$(STRIP) --strip-unneeded $(STAGE)/usr/bin/listend

# What a release consists of; see CONTRIBUTING.md. What cannot be built here is said, and left out.
dist:
	rm -rf $(PACKAGES)
	$(MAKE) portable
	$(MAKE) source vendor tarball deb rpm sbom LISTEND=$(PORTABLE)
	cd $(PACKAGES) && sha256sum -- * >SHA256SUMS && cat SHA256SUMS

# The oldest glibc that a release runs with: that of RHEL 8 and Debian 10. renameat2(2) came with it.
GLIBC ?= 2.28
MACHINE ?= $(shell uname -m)
PORTABLE = target/portable/listend

# Not with `-C target-feature=+crt-static`: a static glibc loads the libraries of nsswitch.conf(5) all the same, to
# look users and names up, and only those of its own version.
portable:
	@if $(CARGO) zigbuild --version >/dev/null 2>&1; then set -x; \
		$(CARGO) zigbuild --locked --release --bin listend --target $(MACHINE)-unknown-linux-gnu.$(GLIBC) && \
		install -D target/$(MACHINE)-unknown-linux-gnu/release/listend $(PORTABLE); \
	else \
		echo "cargo-zigbuild is not installed: the program will need the glibc of this machine"; set -x; \
		$(CARGO) build --locked --release --bin listend && install -D target/release/listend $(PORTABLE); \
	fi

# The same files make the same tarball.
PACK = tar --create --gzip --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$(SOURCE_DATE_EPOCH)

# Also what the packages of Alpine and Arch are built from.
source:
	mkdir -p $(PACKAGES)
	git archive --prefix=listend-$(VERSION)/ -o $(PACKAGES)/listend-$(VERSION).tar.gz HEAD

# The crates of Cargo.lock, to be unpacked over the source: it is built without a network then.
VENDOR = listend-$(VERSION)-vendor
vendor:
	rm -rf target/vendor
	mkdir -p target/vendor/listend-$(VERSION)/.cargo $(PACKAGES)
	cp .cargo/config.toml target/vendor/listend-$(VERSION)/.cargo
	cd target/vendor/listend-$(VERSION) && \
		$(CARGO) vendor --locked --manifest-path $(CURDIR)/Cargo.toml vendor >>.cargo/config.toml
	$(PACK) --directory target/vendor --file $(PACKAGES)/$(VENDOR).tar.gz listend-$(VERSION)
	rm -rf target/vendor

# The program with all that `make install` installs, and a script that places it.
TARBALL = listend-$(VERSION)-$(MACHINE)-linux-gnu
tarball:
	rm -rf target/tarball
	$(MAKE) install DESTDIR=target/tarball/$(TARBALL)/files PREFIX=/usr/local SYSCONFDIR=/etc
	$(STRIP) --strip-unneeded target/tarball/$(TARBALL)/files/usr/local/bin/listend
	install -m 755 packaging/tarball/install.sh target/tarball/$(TARBALL)
	install -m 644 README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE target/tarball/$(TARBALL)
	printf 'machine=%s\nglibc=%s\n' $(MACHINE) "$$(sh scripts/oldest-glibc $(LISTEND))" \
		>target/tarball/$(TARBALL)/requires
	mkdir -p $(PACKAGES)
	$(PACK) --directory target/tarball --file $(PACKAGES)/$(TARBALL).tar.gz $(TARBALL)

# What is linked into the program: a bill of materials in the format of CycloneDX.
sbom:
	mkdir -p $(PACKAGES)
	@if tool=$$(sh scripts/package-tools cargo-cyclonedx $(SBOM_FLAGS)); then set -x; \
		$$tool cyclonedx --format json --target $(MACHINE)-unknown-linux-gnu --override-filename listend-$(VERSION).cdx && \
		mv listend-$(VERSION).cdx.json $(PACKAGES); \
	else \
		echo "skipped: no bill of materials"; \
	fi

deb: stage
	mkdir -p $(PACKAGES)
	tool=$$(sh scripts/package-tools cargo-deb) && \
		$$tool deb --no-build --no-strip $(DEB_FLAGS) --output $(PACKAGES)

rpm: stage
	mkdir -p $(PACKAGES)
	tool=$$(sh scripts/package-tools cargo-generate-rpm) && \
		$$tool generate-rpm $(RPM_FLAGS) --output $(PACKAGES)
