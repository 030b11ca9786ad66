# SPDX-License-Identifier: Apache-2.0
# Set-up of a fresh Debian 12 machine: what is missing comes through apt-get, once.
# A command that is there counts whatever package it came from (nodejs may be a vendor's).

missing = $(shell for p in $(1); do \
	case $$p in (nodejs) command -v node ;; (npm|gcc|g++|make) command -v $$p ;; \
	(openjdk-*) command -v javac ;; \
	(*) dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep 'install ok installed' ;; esac >/dev/null \
	|| echo $$p; done)

define ensure
@missing="$(strip $(call missing,$(1)))"; \
if [ -n "$$missing" ]; then \
	if [ "$$(id -u)" = 0 ]; then \
		echo "installing $$missing"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else \
		echo "missing packages; run: sudo apt-get install -y --no-install-recommends $$missing" >&2; exit 1; \
	fi; \
fi
endef

.PHONY: packages packages-check packages-long packages-demo packages-bench packages-fuzz
packages:
	$(call ensure,$(PACKAGES))
packages-check:
	$(call ensure,$(CHECK_PACKAGES))
packages-long:
	$(call ensure,$(LONG_PACKAGES))
packages-demo:
	$(call ensure,$(DEMO_PACKAGES))
packages-bench:
	$(call ensure,$(BENCH_PACKAGES))
packages-fuzz:
	$(call ensure,$(FUZZ_PACKAGES))
