"""What passes and lowering ask of a machine, whichever it is."""

from __future__ import annotations

from ebpfjit.record import record


@record
class Registers:
    """The registers for values, by number: so many (`count`), of which 0 to 10 are the homes of r0 to r10.

    `scratch` is one that moves may use in between. `kept` (a mask) are those that helpers keep; `extra` are
    those that are no register's home, which some operations need for themselves. `spare` is never a home: it
    is for the address of a call. Those that are `reserved` (a mask) get no values but where a function or
    a call has them.
    """

    count: int
    scratch: int
    kept: int
    extra: int
    spare: int
    reserved: int = 0
