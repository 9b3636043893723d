"""Ways past blocks that do nothing."""

from __future__ import annotations

import random
import time

import pytest
from support.placed_code import code_of

from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.code import Code
from ebpfjit.optimizer.order import thread_jumps
from ebpfjit.optimizer.text import to_text

SOURCE = "exit\n" * 40


def threaded(text: str) -> list[str]:
    """Return the lines of code behind the pass."""
    code = thread_jumps(code_of(text, SOURCE))
    check(code)
    return to_text(code).splitlines()


def blocks(*bodies: str) -> str:
    """Return code with these blocks, of which the first is entered with r1 and r2."""
    lines = ["entry 0: b0 (r1, r2)"]
    for number, body in enumerate(bodies):
        args, _, rest = body.partition(": ")
        lines.append(f"b{number} pc {number} ({args}):")
        lines += [f"  {line}" for line in rest.split("; ")]
    return "\n".join(lines)


def test_who_jumps_to_a_jump_jumps_on() -> None:
    text = blocks("v0, v1: if v1 > 5 goto b2() else b1()", ": goto b3(v1)", ": goto b3(v0)", "v2: exit v2")
    assert threaded(text)[2].strip() == "if v1 > 5 goto b3(v0) else b3(v1)"


def test_arguments_are_passed_through() -> None:
    text = blocks("v0, v1: goto b1(v1, v0)", "v2, v3: goto b2(v3, v1, v2)", "v4, v5, v6: exit v4, v5, v6")
    assert threaded(text)[2].strip() == "goto b2(v0, v1, v1)"


def test_a_chain_of_them() -> None:
    text = blocks(
        "v0, v1: goto b1(v1)", "v2: goto b2(v2)", "v3: goto b3(v3)", "v4: goto b4(v4)", "v5: exit v5"
    )
    assert threaded(text)[2].strip() == "goto b4(v1)"


@pytest.mark.parametrize(
    "text",
    [
        blocks("v0, v1: goto b1(v1)", "v2: pay 1; goto b2(v2)", "v3: exit v3"),  # it does something
        blocks("v0, v1: goto b1(v1)", "v2: goto b2()", ": exit v2"),  # what it is given is read later
        blocks("v0, v1: goto b1(v1)", "v2: goto b2(v2)", "v3: v4 = v3 + v2; exit v4"),  # the same
        blocks("v0, v1: goto b1(v1)", "v2: goto b2()", ": leave 2 (r1 = v2)"),  # by an exit
        blocks("v0, v1: goto b1()", ": goto b1()"),  # a round without an end
    ],
)
def test_what_is_left_as_it_is(text: str) -> None:
    code = code_of(text, SOURCE)
    assert thread_jumps(code) == code


def test_a_circle_of_jumps_stays_one() -> None:
    lines = threaded(blocks("v0, v1: goto b1()", ": goto b2()", ": goto b3()", ": goto b1()"))
    assert all("goto b" in line for line in lines if line.startswith("  "))


def random_code(rng: random.Random, count: int) -> Code:
    """Return code of which half the blocks do nothing; each goes to a later one, and hands on two values."""
    bodies, value = ["v0, v1: goto b1(v0, v1)"], 2
    for number in range(1, count):
        a, b = value, value + 1
        value += 2
        passed = [f"v{a}, v{b}", f"v{b}, v{a}", f"v{a}, v{a}"]
        ways = [f"b{rng.randrange(number + 1, count + 1)}({rng.choice(passed)})"]
        if rng.random() < 0.4:
            ways.append(f"b{rng.randrange(number + 1, count + 1)}(v{b}, v{a})")
            bodies.append(f"v{a}, v{b}: if v{a} > {rng.randrange(20)} goto {ways[0]} else {ways[1]}")
        elif rng.random() < 0.3:
            bodies.append(f"v{a}, v{b}: v{value} = v{a} + v{b}; goto {ways[0].replace(f'v{a}', f'v{value}')}")
            value += 1
        else:
            bodies.append(f"v{a}, v{b}: goto {ways[0]}")
    bodies.append(f"v{value}, v{value + 1}: exit v{value}, v{value + 1}")
    return code_of(blocks(*bodies), SOURCE)


def run(code: Code, *given: int) -> tuple[int, ...]:
    """Return what code of comparisons, sums and jumps ends with."""
    values: dict[int, int] = {}
    number, args = 0, given
    while True:
        block = code.blocks[number]
        values.update(zip(block.args, args, strict=True))
        for op in block.ops:
            values[op.results[0]] = values[op.args[0]] + values[op.args[1]]
        end = block.end
        if not block.ways:
            return tuple(values[value] for value in end.args)
        way = block.ways[0 if not end.args or values[end.args[0]] > end.imm else 1]
        number, args = way.block, tuple(values[value] for value in way.args)


def test_it_does_the_same() -> None:
    rng = random.Random(3)
    for _ in range(20):
        code = random_code(rng, 25)
        after = thread_jumps(code)
        check(after)
        for given in ((1, 9), (9, 1), (15, 15)):
            assert run(after, *given) == run(code, *given)


def test_long_chains_take_time_in_proportion() -> None:
    """Each block of a chain is jumped to: they are not followed again from each."""

    def seconds(count: int) -> float:
        jumps = "".join(
            f"b{2 * at} pc 0 ():\n  if v0 == {at} goto b{2 * at + 1}() else b{2 * at + 2}()\n"
            f"b{2 * at + 1} pc 0 ():\n  goto b{min(2 * at + 3, 2 * count)}()\n"
            for at in range(count)
        )
        code = code_of(
            f"entry 0: b0 (r1)\n{jumps}b{2 * count} pc 0 ():\n  exit v0".replace("b0 pc 0 ()", "b0 pc 0 (v0)")
        )
        started = time.process_time()
        after = thread_jumps(code)
        assert after.blocks[0].ways[0].block == 2 * count
        return time.process_time() - started

    seconds(50)
    assert seconds(800) < 12 * seconds(100) + 0.05
