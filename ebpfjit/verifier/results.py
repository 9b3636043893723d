"""What programs, and functions that helpers call, may return."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfjit.verifier import arithmetic, contexts, lsm_hooks
from ebpfjit.verifier.refusals import Refused
from ebpfjit.verifier.state import State
from ebpfjit.verifier.values import Pointer, Poison, Scalar, Value, mark_precise

if TYPE_CHECKING:
    from ebpfjit.verifier.walk import Walk


def check_result(walk: Walk, state: State, result: Value, register: str = "R0") -> None:
    """Hold a result of the program against what programs of its type may return. Raises Refused."""
    later, type_ = state.frames[0].callback, walk.setting.type
    if later is not None:
        in_range(result, later.results, "async callback", register)
        return
    if walk.hook:
        results = lsm_hooks.result_range(walk.hook, walk.setting.attach)
    else:
        results = contexts.result_range(type_, walk.setting.attach) if type_ is not None else None
    if results is not None:
        in_range(result, results, "program exit", register, is_half=bool(walk.hook))


def in_range(
    result: Value, results: tuple[int, int], where: str, register: str = "R0", *, is_half: bool = False
) -> None:
    """Raise Refused where a result is none of those from `results[0]` to `results[1]`."""
    if isinstance(result, Poison):
        return
    if not isinstance(result, Scalar):
        what = f"a known value ({arithmetic.named(result)})" if isinstance(result, Pointer) else "a number"
        raise Refused("result", f"At {where} the register {register} is not {what}")
    mark_precise(result)
    number = result.number
    low, high = (number.smin32, number.smax32) if is_half else (number.smin, number.smax)
    if low < results[0] or high > results[1]:
        has = f"smin={low} smax={high}"
        raise Refused(
            "result",
            f"At {where} the register {register} has {has} should have been in [{results[0]}, {results[1]}]",
        )
