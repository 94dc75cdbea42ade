"""One program, run once to its end under one configuration: the figures of that run."""

import os
import select
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.schemes import host
from benchmarks.schemes.agent import Agent, Orders
from benchmarks.schemes.catalogue import Program
from benchmarks.schemes.processes import output, started, wait_until
from benchmarks.schemes.sampler import Sampler, machine_memory
from benchmarks.schemes.tuning import with_age
from benchmarks.schemes.workshop import Workshop

_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a run is done under.

    Attributes:
        name: as in the tables.
        policy: what memtherm is told, or None where it does not run.
        age_s: the policy's lower bound of the age, where it is another one than in its text.
        huge_pages: the host's mode, or None to leave it.
    """

    name: str
    policy: str | None = None
    age_s: float | None = None
    huge_pages: str | None = None


def measure(program: Program, configuration: Configuration, shop: Workshop) -> dict[str, Any]:
    """Raises BenchmarkError where the program, its server or the agent fails."""
    agent = None
    with ExitStack() as until_end:
        if configuration.huge_pages is not None:
            until_end.enter_context(host.huge_pages(configuration.huge_pages))
        before = machine_memory()
        server = None
        if program.server is not None:
            server = until_end.enter_context(started(program.server(shop), folder=shop.folder, name="server"))
            is_ready = program.is_ready
            assert is_ready is not None
            wait_until(lambda: server.poll() is not None or is_ready(shop), what=program.name)
            if server.poll() is not None:
                output(shop.folder, "server", server.returncode or 1)
        began_s = time.monotonic()
        work = until_end.enter_context(started(program.work(shop), folder=shop.folder, name="work"))
        target = work if server is None else server
        sampler = until_end.enter_context(Sampler(target.pid, before=before))
        if configuration.policy is not None:
            policy = configuration.policy
            if configuration.age_s is not None:
                policy = with_age(policy, configuration.age_s, shop.folder)
            orders = Orders(policy=policy, with_children=program.has_children)
            agent = until_end.enter_context(Agent(orders, target.pid, folder=shop.folder))
        code = _wait(work, agent)
        run_s = time.monotonic() - began_s
    # The blocks end in turn: agent, sampler, processes, mode of huge pages.
    did = program.done(output(shop.folder, "work", code))
    row = {"run_s": run_s, **sampler.result(), "work": did}
    return row if agent is None else row | agent.result()


def _wait(work: subprocess.Popen[bytes], agent: Agent | None) -> int:
    """The exit status of the work; raises BenchmarkError at once where the agent fails before its end."""
    descriptor = os.pidfd_open(work.pid)
    try:
        while not select.select([descriptor], [], [], _LOOK_EVERY_S)[0]:
            if agent is not None:
                agent.check()
    finally:
        os.close(descriptor)
    return work.wait()
