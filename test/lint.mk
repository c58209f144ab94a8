# Static analysis. Included by the Makefile; `make lint` is all of it but Dialyzer and xref.

C_FILES := $(sort $(wildcard c_src/*/*.c c_node/*.c test/c/*.c test/nif/*.c test/model/*.c test/fuzz/*.c test/asan/*.c bench/*.c bench/*/*.c))
H_FILES := $(sort $(wildcard c_src/*/*.h c_node/*.h test/c/*.h test/nif/*.h test/model/*.h bench/*.h))
SHELL_FILES := $(shell git grep -lE '^.!/(bin/sh|bin/bash|usr/bin/env (ba)?sh)' 2>/dev/null)
ERL_FILES := $(sort $(wildcard src/*.erl test/*.erl bench/*.erl examples/*.erl examples/*/*.erl examples/*/src/*.erl))
EX_FILES := $(sort $(wildcard lib/*.ex lib/*/*.ex lib/*/*/*.ex test/*.exs))
LINT := lint-format lint-sizes lint-warnings lint-tidy lint-cppcheck lint-shell lint-erlang lint-elixir

.PHONY: lint xref dialyzer $(LINT)
## lint           clang-format, sizes, warnings as errors (C, Erlang, Elixir), clang-tidy, cppcheck, shellcheck, mix format
lint:
	@MAKE="$(MAKE)" scripts/run-targets lint $(LINT)

lint-format:
	@clang-format --dry-run -Werror $(C_FILES) $(filter-out c_src/forbidden/%,$(H_FILES))

# 136 columns and 600 lines: past that a file has two topics.
lint-sizes:
	@status=0; for f in $(C_FILES) $(H_FILES) $(ERL_FILES) $(EX_FILES); do \
	  n=$$(wc -l < $$f); if [ $$n -gt 600 ]; then echo "$$f: $$n lines, 600 at most"; status=1; fi; \
	  awk -v f=$$f '/\t/ { print f ":" NR ": a tab"; bad = 1 } length($$0) > 136 { print f ":" NR ": " length($$0) " columns, 136 at most"; bad = 1 } \
	    END { exit bad }' $$f || status=1; done; exit $$status

lint-warnings:
	@$(MAKE) --no-print-directory $(PARALLEL) OBJ=_build/c-werror PRIV=_build/c-werror/priv CFLAGS="$(CFLAGS) -Werror" native

TIDY_FLAGS = -std=c11 $(BASE_CPPFLAGS) -I. -I$(ERTS_INCLUDE_DIR) -I$(ERL_EI_INCLUDE_DIR)
lint-tidy:
	@$(MAKE) -k --no-print-directory $(PARALLEL) run-tidy
.PHONY: run-tidy
run-tidy: $(C_FILES:%.c=_build/tidy/%.ok)
_build/tidy/%.ok: %.c $(H_FILES) .clang-tidy
	@mkdir -p $(@D)
	@echo "  TIDY $<"
	@clang-tidy --quiet $< -- $(TIDY_FLAGS) $(if $(filter test/c/%,$<),-DFDN_ALLOC_FAULTS) >$@.log 2>$@.err || { grep -A 3 -E '(error|warning):' $@.log; grep -v 'warnings generated' $@.err; exit 1; }
	@touch $@

# Not style: cppcheck's opinions on scopes and const are clang-tidy's business or none. jansson's loop is shown to it as a loop.
lint-cppcheck:
	@cppcheck --quiet --enable=warning,performance,portability --std=c11 --inline-suppr --error-exitcode=1 -j $(JOBS) \
	  --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches -Ic_src -I. -D_GNU_SOURCE --library=test/cppcheck.cfg $(filter c_src/% c_node/%,$(C_FILES))

lint-shell:
	@shellcheck $(SHELL_FILES)

lint-erlang: native
	@mkdir -p _build/erlc && erlc -Werror +nowarn_export_all +warn_unused_vars +warn_export_vars +warn_obsolete_guard -I include -pa _build/erlc -o _build/erlc $(ERL_FILES)

lint-elixir: native
	@mix format --check-formatted
	@MIX_ENV=test mix compile --force --warnings-as-errors

## xref           undefined and unused functions
xref: native
	@rebar3 xref
## dialyzer       success typing; the PLT is kept in _build
dialyzer: native
	@rebar3 dialyzer
