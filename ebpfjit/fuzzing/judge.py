"""Whether a predicate holds of runs: of a batch's verdicts, or of what each run leaves."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

from ebpfjit.errors import ExecutionError, InputError
from ebpfjit.fuzzing.batches import Batch
from ebpfjit.fuzzing.predicate import OF_RESULT, Predicate
from ebpfjit.fuzzing.samples import Sample
from ebpfjit.fuzzing.side import FAULT, Side


class Judge:
    """Asks a predicate; `actions` are the names of verdicts."""

    def __init__(self, predicate: Predicate, actions: Mapping[int, str]) -> None:
        self.predicate, self.actions = predicate, actions
        self._of_verdicts: dict[int, bool] = {}

    def failing(self, side: Side, batch: Batch, verdicts: array[int]) -> int | None:
        """Return the first run of a batch that the predicate forbids, by the verdict and the packet alone."""
        if self.predicate.is_cheap:
            new = set(verdicts) - self._of_verdicts.keys() - {FAULT}
            for value in new:
                self._of_verdicts[value] = self.predicate.holds(self._told(side, value, b""))
            forbidden = {value for value in set(verdicts) if not self._of_verdicts.get(value, True)}
            return min((verdicts.index(value) for value in forbidden), default=None)
        for index, value in enumerate(verdicts):
            if value != FAULT and not self._judged(self._told(side, value, batch.sample(index).packet)):
                return index
        return None

    def watched(self, side: Side, batch: Batch, faults: list[Any]) -> tuple[array[int], int | None]:
        """Run a batch one by one and judge what each run leaves; return its verdicts, and the first run that
        is forbidden. Faults are added to the list, with their number.
        """
        verdicts, failing = array("Q"), None
        for index in range(len(batch)):
            try:
                told = self._observed(side, batch.sample(index))
            except (ExecutionError, InputError) as error:
                error.index = index
                faults.append(error)
                verdicts.append(FAULT)
                continue
            verdicts.append(told["return_value"])
            if failing is None and not self._judged(told):
                failing = index
        return verdicts, failing

    def forbids(self, side: Side, sample: Sample) -> bool:
        """Run a sample; return whether it is forbidden. A fault is a finding of its own."""
        try:
            told = self._observed(side, sample)
        except (ExecutionError, InputError):
            return False
        return not self._judged(told)

    def _observed(self, side: Side, sample: Sample) -> dict[str, Any]:
        """Run a sample; return what predicates may name. Raises as `Program.run`."""
        if not self.predicate.needs_result:
            return self._told(side, side.verdict(sample), sample.packet)
        result = side.run(sample)
        told = self._told(side, result.return_value, sample.packet)
        return told | {name: getattr(result, name) for name in OF_RESULT}

    def _judged(self, told: dict[str, Any]) -> bool:
        """Return whether the predicate holds of what was told. Raises InputError, which names the packet."""
        try:
            return self.predicate.holds(told)
        except InputError as error:
            raise InputError(f"{error}; packet {told['packet'].hex()}") from None

    def _told(self, side: Side, value: int, packet: bytes) -> dict[str, Any]:
        """Return what predicates may name of a run without what its `Result` alone has."""
        action = self.actions.get(value & 0xFFFFFFFF)
        return {"action": action, "return_value": value, "packet": packet, **side.state}
