"""`@ebpf_fuzz`: a test that is given the packets which reach all of a program that a fuzzer comes to."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

from ebpfjit.fuzzing.contexts import Fields, frozen
from ebpfjit.fuzzing.finding import Finding, scapy_text
from ebpfjit.fuzzing.fuzz import LIMIT, fuzz
from ebpfjit.fuzzing.report import Report
from ebpfjit.fuzzing.samples import Inputs, Sample
from ebpfjit.fuzzing.shrink import shrunk
from ebpfjit.fuzzing.side import Side
from ebpfjit.program import Program

if TYPE_CHECKING:
    from ebpfjit.keywords import FuzzOptions

RUNS = 100_000
MOST_TRIES = 500
PACKET, CONTEXT, RESULT, REPORT = "packet", "context", "result", "report"
GIVEN = (PACKET, CONTEXT, RESULT, REPORT)
Test = Callable[..., Any]


def ebpf_fuzz(
    program: Program | Callable[[], Program], **options: Unpack[FuzzOptions]
) -> Callable[[Test], Test]:
    """Have a test called with packets that a fuzzer finds, and fail where it finds something that is wrong.

        @ebpf_fuzz(load("filter.o").program("filter"), check="action != XDP_ABORTED")
        def test_it_leaves_packets_alone(packet, result):
            assert result.data == packet

    The `options` are those of `fuzz`; with neither `seconds` nor `runs` there are 100,000 runs. `program` may
    be a function that returns one, called when the test runs. A finding (a fault, a forbidden verdict,
    another version's verdict) fails the test. Then the test is called once for each packet that went a new
    way, with those of these names that it has as parameters; all others are pytest's:

        packet    its bytes (of a struct, or memory, where the program gets no packets)
        context   fields of its context, as `Program.run` takes them
        result    what `Program.run` returns for it, on maps as they are in the program
        report    the `Report` of the run: a test without the others is called once

    Where that raises, the packet is made small, as long as it raises the same, and a note of the error has
    it. A finding is an AssertionError, Ctrl-C during the search a KeyboardInterrupt.
    """
    inspect.signature(fuzz).bind(program, **options)  # who wrote it is told of a wrong name at once
    asked: FuzzOptions = {**options, "packets": [*options.get("packets", ())]}
    if asked.get("seconds") is None and asked.get("runs") is None:
        asked["runs"] = RUNS

    def decorate(test: Test) -> Test:
        wanted = [name for name in GIVEN if name in inspect.signature(test).parameters]

        @functools.wraps(test)
        def run(*args: Any, **fixtures: Any) -> None:
            __tracebackhide__ = True
            found = program if isinstance(program, Program) else program()
            report = fuzz(found, **asked)
            if report.interrupted:
                raise KeyboardInterrupt
            if report.findings:
                raise AssertionError("\n".join(_shown(each) for each in report.findings))
            if report.failure:
                raise AssertionError(report.failure)
            _Calls(test, wanted, found, asked, report, args, fixtures).all()

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
        asked: FuzzOptions,
        report: Report,
        args: tuple[Any, ...],
        fixtures: dict[str, Any],
    ) -> None:
        self.test, self.wanted, self.report = test, wanted, report
        self.args, self.fixtures = args, fixtures
        self.side = Side(program, asked.get("limit", LIMIT)) if RESULT in wanted else None
        self.program = program
        self.sizes = asked.get("sizes")

    def all(self) -> None:
        __tracebackhide__ = True
        if not {PACKET, CONTEXT, RESULT} & {*self.wanted}:
            self.once(b"", ())
            return
        least = Inputs(self.program, self.sizes).least
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
