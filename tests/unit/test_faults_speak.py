"""What faults say besides pc and address: which pointer it was, which helper; the same on both engines."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from ebpfjit import EbpfError, ExecutionError, InputError, MemoryFault, Program, assembler, load
from ebpfjit.program import SourceLine
from ebpfjit.runtime.maps.creation import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from tests.support.elf_files import OBJECTS

ENGINES = ("interpreter", "jit")
NOT_TESTED = "null pointer (result of bpf_map_lookup_elem at pc 5, not tested)"
LOOKUP = "stw [r10-4], 7\nlddw r1, map 0\nmov r2, r10\nadd r2, -4\ncall 1\n"
"""Look a key up; the call is at pc 5."""


def program(text: str, type_: str | None = "xdp", **more: Any) -> Program:
    return Program(assembler.assemble(text), name="speaks", type=type_, **more)


def with_map(text: str, type_: MapType = MapType.HASH) -> Program:
    """Return a program whose lddw at pc 1 is of a map."""
    map_ = create(MapDefinition("flows", type_, 4, 8, 4))
    code = bytearray(assembler.assemble(text.replace("lddw r1, map 0", "lddw r1, 0")))
    code[8:16] = b"\x18\x51" + bytes(6)  # LDDW_MAP_IDX 0
    return Program(bytes(code), name="speaks", type="xdp", references={1: map_.address}, maps=(map_,))


def told(run: Callable[[str], object]) -> str:
    """Return what both engines say behind the regions."""
    texts = set()
    for engine in ENGINES:
        with pytest.raises(MemoryFault) as caught:
            run(engine)
        assert caught.value.around == ()
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.pc) == (str(caught.value), caught.value.pc)
        where, _, rest = str(caught.value).partition("; ")
        assert ": outside " in where
        texts.add(rest)
    assert len(texts) == 1, texts
    return texts.pop()


@pytest.mark.parametrize(
    ("text", "type_", "words"),
    [
        ("ldxb r0, [r1+100]\nexit", None, "mem + 100: 41 bytes past its end (60 bytes)"),
        ("ldxdw r0, [r1-3]\nexit", None, "mem - 3: 3 bytes before its start (60 bytes)"),
        (
            "ldxw r2, [r1]\nmov r6, r2\nadd r6, 100\nldxb r0, [r6]\nexit",
            "xdp",
            "packet + 100: 41 bytes past its end (60 bytes)",
        ),
        (
            "stxdw [r10-8], r1\ncall local f\nldxdw r1, [r10-8]\nldxw r2, [r1]\nldxw r0, [r2+57]\nexit\n"
            "f: mov r0, 0\nexit",
            "xdp",
            "packet + 57: 1 byte past its end (60 bytes)",
        ),
        (
            "ldxw r1, [r1]\ncall local f\nexit\nf: ldxdw r0, [r1+60]\nexit",
            "xdp",
            "packet + 60: 8 bytes past its end (60 bytes)",
        ),
        ("stxb [r10+4], r1\nexit", None, "stack + 516: 5 bytes past its end (512 bytes)"),
        ("mov r1, 0\nldxb r0, [r1+4]\nexit", None, "null pointer"),
        ("mov r1, 0\nldxb r0, [r1-4]\nexit", None, "null pointer"),
        ("lddw r1, 0x7777777777777777\nldxb r0, [r1]\nexit", None, ""),
    ],
)
def test_an_address_is_told_from_where_it_was_made(text: str, type_: str | None, words: str) -> None:
    assert told(lambda engine: program(text, type_).run(bytes(60), engine=engine)) == words


@pytest.mark.parametrize(
    ("then", "words"),
    [
        ("ldxw r0, [r0+4]\nexit", NOT_TESTED),
        (
            "mov r6, r0\nldxw r0, [r6]\nexit",
            NOT_TESTED,
        ),
        (
            "mov r6, r0\njne r0, 0, out\nldxw r0, [r6]\nout: exit",
            "null pointer (result of bpf_map_lookup_elem at pc 5)",
        ),
        (
            "jeq r0, 1, out\nstxdw [r10-16], r0\nldxdw r3, [r10-16]\nadd r3, 8\nldxw r0, [r3]\nout: exit",
            NOT_TESTED,
        ),
    ],
)
def test_a_null_pointer_says_who_returned_it(then: str, words: str) -> None:
    assert told(lambda engine: with_map(LOOKUP + then).run(bytes(60), engine=engine)) == words


@pytest.mark.parametrize(
    ("arguments", "number", "words"),
    [
        ("mov r2, r0", 1, "null pointer (result of bpf_map_lookup_elem at pc 6, not tested)"),
        (
            "mov r3, r0\nmov r2, r10\nadd r2, -4",
            2,
            "null pointer (result of bpf_map_lookup_elem at pc 6, not tested)",
        ),
        ("mov r3, r0\nmov r2, r0", 2, "null pointer"),  # it may be either
        ("mov r2, 0", 1, "null pointer"),
        ("mov r2, r10\nadd r2, 4", 1, "stack + 516: 8 bytes past its end (512 bytes)"),
        ("mov r3, r10\nadd r3, -600\nmov r2, r7", 2, ""),  # the stack, or the packet
    ],
)
def test_an_argument_of_a_helper_says_where_it_came_from(arguments: str, number: int, words: str) -> None:
    looked_up = LOOKUP.replace("map 0\n", "map 0\nmov r9, r1\n")
    text = f"ldxw r7, [r1]\n{looked_up}{arguments}\nmov r1, r9\nmov r4, 0\ncall {number}\nexit"
    made = with_map(text.replace("ldxw r7, [r1]\nstw [r10-4], 7", "ldxw r7, [r1]"))
    assert told(lambda engine: made.run(bytes(60), engine=engine)) == words


def test_a_value_of_a_map_is_told_from_the_map() -> None:
    text = LOOKUP.replace("], 7", "], 0") + "jeq r0, 0, out\nldxdw r0, [r0+28]\nout: exit"
    words = told(lambda engine: with_map(text, MapType.ARRAY).run(bytes(60), engine=engine))
    assert words == "map 'flows' (array) + 28: 4 bytes past its end (32 bytes)"


def test_compiled_functions_say_the_same() -> None:
    function = with_map(LOOKUP + "ldxw r0, [r0]\nexit").compile(optimize=True)
    with pytest.raises(
        MemoryFault, match=r"null pointer \(result of bpf_map_lookup_elem at pc 5, not tested\)"
    ):
        function(bytes(60))


def test_the_line_stays_last() -> None:
    code = assembler.assemble("mov r1, 0\nldxb r0, [r1]\nexit")
    with pytest.raises(MemoryFault, match=r"; null pointer \(a\.c:1: x = \*p;\)$"):
        Program(code, lines={0: SourceLine("a.c", 1, 1, "x = *p;")}).run()


def test_a_search_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ebpfjit.runtime.provenance.MOST_PLACES", 5)
    moves = "mov r6, r1\nmov r1, r6\n" * 5
    assert (
        told(lambda engine: program(moves + "ldxb r0, [r1+99]\nexit", None).run(bytes(9), engine=engine))
        == ""
    )


def test_pointers_that_go_round_in_a_loop() -> None:
    text = "ldxdw r1, [r1]\njne r1, 0, -2\nldxb r0, [r1]\nexit"
    assert told(lambda engine: program(text, None).run(bytes(8), engine=engine)) == "null pointer"


# Exceptions of helpers


@pytest.mark.parametrize("way", [*ENGINES, "compiled"])
def test_an_exception_says_which_helper_it_came_from(way: str) -> None:
    def broken(*_: int) -> int:
        raise KeyError("flows")

    lines = {0: SourceLine("f.c", 3, 1, "helper(1);")}
    made = program("mov r1, 1\ncall 5\nexit", lines=lines)

    def run() -> object:
        if way == "compiled":
            return made.compile(helpers={5: broken})(bytes(60))
        return made.run(bytes(60), engine=way, helpers={5: broken})

    with pytest.raises(KeyError) as caught:
        run()
    assert caught.value.__notes__ == ["in bpf_ktime_get_ns at pc 1 of program 'speaks' (f.c:3: helper(1);)"]


@pytest.mark.parametrize("engine", ENGINES)
def test_helpers_that_call_functions_are_named_from_inside_out(engine: str) -> None:
    def broken(*_: int) -> int:
        raise KeyError("inside")

    text = "mov r1, 2\nlddw r2, code f\nmov r3, 0\nmov r4, 0\ncall 181\nexit\nf: call 999\nexit"
    text = text.replace("lddw r2, code f", "lddw r2, 0")
    code = bytearray(assembler.assemble(text))
    code[8:16] = b"\x18\x42" + bytes(2) + (4).to_bytes(4, "little")  # LDDW_CODE: pc 1 + 1 + 5
    code[12:16] = (5).to_bytes(4, "little")
    made = Program(bytes(code), name="speaks", type="xdp")
    with pytest.raises(KeyError) as caught:
        made.run(bytes(60), engine=engine, helpers={999: broken})
    assert caught.value.__notes__ == [
        "in helper 999 at pc 7 of program 'speaks'",
        "in bpf_loop at pc 5 of program 'speaks'",
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_fault_of_a_helper_names_it_too(engine: str) -> None:
    with pytest.raises(MemoryFault, match="; null pointer") as caught:
        program("mov r1, 0\nmov r2, 5\ncall 6\nexit").run(bytes(60), engine=engine)
    assert caught.value.__notes__ == ["in bpf_trace_printk at pc 2 of program 'speaks'"]


# What is no fault of the program


@pytest.mark.parametrize(
    ("data", "more", "words"),
    [
        (b"short", {}, "packets of at least 14 bytes"),
        (bytes(60), {"context": {"nonesuch": 1}}, "nonesuch"),
        (bytes(60), {"helpers": {"bpf_nonesuch": print}}, "no helper 'bpf_nonesuch'"),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_wrong_input_is_a_value_error(data: bytes, more: dict[str, Any], words: str, engine: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        program("mov r0, 2\nexit").run(data, engine=engine, **more)
    assert isinstance(caught.value, InputError | EbpfError)
    assert not isinstance(caught.value, ExecutionError)


def test_a_short_packet_of_a_compiled_function_and_of_a_batch() -> None:
    function = program("mov r0, 2\nexit").compile()
    with pytest.raises(ValueError, match="at least 14 bytes"):
        function(b"short")
    with pytest.raises(ValueError, match=r"^packet 1: .*at least 14 bytes") as caught:
        function.map([bytes(60), b"short"])
    assert isinstance(caught.value, InputError)
    assert caught.value.index == 1
    assert function.map([bytes(60), b"short"], on_fault=9).tolist() == [2, 9]


def test_programs_of_a_compiler_are_explained() -> None:
    """clang's code, with its moves and frames: a lookup whose result is used as it is."""
    obj = load(OBJECTS / "globals.o")
    plain = obj.program("count")
    words = told(
        lambda engine: Program(plain.code, references=plain.references, maps=plain.maps).run(engine=engine)
    )
    assert words == "null pointer"
