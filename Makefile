# foundation_native: one Makefile for every way of building it. `make help` lists the targets.
#
# What may be overridden (environment or command line):
#   CC CFLAGS CPPFLAGS LDFLAGS       compiler; the user's flags come after ours
#   ERTS_INCLUDE_DIR                 folder of erl_nif.h                     (default: asked of `erl`)
#   ERL_EI_INCLUDE_DIR ERL_EI_LIBDIR folders of ei.h and libei.a             (default: asked of `erl`)
#   MIX_APP_PATH                     set by Mix: objects go to $(MIX_APP_PATH)/obj, else to _build/c
#   PRIV                             where the results go                    (default: priv)
#   SANITIZE                         address,undefined or thread: an instrumented build in a folder of its own
#   INPUT                            make demo: the folder to digest         (default: the installed Erlang/OTP tree)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
SHELL := /bin/sh

PARTS := limiter snapshot flags
PRIV ?= priv
comma := ,

ifdef MIX_APP_PATH
OBJ ?= $(MIX_APP_PATH)/obj
else
OBJ ?= _build/c
endif
ifdef SANITIZE
OBJ := $(OBJ)-$(subst $(comma),-,$(SANITIZE))
endif

# ---- where Erlang is -------------------------------------------------------------------------------------------------------------
# rebar3 and Mix tell; otherwise ask `erl` once. Goals that build nothing do not ask.
NO_BUILD_GOALS := help clean clean-native setup demo test test-all check check-rest gate format test-layers test-packaging test-asan test-otp27 test-model model-long
ifneq ($(filter-out $(NO_BUILD_GOALS),$(or $(MAKECMDGOALS),all)),)
ifndef ERTS_INCLUDE_DIR
ifdef ERLANG_ROOT_DIR
ERTS_INCLUDE_DIR := $(ERLANG_ROOT_DIR)/erts-$(ERLANG_ERTS_VER)/include
endif
endif
ifndef ERL_EI_INCLUDE_DIR
ifdef ERLANG_LIB_DIR_erl_interface
ERL_EI_INCLUDE_DIR := $(ERLANG_LIB_DIR_erl_interface)/include
ERL_EI_LIBDIR ?= $(ERLANG_LIB_DIR_erl_interface)/lib
endif
endif
ifeq ($(and $(ERTS_INCLUDE_DIR),$(ERL_EI_INCLUDE_DIR),$(ERL_EI_LIBDIR)),)
ERL_DIRS := $(shell erl -noshell -noinput -eval 'io:format("~ts/erts-~ts/include ~ts", [code:root_dir(), erlang:system_info(version), \
	case code:lib_dir(erl_interface) of {error, _} -> "missing"; D -> D end]), halt().' 2>/dev/null)
ERTS_INCLUDE_DIR ?= $(word 1,$(ERL_DIRS))
ERL_EI_INCLUDE_DIR ?= $(word 2,$(ERL_DIRS))/include
ERL_EI_LIBDIR ?= $(word 2,$(ERL_DIRS))/lib
endif
ifeq ($(wildcard $(ERTS_INCLUDE_DIR)/erl_nif.h),)
$(error foundation_native: no erl_nif.h in "$(ERTS_INCLUDE_DIR)"; `scripts/setup build` installs what is missing, or set ERTS_INCLUDE_DIR)
endif
endif

# ---- flags -----------------------------------------------------------------------------------------------------------------------
TARGET_OS := $(shell $(CC) -dumpmachine 2>/dev/null)
WARN := -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wno-unused-parameter
OPT ?= -O2 -g
FDN_VERSION := $(shell sed -n 's/.*{vsn, *"\([^"]*\)"}.*/\1/p' src/foundation_native.app.src)
BASE_CPPFLAGS := -Ic_src -D_GNU_SOURCE -DFDN_VERSION='"$(FDN_VERSION)"'
BASE_CFLAGS := -std=c11 $(OPT) $(WARN) -fPIC -fvisibility=hidden -fno-strict-aliasing -fstack-protector-strong -pthread
BASE_LDFLAGS := -pthread
ifneq ($(findstring darwin,$(TARGET_OS)),)
SO_FLAGS := -dynamiclib -undefined dynamic_lookup
GUARD_FLAGS := -dynamiclib -install_name @rpath/libfoundation_guard.so
RPATH := -Wl,-rpath,@loader_path
else
SO_FLAGS := -shared
GUARD_FLAGS := -shared -Wl,-z,nodelete -Wl,-soname,libfoundation_guard.so.1
RPATH := -Wl,-rpath,'$$ORIGIN' -Wl,--as-needed
BASE_LDFLAGS += -Wl,-z,relro -Wl,-z,now
endif
ifdef SANITIZE
BASE_CFLAGS += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer
BASE_LDFLAGS += -fsanitize=$(SANITIZE)
endif

# The layers. Only the NIF glue sees erl_nif.h and only the C node sees ei.h: a stray include elsewhere does not compile (c_src/forbidden;
# leaving out the include paths is not enough where a system has these headers in /usr/include). `make test-layers` proves it.
PURE_DIRS := c_src/base c_src/engine c_src/shared
PURE_SRC := $(sort $(foreach d,$(PURE_DIRS),$(wildcard $(d)/*.c)))
GUARD_SRC := c_src/base/fdn_guard.c
CORE_OBJ := $(patsubst %.c,$(OBJ)/%.o,$(filter-out $(GUARD_SRC),$(PURE_SRC)))
GUARD_OBJ := $(patsubst %.c,$(OBJ)/%.o,$(GUARD_SRC))
CORE_LIB := $(OBJ)/libfdn_core.a
CLI_SRC := $(sort $(wildcard c_src/cli/*.c))
NODE_SRC := $(sort $(wildcard c_node/*.c))

$(OBJ)/c_src/base/%.o $(OBJ)/c_src/engine/%.o $(OBJ)/c_src/shared/%.o $(OBJ)/c_src/cli/%.o: LAYER_CPPFLAGS = -Ic_src/forbidden
$(OBJ)/c_src/nif/%.o: LAYER_CPPFLAGS = -I$(ERTS_INCLUDE_DIR)
$(OBJ)/bench/%.o: LAYER_CPPFLAGS = -I$(ERTS_INCLUDE_DIR)
$(OBJ)/test/nif/%.o: LAYER_CPPFLAGS = -I$(ERTS_INCLUDE_DIR)
$(OBJ)/c_node/%.o: LAYER_CPPFLAGS = -I. -I$(ERL_EI_INCLUDE_DIR)

# ---- build -----------------------------------------------------------------------------------------------------------------------
NIF_PARTS := $(foreach p,$(PARTS),$(if $(wildcard c_src/nif/nif_$(p).c),$(p)))
NIF_LIBS := $(NIF_PARTS:%=$(PRIV)/foundation_%.so)
GUARD_LIB := $(PRIV)/libfoundation_guard.so
SENTINEL := $(PRIV)/foundation_sentinel
FLAGS_TOOL := $(PRIV)/foundation-flags

.PHONY: all native nifs tools sentinel ebin
## all            everything: NIF libraries, C node, command-line tools, Erlang modules in ebin/
all: native ebin
## native         NIF libraries, C node and command-line tools in priv/ (what rebar3 and Mix call)
native: nifs tools
## nifs           the NIF libraries alone; needs libsodium and the libxxhash header
nifs: $(NIF_LIBS)
## sentinel       the C node alone; needs libjansson and libmd besides
sentinel: $(SENTINEL)

# The NIFs build without jansson and libmd; a missing package of the tools is one line, not a failed build of a dependency.
TOOLS_READY = printf '\043include <jansson.h>\n\043include <md5.h>\nint main(void){return 0;}\n' | \
	$(CC) $(CPPFLAGS) -x c - -o /dev/null -ljansson -lmd $(LDFLAGS) 2>/dev/null
# After the libraries: two makes at work on the same objects would be in each other's way under -j.
tools: $(NIF_LIBS) $(CORE_LIB) $(GUARD_OBJ) $(PRIV)/.flags
	@if $(TOOLS_READY); then \
	  $(MAKE) -s --no-print-directory $(if $(NODE_SRC),$(SENTINEL)) $(if $(CLI_SRC),$(FLAGS_TOOL)) $(PRIV)/.flags; \
	else \
	  echo "foundation_native: the sentinel and the tools are not built; they need: apt-get install libjansson-dev libmd-dev" >&2; \
	fi

# A stamp that changes with the flags: objects built with other flags, or for another OTP, are built again.
FLAGS_TEXT := $(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) $(BASE_CPPFLAGS) $(BASE_CFLAGS) $(BASE_LDFLAGS) $(ERTS_INCLUDE_DIR) $(ERL_EI_LIBDIR)
# One is with the results as well, since builds with different objects (rebar3, Mix, sanitizers) may share a priv.
STAMP := $(OBJ)/flags.stamp
.PHONY: FORCE
$(STAMP) $(PRIV)/.flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' $(call shell_quote,$(FLAGS_TEXT)) > $@.new; if cmp -s $@.new $@; then rm -f $@.new; else mv $@.new $@; fi
shell_quote = '$(subst ','\'',$(1))'

$(OBJ)/%.o: %.c $(STAMP)
	@mkdir -p $(@D)
	@echo "  CC   $<"
	@$(CC) $(BASE_CPPFLAGS) $(LAYER_CPPFLAGS) $(CPPFLAGS) $(BASE_CFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(CORE_LIB): $(CORE_OBJ)
	@rm -f $@ && $(AR) rcs $@ $^

# Linked to a temporary name and moved: overwriting a library that a VM has loaded would be a SIGBUS there.
define link
@echo "  LINK $@"
@$(CC) $(1) -o $@.new.$$$$ && mv -f $@.new.$$$$ $@
endef

$(GUARD_LIB): $(GUARD_OBJ) $(PRIV)/.flags
	@echo "  LINK $@"
	@t=$@.new.$$$$; $(CC) $(GUARD_FLAGS) $(BASE_LDFLAGS) $(GUARD_OBJ) $(LDFLAGS) -o $$t && ln -sf $(@F) $@.1 && mv -f $$t $@

NIF_COMMON_OBJ := $(OBJ)/c_src/nif/nif_common.o
define nif_rules
$(PRIV)/foundation_$(1).so: $(patsubst %.c,$(OBJ)/%.o,$(sort $(wildcard c_src/nif/nif_$(1)*.c))) $(NIF_COMMON_OBJ) $(CORE_LIB) $(GUARD_LIB)
	@echo "  LINK $$@"
	@t=$$@.new.$$$$$$$$; $$(CC) $$(SO_FLAGS) $$(RPATH) $$(BASE_LDFLAGS) $$(filter %.o %.a,$$^) -L$(PRIV) -lfoundation_guard -lsodium $$(LDFLAGS) -o $$$$t && mv -f $$$$t $$@
endef
$(foreach p,$(NIF_PARTS),$(eval $(call nif_rules,$(p))))

$(SENTINEL): $(NODE_SRC:%.c=$(OBJ)/%.o) $(CORE_LIB) $(GUARD_OBJ) $(PRIV)/.flags
	@echo "  LINK $@"
	@t=$@.new.$$$$; $(CC) $(BASE_LDFLAGS) $(filter %.o %.a,$^) -L$(ERL_EI_LIBDIR) -lei -ljansson -lmd -lsodium $(LDFLAGS) -o $$t && mv -f $$t $@

$(FLAGS_TOOL): $(CLI_SRC:%.c=$(OBJ)/%.o) $(CORE_LIB) $(GUARD_OBJ) $(PRIV)/.flags
	@echo "  LINK $@"
	@t=$@.new.$$$$; $(CC) $(BASE_LDFLAGS) $(filter %.o %.a,$^) -ljansson -lsodium $(LDFLAGS) -o $$t && mv -f $$t $@

ERL_SRC := $(sort $(wildcard src/*.erl))
ebin: ebin/foundation_native.app
ebin/foundation_native.app: $(ERL_SRC) src/foundation_native.app.src $(wildcard include/*.hrl src/*.hrl)
	@mkdir -p ebin
	@echo "  ERLC src/*.erl"
	@erlc +debug_info -I include -o ebin $(ERL_SRC)
	@escript scripts/make-app src/foundation_native.app.src ebin

-include $(shell find $(OBJ) -name '*.d' 2>/dev/null)

# ---- the two commands ------------------------------------------------------------------------------------------------------------
.PHONY: demo test setup check check-rest
## demo           install what is missing, build, and run the main job on real input (INPUT=DIR for another folder)
demo:
	@scripts/setup build
	@$(MAKE) --no-print-directory all
	@examples/demo/run $(if $(INPUT),"$(INPUT)")
## test           install what is missing, build, and run every test
test:
	@scripts/setup test
	@$(MAKE) --no-print-directory test-all
## check          the whole gate: make test, then static analysis, packaging, the ASan NIF in the BEAM, OTP 27
check:
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory check-rest
check-rest:
	@scripts/setup check
	@$(MAKE) --no-print-directory gate
## setup          only install what is missing for everything above
setup:
	@scripts/setup build test check

include test/tests.mk
include test/lint.mk

## bench          the table of ratios against baselines, measured by turns in one run (BENCH_ROUNDS=3 for a quick look)
.PHONY: bench
bench: all _build/bench/empty_nif.so _build/bench/observer _build/bench/hits _build/bench/hits_uncounted
	@bench/run
_build/bench/empty_nif.so: $(OBJ)/bench/empty_nif.o $(CORE_LIB) $(GUARD_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK $@"
	@t=$@.new.$$$$; $(CC) $(SO_FLAGS) $(BASE_LDFLAGS) $^ -lsodium $(LDFLAGS) -o $$t && mv -f $$t $@

# The engine once more, without its counters: what they cost is a row of the table.
$(OBJ)/bench/uncounted/%.o: c_src/engine/%.c $(STAMP)
	@mkdir -p $(@D)
	@echo "  CC   $< (uncounted)"
	@$(CC) $(BASE_CPPFLAGS) -DFDN_LIMITER_UNCOUNTED $(CPPFLAGS) $(BASE_CFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@
_build/bench/hits: $(OBJ)/bench/hits.o
_build/bench/hits_uncounted: $(OBJ)/bench/hits.o $(OBJ)/bench/uncounted/limiter.o
_build/bench/hits _build/bench/hits_uncounted: $(CORE_LIB) $(GUARD_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK $@"
	@t=$@.new.$$$$; $(CC) $(BASE_LDFLAGS) $(filter %.o,$^) $(CORE_LIB) -lsodium $(LDFLAGS) -o $$t && mv -f $$t $@

_build/bench/observer: $(OBJ)/bench/observer.o $(CORE_LIB) $(GUARD_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK $@"
	@t=$@.new.$$$$; $(CC) $(BASE_LDFLAGS) $^ -lsodium $(LDFLAGS) -o $$t && mv -f $$t $@

.PHONY: format clean clean-native help
## format         format C and Elixir sources in place
format:
	@clang-format -i $$(git ls-files '*.c' '*.h')
	@if command -v mix >/dev/null; then mix format; fi
## clean          remove everything that was built
clean: clean-native
	@rm -rf _build ebin
clean-native:
	@rm -rf $(OBJ) $(PRIV)
## help           this list
help:
	@sed -n 's/^## /  make /p' $(MAKEFILE_LIST)
