"""What a user may get wrong: a type checker finds each line that ends with `# wrong` (test_typing.py)."""

from __future__ import annotations

import array

from ebpfjit import EbpfVmRaw, Environment, Program, load, seccomp
from ebpfjit.pytest_plugin import EbpfLoad, EbpfRun

obj = load("filter.o")
program = obj.program("filter")

# What is right stays so.
packet = bytearray(60)
program.run(packet, engine="interpreter", limit=1000, context={"mark": 5}, repeat=2)
program.run(memoryview(packet), helpers={5: lambda r1, r2, r3, r4, r5: 0}, kfuncs={"f": max})
program.run(array.array("B", packet), helpers={"bpf_ktime_get_ns": lambda *_: 0}, environment=Environment())
function = program.compile(optimize=True, limit=5, environment=Environment(cpu=0), context={"mark": 5})
total: int = function(packet) + sum(function.map([packet, b"x"])) + sum(function.map(packet, stride=4))
machine = EbpfVmRaw(program, helpers={5: lambda *_: 0}, limit=5)
if program.run(packet).action == "XDP_DROP" and program.type == "xdp":
    print(machine.execute_program(packet))


def test(ebpf_run: EbpfRun, ebpf_load: EbpfLoad) -> None:
    ebpf_load("filter.o", maps={"flows": 5}, strict=True)
    ebpf_load("filter.o", kconfig="config")  # wrong
    ebpf_run(program, packet, limit=5)
    ebpf_run(program, packet, environment="now")  # wrong


seccomp.load("profile.json").run(nr="read", limit=100)
seccomp.load("profile.json").run(nr="read", limits=100)  # wrong
program.run(packet, engine="interpretor")  # wrong
program.run("a packet")  # wrong
program.run(packet, limit="1000")  # wrong
program.run(packet, environment={"cpu": 1})  # wrong
program.run(packet, helpers=[print])  # wrong
program.run(packet, helpers={5: 7})  # wrong
program.run(packet, kontext={"mark": 5})  # wrong
program.compile(optimise=True)  # wrong
program.compile(checked="yes")  # wrong
function(60)  # wrong
Program.from_bytes(b"", type="xpd")  # wrong
load("filter.o", types="xpd")  # wrong
obj.program("filter", type="TC")  # wrong
if program.run(packet).action == "XDP_DORP":  # wrong
    pass
EbpfVmRaw(program, instruction_limits=5)  # wrong
print(program.run(packet).returned_value)  # wrong
