"""The older storage of cgroups: on both engines, by cgroup and attach type; loaded into the kernel too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ebpfjit import Environment, ExecutionError, load
from ebpfjit.errors import MapRefused
from ebpfjit.runtime.environment import Task
from ebpfjit.runtime.maps import MapDefinition, MapType, create
from tests.support.helper_runs import needs_kernel

OBJECT = Path(__file__).parent.parent / "elf" / "cgroup_storage.o"
PACKET = bytes(12) + b"\x08\x00" + bytes([0x45]) + bytes(49)
ENGINES = pytest.mark.parametrize("engine", ["interpreter", "jit"])
INGRESS, EGRESS = 0, 1


@ENGINES
def test_each_cgroup_and_attach_type_has_a_value(engine: str) -> None:
    obj = load(OBJECT)
    for cgroup, name in ((7, "ingress"), (7, "ingress"), (7, "egress"), (8, "egress")):
        environment = Environment(task=Task(cgroup_id=cgroup))
        assert obj.program(name).run(PACKET, engine=engine, environment=environment).return_value == 1
    seen = {
        (key["cgroup_inode_id"], key["attach_type"]): value
        for key, value in obj.maps["isolated"].typed.items()
    }
    size = len(PACKET) - 14
    assert seen == {
        (7, INGRESS): {"packets": 2, "bytes": 2 * size},
        (7, EGRESS): {"packets": 1, "bytes": size},
        (8, EGRESS): {"packets": 1, "bytes": size},
    }


@ENGINES
def test_a_key_of_a_number_is_for_all_attach_types(engine: str) -> None:
    obj = load(OBJECT)
    obj.maps["shared"][5] = 100
    for name in ("into_shared", "out_of_shared", "out_of_shared"):
        obj.program(name).run(PACKET, engine=engine, environment=Environment(task=Task(cgroup_id=5)))
    assert obj.maps["shared"].typed[5] == 121


@ENGINES
def test_each_processor_has_its_own(engine: str) -> None:
    obj = load(OBJECT, environment=Environment(cpus=2))
    program = obj.program("on_processor")
    ran = [
        program.run(PACKET, engine=engine, environment=Environment(cpus=2, cpu=cpu)).return_value
        for cpu in (0, 1, 1)
    ]
    assert ran == [1, 1, 0]
    assert list(obj.maps["each_cpu"].typed.values()) == [[1, 2]]


@needs_kernel
@pytest.mark.parametrize("name", ["ingress", "egress", "into_shared", "on_processor"])
def test_the_kernel_takes_its_maps_and_programs(name: str) -> None:
    assert load(OBJECT).program(name).run(PACKET, engine="kernel").return_value == 1


def test_there_is_an_end_to_the_values_of_one_map() -> None:
    obj = load(OBJECT)
    for cgroup in range(4096):
        obj.maps["shared"][cgroup] = 1
    with pytest.raises(ExecutionError, match="no room for a value of cgroup 5000"):
        obj.program("into_shared").run(PACKET, environment=Environment(task=Task(cgroup_id=5000)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key_size": 4}, "key_size is 4, it must be 8 "),
        ({"max_entries": 1}, "max_entries is 1; storage of cgroups has 0"),
        ({"value_size": 1 << 16}, "more than 65407"),
        ({"flags": 1}, "takes no"),
    ],
)
def test_what_linux_refuses_is_refused(changes: dict[str, int], words: str) -> None:
    good = MapDefinition("m", MapType.CGROUP_STORAGE, 16, 8, 0)
    create(good)
    with pytest.raises(MapRefused, match=words):
        create(replace(good, **changes))
