"""`import ebpfjit` stays cheap, and the library works where keystone does not."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HEAVY = ("keystone", "capstone", "rich", "typer", "ctypes")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_import_loads_nothing_heavy() -> None:
    child = _python(f"import sys, ebpfjit; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert child.stdout.strip() == "[]", child.stderr


def test_running_and_compiling_does_not_load_what_it_does_not_need() -> None:
    child = _python(
        "import sys\n"
        "from ebpfjit import EbpfVmNoData\n"
        "vm = EbpfVmNoData(bytes.fromhex('9500000000000000')); vm.execute_program()\n"
        "print('keystone' in sys.modules)\n"
        "vm.jit_compile()\n"
        "print([m for m in ('capstone', 'rich', 'typer') if m in sys.modules])"
    )
    assert child.stdout.split("\n")[:2] == ["False", "[]"], child.stderr


def test_without_keystone_only_the_jit_is_missing() -> None:
    child = _python(
        "import sys; sys.modules['keystone'] = None\n"
        "from ebpfjit import EbpfVmNoData, JitUnavailable\n"
        "from ebpfjit.assembler import assemble\n"
        "vm = EbpfVmNoData(assemble('mov r0, 5; \\nexit'))\n"
        "print(vm.execute_program())\n"
        "try: vm.jit_compile()\n"
        "except JitUnavailable as error: print(error)\n"
    )
    first, second = child.stdout.splitlines()
    assert first == "5", child.stderr
    assert "pip install keystone-engine" in second


def test_on_another_machine_only_the_jit_is_missing() -> None:
    child = _python(
        "import os; os.uname = lambda: os.uname_result(('Linux', '', '', '', 'aarch64'))\n"
        "from ebpfjit import EbpfVmNoData, JitUnavailable\n"
        "vm = EbpfVmNoData(bytes.fromhex('b700000005000000 9500000000000000'))\n"
        "print(vm.execute_program())\n"
        "try: vm.jit_compile()\n"
        "except JitUnavailable as error: print(error)\n"
    )
    first, second = child.stdout.splitlines()
    assert first == "5", child.stderr
    assert "aarch64" in second
    assert "x86_64" in second


@pytest.mark.parametrize(
    ("engine", "absent"),
    [
        ("interpreter", ("keystone", "ebpfjit.jit", "ebpfjit.translators")),
        ("jit", ("ebpfjit.optimizer.passes", "ebpfjit.jit.cache")),
    ],
)
def test_a_first_run_on_the_command_line_imports_what_it_needs(
    engine: str, absent: tuple[str, ...], tmp_path: Path
) -> None:
    program = tmp_path / "x.s"
    program.write_text("r0 = 1\nexit\n")
    never = (
        "rich",
        "capstone",
        *(() if find_spec("pydantic") else ("hashlib",)),  # typer 0.29 has both
        "ebpfjit.runtime.maps.creation",
        "ebpfjit.runtime.owned",
    )
    child = _python(
        "import sys\n"
        f"sys.argv = ['ebpfjit', 'run', {str(program)!r}, '--engine', {engine!r}]\n"
        "from ebpfjit.cli.app import main\n"
        "main()\n"
        f"print([name for name in {(*never, *absent)!r} if name in sys.modules])"
    )
    assert child.stdout == "1 (0x1)\n[]\n", child.stderr


def test_packages_that_import_late_give_their_names_whatever_was_imported_before() -> None:
    """`ebpfjit.elf.globals` is a module, and was called in place of the builtin."""
    child = _python(
        "import ebpfjit.elf.globals, ebpfjit.runtime.contexts.skb\n"
        "from ebpfjit.elf import Object, load, read_btf\n"
        "from ebpfjit.runtime.contexts import Redirect, prepared\n"
        "print(load.__name__, prepared.__name__)"
    )
    assert child.stdout == "load prepared\n", child.stderr
