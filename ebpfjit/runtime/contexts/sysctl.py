"""The context of cgroup/sysctl programs: struct bpf_sysctl, and beside it what its helpers tell
(kernel/bpf/cgroup.c, __cgroup_bpf_run_filter_sysctl).

    name            which variable it is, below /proc/sys     "net/ipv4/ip_default_ttl"
    current_value   what it has now                           b"64"
    new_value       what is being written to it               b"61"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ebpfjit.errors import InputError
from ebpfjit.runtime.contexts.named import NamedContext
from ebpfjit.runtime.contexts.outcome import FieldValues
from ebpfjit.runtime.contexts.types import ProgramType
from ebpfjit.runtime.memory import flat_view

PAGE_SIZE = 4096
"""Bytes that a value has at most, for programs."""


class SysctlContext(NamedContext):
    """bpf_sysctl with the variable. `name` is None where nobody says which; a value is empty where none is.

    Raises InputError for what is no name, or no value.
    """

    beside = ("name", "current_value", "new_value")

    def __init__(
        self, type_: ProgramType, data: bytes | memoryview, fields: Mapping[str, Any] | None = None
    ) -> None:
        said = dict(fields or {})
        name = said.pop("name", None)
        self.name = None if name is None else _name(name)
        self.current = _value(said.pop("current_value", None), "current_value")
        self.new = _value(said.pop("new_value", None), "new_value")
        self.updated = False
        super().__init__(type_, data, said)

    @property
    def writes(self) -> bool:
        """True where the variable is being written."""
        return self._number("write") != 0

    def replace(self, value: bytes) -> None:
        """Let it be another value that is written."""
        self.new, self.updated = value, True

    def _values(self) -> FieldValues:
        """Return the fields, and the value that is written where the program lets it be."""
        values = super()._values()
        if self.new or self.updated:
            values["new_value"] = self.new
        return values


def _name(value: Any) -> bytes:
    name = value.encode() if isinstance(value, str) else value
    if not isinstance(name, bytes) or not name or b"\0" in name or not all(name.split(b"/")):
        raise InputError(
            f"context field name is a path below /proc/sys, as 'net/ipv4/ip_default_ttl', not {value!r}"
        )
    return name


def _value(value: Any, field: str) -> bytes:
    if value is None:
        return b""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, int):
        raise InputError(f"context field {field} takes text as it is read or written, not {value!r}")
    return bytes(flat_view(value)[:PAGE_SIZE])
