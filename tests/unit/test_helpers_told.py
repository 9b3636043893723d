"""Helpers whose effect is outside of the program: it is told in the result."""

from __future__ import annotations

import pytest

from ebpfjit import ExecutionError, Program, Result
from ebpfjit.assembler import assemble

engines = pytest.mark.parametrize("engine", ["interpreter", "jit"])


def run(text: str, type_: str, engine: str) -> Result:
    return Program.from_bytes(assemble(f"{text}\nexit"), type=type_).run(engine=engine)


@engines
@pytest.mark.parametrize("helper", [109, 117])
def test_signals(helper: int, engine: str) -> None:
    result = run(
        f"mov r1, 9\ncall {helper}\nmov r6, r0\nmov r1, 65\ncall {helper}\nadd r0, r6", "kprobe", engine
    )
    assert (result.signals, result.return_value) == ((9,), -22 & 0xFFFFFFFF)


@engines
def test_callbacks_of_a_socket(engine: str) -> None:
    result = run(
        "mov r2, 0x185\nmov r6, r1\ncall 59\nldxw r1, [r6+84]\nlsh r1, 16\nor r0, r1", "sock_ops", engine
    )
    assert result.return_value == 0x05 << 16 | 0x180
    assert result.context["bpf_sock_ops_cb_flags"] == 5
    with pytest.raises(ExecutionError, match="is for sock_ops programs"):
        run("mov r2, 1\ncall 59", "kprobe", engine)
