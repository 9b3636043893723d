"""`@ebpf_fuzz`: a test that is given the packets which reach all of a program that a fuzzer comes to."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from ebpfjit.fuzzing.contexts import Fields, frozen
from ebpfjit.fuzzing.finding import Finding, scapy_text
from ebpfjit.fuzzing.fuzz import LIMIT, Report, fuzz
from ebpfjit.fuzzing.predicate import Predicate
from ebpfjit.fuzzing.samples import Inputs, Sample, Sizes
from ebpfjit.fuzzing.shrink import shrunk
from ebpfjit.fuzzing.side import Side
from ebpfjit.program import Program

RUNS = 100_000
MOST_TRIES = 500
PACKET, CONTEXT, RESULT, REPORT = "packet", "context", "result", "report"
GIVEN = (PACKET, CONTEXT, RESULT, REPORT)
Test = Callable[..., Any]


def ebpf_fuzz(
    program: Program | Callable[[], Program],
    *,
    check: str | Predicate | None = None,
    against: Program | None = None,
    seconds: float | None = None,
    runs: int | None = None,
    seed: int = 1,
    packets: Iterable[bytes] = (),
    limit: int = LIMIT,
    changes_maps: bool = True,
    sizes: Sizes | None = None,
) -> Callable[[Test], Test]:
    """Have a test called with packets that a fuzzer finds, and fail where it finds something that is wrong.

        @ebpf_fuzz(load("filter.o").program("filter"), check="action != XDP_ABORTED")
        def test_it_leaves_packets_alone(packet, result):
            assert result.data == packet

    The options are those of `fuzz`; with neither `seconds` nor `runs` there are 100,000 runs. `program` may
    be a function that returns one, called when the test runs. A finding (a fault, a forbidden verdict,
    another version's verdict) fails the test. Then the test is called once for each packet that went a new
    way, with those of these names that it has as parameters; all others are pytest's:

        packet    its bytes (of a struct, or memory, where the program gets no packets)
        context   fields of its context, as `Program.run` takes them
        result    what `Program.run` returns for it, on maps as they are in the program
        report    the `Report` of the run: a test without the others is called once

    Where that raises, the packet is made small, as long as it raises the same, and a note of the error has
    it.
    """
    given = list(packets)

    def decorate(test: Test) -> Test:
        wanted = [name for name in GIVEN if name in inspect.signature(test).parameters]

        @functools.wraps(test)
        def run(*args: Any, **fixtures: Any) -> None:
            __tracebackhide__ = True
            found = program if isinstance(program, Program) else program()
            report = fuzz(
                found,
                check=check,
                against=against,
                seconds=seconds,
                runs=RUNS if runs is None and seconds is None else runs,
                seed=seed,
                packets=given,
                limit=limit,
                changes_maps=changes_maps,
                sizes=sizes,
            )
            if report.interrupted:
                raise KeyboardInterrupt
            if report.findings:
                raise AssertionError("\n".join(_shown(each) for each in report.findings))
            _Calls(test, wanted, found, limit, report, args, fixtures).all(sizes)

        signature = inspect.signature(test)
        rest = [each for name, each in signature.parameters.items() if name not in GIVEN]
        run.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]
        return run

    return decorate


def _shown(finding: Finding) -> str:
    text = f"{finding.kind}: {finding.text}\n  packet {finding.packet.hex()}"
    if finding.context:
        text += f"\n  context {finding.context}"
    if len(finding.packets) > 1:
        text += f"\n  behind {len(finding.packets) - 1} other packets"
    return f"{text}\n  {finding.scapy}" if finding.scapy else text


class _Calls:
    """Calls a test with what it asks for, packet by packet."""

    def __init__(
        self,
        test: Test,
        wanted: list[str],
        program: Program,
        limit: int,
        report: Report,
        args: tuple[Any, ...],
        fixtures: dict[str, Any],
    ) -> None:
        self.test, self.wanted, self.report = test, wanted, report
        self.args, self.fixtures = args, fixtures
        self.side = Side(program, limit) if RESULT in wanted else None
        self.program = program

    def all(self, sizes: Sizes | None) -> None:
        __tracebackhide__ = True
        if not {PACKET, CONTEXT, RESULT} & {*self.wanted}:
            self.once(b"", ())
            return
        least = Inputs(self.program, sizes).least
        for packet, context in zip(self.report.kept, self.report.contexts, strict=True):
            fields = tuple((name, frozen(value)) for name, value in context.items())
            kind = self.error_of(packet, fields)
            if kind is not None:
                self.fail(packet, fields, kind, least)

    def error_of(self, packet: bytes, fields: Fields) -> type[Exception] | None:
        """Return what kind of error the test raises, None where it passes."""
        try:
            self.once(packet, fields)
        except Exception as error:
            return type(error)
        return None

    def once(self, packet: bytes, fields: Fields) -> None:
        """Call the test."""
        __tracebackhide__ = True
        there: dict[str, Any] = {PACKET: packet, CONTEXT: dict(fields), REPORT: self.report}
        if self.side is not None:
            self.side.maps.put_back(self.side.start)
            there[RESULT] = self.side.run(Sample(packet, fields))
        self.test(*self.args, **self.fixtures, **{name: there[name] for name in self.wanted})

    def fail(self, packet: bytes, fields: Fields, kind: type[Exception], least: int) -> None:
        """Raise what the test raises for a packet that was made small."""
        __tracebackhide__ = True
        small = shrunk(packet, lambda data: self.error_of(data, fields) is kind, least, MOST_TRIES)
        try:
            self.once(small, fields)
        except Exception as error:
            shown = scapy_text(small) if Inputs(self.program).frames else ""
            context = f"context: {dict(fields)}" if fields else ""
            note = f"packet ({len(small)} bytes): {small.hex()}", context, shown
            error.add_note("\n".join(filter(None, note)))
            raise
        raise AssertionError(f"the test failed with the packet {small.hex()}, and then did not")
