"""Where programs come from: the generators by name, and the case that a seed and a number name."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ebpfjit.difftest import (
    acceptable,
    classic,
    metamorphic,
    operations,
    packets,
    pointers,
    proven,
    raw,
    sweeps,
)
from ebpfjit.difftest.case import BUILDS, GUARDS, Case, CorpusError, Input
from ebpfjit.difftest.generate import MEMORY_SIZE, Generator
from ebpfjit.difftest.hostile import (
    arrays,
    callbacks,
    calls,
    ends,
    frames,
    growth,
    helpers,
    idioms,
    overlaps,
    paths,
    rounds,
    spills,
    tails,
    wide,
)
from ebpfjit.difftest.mutate import mutated
from ebpfjit.errors import EbpfError
from ebpfjit.record import dataclass

LIMITS = (1, 10, 60, 60, 500, 500, 2000, 2000, 2000, 2000)
RAW_LIMIT = 2000
ENDLESS = 1_000_000
"""A limit for programs that end by themselves."""

OPERATING = ("xdp", "xdp", "xdp", "tc")
SIZES = (0, 1, 7, 8, 64, 100)

Source = Callable[[random.Random, Sequence[Case]], Case]
"""source(rng, corpus): one case."""


def _valid(rng: random.Random, corpus: Sequence[Case]) -> Case:
    code = Generator(rng).program()
    return Case(code, (Input(rng.randbytes(MEMORY_SIZE), rng.choice(LIMITS)),))


def _pointers(rng: random.Random, corpus: Sequence[Case]) -> Case:
    return pointers.case(rng)


def _sweeps(rng: random.Random, corpus: Sequence[Case]) -> Case:
    return sweeps.case(rng)


def _acceptable(rng: random.Random, corpus: Sequence[Case]) -> Case:
    code, memory = acceptable.program(rng)
    return Case(code, (Input(memory, ENDLESS),))


def _metamorphic(rng: random.Random, corpus: Sequence[Case]) -> Case:
    code, memory = acceptable.program(rng)
    return Case(code, (Input(memory, ENDLESS),), twin=metamorphic.rewritten(rng, code))


def _packets(rng: random.Random, corpus: Sequence[Case]) -> Case:
    code, tail = packets.program(rng), packets.program(rng)
    return Case(code, (Input(packets.frame(rng), ENDLESS),), type="xdp", tail=tail)


def _operations(rng: random.Random, corpus: Sequence[Case]) -> Case:
    type_ = rng.choice(OPERATING)
    code, frame = operations.program(rng, type_), packets.frame(rng)
    return Case(code, (Input(frame, ENDLESS),), type=type_, maps="operations")


def _unguarded(rng: random.Random, corpus: Sequence[Case]) -> Case:
    """The same without half of the bounds checks, on short frames and with all kinds of limits."""
    made = _packets(rng, corpus)
    given = Input(rng.randbytes(rng.randrange(14, packets.LARGEST_FRAME)), rng.choice(LIMITS))
    return replace(made, code=packets.unguarded(rng, made.code), inputs=(given,))


def _mutated(rng: random.Random, corpus: Sequence[Case]) -> Case:
    """A mutation of the corpus, of a program with pointers, or of a valid one."""
    pick = rng.random()
    if corpus and pick < 0.5:
        chosen = rng.choice(corpus)
        first = chosen.inputs[0]
        given = replace(first, limit=min(first.limit or RAW_LIMIT, RAW_LIMIT))
        return Case(mutated(rng, chosen.code, rng.choice(corpus).code), (given,))
    code = pointers.Writer(rng).program() if pick < 0.75 else Generator(rng).program()
    return _raw(rng, mutated(rng, code, Generator(rng).program()))


def _raw(rng: random.Random, code: bytes) -> Case:
    return Case(code, (Input(rng.randbytes(rng.choice(SIZES)), RAW_LIMIT),))


@dataclass(frozen=True, slots=True)
class Weighted:
    """A source, and how often it is drawn among the others."""

    source: Source
    weight: int


SOURCES: Mapping[str, Weighted] = {
    "valid": Weighted(_valid, 32),
    "pointers": Weighted(_pointers, 28),
    "sweeps": Weighted(_sweeps, 24),
    "acceptable": Weighted(_acceptable, 22),
    "metamorphic": Weighted(_metamorphic, 6),
    "packets": Weighted(_packets, 3),
    "operations": Weighted(_operations, 2),
    "unguarded": Weighted(_unguarded, 3),
    "mutated": Weighted(_mutated, 10),
    "rows": Weighted(lambda rng, corpus: _raw(rng, raw.rows(rng)), 8),
    "wild-rows": Weighted(lambda rng, corpus: _raw(rng, raw.wild_rows(rng)), 2),
    "opcodes": Weighted(lambda rng, corpus: _raw(rng, raw.opcodes(rng)), 1),
    "bytes": Weighted(lambda rng, corpus: _raw(rng, raw.any_bytes(rng)), 1),
    "wide": Weighted(lambda rng, corpus: wide.case(rng), 5),
    "paths": Weighted(lambda rng, corpus: paths.case(rng), 5),
    "rounds": Weighted(lambda rng, corpus: rounds.case(rng), 6),
    "spills": Weighted(lambda rng, corpus: spills.case(rng), 6),
    "frames": Weighted(lambda rng, corpus: frames.case(rng), 3),
    "callbacks": Weighted(lambda rng, corpus: callbacks.case(rng), 2),
    "tails": Weighted(lambda rng, corpus: tails.case(rng), 1),
    "overlaps": Weighted(lambda rng, corpus: overlaps.case(rng), 1),
    "growth": Weighted(lambda rng, corpus: growth.case(rng), 1),
    "ends": Weighted(lambda rng, corpus: ends.case(rng), 3),
    "helpers": Weighted(lambda rng, corpus: helpers.case(rng), 2),
    "idioms": Weighted(lambda rng, corpus: idioms.case(rng), 6),
    "calls": Weighted(lambda rng, corpus: calls.case(rng), 4),
    "arrays": Weighted(lambda rng, corpus: arrays.case(rng), 4),
    "classic": Weighted(lambda rng, corpus: classic.case(rng), 2),
    "proven": Weighted(lambda rng, corpus: proven.case(rng), 3),
}
"""The generators, by name."""

TYPED = (
    "packets",
    "operations",
    "unguarded",
    "callbacks",
    "tails",
    "overlaps",
    "growth",
    "ends",
    "helpers",
    "proven",
)
"""Those whose programs have a type, or maps."""

HOSTILE = (
    "wide",
    "paths",
    "rounds",
    "spills",
    "frames",
    "callbacks",
    "tails",
    "overlaps",
    "growth",
    "ends",
    "helpers",
    "idioms",
    "calls",
    "arrays",
)
"""Those that are aimed at one kind of hole each."""

FOR_THE_KERNEL = ("acceptable", "metamorphic", "packets", "operations", "classic")
"""Those whose programs Linux mostly accepts."""


class UnknownSource(EbpfError):  # noqa: N818 - as UnknownEngine
    """A source of programs that there is not."""


def check_sources(names: Sequence[str]) -> None:
    """Raise UnknownSource where one does not exist."""
    for name in names:
        if name not in SOURCES:
            raise UnknownSource(f"no source of programs {name!r}; there are {', '.join(SOURCES)}")


USUAL_BUILDS = {"native": 9, "plain": 3, "hardened": 2, "baseline": 2, "audit": 3}
"""How often a program is compiled in which way, where nobody says."""


def check_builds(names: Sequence[str]) -> None:
    """Raise CorpusError where one does not exist."""
    for name in names:
        if name not in BUILDS:
            raise CorpusError(f"no build {name!r}; there are {', '.join(BUILDS)}")


def case_of(
    seed: int,
    number: int,
    names: Sequence[str],
    corpus: Sequence[Case] = (),
    builds: Sequence[str] = (),
) -> Case:
    """Return program `number` of a seed, drawn from these sources, and compiled in one of these ways."""
    rng = random.Random(f"{seed}:{number}")
    name = rng.choices(names, [SOURCES[name].weight for name in names])[0]
    made = SOURCES[name].source(rng, corpus)
    build = rng.choice(builds) if builds else rng.choices([*USUAL_BUILDS], [*USUAL_BUILDS.values()])[0]
    if not made.type:
        guard = rng.choice(GUARDS)
        made = replace(made, inputs=tuple(replace(given, guard=guard) for given in made.inputs))
    return replace(made, build=build, name=f"{name} {seed}:{number}")
