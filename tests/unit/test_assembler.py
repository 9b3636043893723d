"""The assembler: every dialect, labels, ranges, and errors that point at what is wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpfjit.assembler import assemble
from ebpfjit.assembler.syntax import FORMS, all_forms, classes, family, words
from ebpfjit.errors import AssemblyError
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.program import decode
from tests.support.rows import over

README_TEXT = """add64 r1, 0x605
                     mov64 r2, 0x32
                     mov64 r1, r0
                     be16 r0
                     neg64 r2
                     exit"""
README_BYTES = bytes.fromhex(
    "0701000005060000 b702000032000000 bf01000000000000 dc00000010000000 8702000000000000 9500000000000000"
)


def test_readme_snippet_of_rbpf():
    assert assemble(README_TEXT) == README_BYTES


# Each line: the same instruction in several spellings, and its bytes.
SAME = """
0701000005000000                   add64 r1, 5 | add r1, 5 | add %r1, 0x5 | r1 += 5 | ADD64 R1, 5 | r1+=5
0401000005000000                   add32 r1, 5 | add32 %r1, 5 | add32 w1, 5 | w1 += 5 | W1 += 0x5
07010000fbffffff                   add r1, -5 | r1 += -5 | r1+=-5 | r1 += - 5 | add r1, 0xfffffffb
07010000fbffffff                   add r1,4294967291 | add  %r1 , -0x5
3f21010000000000                   sdiv64 r1, r2 | sdiv %r1, %r2 | r1 s/= r2
9c21010000000000                   smod32 r1, r2 | smod32 w1, w2 | w1 s%= w2
c701000003000000                   arsh r1, 3 | arsh64 r1, 3 | r1 s>>= 3
bf21080000000000                   movsx864 r1, r2 | movsx8 r1, r2 | r1 = (s8)r2 | r1 = (s8) r2
bf21200000000000                   movsx3264 %r1, %r2 | movsx32 r1, r2 | r1 = (s32)r2
bc21100000000000                   movsx1632 r1, r2 | movsx1632 w1, w2 | w1 = (s16)w2
8701000000000000                   neg r1 | neg64 %r1 | r1 = -r1
8401000000000000                   neg32 r1 | w1 = -w1
d701000010000000                   bswap16 r1 | swap16 %r1 | r1 = bswap16 r1
d401000040000000                   le64 r1 | r1 = le64 r1
1801000005000000 0000000000000000  lddw r1, 5 | lddw %r1, 0x5 | r1 = 5 ll
18010000ffffffff 00000000ffffffff  lddw r1, -1 | lddw r1, 0xffffffffffffffff | r1 = -1 ll
6110040000000000                   ldxw r0, [r1+4] | ldxw r0, [r1+0x4] | ldxw %r0, [%r1 + 4]
6110040000000000                   r0 = *(u32 *)(r1 + 4) | w0 = *(u32 *)(r1 + 4) | r0 = *(u32*)(r1 +4)
7110000000000000                   ldxb r0, [r1] | ldxb r0, [r1+0] | r0 = *(u8 *)(r1) | r0 = *(u8 *)(r1 + 0)
8110feff00000000                   ldxsw r0, [r1-2] | ldxsw r0, [r1-0x2] | r0 = *(s32 *)(r1 - 2)
620af8ff05000000                   stw [r10-8], 5 | stw [%r10 - 0x8], 5 | *(u32 *)(r10 - 8) = 5
6b2a080000000000                   stxh [r10+8], r2 | *(u16 *)(r10 + 8) = r2 | *(u16 *)(r10 + 8) = w2
3000000005000000                   ldabsb 5 | r0 = *(u8 *)skb[5]
4810000005000000                   ldindh r1, 5 | r0 = *(u16 *)skb[r1 + 5]
db21080000000000                   lock add [r1+8], r2 | lock add [%r1+8], %r2 | stxxadddw [r1+8], r2
db21080000000000                   lock *(u64 *)(r1 + 8) += r2
c321080000000000                   lock add32 [r1+8], r2 | stxxaddw [r1+8], r2 | lock *(u32 *)(r1 + 8) += w2
c321080050000000                   lock and32 [r1+8], r2 | lock *(u32 *)(r1 + 8) &= w2
c321080050000000                   lock *(u32 *)(r1 +8) &= r2
db21080001000000                   lock fetch add [r1+8], r2 | r2 = atomic_fetch_add((u64 *)(r1 + 8), r2)
db21080001000000                   r2 = atomic64_fetch_add((u64 *)(r1 +8), r2)
c321080041000000                   lock fetch or32 [%r1+8], %r2 | w2 = atomic_fetch_or((u32 *)(r1 + 8), w2)
db210000e1000000                   lock xchg [r1], r2 | r2 = xchg_64(r1 + 0, r2)
db210000e1000000                   r2 = atomic64_xchg((u64 *)(r1 +0), r2)
c3210000e1000000                   lock xchg32 [r1], r2 | w2 = xchg32_32(r1 + 0, w2)
db210000f1000000                   lock cmpxchg [r1], r2 | r0 = cmpxchg_64(r1 + 0, r0, r2)
c3210000f1000000                   lock cmpxchg32 [r1], r2 | w0 = cmpxchg32_32(r1 + 0, w0, w2)
db21080000010000                   load_acquiredw r1, [r2+8] | r1 = load_acquire((u64 *)(r2 + 8))
d321080010010000                   store_releaseb [r1+8], r2 | store_release((u8 *)(r1 + 8), w2)
0500020000000000                   ja +2 | ja 2 | ja +0x2 | goto +2 | goto pc+2 | goto 2
0500feff00000000                   ja -2 | ja -0x2 | goto -2 | goto pc-2
0600000005000000                   ja32 +5 | gotol +5 | gotol pc+5
e500020000000000                   may_goto +2 | may_goto pc+2
6501030005000000                   jsgt r1, 5, +3 | jsgt %r1, 0x5, +0x3 | if r1 s> 5 goto +3
6501030005000000                   if r1 s> 0x5 goto pc+3
4501030005000000                   jset r1, 5, +3 | if r1 & 5 goto +3
1e21fdff00000000                   jeq32 r1, r2, -3 | if w1 == w2 goto -3 | jeq32 w1, w2, -3
8500000005000000                   call 5 | call 0x5 | call helper 5 | call bpf_ktime_get_ns#5
8510000004000000                   callx 4 | callx 0x4 | call local 4 | call local +4 | call pc+4
8520000007000000                   call kfunc 7 | call runtime 7
8520020007000000                   call kfunc 7, 2 | call kfunc 0x7, +0x2
8d03000000000000                   callx r3 | callx %r3 | call %r3 | call r3
1811000005000000 0000000000000000  lddw r1, map[fd:5] | r1 = map[fd:5] | r1 = map [fd: 5]
1821000005000000 0000000008000000  lddw r1, map[fd:5][0]+8 | r1 = map[fd:5][0]+8
1831000007000000 0000000002000000  r1 = btf[id:7][fd:2] | lddw r1, btf[id:7][fd:2]
1841000004000000 0000000000000000  r1 = subprog[+4] | lddw r1, subprog[+4]
1851000005000000 0000000000000000  r1 = map[idx:5]
1861000005000000 0000000000000000  r1 = map[idx:5][0] | r1 = map[idx:5][0]+0
9500000000000000                   exit | exit # c | exit; c | exit // c | exit /* c */ | /* c */ exit
9500000000000000                   EXIT | .8byte 0x95 | .quad 149
0100000000000000 ffffffffffffffff  .8byte 1, -1 | .quad 0x1, 0xffffffffffffffff
"""


def spellings():
    for line in SAME.strip().splitlines():
        for text in line[35:].split(" | "):
            yield pytest.param(text, bytes.fromhex(line[:35]), id=text)


@over(("text", "code"), list(spellings()))
def test_spellings(text, code):
    assert assemble(text) == code


@over("key", sorted(all_forms()))
def test_every_form_assembles_to_its_row(key):
    form = all_forms()[key]
    samples = {"r": "r0", "w": "w0", "i": "0", "s": "+0", "L": "there", "h": "f#0"}
    text = " ".join(samples.get(class_, class_) for class_ in key.split())
    first = decode(assemble(f"{text}\nthere: exit"))[0]
    assert first.row is form.row
    assert not first.row.mismatches(first.dst_reg, first.src_reg, first.offset, first.imm, first.next_imm)


@over("row", TABLE)
def test_every_row_has_words_and_forms(row):
    assert words(row)[0] == row.mnemonic
    assert FORMS[family(row)][0].startswith("$word")
    assert any(form.row is row for form in all_forms().values())


def test_no_form_has_a_name_left_over():
    assert [key for key in all_forms() if "$" in key or "{" in key] == []


def test_labels_count_slots():
    code = assemble("""
        start: lddw r1, 0x1122334455667788   # two slots
        a: b:
        ja start
        jeq r1, 5, end
        ja a
        end:
        exit
    """)
    assert [insn.offset for insn in decode(code)] == [0, -3, 1, -3, 0]


def test_labels_in_every_place():
    code = assemble("""
        if r1 s> 5 goto there
        if w1 == w2 goto there
        goto there
        gotol there
        may_goto there
        call there
        call local there
        r3 = there ll
        lddw r4, there
        r5 = subprog[there]
        there: exit
    """)
    instructions = decode(code)
    targets = [insn.target for insn in instructions[:7]]
    assert targets == [13] * 7
    assert [insn.row.name for insn in instructions[7:10]] == ["LDDW_CODE"] * 3
    assert [insn.pc + 1 + insn.imm for insn in instructions[7:10]] == [13] * 3


def test_numbered_labels_are_those_of_gnu_as():
    code = assemble("""
        1: goto 1b
        goto 1f
        goto 2f
        1: goto 1b
        2: exit
    """)
    assert [insn.offset for insn in decode(code)] == [-1, 1, 1, -1, 0]


def test_a_label_may_be_the_last_thing_and_may_be_called_like_a_mnemonic():
    assert decode(assemble("ja add\nja lock\nlock:\nadd:"))[0].offset == 1
    assert decode(assemble("call pc\ncall helper\npc: helper: exit"))[0].imm == 1
    assert decode(assemble("goto L.x$1\nL.x$1: exit"))[0].offset == 0


def test_exit_is_the_first_exit_unless_defined():
    implicit = assemble("jeq r1, 1, exit\nmov r0, 1\nexit\nmov r0, 2\nexit")
    assert decode(implicit)[0].offset == 1
    explicit = assemble("jeq r1, 1, exit\nexit\nmov r0, 1\nexit: exit")
    assert decode(explicit)[0].offset == 2
    with pytest.raises(AssemblyError, match="undefined label 'exit'"):
        assemble("ja exit")


def test_comments_keep_lines_and_columns():
    with pytest.raises(AssemblyError) as caught:
        assemble("exit /* one\n two */ exit\n # /* none\n; */\n/* x */ bogus")
    assert (caught.value.line, caught.value.column) == (5, 9)


def test_empty_texts():
    assert assemble("") == b""
    assert assemble("\n  \t\r\n# nothing\n; nothing\n// nothing\n/* nothing */") == b""


def test_carriage_returns_end_lines_quietly():
    assert assemble("mov r0, 1\r\nexit\r\n") == assemble("mov r0, 1\nexit\n")


@over(
    ("text", "column", "reason"),
    [
        ("abcd", 1, "unknown mnemonic 'abcd'"),
        ("mvo r1, 2", 1, "did you mean 'mov'?"),
        ("add 1, 2", 5, "expected a 64-bit register (r0..r10), found '1'"),
        ("add64 w1, 2", 7, "expected a 64-bit register (r0..r10), found 'w1'"),
        ("add r16, r2", 5, "'r16' is no register: there are r0..r10"),
        ("add r1, %r11", 9, "'%r11' is no register"),
        ("w11 = 1", 1, "'w11' is no register"),
        ("add r1", 7, "expected ',': the line ends here"),
        ("add r1,", 8, "expected a 64-bit register (r0..r10) or an integer: the line ends here"),
        ("add r1, [r2]", 9, "expected a 64-bit register (r0..r10) or an integer, found '['"),
        ("r1 += w2", 7, "expected a 64-bit register (r0..r10) or an integer, found 'w2'"),
        ("exit exit", 6, "unexpected 'exit': the instruction is complete before it"),
        ("mov r0, 5 6", 11, "unexpected '6'"),
        ("mov r0, 12ab", 9, "'12ab' is no number"),
        ("mov r0, 0xg", 9, "'0xg' is no number"),
        ("ldxw r0, r1+4", 10, "expected '[', found 'r1'"),
        ("ldxw r0, [r1 4]", 14, "expected a signed integer (+1, -8) or ']', found '4'"),
        ("w0 = *(s8 *)(r1 + 0)", 8, "expected 'u16', 'u32' or 'u8', found 's8'"),
        ("lock ad [r1], r2", 6, "found 'ad'; did you mean 'and'?"),
        ("r2 = atomic_fetch_add((u64 *)(r1 + 0), r3)", 40, "expected r2 here, found r3"),
        ("r0 = be16 r1", 11, "expected r0 here, found r1"),
        ("r1 = cmpxchg_64(r1 + 0, r0, r2)", 1, "expected r0 here, found r1"),
        ("r1 = map[fd:5][1]+8", 16, "expected 0"),
        ("mov r0, 4294967296", 9, "4294967296 does not fit the 32-bit immediate"),
        ("mov r0, -2147483649", 9, "-2147483649 does not fit"),
        ("mov r0, " + "9" * 5000, 9, "this number is too long"),
        ("lddw r0, 0x10000000000000000", 10, "does not fit 64 bits"),
        ("ldxw r0, [r1+32768]", 13, "32768 does not fit the 16-bit offset"),
        ("ldxw r0, [r1+0xfff8]", 13, "65528 does not fit the 16-bit offset"),
        ("ldxw r0, [r1-32769]", 13, "-32769 does not fit"),
        ("ja +32768", 4, "use ja32 (gotol)"),
        ("jeq r0, 1, -32769", 12, "use ja32 (gotol)"),
        ("ja32 +2147483648", 6, "imm holds -2147483648..2147483647"),
        ("ja foo", 4, "undefined label 'foo': write 'foo:' before an instruction"),
        ("lop: ja loop", 9, "undefined label 'loop': did you mean 'lop'?"),
        ("ja 1f", 4, "no label '1:' after this line"),
        ("ja 1b", 4, "no label '1:' before this line"),
        ("a: a: exit", 4, "label 'a' is defined already, on line 2"),
        ("9" * 50 + ": exit", 1, "label 9999999999... is too long a number"),
        ("r1: exit", 1, "'r1' is a register"),
        (".8byte", 7, "expected an integer, the 64-bit word"),
        (".8byte 1,", 10, "expected an integer, the 64-bit word"),
        (".8byte 1 2", 10, "expected ',' or the end of the line"),
        (".8byte 0x10000000000000000", 8, "does not fit 64 bits"),
        (".incbin x", 1, "directive '.incbin' is not taken; an object file has sections and data"),
        (".qud 1", 1, "directive '.qud' is not taken: did you mean '.quad'?"),
        ("[r1]", 1, "expected a mnemonic, a register or a label, found '['"),
        ("exit /* no end", 6, "this comment does not end"),
        ("goto r1", 6, "expected an integer, a label or 'pc', found 'r1'"),
        ("\texit\t+", 7, "unexpected '+'"),
    ],
)
def test_errors_point_at_the_token(text, column, reason):
    with pytest.raises(AssemblyError) as caught:
        assemble(f"mov r0, 0\n  {text}" if not text.startswith("\t") else f"\n{text}")
    error = caught.value
    shift = 0 if text.startswith("\t") else 2
    assert (error.line, error.column) == (2, column + shift)
    assert reason in error.reason


def test_an_error_shows_the_line_and_a_caret():
    with pytest.raises(AssemblyError) as caught:
        assemble("exit\n\tadd r1, r99 # no\r\n")
    assert str(caught.value).splitlines() == [
        "line 2, column 10: 'r99' is no register: there are r0..r10, and w0..w10 for their low 32 bits",
        "   add r1, r99 # no",
        "           ^",
    ]
    assert caught.value.source_line == " add r1, r99 # no"


@pytest.mark.parametrize("text", [None, b"exit", 5])
def test_only_text_is_assembled(text):
    with pytest.raises(TypeError, match="assemble takes a str"):
        assemble(text)


def test_far_jumps_need_32_bits():
    far = "\n".join(["mov r0, 0"] * 40_000)
    with pytest.raises(AssemblyError, match=r"the target is \+40000 slots away.*use ja32 \(gotol\)"):
        assemble(f"goto end\n{far}\nend: exit")
    assert decode(assemble(f"gotol end\n{far}\nend: exit"))[0].imm == 40_000


def outcome(text):
    try:
        return assemble(text)
    except AssemblyError as error:
        return error


def assembles_or_explains(text):
    found = outcome(text)
    if isinstance(found, bytes):
        assert len(found) % 8 == 0
        return
    lines = text.split("\n")
    assert 1 <= found.line <= len(lines)
    assert 1 <= found.column <= len(lines[found.line - 1]) + 1
    assert found.reason


@settings(deadline=None, max_examples=300)
@given(st.text())
def test_any_text_assembles_or_explains(text):
    assembles_or_explains(text)


NUMBERS = ("5", "+5", "-0x8", "99999999999999999999", "1f", "2b", "0x", "12ab")
SOUP = st.lists(
    st.sampled_from(
        [*sorted(classes()), *NUMBERS, "label", "label:", "1:", "#", ";", "/*", "*/", "r11", "\n"]
    ),
    max_size=14,
)


@settings(deadline=None, max_examples=1000)
@given(SOUP, st.sampled_from(["", " "]))
def test_any_tokens_assemble_or_explain(tokens, blank):
    assembles_or_explains(blank.join(tokens))


@st.composite
def almost_forms(draw):
    """A form with one token taken out, doubled or replaced."""
    key = draw(st.sampled_from(sorted(all_forms()))).split()
    samples = {"r": "r1", "w": "w2", "i": "7", "s": "-7", "L": "label", "h": "f#7"}
    tokens = [samples.get(class_, class_) for class_ in key]
    at = draw(st.integers(0, len(tokens) - 1))
    tokens[at : at + 1] = draw(st.sampled_from([[], [tokens[at]] * 2, ["r3"], ["8"], ["word"], [","], ["@"]]))
    return " ".join(tokens)


@settings(deadline=None, max_examples=1000)
@given(almost_forms())
def test_slips_are_explained_where_they_are(text):
    assembles_or_explains(text)


def test_a_long_program_takes_linear_time():
    lines = [f"l{n}: add64 r1, {n}\nif r1 s> {n} goto l{n}\nldxw r0, [r1+4]" for n in range(20_000)]
    code = assemble("\n".join(lines))
    assert len(code) == 8 * 60_000
    assert code[-8:] == assemble("ldxw r0, [r1+4]")


COMPILED = """
\t.text
\t.file\t"sum.c"
\t.globl\tsum                             # -- Begin function sum
\t.p2align\t3
\t.type\tsum,@function
sum:                                    # @sum
# %bb.0:
\tr0 = 0
\tif r2 == 0 goto LBB0_2
# %bb.1:
\tr0 = *(u8 *)(r1 + 0)
LBB0_2:
\texit
.Lfunc_end0:
\t.size\tsum, .Lfunc_end0-sum
                                        # -- End function
\t.addrsig
"""


def test_what_a_compiler_writes_beside_instructions_is_passed_over():
    """`clang -O2 -target bpf -S`."""
    assert assemble(COMPILED) == assemble("mov r0, 0\njeq r2, 0, +1\nldxb r0, [r1]\nexit")


def test_encodings_come_from_the_table():
    assert assemble("call 1")[0] == BY_NAME["CALL"].opcode
