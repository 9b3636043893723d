"""`Coverage`: what is executed while it is on, in this process; kept in files, merged with others."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from ebpfjit.coverage.counts import counts_of
from ebpfjit.coverage.covered import Covered, Key
from ebpfjit.coverage.files import FileCoverage, by_file
from ebpfjit.errors import InputError
from ebpfjit.runtime import counters

FORMAT = "ebpfjit coverage 1"


class Coverage:
    """Which lines, branches and functions of programs are executed while it is on, on any engine of ours.

    What is prepared while it is on is counted: `Program.run`, functions that `compile` returns, machines,
    `map`. Functions that were compiled before are not. `programs` (names) are those that count, None for all.
    One object may be started again and again; what was counted adds up. Counts are exact where one thread at
    a time runs a program.

        with Coverage() as coverage:
            program.run(packet)
        coverage.files["filter.c"].missing      # [12, 13]
        coverage.percent                        # 91.7
    """

    def __init__(self, programs: Collection[str] | None = None) -> None:
        self._names = None if programs is None else frozenset(programs)
        self._found: dict[Key, Covered] = {}
        self._before: dict[Key, Covered] | None = None

    def __repr__(self) -> str:
        count = len(self.programs)
        return f"<coverage of {count} program{'s' if count != 1 else ''}: {self.percent:.1f} %>"

    def __enter__(self) -> Coverage:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def start(self) -> None:
        """Count from now on. Raises RuntimeError where it does already."""
        if self._before is not None:
            raise RuntimeError("this coverage has been started already")
        self._before = _now()
        counters.start()

    def stop(self) -> None:
        """Count no more. Raises RuntimeError where it was not started."""
        if self._before is None:
            raise RuntimeError("this coverage has not been started")
        counters.stop()
        self._add(self._since())
        self._before = None

    def forget(self) -> None:
        """Begin anew: what was counted so far does not count."""
        self._found = {}
        if self._before is not None:
            self._before = _now()

    def _since(self) -> list[Covered]:
        """Return what was executed since the start."""
        before = self._before
        if before is None:
            return []
        found = []
        for key, covered in _now().items():
            changed = covered.plus(before[key], -1) if key in before else covered
            if changed.is_touched:
                found.append(changed)
        return found

    def _add(self, programs: Iterable[Covered]) -> None:
        for covered in programs:
            known = self._found.get(covered.key)
            self._found[covered.key] = covered if known is None else known.plus(covered)

    @property
    def programs(self) -> list[Covered]:
        """Each program of which something was executed, with its counts by slot."""
        found = dict(self._found)
        for covered in self._since():
            found[covered.key] = found[covered.key].plus(covered) if covered.key in found else covered
        return [each for each in found.values() if self._names is None or each.name in self._names]

    @property
    def files(self) -> dict[str, FileCoverage]:
        """What was executed by file; a program without lines is there as `<its name>`."""
        return by_file(self.programs)

    @property
    def percent(self) -> float:
        """Lines and ways of branches that were executed, of all in all files, in percent."""
        files = self.files.values()
        whole = sum(len(file.lines) + file.ways[0] for file in files)
        gone = sum(len(file.lines) - len(file.missing) + file.ways[1] for file in files)
        return 100 * gone / whole if whole else 100.0

    def to_json(self) -> dict[str, Any]:
        """Return all counts as JSON has them, for `combine` in another process."""
        return {"format": FORMAT, "programs": [covered.to_json() for covered in self.programs]}

    def combine(self, said: Any) -> None:
        """Add what `to_json` of another one `said`. Raises InputError for what is nothing of the kind."""
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            raise InputError(f"this is no coverage: it does not say {FORMAT!r}")
        programs = said.get("programs")
        if not isinstance(programs, list):
            raise InputError("this is no coverage: it has no list of programs")
        self._add([Covered.from_json(each) for each in programs])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all counts to the file `path`, whole or not at all. Raises OSError as `open`."""
        target = Path(path)
        partial = target.with_name(f"{target.name}.{os.getpid()}.part")
        partial.write_text(json.dumps(self.to_json()), encoding="utf-8")
        partial.replace(target)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Add what `save` wrote to `path`. Raises InputError where it is damaged, OSError as `open`."""
        try:
            said = json.loads(Path(path).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{os.fspath(path)}: this is no coverage: {error}") from None
        try:
            self.combine(said)
        except InputError as error:
            raise InputError(f"{os.fspath(path)}: {error}") from None


def _now() -> dict[Key, Covered]:
    """Return what was executed in this process so far."""
    found = [Covered.of(each.program, counts_of(each)) for each in counters.all_counters()]
    return {covered.key: covered for covered in found}
