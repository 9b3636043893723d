"""Where there is no machine code: batches and commands interpret, or say what is missing."""

from __future__ import annotations

import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import EbpfWarning, JitUnavailable, MemoryFault, Program, capture, load
from ebpfjit.engines import unavailable
from ebpfjit.errors import InputError
from ebpfjit.interpreted import Interpreted, for_batches
from tests.support.lazy import Lazy

ROOT = Path(__file__).resolve().parents[2]
FILTER = ROOT / "examples" / "packets" / "xdp_port_filter.o"
SECOND = Program.from_assembly("ldxb r0, [r1+1]\nexit", name="second")
BYTES = bytes(range(12))
WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "buffers": ([BYTES, BYTES[5:7]], {}),
    "records": (BYTES, {"stride": 4}),
    "offsets": (BYTES, {"offsets": [0, 4, 6, 12]}),
    "faults": ([BYTES, b"x", BYTES], {"on_fault": -1}),
    "none": ([], {}),
    "lengths": (BYTES, {"offsets": array("Q", [4, 0]), "lengths": array("I", [2, 12])}),
    "arrays": (BYTES, {"offsets": memoryview(array("i", [0, 9, 4, 9, 9]))[::2]}),
}


@pytest.mark.skipif(bool(unavailable("jit")), reason="what is compared with is not here")
@pytest.mark.parametrize("way", WAYS)
def test_batches_are_as_machine_code_has_them(way: str) -> None:
    packets, how = WAYS[way]
    assert Interpreted(SECOND).map(packets, **how) == SECOND.compile().map(packets, **how)


WRONG: list[dict[str, Any]] = [
    {"offsets": [0, 10, 5]}, {"offsets": [0, 10, 500]}, {"offsets": [-5, 10]}, {"offsets": []},
    {"offsets": array("d", [0, 3])}, {"offsets": [0, None]}, {"offsets": 5}, {"offsets": "ab"},
    {"offsets": [0, 1 << 70]}, {"offsets": array("Q", [1 << 63, 4])}, {"lengths": [1]},
    {"offsets": [0], "lengths": [-1]}, {"offsets": [0, 1], "lengths": [1]},
    {"offsets": [90], "lengths": [11]},
    {"stride": 0}, {"stride": -1}, {"stride": 7}, {"stride": 2.0}, {"stride": 5, "offsets": [0, 5]},
    {"stride": 5, "on_fault": "x"},
]  # fmt: skip


@pytest.mark.skipif(bool(unavailable("jit")), reason="what is compared with is not here")
@pytest.mark.parametrize("how", WRONG, ids=str)
def test_places_that_are_none_are_said_in_the_same_words(how: dict[str, Any]) -> None:
    said = []
    for function in (Interpreted(SECOND), SECOND.compile()):
        with pytest.raises((TypeError, ValueError)) as raised:
            function.map(bytes(100), **how)
        said.append((raised.type, str(raised.value)))
    assert said[0] == said[1]


np = Lazy("numpy")
APART = r"^the buffer is not C-contiguous: its bytes do not lie .* numpy\.ascontiguousarray\(it\), or bytes"
CONVERT = r"of the other byte order: numpy's astype\('int64'\) converts"
BUFFERS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "every second byte": (lambda: np.arange(64, dtype="u1")[::2], {"stride": 4}, (ValueError, APART)),
    "backwards": (lambda: np.arange(64, dtype="u1")[::-1], {"offsets": [0, 4]}, (BufferError, APART)),
    "a slice with steps": (lambda: memoryview(BYTES)[::3], {"stride": 2}, (ValueError, APART)),
    "columns": (lambda: np.zeros((4, 8), "u1")[:, :4], {"stride": 4}, (ValueError, APART)),
    "Fortran's order": (lambda: np.asfortranarray(np.eye(4)), {"stride": 8}, (ValueError, APART)),
    "one of a list": (lambda: [BYTES, memoryview(BYTES)[::3]], {}, (ValueError, APART)),
    "objects": (lambda: np.array([b"ab"], object), {"stride": 8}, (TypeError, "buffer of Python objects")),
    "times": (lambda: np.zeros(4, "M8[ns]"), {"stride": 8}, (ValueError, "cannot include dtype 'M'")),
    "their offsets": (
        lambda: BYTES,
        {"offsets": lambda: np.arange(2, dtype=">i8")},
        (TypeError, CONVERT),
    ),
    "one number": (lambda: 5, {}, (TypeError, "not iterable")),
    "rows": (lambda: np.arange(32, dtype="u1").reshape(8, 4), {"stride": 4}, [*range(1, 32, 4)]),
    "each row": (lambda: np.arange(32, dtype="u1").reshape(8, 4), {}, [*range(1, 32, 4)]),
    "some rows": (lambda: np.arange(32, dtype="u1").reshape(8, 4)[2:4], {"stride": 4}, [9, 13]),
    "behind a slice": (lambda: memoryview(BYTES)[4:], {"stride": 4}, [5, 9]),
    "big-endian": (lambda: np.array([0x1234, 0x5678], ">u2"), {"stride": 2}, [0x34, 0x78]),
    "structs": (lambda: np.array([(1, 2)], [("a", "u1"), ("b", "<u4")]), {"stride": 5}, [2]),
    "one value": (lambda: np.array(0x1234, "<u4"), {"stride": 4}, [0x12]),
    "text": (lambda: np.array(["ab"]), {"stride": 8}, [0]),
    "nothing": (lambda: np.zeros((0, 4), "u1"), {"stride": 4}, []),
    "a number of numpy's": (lambda: BYTES, {"stride": lambda: np.int64(6)}, [1, 7]),
    "a fault's": (lambda: [b"x"], {"on_fault": lambda: np.int64(-1)}, [(1 << 64) - 1]),
}
FUNCTIONS: dict[str, Any] = {"interpreter": Interpreted, "machine code": Program.compile}
if unavailable("jit"):
    del FUNCTIONS["machine code"]


@pytest.mark.parametrize("engine", FUNCTIONS)
@pytest.mark.parametrize("which", BUFFERS)
def test_buffers_of_every_kind(which: str, engine: str) -> None:
    """What is read as it lies, and what is refused, in which words."""
    made, how, expected = BUFFERS[which]
    options = {name: value() if callable(value) else value for name, value in how.items()}
    function = FUNCTIONS[engine](SECOND)
    if isinstance(expected, list):
        assert list(function.map(made(), **options)) == expected
        return
    with pytest.raises(expected[0], match=expected[1]):
        function.map(made(), **options)


@pytest.mark.parametrize("engine", FUNCTIONS)
def test_plain_memory_is_written_in_place(engine: str) -> None:
    """And where it cannot be written a store is a fault, by its packet."""
    function = FUNCTIONS[engine](Program.from_assembly("stb [r1], 7\nmov r0, 0\nexit"))
    there = np.zeros((3, 4), "u1")
    function.map(there, stride=4)
    assert there[:, 0].tolist() == [7, 7, 7]
    one = bytearray(2)
    function(one)
    assert one == b"\7\0"
    there.flags.writeable = False
    for packets, how in [(bytes(8), {"stride": 4}), (there, {"stride": 4}), ([one, bytes(2)], {})]:
        with pytest.raises(MemoryFault, match=r"^packet \d: pc 0: store of 1 byte at .*: mem is read-only"):
            function.map(packets, **how)


def test_a_fault_and_a_packet_that_is_too_short_name_their_place() -> None:
    with pytest.raises(MemoryFault) as fault:
        Interpreted(SECOND).map([BYTES, b"x"])
    assert fault.value.index == 1
    with pytest.raises(InputError) as short:
        Interpreted(load(FILTER).programs["port_filter"]).map([bytes(60), b"x"])
    assert short.value.index == 1


def test_who_interprets_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise JitUnavailable("there is no keystone here")

    monkeypatch.setattr(Program, "compile", refuse)
    with pytest.warns(EbpfWarning, match="no keystone here; the interpreter runs 'second'"):
        assert for_batches(SECOND)(BYTES) == 1


END = "<end>\n"
COMMANDS = f"""
import sys
from array import array
sys.modules["keystone"] = None
from ebpfjit.cli.app import main
for line in sys.stdin.read().splitlines():
    sys.argv[1:] = line.split()
    print(main())
    print({END!r}, end="", flush=True)
    print({END!r}, end="", flush=True, file=sys.stderr)
"""


MISSING = "pip install keystone-engine"
#         command: exit status, the last line of what it prints, what standard error says
SAID: dict[str, tuple[int, str, str]] = {
    "filter arp --pcap c.pcap": (0, "1 of 1 packets match", MISSING),
    f"diff {FILTER} --random 3": (0, "3 inputs, interpreter, optimized: no difference", MISSING),
    f"fuzz {FILTER} --inputs 30": (0, "0 findings, 0 differences between engines", MISSING),
    "fuzz --programs 3": (0, "second of processor time", MISSING),
    f"run {FILTER} --pcap c.pcap": (0, "", ""),
    f"run {FILTER} --pcap c.pcap --reasons": (2, "", MISSING),
    f"diff {FILTER} --engines interpreter,jit": (1, "", MISSING),
    f"fuzz {FILTER} --engines interpreter,abacus": (1, "", "no engine 'abacus'"),
}


def test_commands_interpret_or_say_what_is_missing(tmp_path: Path) -> None:
    with capture.Writer(str(tmp_path / "c.pcap")) as writer:
        writer.add(bytes(12) + b"\x08\x06" + bytes(46), 1)
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS], input="\n".join(SAID), cwd=tmp_path, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    told = done.stdout.split(END), done.stderr.split(END)
    for (command, (status, last, why)), out, err in zip(SAID.items(), *told, strict=False):
        *_, printed, ended = ["", *out.strip().splitlines()]
        assert ended == str(status), command
        assert last in printed, command
        assert why in err, command
        assert len(err.strip().splitlines()) == (0 if not why else 4 if status == 2 else 1), command
