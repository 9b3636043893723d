"""Objects of a program's own, and lists of them: on both engines, and as Linux has them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import ExecutionError, MemoryFault, load
from ebpfjit.bits import W32
from ebpfjit.elf import Object as LoadedObject
from ebpfjit.runtime.maps import MapDefinition, MapType, create
from ebpfjit.runtime.maps.special import ObjectLayout, SpecialField
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.owned import Holder, Object
from tests.support.helper_runs import needs_kernel
from tests.support.kfunc_runs import PACKET, program_of

OBJECT = Path(__file__).parent.parent / "elf" / "objects.o"
COMPILED = ("queued", "taken", "forgotten")
ENGINES = pytest.mark.parametrize("engine", ["interpreter", "jit"])


def call(obj: LoadedObject, name: str, engine: str) -> int:
    return W32.signed(obj.program(name).run(PACKET, engine=engine).return_value)


def test_heads_are_found_in_btf_with_what_they_contain() -> None:
    obj = load(OBJECT)
    heads: dict[str, Any] = {
        map_.name: [field.contains for field in map_.definition.special if field.contains is not None]
        for map_ in obj.maps.values()
    }
    assert heads["queues"] == [("item", 8)]
    assert heads[".data.L"] == [("counted", 16)]
    assert [field.kind for field in obj.maps["slots"].definition.special] == ["kptr"]


@pytest.mark.parametrize("engine", ["interpreter", "jit", pytest.param("kernel", marks=needs_kernel)])
def test_objects_are_made_counted_and_dropped(engine: str) -> None:
    obj = load(OBJECT)
    # Linux zeroes special fields only: what else is in the memory is what was there before.
    assert call(obj, "roundtrip", engine) in ({42, 43} if engine == "kernel" else {43})
    assert call(obj, "shared", engine) == -22 * 1000 + 3


@pytest.mark.parametrize("engine", ["interpreter", "jit", pytest.param("kernel", marks=needs_kernel)])
def test_each_head_of_an_array_contains_what_its_tag_says(engine: str) -> None:
    obj = load(OBJECT)
    assert [field.contains for field in obj.maps[".data.A"].definition.special[1:]] == [("item", 8)] * 2
    assert [call(obj, "in_an_array", engine) for _ in range(2)] == [70, 70]


@ENGINES
def test_kptrs_among_variables_those_of_arrays_too(engine: str) -> None:
    obj = load(OBJECT.with_name("kptr_variables.o"))
    names = sorted(field.name for field in obj.maps[".data.G"].definition.special)
    assert names == [*(f"grid[{i}][{j}].item" for i in (0, 1) for j in (0, 1)), "one"]
    assert [call(obj, "kept", engine) for _ in range(2)] == [4, 354]


@needs_kernel
def test_kptrs_among_variables_are_those_of_linux() -> None:
    assert call(load(OBJECT.with_name("kptr_variables.o")), "kept", "kernel") == 4


@ENGINES
def test_lists_live_from_run_to_run(engine: str) -> None:
    obj = load(OBJECT)
    assert call(obj, "ends", engine) == 0
    for _ in range(2):
        assert call(obj, "queued", engine) == 0
        assert call(obj, "ends", engine) == 43
        assert call(obj, "taken", engine) == 403020104
        assert call(obj, "taken", engine) == 0


@ENGINES
def test_a_list_may_be_longer_than_what_a_run_can_touch(engine: str) -> None:
    obj = load(OBJECT)
    assert call(obj, "flood", engine) == 2000
    obj.maps["queues"].clear()
    assert call(obj, "ends", engine) == 0


@pytest.mark.parametrize("optimize", [False, True])
def test_compiled_functions_have_objects_too(optimize: bool) -> None:
    obj = load(OBJECT)
    queued, taken, forgotten = (obj.program(name).compile(optimize=optimize) for name in COMPILED)
    for _ in range(3):
        assert queued(PACKET) == 0
        assert taken(PACKET) == 403020104
        with pytest.raises(ExecutionError, match="is still held where the program ends"):
            forgotten(PACKET)


@ENGINES
def test_what_hangs_in_a_value_goes_with_it(engine: str) -> None:
    obj = load(OBJECT)
    assert call(obj, "queued", engine) == 0
    obj.maps["queues"].clear()
    assert call(obj, "taken", engine) == 0


@ENGINES
def test_kptrs_own_what_was_exchanged(engine: str) -> None:
    obj = load(OBJECT)
    assert [call(obj, "exchanged", engine) for _ in range(3)] == [7, 105, 105]
    assert call(obj, "overwritten", engine) == 0
    assert call(obj, "exchanged", engine) == 7


@ENGINES
def test_trees_live_from_run_to_run(engine: str) -> None:
    obj = load(OBJECT)
    obj.globals["numbers"] = [50, 20, 80, 10, 30, 70, 90, 60, 75, 85, 95, 5, 15, 25, 35, 20]
    assert call(obj, "shape", engine) == 0
    assert call(obj, "planted", engine) == 0
    assert call(obj, "shape", engine) == 502080
    obj.globals["removed"] = 31
    first = call(obj, "harvested", engine)
    expected = 0
    for number in sorted(obj.globals["numbers"]):
        expected = expected * 31 + number
    assert first == W32.signed(expected & 0xFFFFFFFF)
    assert call(obj, "shape", engine) == call(obj, "harvested", engine) == 0


@needs_kernel
@pytest.mark.parametrize("seed", range(3))
def test_trees_have_the_shape_that_linux_gives_them(seed: int) -> None:
    source = random.Random(seed)
    results: dict[str, int] = {}
    numbers = [source.randrange(100) for _ in range(16)] if seed else list(range(16))
    removed = source.randrange(1, 7)
    for engine in ("interpreter", "jit", "kernel"):
        obj = load(OBJECT)
        obj.globals["numbers"], obj.globals["removed"] = numbers, removed
        results[engine] = call(obj, "grown", engine)
    assert len(set(results.values())) == 1


REFUSED = {
    "forgotten": (
        ExecutionError,
        r"bpf_obj_new takes an object of struct item, which is still held",
    ),
    "after_drop": (MemoryFault, r"load of 8 bytes at .*item->number"),
    "dropped_twice": (
        ExecutionError,
        r"bpf_obj_drop of 0x[0-9a-f]+, which is no object that",
    ),
    "after_unlock": (MemoryFault, r"load of 8 bytes at .*item->number"),
    "without_lock": (ExecutionError, r"bpf_list_pop_front: the lock 'lock' beside 'head' .* must be held"),
    "wrong_struct": (
        ExecutionError,
        r"bpf_list_push_front: 'head' .* holds struct item, not 'node'",
    ),
    "new_under_lock": (ExecutionError, r"bpf_obj_new_impl is called while the lock 'lock'"),
}


@pytest.mark.parametrize("name", REFUSED)
@ENGINES
def test_what_linux_refuses_is_an_error_with_its_line(name: str, engine: str) -> None:
    kind, text = REFUSED[name]
    with pytest.raises(kind, match=rf"pc \d+: {text}") as caught:
        call(load(OBJECT), name, engine)
    assert "objects.c:" in str(caught.value)


@ENGINES
def test_the_value_that_the_program_writes_is_no_object(engine: str) -> None:
    """What a kptr's, or a head's, bytes say counts for nothing."""
    obj = load(OBJECT)
    memory = obj.maps["slots"].regions[0].view
    memory[8:16] = (0x4141414141414141).to_bytes(8, "little")
    with pytest.raises(ExecutionError, match=r"bpf_obj_drop of 0x4141414141414141|load of 8 bytes"):
        call(obj, "exchanged", engine)
    obj.maps["queues"].regions[0].view[8:24] = b"A" * 16
    assert call(obj, "taken", engine) == 0


@ENGINES
def test_objects_without_types_are_refused(engine: str) -> None:
    program = program_of("mov r1, 1\nmov r2, 0\ncall kfunc {bpf_obj_new_impl}\nexit")
    with pytest.raises(ExecutionError, match="of type 1, which is no struct in the program's BTF"):
        program.run(PACKET, engine=engine)


def test_local_storage_lets_go_of_objects_with_its_values() -> None:
    """It keeps its values in a table of its own, which is what frees them."""
    kptr = SpecialField("kptr", 0, "item")
    made = create(MapDefinition("s", MapType.TASK_STORAGE, 4, 8, 0, 1, special=(kptr,)))
    made.update(bytes(8), bytes(8))
    one = Object(ObjectLayout("item", 8, ()), Region.of_buffer("object", bytearray(8)))
    made.holder = Holder(pointers={made.lookup(bytes(8)): one})
    assert made.delete(bytes(8)) == 0
    assert (one.references, made.holder.pointers) == (0, {})
