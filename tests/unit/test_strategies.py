"""Hypothesis strategies for inputs of programs, and `@ebpf_fuzz`."""

from __future__ import annotations

import inspect
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, find, given, settings

from ebpfjit import InputError, Program, load, strategies
from ebpfjit.difftest.frames import checksum, frame
from ebpfjit.fuzzing import ebpf_fuzz, fuzz
from ebpfjit.fuzzing.values import value_bytes
from ebpfjit.keywords import FuzzOptions
from ebpfjit.runtime.contexts.types import TYPES

pytest_plugins = ["pytester"]
EXAMPLES = Path(__file__).parents[2] / "examples"
TRANSLATIONS = load(EXAMPLES / "packets" / "nat.o").maps["translations"]
FEW = settings(max_examples=5, deadline=None, database=None, suppress_health_check=[*HealthCheck])


def firewall(number: int = 0) -> Program:
    return load(EXAMPLES / "bugs" / f"firewall_{number}.o").program("firewall")


def test_frames_have_the_layers_that_are_asked_for() -> None:
    rng = random.Random(5)
    for _ in range(10):
        plain = frame(rng, {"ipv4", "udp"})
        assert (plain[12:14], plain[23]) == (b"\x08\x00", 17)
        assert checksum(plain[14:34]) == 0
        inner = frame(rng, {"ipv6", "gre"})
        assert (inner[12:14], inner[20]) == (b"\x86\xdd", 47)
        double = frame(rng, {"qinq", "arp"})
        assert double[12:14] in (b"\x88\xa8", b"\x08\x06")
    with pytest.raises(ValueError, match="no layer 'sctp'"):
        frame(rng, {"sctp"})
    with pytest.raises(ValueError, match="no layer 'sctp'"):
        strategies.packets("sctp")


@pytest.mark.parametrize("layer", ["tcp", "ipv6"])
def test_packets_shrink(layer: str) -> None:
    smallest = find(strategies.packets(layer), lambda packet: True, settings=FEW)
    assert len(smallest) <= 80
    assert smallest[:12] == bytes(12)


@pytest.mark.parametrize("name", [None, *sorted({each.name for each in TYPES.values()})])
def test_arguments_are_those_that_runs_take(name: str | None) -> None:
    program = Program.from_assembly("r0 = 0\nexit", type=name)

    @FEW
    @given(strategies.arguments(program))
    def runs(arguments: dict[str, Any]) -> None:
        assert program.run(**arguments).return_value == 0

    runs()


@FEW
@given(strategies.contents(TRANSLATIONS, max_size=3))
def test_contents_are_those_that_maps_hold(entries: dict[bytes, bytes]) -> None:
    TRANSLATIONS.clear()
    for key, value in entries.items():
        TRANSLATIONS[key] = value
    assert dict(TRANSLATIONS.items()) == entries


def test_values_have_the_members_of_their_type() -> None:
    definition = TRANSLATIONS.definition
    rng = random.Random(2)
    values = [value_bytes(rng, definition.value_type, definition.value_size) for _ in range(60)]
    ports = {definition.value_type.decode(value)["port"] for value in values}
    assert {0, 0xFFFF} <= ports
    with pytest.raises(InputError, match="no map"):
        strategies.values(3)


def test_ebpf_fuzz_calls_a_test_with_packets_that_go_new_ways(tmp_path: Path) -> None:
    seen = []

    @ebpf_fuzz(firewall(), runs=3000, check="action != XDP_ABORTED")
    def test(packet: bytes, result: Any, report: Any, fixture: int) -> None:
        assert fixture == 7
        seen.append((result.action, report.runs))

    test(fixture=7)
    assert {action for action, _ in seen} == {"XDP_PASS", "XDP_DROP"}
    assert {runs for _, runs in seen} == {3000}
    calls = []
    ebpf_fuzz(lambda: firewall(), runs=200)(lambda report: calls.append(report.runs))()
    assert calls == [200]


def test_ebpf_fuzz_takes_what_fuzz_takes() -> None:
    taken = {*inspect.signature(fuzz).parameters} - {"program", "progress"}
    assert taken == {*FuzzOptions.__annotations__}
    with pytest.raises(TypeError, match="chekc"):
        ebpf_fuzz(firewall(), chekc="action != XDP_ABORTED")  # type: ignore[call-arg]


def test_ebpf_fuzz_fails_with_a_small_packet() -> None:
    @ebpf_fuzz(firewall(), runs=3000)
    def test(packet: bytes) -> None:
        assert len(packet) < 20 or packet[13] != 0xDD

    with pytest.raises(AssertionError) as raised:
        test()
    (note,) = raised.value.__notes__
    assert note.startswith(f"packet (20 bytes): {'00' * 13}dd{'00' * 6}")
    assert "LLC" in note or "Ether" in note


def test_ebpf_fuzz_fails_with_what_the_fuzzer_finds() -> None:
    with pytest.raises(AssertionError, match=r"fault: pc \d+: load of 2 bytes(.|\n)*packet 0000"):
        ebpf_fuzz(firewall(1), runs=100_000)(lambda packet: None)()


def test_ebpf_fuzz_leaves_fixtures_to_pytest(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        from ebpfjit import load
        from ebpfjit.fuzzing import ebpf_fuzz

        PROGRAM = load({str(EXAMPLES / "bugs" / "firewall_0.o")!r}).program("firewall")

        @ebpf_fuzz(PROGRAM, runs=300)
        def test_it(packet, result, tmp_path):
            assert tmp_path.exists() and result.action != "XDP_TX"
        """
    )
    pytester.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=1)
