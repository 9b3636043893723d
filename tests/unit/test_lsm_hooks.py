"""What programs at hooks of Linux's security modules may return."""

from __future__ import annotations

import pytest

from ebpfjit.difftest.verdicts.sample import Sample


@pytest.mark.parametrize(
    ("hook", "result", "status"),
    [
        ("lsm/file_open", "r0 = 0", "accepted"),
        ("lsm/file_open", "r0 = -4095", "accepted"),
        ("lsm/file_open", "r0 = -4096", "refused"),
        ("lsm/file_open", "w0 = -1", "accepted"),
        ("lsm/file_open", "r0 = 1", "refused"),
        ("lsm.s/file_release", "r0 = 1", "accepted"),
        ("lsm/audit_rule_known", "r0 = 1", "accepted"),
        ("lsm/audit_rule_known", "r0 = -1", "refused"),
        ("lsm/getprocattr", "r0 = 0", "refused"),
        ("lsm_cgroup/socket_bind", "r0 = 2", "refused"),
        ("lsm_cgroup/socket_bind", "r0 = 0", "accepted"),
        ("lsm_cgroup/sock_graft", "r0 = 0", "refused"),
        ("lsm_cgroup/sock_graft", "r0 = 1", "accepted"),
    ],
)
def test_results_of_hooks(hook: str, result: str, status: str) -> None:
    program = Sample.of_text("lsm", f"{result}\nexit", hook).program()
    assert program.verify(seconds=0).status == status
