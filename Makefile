# SPDX-License-Identifier: Apache-2.0
# make: the library, the tools and the providers in build/. See README.md.

BUILD ?= build
PREFIX ?= /usr/local
VERSION = 0.1.0
DESTDIR ?=
# Both are read below /usr and /usr/local; for another PREFIX say where.
UDEVDIR ?= $(PREFIX)/lib/udev/rules.d
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
CC = gcc
CFLAGS ?= -O2 -g
ALL_CFLAGS = -std=gnu11 -Wall -Wextra -Wshadow -Wconversion -Werror -fPIC -fvisibility=hidden \
	-fno-semantic-interposition -ftls-model=initial-exec -pthread -MMD -MP -Iinclude -Isrc \
	-DEMFATIER_VERSION='"$(VERSION)"' $(CFLAGS)
# What runs in somebody else's process brings no shared object of its own but libc.
STATIC_LIBS = -Wl,-Bstatic -linih -Wl,-Bdynamic
STATIC_CRYPTO = -Wl,-Bstatic -lcrypto -Wl,-Bdynamic -Wl,--exclude-libs,ALL -ldl

RT_SRC := $(wildcard src/*.c src/store/*.c src/policy/*.c)
RT_OBJ := $(RT_SRC:%.c=$(BUILD)/obj/%.o)
PRELOAD_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard preload/*.c))
PROVIDERS := $(patsubst src/provider/%.c,$(BUILD)/providers/%.so,$(wildcard src/provider/*.c))
CODECS := $(patsubst src/codec/%.c,$(BUILD)/providers/link-%.so,$(wildcard src/codec/*.c))
# Where nbdkit's header is; its name is how nbdkit finds it.
NBDKIT_PLUGIN := $(if $(wildcard /usr/include/nbdkit-plugin.h),$(BUILD)/nbdkit/nbdkit-emfatier-plugin.so)
UNIT := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/*.c)) $(BUILD)/tests/unit/sim
PROGS := $(patsubst tests/prog/%.c,$(BUILD)/tests/%,$(wildcard tests/prog/*.c))
BENCHES := $(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/*.c)) $(BUILD)/bench/policysim

PACKAGES = gcc make binutils libjemalloc-dev libinih-dev libxxhash-dev liburing-dev libnbd-dev libcmocka-dev \
	libncurses-dev libmicrohttpd-dev libssl-dev libisal-dev libnuma-dev \
	libibverbs-dev librdmacm-dev libseccomp-dev
CHECK_PACKAGES = $(PACKAGES) xz-utils tmux prometheus libcairo2 libcxl-dev libdaxctl-dev fonts-dejavu-core man-db nbdkit nbdkit-plugin-dev libnbd-bin redis-server redis-tools python3 nodejs procps util-linux
LONG_PACKAGES = $(CHECK_PACKAGES) gnuplot-nox g++ stress-ng fio memtester sqlite3 libpython3.11-testsuite python3-torch \
	libmimalloc-dev libgoogle-perftools-dev rustc golang-go openjdk-17-jdk-headless
BENCH_PACKAGES = $(PACKAGES) nbdkit nodejs npm redis-server redis-tools util-linux gnuplot-nox xz-utils
DEMO_PACKAGES = $(PACKAGES) nbdkit nodejs npm
FUZZ_PACKAGES = $(PACKAGES) clang-14 libclang-rt-14-dev

.PHONY: all check check-long check-vm fuzz debug demo bench install deb clean lint packages
all: packages
	$(MAKE) outputs
.PHONY: outputs
outputs: $(BUILD)/libemfatier.so $(BUILD)/emfatier $(BUILD)/tierstat $(BUILD)/emfatierd $(PROVIDERS) $(CODECS) \
	$(NBDKIT_PLUGIN) $(BUILD)/man/emfatier.conf.5

include tests/packages.mk

# --- the runtime ---

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c $< -o $@

$(BUILD)/librt_emf.a: $(RT_OBJ)
	rm -f $@
	ar rcs $@ $^

# jemalloc under names of our own, its mappings routed to preload/init.c, without its operator new.
JEMALLOC_A := $(shell $(CC) -print-file-name=libjemalloc_pic.a)
$(BUILD)/jemalloc/libje.a: preload/jemalloc.syms
	@mkdir -p $(@D)
	cp $(JEMALLOC_A) $@.tmp
	ar d $@.tmp jemalloc_cpp.pic.o
	objcopy --redefine-syms=$< $@.tmp
	mv $@.tmp $@

# The runtime, with the kernel's calls of preload/kernels.c.
$(BUILD)/librt_preload.a: $(BUILD)/librt_emf.a preload/runtime.syms
	objcopy --redefine-syms=preload/runtime.syms $< $@

$(BUILD)/libemfatier.so: $(PRELOAD_OBJ) $(BUILD)/librt_preload.a $(BUILD)/jemalloc/libje.a preload/exports.map
	$(CC) -shared -o $@ $(PRELOAD_OBJ) $(BUILD)/librt_preload.a $(BUILD)/jemalloc/libje.a $(STATIC_LIBS) \
		-Wl,--version-script=preload/exports.map -Wl,--exclude-libs,ALL -Wl,-z,now -Wl,-z,relro \
		-Wl,-z,nodelete -Wl,--no-undefined -Wl,--as-needed -pthread -ldl -lm

# With a liburing of its own: the preloaded library answers to the shared one's names (preload/dma.c).
$(BUILD)/providers/file.so: PROVIDER_LIBS = -Wl,-Bstatic -luring -Wl,-Bdynamic -Wl,--exclude-libs,ALL
$(BUILD)/providers/nbd.so: PROVIDER_LIBS = -lnbd
$(BUILD)/providers/numa.so: PROVIDER_LIBS = -lnuma
# With a private copy of libcrypto's HMAC; librdmacm is loaded by cm.c.
RDMA_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard src/provider/rdma/*.c))
$(BUILD)/providers/rdma.so: PROVIDER_LIBS = $(RDMA_OBJ) -libverbs $(STATIC_CRYPTO) -Wl,-z,nodelete -Wl,-Bsymbolic \
	-Wl,--gc-sections
$(BUILD)/providers/rdma.so: $(RDMA_OBJ)
$(BUILD)/providers/%.so: $(BUILD)/obj/src/provider/%.o
	@mkdir -p $(@D)
	$(CC) -shared -o $@ $< -Wl,-z,now -Wl,-z,relro -Wl,--no-undefined $(PROVIDER_LIBS) -pthread

# A private copy of libcrypto, all of it hidden: the program may use its own.
$(BUILD)/providers/link-crypt.so: CODEC_LIBS = $(STATIC_CRYPTO)
$(BUILD)/providers/link-parity.so: CODEC_LIBS = -lisal
$(BUILD)/providers/link-%.so: $(BUILD)/obj/src/codec/%.o
	@mkdir -p $(@D)
	$(CC) -shared -o $@ $< -Wl,-z,now -Wl,-z,relro -Wl,-z,nodelete -Wl,-Bsymbolic -Wl,--gc-sections \
		-Wl,--no-undefined $(CODEC_LIBS) -pthread

# --- the tools ---

tool_obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tools/$(1).c tools/$(1)/*.c))
$(BUILD)/emfatier: $(call tool_obj,emfatier) $(BUILD)/obj/tools/common/say.o \
		$(patsubst %,$(BUILD)/obj/tools/tierstat/%.o,segment text hist) $(BUILD)/librt_emf.a
	$(CC) -o $@ $^ $(STATIC_LIBS) -Wl,-z,now -pthread -ldl
# Where libcxl's and libdaxctl's headers are the compiler holds the declarations in it against them.
$(BUILD)/obj/tools/emfatier/topo_ndctl.o: ALL_CFLAGS += $(if $(wildcard /usr/include/cxl/libcxl.h),-DHAVE_LIBCXL_H) \
	$(if $(wildcard /usr/include/daxctl/libdaxctl.h),-DHAVE_LIBDAXCTL_H)
COMMON_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tools/common/*.c))
$(BUILD)/tierstat: $(call tool_obj,tierstat) $(COMMON_OBJ) $(BUILD)/librt_emf.a
	$(CC) -o $@ $^ $(STATIC_LIBS) -Wl,-Bstatic -lncursesw -ltinfo -Wl,-Bdynamic -Wl,-z,now -pthread -ldl

# The memory server: what it lends and to whom is apart from the wire, for tests and the NBD plugin.
LEND_OBJ := $(patsubst %,$(BUILD)/obj/%.o,tools/emfatierd/pool tools/emfatierd/lease tools/emfatierd/session \
	src/provider/rdma/wire src/provider/rdma/auth)
$(BUILD)/emfatierd: $(sort $(call tool_obj,emfatierd) $(LEND_OBJ)) $(COMMON_OBJ) $(BUILD)/librt_emf.a
	$(CC) -o $@ $^ -Wl,-z,now -Wl,-z,relro -lrdmacm -libverbs -lseccomp -lcrypto -pthread -ldl

$(BUILD)/obj/tools/nbdkit/plugin.o: ALL_CFLAGS += -Itools
$(BUILD)/nbdkit/nbdkit-emfatier-plugin.so: $(BUILD)/obj/tools/nbdkit/plugin.o \
		$(patsubst %,$(BUILD)/obj/%.o,tools/emfatierd/pool tools/emfatierd/lease src/provider/rdma/wire src/parse)
	@mkdir -p $(@D)
	$(CC) -shared -o $@ $^ -Wl,-z,now -Wl,-z,relro -Wl,-Bsymbolic -pthread

# The settings in the man page are those of the table of keys.
$(BUILD)/man/settings: $(BUILD)/obj/tools/man/settings.o $(BUILD)/librt_emf.a
	@mkdir -p $(@D)
	$(CC) -o $@ $^ $(STATIC_LIBS) -Wl,-z,now -pthread -ldl
$(BUILD)/man/emfatier.conf.5: tools/man/emfatier.conf.5.in $(BUILD)/man/settings
	$(BUILD)/man/settings <$< >$@.tmp
	mv $@.tmp $@

# --- tests and benchmarks ---

$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(BUILD)/librt_emf.a
	@mkdir -p $(@D)
	$(CC) -o $@ $< $(UNIT_EXTRA) $(BUILD)/librt_emf.a $(STATIC_LIBS) -lcmocka $(UNIT_LIBS) -pthread -ldl -lm
$(BUILD)/tests/unit/test_store_redundant: UNIT_EXTRA = -Wl,--export-dynamic-symbol=gf_mul
$(BUILD)/obj/tests/unit/test_lend.o: ALL_CFLAGS += -Itools
LEND_TESTS = $(patsubst %,$(BUILD)/tests/unit/test_%,wire lend nbdkit)
$(LEND_TESTS): UNIT_EXTRA = $(LEND_OBJ)
$(LEND_TESTS): UNIT_LIBS = -lcrypto
$(LEND_TESTS): $(LEND_OBJ)
# Server and client over a toy card, which takes the place of librdmacm and libibverbs.
TOY_CARD_OBJ = $(LEND_OBJ) $(COMMON_OBJ) $(patsubst %,$(BUILD)/obj/%.o,tools/emfatierd/metrics tools/emfatierd/notify \
	src/provider/rdma src/provider/rdma/path src/provider/rdma/odp src/provider/rdma/queue src/provider/rdma/resolve)
$(BUILD)/obj/tests/unit/test_verbs.o $(BUILD)/obj/tests/unit/test_nbdkit.o: ALL_CFLAGS += -Itools
$(BUILD)/tests/unit/test_verbs: UNIT_EXTRA = $(TOY_CARD_OBJ)
$(BUILD)/tests/unit/test_verbs: UNIT_LIBS = -lcrypto
$(BUILD)/tests/unit/test_verbs: $(TOY_CARD_OBJ)
$(BUILD)/tests/unit/test_stats_reader: UNIT_EXTRA = $(BUILD)/obj/tools/tierstat/segment.o
$(BUILD)/tests/unit/test_stats_reader: $(BUILD)/obj/tools/tierstat/segment.o

# In the lab only.
$(BUILD)/tests/vm/speed: $(BUILD)/obj/tests/vm/speed.o
	@mkdir -p $(@D)
	$(CC) -o $@ $< -lcmocka -ldl

# The simulator of policies: src/policy as it is, without pages. Its core is tested by test_policy.
POLICYSIM_CORE := $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out %/main.c,$(wildcard bench/policysim/*.c)))
$(BUILD)/bench/policysim: $(BUILD)/obj/bench/policysim/main.o $(POLICYSIM_CORE) $(BUILD)/librt_emf.a
	@mkdir -p $(@D)
	$(CC) -o $@ $^ $(STATIC_LIBS) -pthread -ldl -lm

$(BUILD)/bench/copies $(BUILD)/bench/store $(BUILD)/bench/tiers: $(BUILD)/bench/%: $(BUILD)/obj/bench/%.o $(BUILD)/librt_emf.a
	@mkdir -p $(@D)
	$(CC) -o $@ $^ $(STATIC_LIBS) -pthread -ldl -lm

$(BUILD)/tests/unit/test_policy: UNIT_EXTRA = $(POLICYSIM_CORE)
$(BUILD)/tests/unit/test_policy: $(POLICYSIM_CORE)

# The simulation, of both ways of faults: kernel, locks, log and the leaves of the store are its own, blocks have 64 pages.
SIM_CFLAGS = $(ALL_CFLAGS) -DEMF_DEBUG -DBLOCK_SHIFT=18 -DSLOT=262144u -DENGINE_SMALL_FRAMES=256 \
	-DPLACE_SAMPLE_NS=20000ull -DPLACE_SOON_NS=5000000ull -DPLACE_COLD_NS=1000000ull -DPLACE_EVIDENCE=1 -Ipreload
SIM_SRC := $(filter-out src/kernel.c src/away.c src/lock.c src/log.c src/store/store.c,$(RT_SRC)) $(wildcard tests/sim/*.c)
SIM_OBJ := $(SIM_SRC:%.c=$(BUILD)/sim/%.o) $(BUILD)/sim/mman.o
SIM_NAMES = mmap mmap64 munmap mremap madvise mprotect pkey_mprotect mlock mlock2 mlockall munlock \
	munlockall vmsplice
$(BUILD)/sim/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(SIM_CFLAGS) -c $< -o $@
$(BUILD)/sim/mman.o: $(BUILD)/sim/preload/mman.o
	objcopy $(foreach n,$(SIM_NAMES),--redefine-sym $(n)=sim_$(n)) $< $@
$(BUILD)/tests/unit/sim: $(SIM_OBJ)
	@mkdir -p $(@D)
	$(CC) -o $@ $^ $(STATIC_LIBS) -pthread -ldl

$(BUILD)/tests/%: tests/prog/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -Wall -Wextra -Wshadow -Werror -O2 -g -pthread -MMD -MP $< -o $@

$(BUILD)/bench/%: bench/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -Wall -Wextra -Wshadow -Werror -O2 -g -pthread -MMD -MP $< -o $@

# Clang's: the fuzzer, and the sanitizers that tell it of more than crashes.
FUZZ_CFLAGS = -std=gnu11 -g -O1 -Wall -Wextra -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	-Iinclude -Isrc -Itools
LEND_SRC = $(patsubst $(BUILD)/obj/%.o,%.c,$(LEND_OBJ)) src/parse.c
$(BUILD)/fuzz/%: tests/fuzz/%.c $(LEND_SRC) $(wildcard tools/emfatierd/*.h src/provider/rdma/*.h) \
		tools/nbdkit/plugin.c tests/fuzz/fuzz.h
	@mkdir -p $(@D)
	clang-14 $(FUZZ_CFLAGS) $< $(LEND_SRC) -o $@ -lcrypto

# FUZZ_SECONDS each.
FUZZ_SECONDS ?= 600
fuzz: packages-fuzz
	$(MAKE) outputs
	FUZZ_SECONDS=$(FUZZ_SECONDS) BUILD=$(BUILD) tests/cli/fuzz.sh

check: packages-check
	$(MAKE) outputs $(UNIT) $(PROGS) $(BUILD)/bench/policysim
	tests/run.sh $(BUILD)

# Real programs with far memory, half an hour or more: tests/long.
check-long: packages-long
	$(MAKE) outputs $(PROGS)
	TESTS=long tests/run.sh $(BUILD)

# What needs RDMA, or CXL memory: in emulated machines, ten minutes (CHECK_VM_MINUTES: at most). tests/vm/README.md.
check-vm: packages-check
	$(MAKE) outputs $(BUILD)/tests/integrity $(BUILD)/tests/words $(BUILD)/tests/place $(BUILD)/tests/mappings \
		$(BUILD)/tests/unit/test_rdma $(BUILD)/tests/vm/speed
	CHECK_VM_MINUTES=$(CHECK_VM_MINUTES) tests/vm/check.sh $(BUILD)

demo: packages-demo
	$(MAKE) outputs
	node bench/demo/demo.mjs

# With lock ranks, the audit of what is accounted for and UBSan, by a trap as nobody loads its
# runtime (ASan's has to come before a preloaded library); the tests are the same. What it puts in
# between keeps gcc from seeing that two strings are apart (-Wrestrict).
DEBUG_CFLAGS = -O2 -g -DEMF_DEBUG -fsanitize=undefined -fsanitize-undefined-trap-on-error -Wno-restrict
debug: packages-check
	$(MAKE) BUILD=build/debug CFLAGS='$(DEBUG_CFLAGS)' outputs
	$(MAKE) BUILD=build/debug CFLAGS='$(DEBUG_CFLAGS)' check

# BENCH: quick, names of benchmarks (node bench/bench.mjs --help tells them), or both.
bench: packages-bench
	$(MAKE) outputs $(BENCHES)
	node bench/bench.mjs --build $(BUILD) $(BENCH)

lint:
	clang-format --dry-run -Werror $(wildcard src/*.[ch] src/*/*.[ch] src/*/*/*.[ch] include/*.h preload/*.[ch])
	cppcheck -q --error-exitcode=1 --enable=warning,portability --inline-suppr -Iinclude -Isrc src preload tools

SHARE = $(DESTDIR)$(PREFIX)/share
# Where systemd and bash look; for another PREFIX than /usr and /usr/local say where.
UNITDIR ?= $(PREFIX)/lib/systemd/system
COMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions
NBDKITDIR ?= $(PREFIX)/lib/emfatier/nbdkit
PKGCONFIGDIR ?= $(PREFIX)/lib/pkgconfig
filled = sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@VERSION@|$(VERSION)|g'
MAN_ALIASES = emfatier-run:emfatier emfatier-check:emfatier emfatier-ctl:emfatier emfatier-doctor:emfatier emfatier-topo:emfatier \
	$(foreach c,top why regions stores hist heatmap plot record replay prom,tierstat-$(c):tierstat)

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/emfatier/providers \
		$(DESTDIR)$(PREFIX)/include $(SHARE)/emfatier/policies $(SHARE)/emfatier/grafana \
		$(SHARE)/man/man1 $(SHARE)/man/man5 $(SHARE)/man/man8 $(SHARE)/doc/emfatier/examples \
		$(DESTDIR)$(PKGCONFIGDIR) $(DESTDIR)$(UNITDIR) $(DESTDIR)$(COMPLETIONDIR)
	install -m 755 $(BUILD)/emfatier $(BUILD)/tierstat $(BUILD)/emfatierd $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(BUILD)/libemfatier.so $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(BUILD)/providers/*.so $(DESTDIR)$(PREFIX)/lib/emfatier/providers
	$(if $(NBDKIT_PLUGIN),install -D -m 755 $(NBDKIT_PLUGIN) $(DESTDIR)$(NBDKITDIR)/$(notdir $(NBDKIT_PLUGIN)))
	install -m 644 include/*.h $(DESTDIR)$(PREFIX)/include
	install -m 644 policies/*.conf $(SHARE)/emfatier/policies
	install -m 644 tools/grafana/emfatier.json $(SHARE)/emfatier/grafana
	install -m 644 tools/man/*.1 $(SHARE)/man/man1
	for a in $(MAN_ALIASES); do echo ".so man1/$${a#*:}.1" >$(SHARE)/man/man1/$${a%:*}.1; done
	install -m 644 $(BUILD)/man/emfatier.conf.5 $(SHARE)/man/man5
	install -m 644 tools/man/*.8 $(SHARE)/man/man8
	install -m 644 tools/completion/* $(DESTDIR)$(COMPLETIONDIR)
	install -m 755 tools/examples/*.sh $(SHARE)/doc/emfatier/examples
	install -m 644 README.md $(SHARE)/doc/emfatier
	install -m 644 tools/examples/*.yaml tools/examples/*.service $(SHARE)/doc/emfatier/examples
	$(filled) tools/emfatier.pc.in >$(DESTDIR)$(PKGCONFIGDIR)/emfatier.pc
	for u in emfatier-prom emfatierd; do $(filled) tools/systemd/$$u.service.in >$(DESTDIR)$(UNITDIR)/$$u.service; done
	install -D -m 644 tools/60-emfatier.rules $(DESTDIR)$(UDEVDIR)/60-emfatier.rules
	install -D -m 644 tools/emfatier.sysusers $(DESTDIR)$(SYSUSERSDIR)/emfatier.conf

# build/emfatier_*.deb and build/emfatier-dev_*.deb, for Debian 12.
deb: all
	tools/deb/build.sh $(BUILD) $(VERSION)

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
