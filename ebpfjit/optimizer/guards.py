"""Checks that need not be made, or not so often: which BOUND and ALIGNED are left.

    before                                              after
    bound load v1 + 0..4 else leave 3 (...)             bound store v1 + 0..8 else leave 3 (...)
    v2 = *(u32 *)(v1 + 0)                               v2 = *(u32 *)(v1 + 0)
    bound store v1 + 4..8 else leave 4 (...)            *(u32 *)(v1 + 4) = v2
    *(u32 *)(v1 + 4) = v2                               v5 = *(u64 *)(v4 - 8)             v4: stack - 16..-8
    bound load v4 - 8..0 else leave 5 (...)
    v5 = *(u64 *)(v4 - 8)

A check is gone where one of these holds for all that its bytes may be:

    frame        they lie in the frame of the running function
    argument     they lie in what is promised to be behind r1
    length       they lie in the argument, by what is known of numbers in relation to its length (loads)
    writable     the same, where a check before asked whether the argument may be stored to
    map value    they lie in a map's values: at an address that is known, or behind what a lookup gave and is
                 not zero
    verdict      the verifier has proven so of all runs, at this slot (`Promises.proven`)
    aligned      the address is such a multiple
    covered      a check of the same block, or of one that dominates it, stands for them, or where ways meet
                 one on each of these, and nothing between takes memory away

Bytes at a distance from r1 that is known, or known to be one of few, such as those of a table, are asked for
by that distance (`bound load argument + 0..64`), which is the same each time. Checks of one block that count
from one root become one: the first, over the whole span. Where a store follows a load of the same bytes, the
load is asked for both. Such a check may fail where single ones would not, and then leaves as it always may.
Each check that is gone leaves a `Proof`.

Structs with rights say of each size and offset what may be there. In programs that may meet some, only the
same bytes cover others, but for checks that hold in no struct: of what the context says is the packet, or of
an argument without rights, only that region is asked for. Where the program compared with the packet's end,
the first check behind that stands for all that the comparison spoke of:

    if v4 > v2 goto b9() else b1()                      v4: v1 + 54, v2: the packet's end
    b1: bound load only packet v1 + 0..54 else leave 5 (...)
        v5 = *(u16 *)(v1 + 12)
"""

from __future__ import annotations

from collections.abc import Mapping

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.entries import OUTWARD_CALLS
from ebpfjit.bits import U64_MASK, W32, W64
from ebpfjit.isa.spec import Kind
from ebpfjit.optimizer.arguments import found, origins
from ebpfjit.optimizer.code import ALIGNED, BOUND, ONLY, Block, Code, Op, Proof
from ebpfjit.optimizer.dominators import Dominators
from ebpfjit.optimizer.facts import UNKNOWN, Facts, Placed
from ebpfjit.optimizer.flow import with_blocks
from ebpfjit.optimizer.intervals import as_signed, zeros_of
from ebpfjit.optimizer.ranges import Trail, Walk
from ebpfjit.record import record, replace

LONGEST_SPAN = 4096
"""Bytes that one check stands for: a page, as what lies behind might be the end of memory."""

LONGEST_STEPS = 64
"""Bytes of the argument that are asked for at once where they may be more than a loop gets to."""

MOST_SPANS = 12
"""Checks that are remembered of one root."""

MOST_WAYS = 4
"""Ways to a block that are looked at for checks, where none dominates it."""

FARTHEST_END = 1 << 30
"""Of offsets in the argument, which become immediates."""

WRITABLE, TABLE = -1, -2
"""As roots: the argument's memory, of which it was asked whether it may be stored to; its start."""


@record
class Check:
    """A check that is made: bytes from `low` to `high` behind a root, by block, index and pc where it stands.

    `epoch` is told by what last took memory away before it. An `exact` one says nothing of other sizes.
    """

    low: int
    high: int
    stores: bool
    epoch: int
    block: int
    index: int
    pc: int
    exact: bool = False


Candidate = tuple[int, Op, int, int]
"""A check of a block that nothing has shown to be superfluous: its place there, itself, and where its bytes
start and end, from its root on.
"""


def guarded(code: Code, promises: Promises) -> tuple[Code, Facts]:
    """Return code with the checks that are needed, and what is known of its values."""
    guards = _Guards(code, promises)
    walk = Walk(code, promises, guards)
    guards.walk, guards.facts = walk, walk.facts
    guards.dominators = Dominators(code.shape) if walk.is_entered_elsewhere else walk.dominators
    walk.facts.dominators, walk.facts.meets_rights = guards.dominators, guards.is_exact
    walk.facts.only = guards.only
    walk.run()
    return guards.result(), walk.facts


class _Guards:
    """Looks at the checks of code while what is known at their place is there."""

    walk: Walk
    facts: Facts
    dominators: Dominators

    def __init__(self, code: Code, promises: Promises) -> None:
        self.code, self.promises = code, promises
        verified = code.verified
        self.frame_sizes = verified.frame_sizes
        self.entries = verified.entries_with(promises.calling)
        self.is_exact = promises.meets_rights or promises.argument_rights is not None
        self.only: dict[str, str] = {}
        if self.is_exact:
            plain = "packet" if promises.argument_rights is not None else "argument"
            self.only[plain] = ONLY[plain]
        steady = [map_ for map_ in verified.program.maps if map_.value_is_stable and map_.is_steady]
        self.values = [region for map_ in steady for region in map_.regions]
        self.made: dict[int, tuple[Check, ...]] = {}
        self.gone: list[dict[int, Op | None] | None] = [None] * len(code.blocks)
        """By block: what stands instead of operations, by index; None for nothing."""
        self.proofs: dict[int, tuple[Proof, ...]] = {}
        self.epochs = self._epochs()
        self.undo: list[list[tuple[int, tuple[Check, ...]]]] = []
        self.fresh = ~len(code.blocks)
        """A name for what takes memory away in the middle of a block; those of ends of blocks are above."""

    # -- what takes memory away ---------------------------------------------------------------------------

    def _takes_away(self, op: Op) -> bool:
        """True for a call of what may move memory, or take it away; any kfunc may."""
        kind = op.row.kind
        return kind is Kind.CALL_KFUNC or (
            kind is Kind.CALL_HELPER and op.imm & W32.mask in self.promises.moving
        )

    def _ends_epoch(self, op: Op) -> bool:
        """True where memory may be taken away by what is called: functions are not looked into."""
        if op.row.kind in (Kind.CALL_LOCAL, Kind.CALL_REGISTER) or self._takes_away(op):
            return True
        insn = self.code.verified.program.slots[op.pc]
        return insn is not None and self.entries.calls_back(insn)

    def _epochs(self) -> Mapping[int, int] | None:
        """Return what last took memory away before each block; None where nothing ever does."""
        blocks = self.code.blocks
        if OUTWARD_CALLS.isdisjoint(self.code.verified.program.operations):
            return None
        calls = [[op for op in block.ops if op.row.kind in _CALLS] for block in blocks]
        if not any(self._takes_away(op) for ops in calls for op in ops):
            return None
        ends = [int(any(map(self._ends_epoch, ops))) for ops in calls]
        ways = [[way.block for way in block.ways] for block in blocks]
        entered = {entry.block for entry in self.code.entries.values()}
        order = self.code.shape.order
        came, same = origins(ways, [[0]] * len(blocks), ends, entered, order, 1)
        places = [here[0] if here else 0 for here in came]
        return {number: found(same, place) for number, place in enumerate(places)}

    # -- a block ------------------------------------------------------------------------------------------

    def start(self, number: int) -> None:
        """See the start of a block."""
        self.number = number
        self.candidates: dict[int, list[Candidate]] = {}
        """By root."""
        self.here: dict[int, Op | None] = {}
        self.epoch = 0 if self.epochs is None else self.epochs[number]
        self.ended = False

    def op(self, index: int, op: Op) -> None:
        """Look at a check, or at a call."""
        row = op.row
        if row is BOUND:
            if op.args:
                self._bound(index, op)
        elif row is ALIGNED:
            self._aligned(index, op)
        elif self.epochs is not None and self._ends_epoch(op):
            self._settle()
            self.fresh -= 1
            self.epoch, self.ended = self.fresh, True

    def end(self, trail: Trail) -> None:
        """Put the checks that are left together; they are remembered for what the block dominates."""
        if self.ended:
            self.epoch = ~self.number  # by this name blocks behind know it
        if self.candidates:
            self._settle()
        if self.here:
            self.gone[self.number] = self.here

    def _bound(self, index: int, op: Op) -> None:
        facts, base = self.facts, op.args[0]
        place = facts.place(base)
        proof = self._proof(op, place)
        if proof is None:
            root, delta = facts.root[base], facts.delta[base]
            if root == facts.constant:
                root, delta = base, 0
            low = delta + op.offset
            high = low + op.imm
            if place is not None and place[0] == facts.argument and not self.is_exact:
                near, far = place[1] + op.offset, place[2] + op.offset + op.imm
                is_table = near >= 0 and far - near <= LONGEST_SPAN and far <= FARTHEST_END
                if is_table and (far - near <= LONGEST_STEPS or not self._is_counted(root)):
                    root, low, high = TABLE, near, far
            check = self._covering(root, low, high, stores=op.stores)
            if check is None and op.stores:
                check = self._asked_for_stores(root, low, high)
            if check is None:
                self.candidates.setdefault(root, []).append((index, op, low, high))
                return
            proof = _proof_of("covered", op, low, high, check.pc)
        elif proof.rule == "length" and op.stores:
            self._asks_argument(index, op, proof)
            return
        self._drop(index, proof, op.pc)

    def _is_counted(self, root: int) -> bool:
        """True for an address that steps from round to round, and may not get as far as it could."""
        parts, walk = self.facts.parts[root], self.walk
        counter = parts[1] if parts is not None else root
        return counter < self.facts.count and walk.at[counter] in walk.induction.targets

    def _drop(self, index: int, proof: Proof, pc: int) -> None:
        self.here[index] = None
        others = self.proofs.get(pc)
        self.proofs[pc] = (proof,) if others is None else (*others, proof)

    def _asks_argument(self, index: int, op: Op, proof: Proof) -> None:
        """Of a store into the argument's memory only is asked whether that may be; once."""
        check = self._covering(WRITABLE, 0, 0, stores=True)
        if check is None:
            asks = replace(op, args=(), offset=0, imm=0, region="argument")
            self.here[index] = asks
            self._remember(WRITABLE, Check(0, 0, True, 0, self.number, index, op.pc))
            check = self.made[WRITABLE][-1]
        else:
            self.here[index] = None
        proof = replace(proof, rule="writable", by=check.pc)
        self.proofs[op.pc] = (*self.proofs.get(op.pc, ()), proof)

    def _aligned(self, index: int, op: Op) -> None:
        facts, base = self.facts, op.args[0]
        if min(facts.zeros[base], zeros_of(op.offset)) >= op.imm.bit_length() - 1:
            self._drop(index, _proof_of("aligned", op, 0, 0), op.pc)

    def _settle(self) -> None:
        """Put the checks so far together that count from one root; remember them."""
        groups, self.candidates = self.candidates, {}
        for root, group in groups.items():
            for _ in range(MOST_SPANS):
                group = self._settled(root, group)
                if not group:
                    break
            for candidate in group:
                self._settled(root, [candidate])

    def _settled(self, root: int, group: list[Candidate]) -> list[Candidate]:
        """Let the first of some checks stand for those it can stand for; return the others."""
        index, op, start, high = group[0]
        low, stores = start, op.stores
        region = self._region(op.args[0])
        is_exact = self.is_exact and region not in ONLY.values()
        left = []
        for other in group[1:]:
            place, later, first, last = other
            if is_exact:
                fits = (first, last, later.stores) == (low, high, stores)
            else:
                is_near = max(high, last) - min(low, first) <= LONGEST_SPAN
                fits = is_near and (not self.is_exact or self._region(later.args[0]) == region)
            if fits:
                low, high = min(low, first), max(high, last)
                stores = stores or later.stores
                self._drop(place, _proof_of("covered", later, first, last, op.pc), later.pc)
            else:
                left.append(other)
        ahead = self.facts.ahead.get(root, 0)
        if max(high, ahead) - min(low, 0) <= LONGEST_SPAN and ahead and region == ONLY["packet"]:
            low, high = min(low, 0), max(high, ahead)
        args, offset = op.args, op.offset + low - start
        if root == TABLE:
            args, offset, region = (), low, "argument"
        self.here[index] = Op(BOUND, args, high - low, offset, op.pc, (), op.exit, stores, region)
        self._remember(root, Check(low, high, stores, self.epoch, self.number, index, op.pc, is_exact))
        return left

    def _region(self, base: int) -> str:
        """Return the region that a check of a base asks for first, or that it asks for alone."""
        region = self.facts.region(base)
        return self.only.get(region, "" if region == "map value" else region)

    def _remember(self, root: int, check: Check) -> None:
        made = self.made.get(root, ())
        if len(made) == MOST_SPANS:
            self.code.leave_alone(
                "guards", made[0].pc, f"more than {MOST_SPANS} later checks count from its base"
            )
        self.made[root] = (*made[-MOST_SPANS + 1 :], check)

    def _covering(self, root: int, low: int, high: int, *, stores: bool) -> Check | None:
        """Return the check that stands for these bytes already, or one of those where ways meet."""
        checks = self._standing(root, low, high, stores=stores)
        return checks[-1] if checks else None

    def _standing(self, root: int, low: int, high: int, *, stores: bool) -> list[Check]:
        """Return the check that stands for these bytes already, or those where ways meet; or none."""
        made = self.made.get(root)
        if made is None:
            return []
        check = self._dominating(made, root, low, high, stores, self.number)
        if check is not None:
            return [check]
        dominators, number = self.dominators, self.number
        before = [block for block, _ in dominators.preds[number]]
        if len(made) == 1 or number in dominators.entered or not 1 < len(before) <= MOST_WAYS:
            return []
        found = []
        for block in before:
            is_back = dominators.is_back(block, number)
            check = None if is_back else self._dominating(made, root, low, high, stores, block)
            if check is None:
                return []
            found.append(check)
        return found

    def _dominating(
        self, made: tuple[Check, ...], root: int, low: int, high: int, stores: bool, block: int
    ) -> Check | None:
        """Return the check of these that stands for bytes in a block, and still does here."""
        for check in reversed(made):
            if check.exact:
                covers = (check.low, check.high, check.stores) == (low, high, stores)
            else:
                covers = check.low <= low and high <= check.high and (check.stores or not stores)
            if not covers or not self.dominators.dominates(check.block, block):
                continue
            if root == WRITABLE or check.epoch == self.epoch:  # the argument stays as it is for the whole run
                return check
        return None

    def _asked_for_stores(self, root: int, low: int, high: int) -> Check | None:
        """Return a check that stands for these bytes being loaded, and have all ask for stores as well."""
        checks = self._standing(root, low, high, stores=False)
        if not checks or any(check.exact for check in checks):
            return None
        for check in checks:
            changes = self.here if check.block == self.number else self.gone[check.block]
            assert changes is not None  # the check was written there
            op = changes[check.index]
            assert op is not None
            changes[check.index] = replace(op, stores=True)
            asks = replace(check, stores=True)
            self.made[root] = tuple(asks if each is check else each for each in self.made[root])
        return asks

    # -- proofs -------------------------------------------------------------------------------------------

    def _proof(self, op: Op, place: Placed | None) -> Proof | None:
        """Return why a check need not be made whatever was checked before; `place` is that of its base."""
        facts, base = self.facts, op.args[0]
        if place is not None:
            region, low, high = place[0], place[1] + op.offset, place[2] + op.offset + op.imm
            if region >= facts.frame:
                size = self.frame_sizes[facts.functions[region - facts.frame]]
                return _proof_of("frame", op, low, high) if -size <= low and high <= 0 else None
            if region == facts.argument and self._is_promised(low, high, op):
                return _proof_of("argument", op, low, high)
        if self.walk.is_measured and self.promises.argument_rights is None:
            within = self._within(op, place)
            if within is not None:
                return _proof_of("length", op, *within)
        lookup = self._in_lookup(op, facts.root[base]) if facts.lookups else None
        if lookup is not None:
            return _proof_of("map value", op, *lookup)
        if self.values and facts.base[base] == UNKNOWN:
            low, high = self._address(base)
            low, high = low + op.offset, high + op.offset + op.imm
            for each in self.values:
                if each.start <= low and high <= each.stop and (each.writable or not op.stores):
                    return _proof_of("map value", op, low - each.start, high - each.start)
        return _proof_of("verdict", op, 0, op.imm) if op.pc in self.promises.proven else None

    def _is_promised(self, low: int, high: int, op: Op) -> bool:
        promises = self.promises
        if low < 0 or high > promises.argument_size or self.walk.main_is_called:
            return False
        rights = promises.argument_rights
        if rights is not None:
            return high - low == op.imm and rights.allows(low, op.imm, store=op.stores)
        return promises.argument_writable or not op.stores

    def _within(self, op: Op, place: Placed | None) -> tuple[int, int] | None:
        """Return where bytes are in the argument's memory, None where they need not be there."""
        facts, base = self.facts, op.args[0]
        size = facts.low[facts.length]
        if place is not None and place[0] == facts.argument:
            low, high = place[1] + op.offset, place[2] + op.offset + op.imm
            if low >= 0 and high <= size:
                return low, high
        root, delta = facts.root[base], facts.delta[base]
        room, parts = facts.room_behind(base), facts.parts[root]
        if room is None or room < op.offset + op.imm:
            return None
        if parts is not None and parts[0] == facts.argument:
            low = facts.low[parts[1]] + parts[2] + delta + op.offset
        elif place is not None:
            low = place[1] + op.offset
        else:
            return None
        return (low, facts.high[facts.length]) if low >= 0 else None

    def _in_lookup(self, op: Op, root: int) -> tuple[int, int] | None:
        """Return where bytes are in the value that a lookup gave, None where they need not be there."""
        facts = self.facts
        low = high = facts.delta[op.args[0]]
        parts = facts.parts[root]
        if parts is not None and parts[0] in facts.lookups:
            root = parts[0]
            least, most = as_signed(W64, (facts.low[parts[1]], facts.high[parts[1]]))
            low, high = low + parts[2] + least, high + parts[2] + most
        if root not in facts.lookups or not facts.low[root]:
            return None
        size, is_writable = facts.lookups[root]
        low, high = low + op.offset, high + op.offset + op.imm
        return (low, high) if low >= 0 and high <= size and (is_writable or not op.stores) else None

    def _address(self, value: int) -> tuple[int, int]:
        """Return between which addresses a value lies."""
        facts = self.facts
        low, high = facts.range(value)
        parts = facts.parts[facts.root[value]]
        if parts is not None and parts[0] == facts.constant:
            by = parts[2] + facts.delta[value]
            a, b = facts.low[parts[1]] + by, facts.high[parts[1]] + by
            if a >= 0 and b <= U64_MASK:
                return max(a, low), min(b, high)
        return low, high

    # -- the whole ----------------------------------------------------------------------------------------

    def result(self) -> Code:
        """Return the code with what is left."""
        blocks = tuple(map(_with, self.code.blocks, self.gone))
        return with_blocks(self.code, blocks, proofs={**self.code.proofs, **self.proofs})


_CALLS = (Kind.CALL_HELPER, Kind.CALL_KFUNC, Kind.CALL_LOCAL, Kind.CALL_REGISTER)


def _with(block: Block, changes: dict[int, Op | None] | None) -> Block:
    """Return a block with other operations at some places, or none."""
    if not changes:
        return block
    ops = list[Op | None](block.ops)
    for index, op in changes.items():
        ops[index] = op
    return Block(block.pc, block.args, tuple(filter(None, ops)), block.end, block.ways)


def _proof_of(rule: str, op: Op, low: int, high: int, by: int | None = None) -> Proof:
    size = op.imm if op.row is BOUND else 0
    return Proof(rule, op.args[0], op.offset, size, op.stores, low, high, by)
