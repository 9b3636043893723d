"""Bugs to plant in the optimizer's passes: facts that claim too much, checks that fall for no reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ebpfjit.difftest.planting import Plant, PlantedBug, function, mapped, method
from ebpfjit.optimizer import (
    build,
    counted,
    dominators,
    facts,
    frames,
    guards,
    hoisting,
    induction,
    inline,
    intervals,
    ranges,
    reloads,
    safepoints,
    scaled,
    vectors,
)
from ebpfjit.optimizer.code import PAY


def _interval(meaning: str, change: Callable[[int, int], tuple[int, int]]) -> Plant:
    """Change what a rule gives."""
    rule = intervals.BINARY[meaning]
    return mapped(intervals.BINARY, meaning, lambda w, a, b: change(*rule(w, a, b)))


def _one_less(low: int, high: int) -> tuple[int, int]:
    return low, max(low, high - 1)


def _related(relations: dict[str, str]) -> Plant:
    """Take some relations for others."""
    return function(
        intervals.related, lambda old: lambda relation, a, b: old(relations.get(relation, relation), a, b)
    )


def _larger_frames(old: Any) -> Any:
    def proof(guard: Any, op: Any, *more: Any) -> Any:
        sizes = guard.code.verified.frame_sizes
        guard.frame_sizes = {pc: size + 8 for pc, size in sizes.items()}
        return old(guard, op, *more)

    return proof


def _lower_most(old: Any) -> Any:
    def rising(stepping: Any) -> Any:
        found = old(stepping)
        return None if found is None else (found[0], max(found[0], found[1] - 1), *found[2:])

    return rising


def _more_room(old: Any) -> Any:
    return lambda walk, lower, upper, least: old(walk, lower, upper, least + 1)


def _asks_only_loads(old: Any) -> Any:
    return lambda guard, root, low, high, *, stores: old(guard, root, low, high, stores=False)


def _longer(old: Any) -> Any:
    """Take checks for longer than they are."""
    return lambda guard, root, check: old(guard, root, replace(check, high=check.high + 8))


def _promised_more(old: Any) -> Any:
    return lambda guard, low, high, op: old(guard, low, high - 1, op)


def _as_memory(old: Any) -> Any:
    """Take structs with rights for memory like any other."""

    def settled(guard: Any, *given: Any) -> Any:
        guard.is_exact = False
        return old(guard, *given)

    return settled


def _anywhere(old: Any) -> Any:
    """Have what is asked of one region found in any."""

    def result(guard: Any) -> Any:
        guard.gone = [
            changes
            and {
                index: op and replace(op, region=op.region.removeprefix("only "))
                for index, op in changes.items()
            }
            for changes in guard.gone
        ]
        return old(guard)

    return result


def _swept(change: Callable[[Any], Any]) -> Plant:
    """Change what is asked before loops of all that is touched there."""
    return method(
        hoisting._Loop,
        "_ask",
        lambda old: lambda loop, trip, swept: old(loop, trip, list(map(change, swept))),
    )


def _changed(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Change what is found out about functions that can be inlined."""

    def changed(old: Any) -> Any:
        def found(*given: Any) -> Any:
            callee = old(*given)
            return callee if isinstance(callee, str) else change(callee)

        return found

    return changed


def _other_results(old: Any) -> Any:
    def call(inlining: Any, number: int, block: Any, callee: Any) -> None:
        *ops, op = block.ops
        turned = replace(op, results=op.results[: callee.results][::-1] + op.results[callee.results :])
        old(inlining, number, replace(block, ops=(*ops, turned)), callee)

    return call


def _nearer(old: Any) -> Any:
    def enough(loop: Any) -> Any:
        found = old(loop)
        return None if found is None else replace(found, far=found.far - abs(loop.steps[found.counter].imm))

    return enough


def _unasked(old: Any) -> Any:
    def many(making: Any, number: int, loop: Any, *more: Any) -> None:
        loop.whole.clear()
        old(making, number, loop, *more)

    return many


def _for_one(old: Any) -> Any:
    def bound(making: Any, loop: Any, of: Any, op: Any, leaves: Any) -> None:
        old(making, loop, of, op, leaves)
        making.ops[-1] = replace(making.ops[-1], imm=op.imm)

    return bound


def _with_what_is_there_now(old: Any) -> Any:
    def exit_(block: Any, pc: int, base: int) -> Any:
        leaves = old(block, pc, base)
        picked = zip(leaves.registers, block.registers, strict=False)
        return replace(leaves, registers=tuple(None if value is None else now for value, now in picked))

    return exit_


def _starts_there(old: Any) -> Any:
    return lambda store, frame, low, high: store.low == low and old(store, frame, low, high)


def _asked_for_less(old: Any) -> Any:
    """Have a round ask for what its start costs."""

    def look_at(blocks: Any, header: int, *more: Any) -> None:
        old(blocks, header, *more)
        first = blocks[header]
        look, *ops = first.ops
        blocks[header] = replace(first, ops=(replace(look, offset=max(look.imm, 1)), *ops))

    return look_at


def _never_seen(old: Any) -> Any:
    """Have a round look nowhere."""

    def look_at(blocks: Any, header: int, body: Any, *more: Any) -> None:
        for number in body:
            block = blocks[number]
            ops = tuple(safepoints._unseen(op) if op.row is PAY else op for op in block.ops)
            blocks[number] = replace(block, ops=ops)

    return look_at


ENGINES = ("interpreter", "optimized")

MIDDLE: tuple[PlantedBug, ...] = tuple(
    PlantedBug(name, what, plant, ENGINES, sources)
    for name, what, plant, sources in (
        ("sum-too-low", "A sum is one less at most than it may be", _interval("ADD", _one_less), ()),
        ("mask-too-low", "What is masked is less than the mask", _interval("AND", _one_less), ()),
        ("shift-too-low", "What is shifted right is one less at most", _interval("RSH", _one_less), ()),
        ("product-too-low", "A product is one less at most", _interval("MUL", _one_less), ()),
        ("less-or-equal", "What is at most a number is below it", _related({"<=": "<"}), ()),
        ("greater-or-equal", "What is at least a number is above it", _related({">=": ">"}), ()),
        (
            "loops-always-tested",
            "Each test in a loop is taken for one that all rounds pass",
            method(induction.Induction, "_staying", lambda old: lambda *_: 0),
            (),
        ),
        (
            "loops-keep-arguments",
            "What loops change is taken to stay",
            method(induction.Induction, "is_invariant", lambda old: lambda *_: True),
            (),
        ),
        (
            "loop-round-less",
            "A counter ends a step early",
            method(induction.Stepping, "_rising", _lower_most),
            (),
        ),
        (
            "loop-meets-bound",
            "A counter that steps over its bound is taken to meet it",
            method(induction.Stepping, "_comes_to", lambda old: lambda *_: True),
            (),
        ),
        (
            "ways-are-one",
            "Of the ways into a block the first counts",
            function(facts.both, lambda old: lambda a, b: a),
            (),
        ),
        (
            "room-too-large",
            "Of the argument there is taken to be a byte more behind a number",
            method(ranges.Walk, "_limit", _more_room),
            ("paths",),
        ),
        (
            "frames-larger",
            "Frames are taken to be 8 bytes larger",
            method(guards._Guards, "_proof", _larger_frames),
            ("pointers",),
        ),
        ("checks-longer", "Checks stand for 8 bytes more", method(guards._Guards, "_remember", _longer), ()),
        (
            "checks-everywhere",
            "Checks stand for others wherever they are",
            method(dominators.Dominators, "dominates", lambda old: lambda *_: True),
            (),
        ),
        (
            "loads-cover-stores",
            "What may be loaded may be stored to",
            method(guards._Guards, "_covering", _asks_only_loads),
            (),
        ),
        (
            "argument-longer",
            "A byte more is taken to be promised of the argument",
            method(guards._Guards, "_is_promised", _promised_more),
            ("pointers",),
        ),
        (
            "multiples-too-large",
            "Of the argument there is taken to be a word more behind a multiple",
            method(
                scaled.Scaled,
                "_set",
                lambda old: (
                    lambda known, root, factor, room, *, here: old(
                        known, root, factor, room + factor, here=here
                    )
                ),
            ),
            ("rounds",),
        ),
        (
            "loops-cannot-wrap",
            "A counter is taken never to wrap behind its bound",
            method(hoisting._Loop, "_has_room", lambda old: lambda *_: True),
            ("sweeps",),
        ),
        (
            "loops-ask-less",
            "Before a loop is asked for the first byte of each access",
            _swept(lambda one: replace(one, high=one.low + 1)),
            ("sweeps",),
        ),
        (
            "loops-ask-loads",
            "Before a loop that stores it is asked what may be loaded",
            _swept(lambda one: replace(one, stores=False)),
            ("sweeps",),
        ),
        (
            "loops-round-less",
            "Before a loop it is asked for a round less",
            _swept(lambda one: replace(one, is_early=False)),
            ("sweeps",),
        ),
        (
            "structs-as-memory",
            "Checks of structs with rights are put together",
            method(guards._Guards, "_settled", _as_memory),
            ("ends",),
        ),
        (
            "packets-anywhere",
            "What is asked of a packet is looked for in structs too",
            method(guards._Guards, "result", _anywhere),
            ("ends",),
        ),
        (
            "resumes-with-half",
            "Who comes in from other code loads half of the slots' words",
            mapped(build.LOADS, 8, build.LOADS[4]),
            ("spills",),
        ),
        (
            "no-frame-zeroed",
            "No frame is zeroed where pointers into it are followed",
            method(frames._Looking, "found", lambda old: lambda *_: frozenset()),
            (),
        ),
        (
            "inlined-unpaid",
            "What an inlined function costs is not asked for before it",
            function(inline._callee, _changed(lambda callee: replace(callee, most=1))),
            ("calls",),
        ),
        (
            "inlined-results",
            "What an inlined function leaves is taken for that of other registers",
            method(inline._Inlining, "call", _other_results),
            ("calls",),
        ),
        (
            "counted-round-more",
            "Rounds are done at once where none follows",
            method(counted.Counted, "enough_rounds", _nearer),
            ("rounds",),
        ),
        (
            "exits-of-later",
            "Where a check leaves to what makes its address, registers have what they have behind that",
            method(build._Translation, "before_address", _with_what_is_there_now),
            (),
        ),
        (
            "reloads-of-the-past",
            "What was stored to a frame is taken to stay there",
            method(reloads._Store, "meets", _starts_there),
            ("rounds",),
        ),
        (
            "rounds-ask-for-less",
            "A round that looks at the budget once asks for what its start costs",
            function(safepoints._look_at, _asked_for_less),
            ("rounds",),
        ),
        (
            "rounds-never-look",
            "Rounds whose looks at the budget are put together do not look at all",
            function(safepoints._look_at, _never_seen),
            ("rounds",),
        ),
        (
            "vectors-wrap",
            "Indexes of 32 bits are taken not to wrap where rounds are done at once",
            method(vectors._Making, "many", _unasked),
            ("arrays",),
        ),
        (
            "vectors-one-bound",
            "Where rounds are done at once it is asked for the first of them",
            method(vectors._Making, "bound", _for_one),
            ("arrays",),
        ),
    )
)
