"""Variables of the kernel by name: extern ... __ksym, and what an environment says is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ebpfjit import Environment, ExecutionError, LoadError, Object, load
from ebpfjit.kernel import KernelUnavailable, KernelVerifierError
from ebpfjit.runtime.symbols import address_of_symbol

OBJECT = Path(__file__).parents[1] / "elf" / "ksyms.o"
SYMBOLS = {"bpf_prog_active": [5, 6], "cpu_number": [bytes(4), b"\x01\0\0\0"], "linux_banner": b"Linux 6"}
engines = pytest.mark.parametrize("engine", ["interpreter", "jit"])


def loaded(**how: object) -> Object:
    environment = Environment(**{"cpus": 2, "symbols": SYMBOLS, **how})  # type: ignore[arg-type]
    return load(OBJECT, environment=environment)


@engines
def test_variables_are_what_the_environment_says(engine: str) -> None:
    programs = loaded().programs
    results = {name: program.run(engine=engine).return_value for name, program in programs.items()}
    assert results == {"active": 6, "numbers": 1100, "missing": 2, "banner": 1}
    assert loaded(cpu=1).programs["active"].run(engine=engine).return_value == 7
    weak = loaded(symbols={**SYMBOLS, "a_missing_symbol": 0}).programs["missing"]
    assert weak.run(engine=engine).return_value == 1


@engines
def test_each_run_may_have_other_values(engine: str) -> None:
    obj = loaded()
    other = replace(obj.programs["active"].environment, symbols={**SYMBOLS, "bpf_prog_active": 41})
    for _ in range(2):
        assert obj.programs["active"].run(engine=engine, environment=other).return_value == 42
        assert obj.programs["active"].run(engine=engine).return_value == 6
    with pytest.raises(
        ExecutionError, match="kernel symbol 'cpu_number': the environment of the load has it"
    ):
        obj.programs["numbers"].run(engine=engine, environment=Environment())


def test_compiled_functions_read_them() -> None:
    assert loaded().programs["banner"].compile()(b"") == 1
    assert loaded().programs["active"].compile()(b"") == 6


@engines
def test_what_nobody_says_is_refused_by_name(engine: str) -> None:
    programs = load(OBJECT).programs
    assert programs["missing"].run(engine=engine).return_value == 2
    with pytest.raises(LoadError, match=r"kernel symbol 'linux_banner', .*Environment\(symbols="):
        programs["banner"].run(engine=engine)


def test_the_kernel_is_told_its_own() -> None:
    """What a kernel does not show in /proc/kallsyms it does not find by its id in BTF either."""
    programs, refusal = loaded().programs, ""
    try:
        assert programs["missing"].run(engine="kernel").return_value == 2
        assert programs["active"].run(engine="kernel").return_value < 1 << 16
    except KernelUnavailable as error:
        pytest.skip(str(error))
    except KernelVerifierError as error:
        refusal = str(error)
    assert not refusal or "for kernel symbol 'bpf_prog_active'" in refusal


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        ({"x": "text"}, "'x' is bytes, a number, or a list"),
        ({"x": b""}, "'x' has 1 to"),
        ({"x": [1, 2, 3]}, "values for 3 processors, and there are 2"),
        ({"x": [bytes(1 << 17), b"1"]}, "'x' has 1 to 65536 bytes, not 131072"),
    ],
)
def test_what_cannot_be_a_variable(symbols: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Environment(cpus=2, symbols=symbols)
    assert address_of_symbol("x") == address_of_symbol("x") != address_of_symbol("y")


@engines
@pytest.mark.parametrize("name", ["active", "numbers", "missing", "banner"])
def test_a_program_of_other_code_raises_nothing_else(name: str, engine: str) -> None:
    program = replace(loaded().programs[name], code=bytes.fromhex("b700000003000000 9500000000000000"))
    if name == "missing":
        assert program.run(engine=engine).return_value == 3
        return
    with pytest.raises(LoadError, match=r"ksyms\.c:"):  # what the code before it lacked
        replace(program, environment=None).run(engine=engine)
