from __future__ import annotations

import errno
import random
from collections import Counter

import pytest

from ebpfjit.difftest.verdicts import generate, mutate, soundness, words
from ebpfjit.difftest.verdicts.linux import Judge
from ebpfjit.difftest.verdicts.pieces import PIECES
from ebpfjit.difftest.verdicts.sample import Sample
from ebpfjit.difftest.verdicts.types import GLOBALS
from ebpfjit.difftest.verdicts.writer import TYPES, Writer
from ebpfjit.errors import MemoryFault
from ebpfjit.kernel import unavailable_reason

needs_kernel = pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))

INDEXED = """
    r1 = *(u32 *)(r1 + 12)
    r1 &= {mask}
    r2 = map[single][0]+0
    r2 += r1
    r0 = *(u8 *)(r2 + 0)
    exit
"""


def test_a_seed_names_a_program_and_seeds_name_many_kinds() -> None:
    made = list(generate.samples(100, 150))
    assert made == list(generate.samples(100, 150))
    assert {each.type for each in made} == set(TYPES)
    assert len({name for each in made for name in each.maps}) > 15
    assert any(each.globals for each in made)


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_is_text_that_assembles(name: str) -> None:
    write, types, _ = PIECES[name]
    for type_ in types:
        for wrong in (0.0, 0.5):
            w = Writer(random.Random(len(name)), type_, wrong)
            w.say("r6 = r1")
            write(w)
            w.say("out: r0 = 0; exit")
            assert Sample.of_text(type_, "\n".join([*w.lines, *w.functions])).code


def test_names_of_maps_become_their_places_and_labels_of_global_functions_their_slots() -> None:
    sample = Sample.of_text(
        "xdp", "r1 = map[hash]\nr1 = 5\ncall g_number\nr1 = map[hash]\nexit\ng_number:\nexit"
    )
    assert sample.maps == ("hash",)
    assert sample.globals == ((7, "g_number"),)
    program = sample.program()
    assert program.types is not None
    assert dict(program.types.functions)[7] == GLOBALS["g_number"]
    assert program.references == {0: program.maps[0].address, 4: program.maps[0].address}


def test_a_change_changes_one_place_or_two() -> None:
    sample = Sample.of_text("xdp", INDEXED.format(mask=63))
    sizes = Counter(
        len(mutate.changed(random.Random(seed), sample).code) - len(sample.code) for seed in range(200)
    )
    assert set(sizes) <= {0, -8, -16, -24, -32}
    assert sizes[0]
    assert sizes[-8]


@pytest.mark.parametrize(
    ("log", "number", "name"),
    [
        ("5: (71) r0 = *(u8 *)(r2 +14)\nR2 offset is outside of the packet\nprocessed 6 insns", 13, "memory"),
        ("6: (79) r1 = *(u64 *)(r0 +8)\nR0 invalid mem access 'map_value_or_null'\n", 13, "null"),
        ("R1 invalid mem access 'scalar'\n", 13, "type"),
        ("R3 !read_ok\n", 13, "uninitialised"),
        ("1: (25) if r0 > 5 goto -2 infinite loop detected at insn 0\ncur state: R0=0\n", 22, "termination"),
        ("", errno.E2BIG, "termination"),
        ("BPF_EXIT instruction in main prog would lead to reference leak\n", 22, "reference"),
        ("function calls are not allowed while holding a lock\n", 22, "lock"),
        ("At program exit the register R0 has smin=4 should have been in [0, 3]\n", 22, "return value"),
        ("program of this type cannot use helper bpf_sk_release#86\n", 22, "helper"),
        ("unreachable insn 3\n", 22, "structural"),
        ("combined stack size of 3 calls is 624. Too large\n", 13, "stack"),
        ("something new\n", 22, "other"),
    ],
)  # fmt: skip
def test_words_have_a_class(log: str, number: int, name: str) -> None:
    assert words.reason_of(log, number).name == name


@needs_kernel
def test_linux_tells_programs_apart_and_where() -> None:
    texts = [INDEXED.format(mask=63), INDEXED.format(mask=127), ".8byte 0xff", "r1 = map[idx:3]\nexit"]
    with Judge() as judge:
        good, bad, unknown, no_map = judge.ask([Sample.of_text("xdp", text) for text in texts])
    assert good.accepted
    assert bad.reason is not None
    assert (bad.reason.name, bad.pc) == ("memory", 5)
    assert [each.reason and each.reason.name for each in (unknown, no_map)] == ["structural", "structural"]


@needs_kernel
def test_linux_accepts_about_half_of_them() -> None:
    with Judge() as judge:
        answers = judge.ask(list(generate.samples(700, 40)))
    assert 0.3 < sum(each.accepted for each in answers) / len(answers) < 0.7
    assert len({each.reason.name for each in answers if each.reason}) > 2


def test_a_run_finds_what_goes_too_far() -> None:
    assert soundness.runs(Sample.of_text("xdp", INDEXED.format(mask=63)), 1, 60) is None
    fault = soundness.runs(Sample.of_text("xdp", INDEXED.format(mask=127)), 1, 60)
    assert fault is not None
    assert isinstance(fault.error, MemoryFault)
    assert fault.context["ingress_ifindex"] & 127 > 63
