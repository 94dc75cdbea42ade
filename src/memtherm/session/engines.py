"""The ways in which windows are taken, and what of a target each of them needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.protocols import Actor, CensusProbe, Clock, Probe
from memtherm.core.snapshot import TargetInfo
from memtherm.session.census_windows import CensusWindows
from memtherm.session.kdamond_windows import KdamondWindows, KernelWatched
from memtherm.session.kernel_schemes import KernelSchemes
from memtherm.session.sampling_windows import SamplingWindows

AnyWindows = CensusWindows | SamplingWindows | KdamondWindows


@dataclass(frozen=True)
class Watched:
    """One target with its ways to be seen, and to be acted on where schemes need it.

    Attributes:
        probe, census: None where it cannot be seen by sampling, or not its every page.
        kernel: how the kernel's own DAMON watches it; None where that is not to be had.
    """

    info: TargetInfo
    probe: Probe | None
    census: CensusProbe | None = None
    actor: Actor | None = None
    kernel: KernelWatched | None = None

    @property
    def name(self) -> str:
        return f"pid {self.info.pid} ({self.info.name})" if self.info.pid else self.info.name

    def close(self) -> None:
        for part in (self.probe, self.census, self.actor, self.kernel):
            if part is not None:
                part.close()


@dataclass(frozen=True, kw_only=True)
class Engines:
    """Begins windows of a method.

    Attributes:
        kernel_schemes: makes what decides about the schemes that the kernel's DAMON is handed down.
        no_kernel: why the kernel's DAMON cannot be used; empty where it can.
        kernel_purpose: why it is the one for this purpose, whatever a census costs; mostly empty.
    """

    attributes: MonitoringAttributes
    clock: Clock
    rng: np.random.Generator
    kernel_schemes: Callable[[], KernelSchemes] | None = None
    no_kernel: str = "it was not asked for"
    kernel_purpose: str = ""

    def begin(self, method: str, watched: Mapping[int, Watched]) -> AnyWindows:
        """Windows of these targets from now on.

        Raises HostCannot where the kernel's DAMON turns out not to be had.
        """
        names = {target: one.name for target, one in watched.items()}
        if method == "census":
            census = {target: one.census for target, one in watched.items() if one.census is not None}
            return CensusWindows(census, names=names, attributes=self.attributes, clock=self.clock, rng=self.rng)
        if method == "kdamond":
            kernel = {target: one.kernel for target, one in watched.items() if one.kernel is not None}
            assert self.kernel_schemes is not None
            return KdamondWindows(
                kernel, names=names, attributes=self.attributes, clock=self.clock, schemes=self.kernel_schemes()
            )
        probes = {target: one.probe for target, one in watched.items() if one.probe is not None}
        return SamplingWindows(probes, names=names, attributes=self.attributes, clock=self.clock, rng=self.rng)

    def add(self, windows: AnyWindows, target: int, one: Watched) -> None:
        """One more target, from the next window on."""
        if isinstance(windows, CensusWindows):
            if one.census is not None:
                windows.add(target, one.census, name=one.name)
        elif isinstance(windows, KdamondWindows):
            if one.kernel is not None:
                windows.add(target, one.kernel, name=one.name)
        elif one.probe is not None:
            windows.add(target, one.probe, name=one.name)
