# The tests, as targets. Included by the Makefile.
#
#   test/c/check_X.c     unit tests (check) of pure C, run under ASan and UBSan with injectable allocation failure
#   test/c/stress_X.c    threads against an engine, run under TSan; exits non-zero on a broken invariant
#   test/fuzz/fuzz_X.c   libFuzzer targets, a short run in the gate
#   test/*_tests.erl *_SUITE.erl prop_*.erl *_test.exs

# Tests meet the same surroundings everywhere: names of files are UTF-8, there is a home that can be written, and as many jobs as cores.
ifeq ($(findstring UTF-8,$(or $(LC_ALL),$(LC_CTYPE),$(LANG))),)
export LC_ALL := C.UTF-8
endif
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export HOME := $(shell mkdir -p _build/home && cd _build/home && pwd)
endif
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
PARALLEL = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS))

.SECONDARY: # objects of the tests are kept, like all others

CHECKS := $(patsubst test/c/%.c,%,$(sort $(wildcard test/c/check_*.c)))
STRESSES := $(patsubst test/c/%.c,%,$(sort $(wildcard test/c/stress_*.c)))
FUZZERS := $(patsubst test/fuzz/%.c,%,$(sort $(wildcard test/fuzz/fuzz_*.c)))
NODE_LIB := $(OBJ)/libfdn_node.a
NODE_LIBS = $(if $(NODE_SRC),$(NODE_LIB) -L$(ERL_EI_LIBDIR) -lei -ljansson -lmd)
$(NODE_LIB): $(patsubst %.c,$(OBJ)/%.o,$(filter-out c_node/main.c,$(NODE_SRC)))
	@rm -f $@ && $(AR) rcs $@ $^
$(OBJ)/test/%.o: LAYER_CPPFLAGS = -I. -I$(ERL_EI_INCLUDE_DIR)
$(OBJ)/test/c/check_%: $(OBJ)/test/c/check_%.o $(OBJ)/test/c/support.o $(if $(NODE_SRC),$(NODE_LIB)) $(CORE_LIB) $(GUARD_OBJ)
	@$(CC) $(BASE_LDFLAGS) $(filter %.o,$^) $(NODE_LIBS) $(CORE_LIB) -lcheck -lsubunit -lrt -lm -lsodium $(LDFLAGS) -o $@
$(OBJ)/test/c/stress_%: $(OBJ)/test/c/stress_%.o $(CORE_LIB) $(GUARD_OBJ)
	@$(CC) $(BASE_LDFLAGS) $(filter %.o,$^) $(CORE_LIB) -lsodium $(LDFLAGS) -o $@
$(OBJ)/test/fuzz/fuzz_%: $(OBJ)/test/fuzz/fuzz_%.o $(if $(NODE_SRC),$(NODE_LIB)) $(CORE_LIB) $(GUARD_OBJ)
	@$(CC) $(BASE_LDFLAGS) -fsanitize=fuzzer $(filter %.o,$^) $(NODE_LIBS) $(CORE_LIB) -lsodium $(LDFLAGS) -o $@

.PHONY: test-all test-c test-tsan test-erl test-ex test-fuzz run-checks run-stresses run-fuzzers
## test-all       every test, without installing anything
TESTS := test-c test-tsan test-model test-erl test-ex test-readme
test-all:
	@$(MAKE) --no-print-directory $(PARALLEL) native
	@MAKE="$(MAKE)" scripts/run-targets tests $(TESTS)
## test-c         the pure C layers: check under ASan and UBSan
test-c:
	@$(MAKE) --no-print-directory $(PARALLEL) SANITIZE=address,undefined CPPFLAGS="$(CPPFLAGS) -DFDN_ALLOC_FAULTS" run-checks
run-checks: $(CHECKS:%=$(OBJ)/test/c/%)
	@for t in $^; do echo "== $${t##*/}"; UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 ASAN_OPTIONS=detect_leaks=1 $$t || exit 1; done
## test-tsan      threads against the engines under TSan
test-tsan:
	@$(MAKE) --no-print-directory $(PARALLEL) SANITIZE=thread run-stresses
run-stresses: $(STRESSES:%=$(OBJ)/test/c/%)
	@for t in $^; do echo "== $${t##*/} (TSan)"; TSAN_OPTIONS=halt_on_error=1 $$t || exit 1; done
.PHONY: test-model model-long
## test-model     the lock-free protocols, every interleaving (spin; and the code itself), and each of their guards taken away
test-model:
	@test/model/run
	@test/model/explore
## model-long     the same protocols with more operations: some minutes, 8 GB
model-long:
	@test/model/run long
# The fixture of the NIF life-cycle tests, as libraries that differ in name and in the abi of their state.
TEST_NIF_DIR ?= _build/test-nif
.PHONY: test-nifs
test-nifs: $(foreach v,a b c,$(TEST_NIF_DIR)/fixture_$(v).so)
FIXTURE_ABI_a := 1
FIXTURE_ABI_b := 1
FIXTURE_ABI_c := 2
$(TEST_NIF_DIR)/fixture_%.so: test/nif/fixture_nif.c $(NIF_COMMON_OBJ) $(CORE_LIB) $(STAMP)
	@mkdir -p $(@D)
	@echo "  LINK $@"
	@t=$@.new.$$$$; $(CC) $(BASE_CPPFLAGS) -I$(ERTS_INCLUDE_DIR) -DFIXTURE_NAME='"$*"' -DFIXTURE_ABI=$(FIXTURE_ABI_$*) $(CPPFLAGS) \
	  $(BASE_CFLAGS) $(CFLAGS) $(SO_FLAGS) $(BASE_LDFLAGS) $< $(NIF_COMMON_OBJ) $(CORE_LIB) -ldl $(LDFLAGS) -o $$t && mv -f $$t $@
## test-erl       EUnit (PropEr included) and Common Test
test-erl: native test-nifs
	@echo "== EUnit"; rebar3 eunit
	@echo "== Common Test"; rebar3 ct --sname foundation_native_ct
## test-ex        ExUnit
test-ex: native
	@echo "== ExUnit"; MIX_ENV=test mix test
## test-readme    the sessions of README.md in real shells, and what they print compared
test-readme: native ebin
	@MIX_ENV=test mix compile
	@test/readme/test
## test-fuzz      libFuzzer targets, FUZZ_SECONDS each (10)
FUZZ_SECONDS ?= 10
test-fuzz:
	@$(MAKE) --no-print-directory $(PARALLEL) CC=clang SANITIZE=address,undefined CFLAGS="$(CFLAGS) -fsanitize=fuzzer-no-link" OBJ=_build/c-fuzz run-fuzzers
run-fuzzers: $(FUZZERS:%=$(OBJ)/test/fuzz/%)
	@for t in $^; do n=$${t##*/}; echo "== $$n"; mkdir -p $(OBJ)/corpus/$$n; \
	  $$t -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix=$(OBJ)/ \
	    $(OBJ)/corpus/$$n $(wildcard test/fuzz/corpus) 2>$(OBJ)/$$n.log || { tail -40 $(OBJ)/$$n.log; exit 1; }; \
	  sed -n 's/^stat::number_of_executed_units: */   runs: /p' $(OBJ)/$$n.log; done

.PHONY: gate test-layers test-clang test-packaging test-asan test-otp27 test-readme
## gate           what `make check` adds to `make test`
GATE := test-layers lint xref dialyzer test-clang test-fuzz test-packaging test-asan test-otp27
gate:
	@MAKE="$(MAKE)" scripts/run-targets gate $(GATE)
## test-layers    the pure C layers refuse the headers of the VM and of ei
test-layers:
	@test/layers/run
## test-clang     everything compiles with clang without a warning; the check programs built by it
test-clang:
	@$(MAKE) --no-print-directory $(PARALLEL) CC=clang OBJ=_build/c-clang PRIV=_build/c-clang/priv CFLAGS="$(CFLAGS) -Werror" native
	@$(MAKE) --no-print-directory $(PARALLEL) CC=clang OBJ=_build/c-clang SANITIZE=address,undefined \
	  CPPFLAGS="$(CPPFLAGS) -DFDN_ALLOC_FAULTS" run-checks
## test-packaging every way of building and releasing: make, rebar3, Mix, as dependency, release moved elsewhere
test-packaging:
	@test/packaging/run
## test-asan      the NIFs built with ASan, in the stock VM, under the EUnit suites
test-asan:
	@test/asan/run
## test-otp27     EUnit, Common Test and ExUnit under OTP 27 and Elixir 1.18, in a Debian trixie in a folder (needs root or sudo)
test-otp27:
	@test/otp27/run
