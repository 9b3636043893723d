"""Every first use of the library, by eight threads at a barrier, in a process that has done nothing yet.

`python -m tests.attacks.first_uses SEED`: prints what was wrong, and nothing where all was right.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ebpfjit.once import import_alone

THREADS = 8
FRAME = bytes(range(60))


def raw(text: str, **options: Any) -> Any:
    from ebpfjit import Program
    from ebpfjit.assembler import assemble

    return Program.from_bytes(assemble(text)).compile(**options)


def expect(value: Any, wanted: Any) -> None:
    if value != wanted:
        raise AssertionError(f"{value!r}, not {wanted!r}")


@contextmanager
def faults() -> Iterator[None]:
    from ebpfjit import MemoryFault

    try:
        yield
    except MemoryFault:
        return
    raise AssertionError("there was no fault")


def compile_same(number: int) -> None:
    fn = raw("ldxb r0, [r1+3]\nexit")
    expect([fn(FRAME), fn(bytearray(FRAME)), fn(memoryview(FRAME))], [3, 3, 3])
    with faults():
        fn(b"a")


def compile_other(number: int) -> None:
    text = f"mov r0, {1000 + number}\nlsh r0, {number + 1}\nadd r0, r{number % 2 + 2}\nexit"
    for optimize in (None, False, True):
        expect(raw(text, optimize=optimize)(), (1000 + number) << number + 1)


def listing(number: int) -> None:
    fn = raw(f"ldxdw r0, [r1+{8 * number}]\nxor r0, {number}\nexit")
    expect("ldxdw" in fn.listing(), True)
    expect(fn.is_optimized, True)


def batch(number: int) -> None:
    fn = raw("ldxb r0, [r1]\nexit", release_gil=number % 2 == 1)
    expect(list(fn.map([b"\1", bytearray(b"\2"), memoryview(b"\3")])), [1, 2, 3])
    expect(list(fn.map(FRAME, stride=20)), [0, 20, 40])
    expect(list(fn.map(FRAME, offsets=[1, 5], lengths=[1, 2])), [1, 5])
    expect(list(fn.map([b"", b"\7"], on_fault=9)), [9, 7])


def helpers(number: int) -> None:
    fn = raw("call 1\nexit", helpers={1: lambda *_: number + 300}, release_gil=number % 2 == 0)
    expect([fn(b"a") for _ in range(50)], [number + 300] * 50)


def hardened(number: int) -> None:
    expect(raw(f"mov r0, {123456 + number}\nexit", harden=True)(), 123456 + number)


def machines(number: int) -> None:
    from ebpfjit import EbpfVmFixedMbuff, EbpfVmMbuff, EbpfVmNoData, EbpfVmRaw
    from ebpfjit.assembler import assemble

    fixed = EbpfVmFixedMbuff(assemble("ldxdw r3, [r1+8]\nldxb r0, [r3+1]\nexit"), 8, 16)
    mbuff = EbpfVmMbuff(assemble("ldxb r0, [r1+2]\nexit"))
    plain = EbpfVmRaw(assemble("ldxb r0, [r1+5]\nexit"))
    nothing = EbpfVmNoData(assemble("mov r0, 4\nexit"))
    for vm in (fixed, mbuff, plain, nothing):
        vm.jit_compile()
    expect(fixed.execute_program_jit(FRAME), 1)
    expect(mbuff.execute_program_jit(b"", FRAME), 2)
    expect(plain.execute_program_jit(FRAME), 5)
    expect(nothing.execute_program_jit(), 4)
    with faults():
        plain.execute_program_jit(b"a")


LOOKUP = (
    "lddw r1, map[idx:0]\nstdw [r10-8], 0\nmov r2, r10\nadd r2, -8\ncall 1\nmov r1, r0\nmov r0, 7\n"
    "jeq r1, 0, +2\nstdw [r1], 77\nldxdw r0, [r1]\nexit"
)


def typed(text: str, *maps: Any, **options: Any) -> Any:
    from ebpfjit import Program
    from ebpfjit.assembler import assemble

    references = {0: maps[0].address} if maps else {}
    program = Program(assemble(text), "main", "xdp", "xdp", references=references, maps=maps)
    return program.compile(**options)


def map_of(kind: str) -> Any:
    import_alone("ebpfjit.runtime.maps")  # not public; what is goes through there
    from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, create

    sizes = {"LPM_TRIE": (8, 8), "QUEUE": (0, 8), "STACK": (0, 8), "BLOOM_FILTER": (0, 8)}.get(kind, (4, 8))
    flags = MapFlag.NO_PREALLOC if kind == "LPM_TRIE" else 0
    return create(MapDefinition("m", MapType[kind], *sizes, 8, flags))


def maps(number: int) -> None:
    kinds = ["ARRAY", "HASH", "LRU_HASH", "PERCPU_ARRAY", "PERCPU_HASH", "LRU_PERCPU_HASH", "LPM_TRIE"]
    for kind in kinds[number % 7 :] + kinds[: number % 7]:
        table = map_of(kind)
        table.update(bytes(table.definition.key_size), (5).to_bytes(8, "little"))
        for optimize in (None, True):
            expect((kind, typed(LOOKUP, table, optimize=optimize)(FRAME)), (kind, 77))


def queues(number: int) -> None:
    text = "lddw r1, map[idx:0]\nstdw [r10-8], 6\nmov r2, r10\nadd r2, -8\nmov r3, 0\ncall 87\nexit"
    for kind in ("QUEUE", "STACK", "BLOOM_FILTER"):
        expect((kind, typed(text, map_of(kind))(FRAME)), (kind, 0))


def contexts(number: int) -> None:
    fn = typed("ldxw r2, [r1]\nldxw r3, [r1+4]\nmov r0, r3\nsub r0, r2\nexit")
    expect([fn(FRAME), *fn.map([FRAME, FRAME[:20]])], [60, 60, 20])
    random_number = typed("call 7\nmov r6, r0\ncall 5\nmov r0, 1\nexit")
    expect(random_number(FRAME), 1)


def run(number: int) -> None:
    from ebpfjit import Program
    from ebpfjit.assembler import assemble

    program = Program(assemble("mov r0, 2\nexit"), "main", "xdp", "xdp")
    for engine in ("jit", "interpreter"):
        expect(program.run(FRAME, engine=engine).action, "XDP_PASS")


def images(number: int) -> None:
    from ebpfjit import JitFunction

    with tempfile.TemporaryDirectory() as folder:
        fn = raw("ldxb r0, [r1+9]\nexit")
        fn.save(f"{folder}/image")
        expect(JitFunction.load(f"{folder}/image")(FRAME), 9)
        for _ in range(2):
            expect(raw("ldxb r0, [r1+8]\nexit", cache=f"{folder}/cache")(FRAME), 8)
        expect(raw("ldxb r0, [r1+11]\nexit", cache=SHARED)(FRAME), 11)


def objects(number: int) -> None:
    from pathlib import Path

    from ebpfjit import load

    for path in sorted((Path(__file__).parent.parent / "elf").glob("*.o"))[number % 4 : 40 : 8]:
        try:
            loaded = load(path)
        except Exception as error:
            if type(error).__module__ != "ebpfjit.errors":
                raise
            continue
        for program in loaded.programs.values():
            try:
                program.compile()
            except Exception as error:
                if type(error).__module__ != "ebpfjit.errors":
                    raise


USES: tuple[Callable[[int], None], ...] = (
    compile_same, compile_other, listing, batch, helpers, hardened, machines, maps, queues, contexts, run,
    images, objects,
)  # fmt: skip
SHARED = ""


def main(seed: int) -> None:
    """Have each thread do all of it, the first thing together: all the same, or each another."""
    global SHARED
    chance = random.Random(seed)
    barrier, wrong = threading.Barrier(THREADS), []
    first = chance.choice(USES)
    orders = [chance.sample(USES, len(USES)) for _ in range(THREADS)]
    if seed % 2:
        orders = [[first, *order] for order in orders]
    sys.setswitchinterval(chance.choice([1e-6, 1e-5, 1e-4, 5e-3]))

    def work(number: int) -> None:
        barrier.wait()
        for use in orders[number]:
            try:
                use(number)
            except BaseException as error:
                wrong.append(f"{use.__name__}: {type(error).__name__}: {error}")

    with tempfile.TemporaryDirectory() as SHARED:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print("\n".join(wrong), end="")


if __name__ == "__main__":
    main(int(sys.argv[1]))
