# The tests, as targets. Included by the Makefile.
#
#   test/c/check_X.c     unit tests (check) of pure C, run under ASan and UBSan with injectable allocation failure
#   test/c/stress_X.c    threads against an engine, run under TSan; exits non-zero on a broken invariant
#   test/fuzz/fuzz_X.c   libFuzzer targets, a short run in the gate
#   test/*_tests.erl *_SUITE.erl prop_*.erl *_test.exs

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
test-all: native test-c test-tsan test-erl test-ex test-readme
## test-c         the pure C layers: check under ASan and UBSan
test-c:
	@$(MAKE) --no-print-directory SANITIZE=address,undefined CPPFLAGS="$(CPPFLAGS) -DFDN_ALLOC_FAULTS" run-checks
run-checks: $(CHECKS:%=$(OBJ)/test/c/%)
	@for t in $^; do echo "== $${t##*/}"; UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 ASAN_OPTIONS=detect_leaks=1 $$t || exit 1; done
## test-tsan      threads against the engines under TSan
test-tsan:
	@$(MAKE) --no-print-directory SANITIZE=thread run-stresses
run-stresses: $(STRESSES:%=$(OBJ)/test/c/%)
	@for t in $^; do echo "== $${t##*/} (TSan)"; TSAN_OPTIONS=halt_on_error=1 $$t || exit 1; done
## test-erl       EUnit (PropEr included) and Common Test
test-erl: native
	@echo "== EUnit"; rebar3 eunit
	@echo "== Common Test"; rebar3 ct --sname foundation_native_ct
## test-ex        ExUnit
test-ex: native
	@echo "== ExUnit"; MIX_ENV=test mix test
## test-fuzz      libFuzzer targets, FUZZ_SECONDS each (10)
FUZZ_SECONDS ?= 10
test-fuzz:
	@$(MAKE) --no-print-directory CC=clang SANITIZE=address,undefined CFLAGS="$(CFLAGS) -fsanitize=fuzzer-no-link" OBJ=_build/c-fuzz run-fuzzers
run-fuzzers: $(FUZZERS:%=$(OBJ)/test/fuzz/%)
	@for t in $^; do n=$${t##*/}; echo "== $$n"; mkdir -p $(OBJ)/corpus/$$n; \
	  $$t -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix=$(OBJ)/ \
	    $(OBJ)/corpus/$$n $(wildcard test/fuzz/corpus) 2>$(OBJ)/$$n.log || { tail -40 $(OBJ)/$$n.log; exit 1; }; \
	  sed -n 's/^stat::number_of_executed_units: */   runs: /p' $(OBJ)/$$n.log; done

.PHONY: gate lint dialyzer xref test-layers test-clang test-packaging test-asan test-otp27 test-readme
## gate           what `make check` adds to `make test`
gate: test-layers lint xref dialyzer test-clang test-fuzz test-packaging test-asan test-otp27
## test-layers    the pure C layers refuse the headers of the VM and of ei
test-layers:
	@test/layers/run
