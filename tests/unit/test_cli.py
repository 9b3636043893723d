"""The command line: every command, what it prints, and one line for whatever is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ebpfjit import kernel
from ebpfjit.cli.app import main
from tests.support import warm

ROOT = Path(__file__).resolve().parents[2]
BLOCK_PORT = str(ROOT / "examples" / "block_port.o")
OBJECTS = ROOT / "tests" / "elf"
PACKET = (
    "0123456789ab fedcba987654 0800 4500003b a6ab4000 4006960f 7f000001 7f000001"
    " 9999c6cc d1e5c49d d430b5d2 80180156 fe2f0000 0101080a 00237589 0023632d 71646673 64660a"
)
ADD = "mov32 r0, 0\nmov32 r1, 2\nadd32 r0, 1\nadd32 r0, r1\nexit\n"


def ebpfjit(*arguments: str | Path, stdin: bytes | str = b"") -> subprocess.CompletedProcess[bytes]:
    return warm.run([sys.executable, "-m", "ebpfjit", *arguments], stdin, cwd=ROOT, timeout=60)


def output(*arguments: str | Path, stdin: bytes | str = b"") -> str:
    result = ebpfjit(*arguments, stdin=stdin)
    assert (result.returncode, result.stderr) == (0, b"")
    return result.stdout.decode()


def refused(*arguments: str | Path, stdin: bytes | str = b"") -> str:
    """Return the one line on stderr of a command that must exit with 1."""
    result = ebpfjit(*arguments, stdin=stdin)
    message = result.stderr.decode()
    assert result.returncode == 1, message
    assert message.startswith("ebpfjit: ")
    assert message.count("\n") == 1
    assert message.endswith("\n")
    assert b"Traceback" not in result.stdout
    return message


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write_file(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


# run


@pytest.mark.parametrize("engine", ["jit", "interpreter"])
def test_run_prints_r0(engine: str, write) -> None:  # type: ignore[no-untyped-def]
    assert output("run", write("add.s", ADD), "--engine", engine) == "3 (0x3)\n"
    assert output("run", "-", "--engine", engine, stdin=ADD) == "3 (0x3)\n"


@pytest.mark.parametrize("engine", ["jit", "interpreter"])
def test_run_an_object_on_a_packet(engine: str) -> None:
    arguments = ("run", BLOCK_PORT, "--hex", PACKET, "--mbuff-offsets", "0x40,0x50", "--engine", engine)
    assert output(*arguments) == "bpf_trace_printf: 0x9999, 0xc6cc, 0x9999\n4294967295 (0xffffffff)\n"
    assert json.loads(output(*arguments, "--json", "--program", "block_port")) == {
        "return_value": 0xFFFFFFFF,
        "hex": "0xffffffff",
        "data": PACKET.replace(" ", ""),
        "output": ["bpf_trace_printf: 0x9999, 0xc6cc, 0x9999"],
    }


LOOP = "mov r0, 0\nadd r0, 1\njlt r0, 5, -2\nexit\n"


def test_machine_code_is_kept_for_the_next_run(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    cache = tmp_path / "kept"
    straight, loop = write("add.s", ADD), write("loop.s", LOOP)
    assert output("run", straight, "--cache", cache) == "3 (0x3)\n"
    assert not cache.exists()  # the interpreter was through before
    for _ in range(2):
        assert output("run", loop, "--cache", cache) == "5 (0x5)\n"
        assert len(list(cache.glob("*.ebpfjit"))) == 1
    cache.chmod(0o777)
    assert "others may write to it" in refused("run", loop, "--cache", cache)


def test_run_writes_to_the_packet(write) -> None:  # type: ignore[no-untyped-def]
    program = write("store.s", "stb [r1+1], 0x7f\nmov64 r0, r2\nexit")
    packet = write("packet", b"\x01\x02\x03")
    assert json.loads(output("run", program, "--mem", packet, "--json"))["data"] == "017f03"
    assert packet.read_bytes() == b"\x01\x02\x03"
    assert output("run", program, "--hex", "0x01:02:03") == "3 (0x3)\n"


def test_run_chooses_among_programs() -> None:
    result = ebpfjit("run", OBJECTS / "subprograms.o")
    assert result.returncode == 2
    assert b"squares, mixed, tripled" in result.stderr.replace(b"\n", b" ")
    context = (5).to_bytes(8, "little").hex() + (7).to_bytes(8, "little").hex()
    arguments = ("run", OBJECTS / "subprograms.o", "--type", "none", "--hex", context, "--program")
    for engine in ("jit", "interpreter"):
        results = [output(*arguments, name, "--engine", engine) for name in ("squares", "mixed", "tripled")]
        assert results == ["74 (0x4a)\n", "65 (0x41)\n", "15 (0xf)\n"]


def test_run_calls_the_stock_helpers(write) -> None:  # type: ignore[no-untyped-def]
    assert int(output("run", write("time.s", "call 5\nexit")).split()[0]) > 0


# asm, disasm, verify, listing


def test_asm_and_disasm_are_inverse(write) -> None:  # type: ignore[no-untyped-def]
    source = write("add.s", ADD)
    code = ebpfjit("asm", source).stdout
    assert len(code) == 40
    out = source.with_name("add.bin")
    assert output("asm", source, "-o", out) == ""
    assert out.read_bytes() == code
    assert json.loads(output("asm", source, "--json")) == {"size": 40, "hex": code.hex()}
    text = output("disasm", out)
    assert text == "mov32 r0, 0x0\nmov32 r1, 0x2\nadd32 r0, 0x1\nadd32 r0, r1\nexit\n"
    assert ebpfjit("asm", "-", stdin=text).stdout == code
    assert output("disasm", "-", stdin=code) == text
    assert output("disasm", out, "--dialect", "linux").startswith("w0 = 0\n")
    assert json.loads(output("disasm", out, "--json")) == {"add": text.splitlines()}


def test_asm_writes_hex_to_a_terminal(write) -> None:  # type: ignore[no-untyped-def]
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "ebpfjit", "asm", str(write("exit.s", "exit"))]
    subprocess.run(command, stdout=follower, cwd=ROOT, timeout=60, check=True)
    os.close(follower)
    assert os.read(leader, 100).split() == b"95 00 00 00 00 00 00 00".split()
    os.close(leader)


def test_disasm_names_the_programs_of_an_object() -> None:
    text = output("disasm", OBJECTS / "subprograms.o")
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# squares",
        "# mixed",
        "# tripled",
        "# plus_one",
    ]
    alone = output("disasm", OBJECTS / "subprograms.o", "--program", "tripled")
    assert "#" not in alone
    assert alone in text


def test_verify() -> None:
    assert output("verify", BLOCK_PORT) == "block_port: 45 slots, valid\n"
    text = output("verify", OBJECTS / "subprograms.o", "--json")
    assert json.loads(text)["tripled"] == {"slots": 6, "type": "tc"}


def test_listing_of_other_code(tmp_path: Path) -> None:
    path = tmp_path / "twice.s"
    path.write_text("ldxb r0, [r1]\nldxb r2, [r1]\nadd r0, r2\nadd r0, 0x12345678\nexit\n")
    assert "1: 71 12 00 00 00 00 00 00  ldxb r2, [r1+0x0]   ; no check: " in output("listing", str(path))
    plain = output("listing", str(path), "--no-optimize")
    assert plain.count("; checked, argument first") == 2
    assert output("listing", str(path), "--no-checks").count("; not checked") == 4  # in both tiers
    assert "add rax, 0x12345678" in plain
    assert "add rax, 0x12345678" not in output("listing", str(path), "--harden")


def test_listing_of_a_filter() -> None:
    assert "program filter (no type" in output("listing", "--filter", "greater 60")
    usage = ebpfjit("listing", "--filter", "ip", "file.o")
    assert (usage.returncode, b"and not both" in usage.stderr) == (2, True)


def test_listing() -> None:
    text = output("listing", BLOCK_PORT)
    assert "ldxdw r2, [r1+0x50]" in text
    assert "ret" in text


# What is wrong is said in one line


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("odd.bin", bytes(13), ["odd.bin: ", "multiple of 8", "13"]),
        ("empty.bin", b"", ["empty.bin: "]),
        ("unknown.bin", b"\xff" + bytes(7), ["unknown.bin: ", "pc 0", "0xff"]),
        ("jump.s", "ja +5\nexit", ["jump.s: ", "pc 0"]),
        ("falls.s", "mov64 r0, 0", ["falls.s: ", "pc 0"]),
        ("helper.s", "call 77\nexit", ["helper.s: ", "pc 0", "77"]),
        ("store.s", "stxdw [r1], r1\nexit", ["store.s: ", "pc 0", "store of 8 bytes"]),
        ("operand.s", "mov64 r0, 1\nadd64 r0, [r1]", ["operand.s: line 2, column "]),
        ("mnemonic.bpf", "frobnicate r0", ["mnemonic.bpf: line 1, column 1"]),
        ("latin1.s", b"exit \xe9", ["latin1.s: not assembly text: byte 5"]),
        ("text.o", "not an object", ["text.o: not an ELF file"]),
        ("half.o", Path(BLOCK_PORT).read_bytes()[:700], ["half.o: ", "truncated"]),
        ("other.o", (OBJECTS / "x86_64.o").read_bytes(), ["other.o: EM_X86_64"]),
        ("elf-without-suffix", (OBJECTS / "x86_64.o").read_bytes(), ["elf-without-suffix: EM_X86_64"]),
        ("with\nnewline.s", "frobnicate", ["with"]),
    ],
)
def test_bad_programs(name: str, content: bytes | str, words: list[str], write) -> None:  # type: ignore[no-untyped-def]
    path = write(name, content)
    for engine in ("jit", "interpreter"):
        message = refused("run", path, "--engine", engine)
        for word in words:
            assert word in message
    if name not in ("helper.s", "store.s"):
        assert refused("verify", path)


def test_engines_say_the_same(write) -> None:  # type: ignore[no-untyped-def]
    for text in ("ldxw r0, [r1+9]\nexit", "call 77\nexit", "ldxdw r0, [r10]\nexit", "ja -1\nexit"):
        program = write("fault.s", text)
        arguments = ("run", program, "--hex", "00112233", "--limit", "1000", "--engine")
        messages = [refused(*arguments, engine) for engine in ("jit", "interpreter")]
        assert messages[0].split(" at ")[0] == messages[1].split(" at ")[0]


def test_missing_files() -> None:
    assert "no/such.s: No such file" in refused("run", "no/such.s")
    assert "Is a directory" in refused("disasm", ROOT)
    assert "no/such.bin: No such file" in refused("run", BLOCK_PORT, "--mem", "no/such.bin")
    assert "no/dir/out" in refused("asm", "-", "-o", "no/dir/out", stdin="exit")


def test_verify_says_what_a_valid_program_lacks() -> None:
    lines = output("verify", OBJECTS / "parts.o").splitlines()
    index = lines.index("uses_kfunc: 3 slots, valid")
    assert re.match(
        "uses_kfunc: cannot run as it is: .* calls kfunc 'a_kfunc', which is not there", lines[index + 1]
    )
    assert lines[lines.index("also_fine: 2 slots, valid") + 1].startswith("uses_map: ")


def test_a_file_is_named_once() -> None:
    message = refused("run", OBJECTS / "parts.o", "--program", "uses_map")
    assert message.count("parts.o") == 1, message


def test_a_warning_is_one_line_without_our_code() -> None:
    result = ebpfjit("run", OBJECTS / "license_missing.o", "--program", "reads", "--hex", "00" * 14)
    assert result.stderr.decode().startswith("ebpfjit: warning: pc "), result.stderr
    assert result.stderr.count(b"\n") == 1


@pytest.mark.parametrize("command", ["run", "disasm", "verify", "listing", "diff"])
def test_an_object_of_maps_alone_has_nothing_to_run(command: str) -> None:
    assert "maps_only.o: there are no programs in it" in refused(command, OBJECTS / "maps_only.o")


def test_unknown_program() -> None:
    assert "no program 'nobody'; there are: 'block_port'" in refused("run", BLOCK_PORT, "--program", "nobody")


def test_asm_of_an_object() -> None:
    assert "not assembly text" in refused("asm", BLOCK_PORT)


def test_limit() -> None:
    assert "limit" in refused("run", "-", "--limit", "100", stdin="ja -1\nexit")


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["run"],
        ["run", "-", "--engine", "abacus"],
        ["run", "-", "--hex", "0"],
        ["run", "-", "--hex", "00", "--mem", "x"],
        ["run", "-", "--mbuff-offsets", "64"],
        ["run", "-", "--mbuff-offsets", "a,b"],
        ["run", "-", "--mbuff-offsets", "0,4"],
        ["run", "-", "--limit", "0"],
        ["disasm", "-", "--dialect", "klingon"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    result = ebpfjit(*arguments, stdin=ADD)
    assert result.returncode == 2
    assert b"Traceback" not in result.stderr
    assert b"Error" in result.stderr


def test_help_and_no_arguments() -> None:
    text = output("--help")
    for command in ("run", "asm", "disasm", "verify", "listing"):
        assert f"  {command} " in text
    assert ebpfjit().returncode == 2


# The process around it


def _wait_until_busy(pid: int, seconds: float = 0.7) -> None:
    """Return when a process has used that much processor time: it is past its start-up, in its loop."""
    ticks = seconds * os.sysconf("SC_CLK_TCK")
    deadline = time.monotonic() + 60
    while int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]) < ticks:
        assert time.monotonic() < deadline, "the program never got going"


def test_interrupt_exits_with_130() -> None:
    command = [sys.executable, "-m", "ebpfjit", "run", "-", "--engine", "interpreter"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"ja -1\nexit\n")
        process.stdin.close()
        _wait_until_busy(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize("lines", [50_000, 1_000])
def test_a_closed_pipe_is_quiet(lines: int, write) -> None:  # type: ignore[no-untyped-def]
    """Where nobody reads on while a command writes, and where it has written all but the last of it."""
    program = write("long.s", "mov64 r0, 1\n" * lines + "exit\n")
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "ebpfjit", "disasm", program]
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, cwd=ROOT) as process:
        os.close(writer)
        if lines > 1000:
            assert os.read(reader, 15) == b"mov64 r0, 0x1\nm"
        os.close(reader)
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(30) == 128 + signal.SIGPIPE


def test_start_up_is_light() -> None:
    heavy = ["keystone", "capstone", "rich", "ebpfjit.jit", "ebpfjit.elf", "ebpfjit.assembler"]
    code = f"import sys, ebpfjit.cli.app; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout == "[]\n"


def test_importing_the_package_is_light() -> None:
    heavy = ["keystone", "capstone", "rich", "typer"]
    code = f"import sys, ebpfjit; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout == "[]\n"


KERNEL = kernel.unavailable_reason()


@pytest.mark.skipif(KERNEL is not None, reason=f"the kernel as an engine: {KERNEL}")
def test_run_on_the_kernel() -> None:
    text = "ldxb r0, [r1+1]\nstb [r1], 9\nexit\n"
    printed = output("run", "-", "--hex", "aabb", "--engine", "kernel", "--json", stdin=text)
    assert json.loads(printed) == {"return_value": 0xBB, "hex": "0xbb", "data": "09bb", "output": []}


@pytest.mark.skipif(KERNEL is not None, reason=f"the kernel as an engine: {KERNEL}")
def test_what_the_kernel_refuses() -> None:
    assert "Linux verifier" in refused("run", "-", "--engine", "kernel", stdin="ldxb r0, [r9]\nexit\n")


def test_the_kernel_takes_no_limit() -> None:
    assert ebpfjit("run", "-", "--engine", "kernel", "--limit", "5", stdin="exit\n").returncode == 2


PACKET_FILTER = Path(__file__).parents[2] / "examples" / "packets" / "xdp_port_filter.o"


def test_a_command_that_ran_nothing_reports_no_coverage(tmp_path: Path) -> None:
    kept = tmp_path / "out"
    kept.write_text("of before", encoding="utf-8")
    said = refused("run", PACKET_FILTER, "--hex", "00", "--cov-report", f"term,lcov:{kept}")
    assert "at least 14 bytes" in said
    assert kept.read_text(encoding="utf-8") == "of before"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize(
    "line",
    [
        ("cost", PACKET_FILTER, "--hex", "00" * 60, "--flame"),
        ("listing", PACKET_FILTER, "--html"),
        ("asm", "-", "-o"),
        ("run", PACKET_FILTER, "--hex", "00" * 60, "--cov-report", "lcov:"),
        ("run", PACKET_FILTER, "--hex", "00" * 60, "--cov-report", "xml:"),
        ("fuzz", PACKET_FILTER, "--check", "1 == 0", "--inputs", "20", "--tests"),
        ("fuzz", PACKET_FILTER, "--inputs", "20", "--cov-report", "lcov:"),
    ],
    ids=lambda line: f"{line[0]} {line[-1]}",
)
def test_a_full_disk_is_named(line: tuple[str | Path, ...]) -> None:
    *before, last = line
    files = [f"{last}/dev/full"] if str(last).endswith(":") else [last, "/dev/full"]
    said = refused(*before, *files, stdin="r0 = *(u8 *)(r1 + 0)\nexit\n")
    assert said == "ebpfjit: /dev/full: No space left on device\n"


def test_an_error_of_our_own_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TypeError("unhashable type: 'dict'")

    monkeypatch.setattr("ebpfjit.cost.measure", fail)
    monkeypatch.setattr(sys, "argv", ["ebpfjit", "cost", str(PACKET_FILTER), "--hex", "00" * 60])
    with pytest.raises(TypeError):  # as the tests have it
        main()
    monkeypatch.delenv("EBPFJIT_FAILURES")
    assert main() == 1
    assert capsys.readouterr().err.splitlines() == [
        "ebpfjit: a bug of ebpfjit: TypeError: unhashable type: 'dict'; "
        "EBPFJIT_FAILURES=raise in the environment shows where"
    ]


def test_coverage(tmp_path: Path) -> None:
    report = f"term,lcov:{tmp_path / 'out'}"
    done = ebpfjit("run", PACKET_FILTER, "--hex", "00" * 60, "--json", "--cov-report", report)
    assert json.loads(done.stdout)["return_value"] == 2
    assert b"xdp_port_filter.c" in done.stderr
    assert "FNDA:1,port_filter\n" in (tmp_path / "out").read_text(encoding="utf-8")
    assert output("diff", PACKET_FILTER, "--random", "2", "--cov").splitlines()[-1].startswith("TOTAL")
    assert "'pdf' is none" in refused("run", PACKET_FILTER, "--cov-report", "pdf")
    assert b"--cov is for the program of a FILE" in ebpfjit("fuzz", "--programs", "1", "--cov").stderr


def test_cost(tmp_path: Path) -> None:
    graph = tmp_path / "graph.svg"
    said = json.loads(output("cost", PACKET_FILTER, "--hex", "00" * 60, "--json", "--flame", graph))
    assert (said["packets"], said["instructions"], said["faults"]) == (1, 23, 0)
    assert graph.read_text(encoding="utf-8").startswith("<svg ")
    assert "program.h:42" in output("cost", PACKET_FILTER, "--hex", "00" * 60)
    assert "there is no packet" in refused("cost", PACKET_FILTER)
    assert "at least 14 bytes" in refused("cost", PACKET_FILTER, "--hex", "00")
