"""Options: users choose them by name, at every door; what they chose arrives."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from ebpfjit import EbpfVmFixedMbuff, EbpfVmMbuff, EbpfVmNoData, EbpfVmRaw, Program, compiling
from ebpfjit.assembler import assemble
from ebpfjit.options import CHOSEN, Options
from ebpfjit.sealed import inside

PROGRAM = Program(assemble("ldxb r0, [r1]\nexit"))
DOORS: tuple[Callable[..., Any], ...] = (
    compiling.compile, EbpfVmRaw, EbpfVmNoData, EbpfVmMbuff, EbpfVmFixedMbuff
)  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_every_door_names_what_users_choose(door: Callable[..., Any]) -> None:
    parameters = inspect.signature(door).parameters
    defaults = {each.name: each.default for each in fields(Options)} | {"optimize": None}
    assert {name: parameters[name].default for name in CHOSEN} == {name: defaults[name] for name in CHOSEN}


@pytest.mark.parametrize("name", CHOSEN)
def test_what_was_chosen_arrives_and_travels(name: str) -> None:
    other = not getattr(Options(), name)
    function = PROGRAM.compile(**{name: other})
    machine = EbpfVmRaw(PROGRAM, **{name: other})
    machine.jit_compile()
    assert machine._compiled is not None
    for again in (function, pickle.loads(pickle.dumps(function))):
        assert getattr(inside(again).plain.compiled.recipe.options, name) == other
    assert getattr(machine._compiled.recipe.options, name) == other
    assert getattr(pickle.loads(pickle.dumps(machine)), name) == other


def test_an_option_of_a_machine_can_be_changed_until_it_compiles() -> None:
    machine = EbpfVmRaw(PROGRAM)
    assert "check_load" in machine.listing()
    machine.checked = False
    assert "check_load" not in machine.listing()
    with pytest.raises(ValueError, match="audit"):
        machine.audit = True
    assert not machine.audit


def test_an_audit_is_of_checks() -> None:
    for make in (
        lambda: PROGRAM.compile(audit=True, checked=False),
        lambda: EbpfVmRaw(audit=True, checked=False),
    ):
        with pytest.raises(ValueError, match="audit"):
            make()
