"""What passes and lowering ask of a machine, whichever it is."""

from __future__ import annotations

from ebpfjit.record import record


@record
class Registers:
    """The registers for values, by number: so many (`count`), of which 0 to 10 are the homes of r0 to r10.

    `scratch` is one that moves may use in between. `kept` (a mask) are those that helpers keep; `extra` are
    those that are no register's home, which some operations need for themselves. `spare` is one that is never
    a home, for the address of a call.
    """

    count: int
    scratch: int
    kept: int
    extra: int
    spare: int
