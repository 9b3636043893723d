# make demo   the example packet through both engines, and the listing
# make check  format, lint, types, import rules and the tests that matter most: a minute of processor time
# make test   everything that must hold before a change goes in
# make nightly  what takes longer: many fresh processes, long fuzzing runs; MINUTES says how long each
# make prove  the optimizer's rules and the translators by a solver; JOBS processes, a few minutes
# make docs   the pages for users, in site/: to be read without a network
# make bless  write tests/golden anew; read the difference before you commit it
# make routines   what programs do to maps, and what is done to captures, from C to eBPF; needs clang and llvm-objcopy
#
# All set-up happens here, in .venv; PYTHON names another Python 3.11 or newer.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: demo check lint test nightly prove docs bless routines clean

demo: $(VENV)/.installed
	@$(BIN)/python examples/load_elf.py

# What most changes would break: the instruction set, loading, both engines, maps, memory that is not the program's.
UNITS := assembler batch disassembler elf helpers_maps isa_table jit maps optimizer_code optimizer_rules program \
  proofs reserved_fields runner semantics vm

check: lint
	$(BIN)/pytest -q tests/conformance/test_vectors.py tests/corpus tests/golden tests/test_architecture.py \
	  tests/attacks/test_entries.py tests/attacks/test_map_operations.py $(UNITS:%=tests/unit/test_%.py)

# In the order of tests/conftest.py: what takes a lot of memory is last.
PARALLEL := -n auto --dist loadgroup --no-loadscope-reorder

test: lint
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/pytest $(PARALLEL)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

MINUTES ?= 20
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)
SEED    ?= $(shell date +%Y%m%d)
HOSTILE := wide,paths,rounds,spills,frames,callbacks,tails,overlaps,growth,helpers,idioms,calls

# A line for each run that is too long for `make test`.
nightly: $(VENV)/.installed-dev
	EBPFJIT_WHOLE=1 $(BIN)/pytest -q $(PARALLEL)
	EBPFJIT_PROGRAMS=20000 EBPFJIT_KERNEL_PROGRAMS=2000 EBPFJIT_MUTATIONS=40000 EBPFJIT_LEAK_CYCLES=4000 EBPFJIT_CALLS=100000 \
	  $(BIN)/pytest -q -n auto tests/differential tests/unit/test_elf.py tests/unit/test_safety.py tests/unit/test_gate.py
	EBPFJIT_FRESH_PROCESSES=100 $(BIN)/pytest -q tests/attacks/test_fresh_processes.py
	$(BIN)/ebpfjit fuzz --seconds $$((60 * $(MINUTES))) --seed $(SEED) --jobs $(JOBS)
	$(BIN)/ebpfjit fuzz --seconds $$((60 * $(MINUTES))) --seed $(SEED) --jobs $(JOBS) \
	  --engines interpreter,jit,tiered --builds audit --sources $(HOSTILE)
	EBPFJIT_CRASH_PROGRAMS=200000 $(BIN)/pytest -q tests/differential/test_no_crash.py
	$(BIN)/python -m tests.fresh_machine
	$(BIN)/python -m tests.differential.mutated_objects --seconds $$((60 * $(MINUTES))) --seed $(SEED) --memory 1G

prove: $(VENV)/.installed-dev
	$(BIN)/ebpfjit prove --jobs $(JOBS)

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bless: $(VENV)/.installed-dev
	$(BIN)/pytest tests/golden --bless

ROUTINES := ebpfjit/runtime/maps/routines
CAPTURE  := ebpfjit/capture/routines

routines:
	clang -target bpf -mcpu=v3 -O2 -Wall -ffreestanding -fno-builtin -c $(ROUTINES)/routines.c -o $(ROUTINES)/routines.o
	for name in hash_lookup hash_lookup_4 hash_lookup_8 hash_lookup_16 hash_update hash_delete array_update \
	  lpm_lookup lpm_lookup_8 lpm_lookup_20; do \
	  llvm-objcopy -O binary --only-section=routine.$$name $(ROUTINES)/routines.o $(ROUTINES)/$$name.bin; \
	done
	rm $(ROUTINES)/routines.o
	clang -target bpf -mcpu=v3 -O2 -Wall -ffreestanding -fno-builtin -c $(CAPTURE)/routines.c -o $(CAPTURE)/routines.o
	for name in pcap pcapng frames records blocks tally causes; do \
	  llvm-objcopy -O binary --only-section=routine.$$name $(CAPTURE)/routines.o $(CAPTURE)/$$name.bin; \
	done
	rm $(CAPTURE)/routines.o

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ebpfjit needs Python 3.11 or newer; make PYTHON=... names one" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[cli]'
	@touch $@

# Not compiled: most of what is installed is imported by no test, and what is, once, is compiled then.
$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(PIP) install --no-compile --editable '.[dev,prove]'
	@touch $@ $(VENV)/.installed
