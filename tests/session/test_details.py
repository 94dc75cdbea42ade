"""What is read of targets from outside; physical memory is none of a process."""

import os

from memtherm.core.snapshot import TargetInfo
from memtherm.linux.process import open_process
from memtherm.session.details import DetailReader


def test_physical_memory_has_no_mappings_and_no_vitals_of_its_own() -> None:
    details = DetailReader()
    details.follow((TargetInfo(0, "physical memory"),))
    assert details.mappings() == []
    vitals = details.vitals()
    assert vitals.targets == ()
    assert vitals.free_memory_bytes > 0
    assert vitals.agent_cpu_s > 0
    details.close()


def test_another_process_with_the_pid_of_a_target_is_not_looked_at() -> None:
    with open_process(os.getpid()) as process:
        start_time_s = process.identity.start_time_s
    details = DetailReader()
    details.follow((TargetInfo(os.getpid(), "me", start_time_s), TargetInfo(os.getpid(), "earlier", 1e-3)))
    assert [table.target for table in details.mappings()] == [0]
    assert [one.target for one in details.vitals().targets] == [0]
    assert details.mappings() == []  # as they were
    details.close()
