# mailfs: plain make. Everything is built under build/<variant>/; build/mailfs is the program of the plain variant.
#
#   make [DEVELOPER=1] [SAN=address,undefined|thread] [CC=clang]    the program
#   make check        every test, installing what it needs          make check-all SEED=N   without bounds
#   make demo         a mount to try, with a server of its own      make bench   measurements
#   make install DESTDIR= PREFIX=/usr/local

VERSION := 0.1.0
CC ?= cc
PREFIX ?= /usr/local
COMMA := ,
VARIANT := $(if $(SAN),san-$(subst $(COMMA),-,$(SAN)),plain)
B := build/$(VARIANT)

ROOMS := base config mail net auth cache sync sync/imap sync/pop3 smtp control fs cli
SOURCES := $(wildcard $(ROOMS:%=src/%/*.c))
OBJECTS := $(SOURCES:src/%.c=$(B)/obj/%.o)
UNIT_TESTS := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/test_*.c))
CONTRACT_TESTS := $(patsubst tests/contract/%.c,$(B)/tests/contract/%,$(wildcard tests/contract/test_*.c))

PKGS := fuse3 openssl sqlite3 glib-2.0 libgsasl libidn2 zlib json-c mount
PKG_CFLAGS := $(patsubst -I%,-isystem %,$(shell pkg-config --cflags $(PKGS) 2>/dev/null))
# libetpan's own flags turn PIE off and name libraries it does not need
PKG_LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -letpan

CPPFLAGS += -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=312 -DMF_VERSION='"$(VERSION)"' -Isrc
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wmissing-declarations -Wold-style-definition \
	-Wwrite-strings -Wpointer-arith -Wcast-qual -Wundef -Wvla -Wformat=2 -Wimplicit-fallthrough -Wnull-dereference \
	-Wdouble-promotion -Wconversion -Wsign-conversion -Wredundant-decls -Wnested-externs -Winit-self -Wdate-time -Wswitch-enum \
	-Werror=implicit-function-declaration -Werror=incompatible-pointer-types -Werror=int-conversion -Werror=return-type -Werror=vla \
	$(if $(DEVELOPER),-Werror)
HARDEN := -fno-common -fvisibility=hidden -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIE
LDHARDEN := -pie -Wl,-z,relro,-z,now,-z,noexecstack
ifdef SAN
OPT := -O1 -g -fno-omit-frame-pointer -fsanitize=$(SAN) -fno-sanitize-recover=all
else
OPT := -O2 -g -D_FORTIFY_SOURCE=2
endif
CFLAGS_ALL := -std=gnu17 $(OPT) $(WARNINGS) $(HARDEN) -pthread $(PKG_CFLAGS) $(CFLAGS)
LDFLAGS_ALL := $(if $(SAN),-fsanitize=$(SAN)) $(LDHARDEN) -pthread $(LDFLAGS)

say = $(if $(V),,@echo '  $(1)  $(patsubst build/%,%,$@)';)

all: build/mailfs
.PHONY: all clean objects unit contract install uninstall

ifdef SAN
build/mailfs: $(B)/mailfs
else
build/mailfs: $(B)/mailfs
	@ln -sf plain/mailfs $@
endif

$(B)/libmailfs.a: $(OBJECTS)
	@rm -f $@ && ar qcs $@ $^
$(B)/mailfs: $(B)/obj/main.o $(B)/libmailfs.a
	$(call say,LD)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $^ $(PKG_LIBS)
$(B)/obj/%.o: src/%.c Makefile
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<
$(B)/tests/%: tests/%.c $(B)/libmailfs.a
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(CPPFLAGS) -Itests $(CFLAGS_ALL) -Wno-unknown-warning-option -Wno-format-truncation -MMD -MP -MF $@.d -MT $@ $(LDFLAGS_ALL) -o $@ $< $(B)/libmailfs.a $(PKG_LIBS) -lcmocka

objects: $(OBJECTS)
unit: $(UNIT_TESTS)
	@set -e; for t in $^; do echo "== $$t"; timeout 300 $$t; done
contract: $(CONTRACT_TESTS)
	@set -e; for t in $^; do echo "== $$t"; timeout 300 $$t; done
clean:
	rm -rf build

# DESTDIR and PREFIX as usual. mount(8) looks for its helpers in /sbin only.
BIN := $(DESTDIR)$(PREFIX)/bin
SHARE := $(DESTDIR)$(PREFIX)/share
SBIN := $(DESTDIR)/sbin
UNITS := $(DESTDIR)$(PREFIX)/lib/systemd/user
PAGES := $(wildcard man/*.[1-8])
page = $(SHARE)/man/man$(subst .,,$(suffix $(1)))/$(notdir $(1))
install: all
	install -D -m 755 build/plain/mailfs $(BIN)/mailfs
	install -d $(SBIN)
	ln -sf mailfs $(BIN)/mailfs-sendmail
	ln -sf $(PREFIX)/bin/mailfs $(SBIN)/mount.mailfs
	ln -sf $(PREFIX)/bin/mailfs $(SBIN)/mount.fuse.mailfs
	$(foreach p,$(PAGES),install -D -m 644 $(p) $(call page,$(p)) &&) true
	install -D -m 644 share/completion.bash $(SHARE)/bash-completion/completions/mailfs
	ln -sf mailfs $(SHARE)/bash-completion/completions/mailfs-sendmail
	install -D -m 644 share/completion.zsh $(SHARE)/zsh/site-functions/_mailfs
	install -d $(UNITS)
	sed 's|@PREFIX@|$(PREFIX)|g' share/mailfs@.service >$(UNITS)/mailfs@.service
uninstall:
	rm -f $(BIN)/mailfs $(BIN)/mailfs-sendmail $(SBIN)/mount.mailfs $(SBIN)/mount.fuse.mailfs $(foreach p,$(PAGES),$(call page,$(p))) \
		$(addprefix $(SHARE)/bash-completion/completions/,mailfs mailfs-sendmail) $(SHARE)/zsh/site-functions/_mailfs $(UNITS)/mailfs@.service

include tests/tests.mk

-include $(OBJECTS:.o=.d) $(B)/obj/main.d $(UNIT_TESTS:=.d) $(CONTRACT_TESTS:=.d)
