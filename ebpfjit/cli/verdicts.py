"""What became of each packet, as a table in a file: CSV, JSON lines or Parquet, by the file's name."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ebpfjit.capture import Batch
from ebpfjit.capture.writer import naming
from ebpfjit.cli.files import FileError

COLUMNS = ("packet", "timestamp", "length", "verdict")
Rows = Iterable[tuple[int, int, int, str]]


class Table:
    """A file of verdicts, which has its name when it is whole: packet (from 1), time, bytes, verdict."""

    def __init__(self, path: str) -> None:
        suffix = Path(path).suffix
        if suffix not in _WRITERS:
            raise FileError(f"{path}: a table of verdicts is a file whose name ends in {', '.join(_WRITERS)}")
        self.path, self._unfinished = path, f"{path}.{secrets.token_hex(4)}.unfinished"
        with naming(path):
            self._add, self._close = _WRITERS[suffix](self._unfinished)

    def add(self, batch: Batch, verdicts: Sequence[str]) -> None:
        """Add what became of the packets of a batch."""
        numbers = range(batch.first + 1, batch.first + 1 + len(batch))
        with naming(self.path):
            self._add(zip(numbers, batch.timestamps, batch.lengths, verdicts, strict=True))

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with naming(self.path):
                self._close()  # where the disk is full that is said here
                if error is None:
                    os.replace(self._unfinished, self.path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._unfinished)


Made = tuple[Callable[[Rows], None], Callable[[], None]]


def _csv(path: str) -> Made:
    file = open(path, "x", newline="")  # noqa: SIM115 - closed with the table
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    return writer.writerows, file.close


def _json_lines(path: str) -> Made:
    file = open(path, "x")  # noqa: SIM115 - closed with the table

    def add(rows: Rows) -> None:
        file.writelines(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows)

    return add, file.close


def _parquet(path: str) -> Made:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise FileError(f"{path}: Parquet needs pyarrow: pip install 'ebpfjit[arrow]'") from None
    types = (pa.uint64(), pa.timestamp("ns"), pa.uint32(), pa.dictionary(pa.int32(), pa.string()))
    schema: Any = pa.schema(list(zip(COLUMNS, types, strict=True)))
    file = open(path, "xb")  # noqa: SIM115 - closed with the table
    writer: Any = pq.ParquetWriter(file, schema)

    def add(rows: Rows) -> None:
        columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
        arrays = [pa.array(column, type_) for column, type_ in zip(columns, types, strict=True)]
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

    def close() -> None:
        with file:
            writer.close()

    return add, close


_WRITERS: dict[str, Callable[[str], Made]] = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}
