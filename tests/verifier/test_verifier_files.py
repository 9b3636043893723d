"""Every file of this folder gets the verdict that it says, with the words that it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpfjit.difftest.verdicts import texts
from ebpfjit.difftest.verdicts.linux import Judge, unprivileged_reason
from ebpfjit.kernel import unavailable_reason

FILES = sorted(Path(__file__).parent.glob("*.txt"))
EXPECTED = {path.stem: texts.read(path) for path in FILES}


def test_half_of_them_are_to_be_accepted() -> None:
    accepted = sum(each.verdict == "accepted" for each in EXPECTED.values())
    assert len(FILES) // 3 < accepted < 2 * len(FILES) // 3


@pytest.mark.parametrize("name", EXPECTED)
def test_we_say_so(name: str) -> None:
    expected = EXPECTED[name]
    verdict = expected.sample.program().verify(seconds=0, unprivileged=expected.unprivileged)
    assert verdict.status == expected.verdict, verdict
    if expected.verdict == "refused":
        said = [error for error in verdict.errors if error.kind == expected.kind]
        assert said, verdict
        assert expected.pc is None or expected.pc in {error.pc for error in said}, verdict
        assert expected.says in str(verdict)


@pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))
def test_linux_says_so() -> None:
    assert not _differing(unprivileged=False)


@pytest.mark.skipif(unprivileged_reason() is not None, reason=str(unprivileged_reason()))
def test_linux_says_so_to_users_without_capabilities() -> None:
    assert not _differing(unprivileged=True)


def _differing(*, unprivileged: bool) -> dict[str, tuple[str, str]]:
    asked = {name: each for name, each in EXPECTED.items() if each.unprivileged is unprivileged}
    with Judge(unprivileged=unprivileged) as judge:
        answers = judge.ask([each.sample for each in asked.values()])
    wrong = {}
    for (name, expected), answer in zip(asked.items(), answers, strict=True):
        verdict = "accepted" if answer.accepted else "refused"
        if verdict != expected.linux_verdict or expected.linux not in answer.log:
            wrong[name] = verdict, answer.log[-300:]
    return wrong
