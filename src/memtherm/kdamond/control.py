"""A kdamond of ours: started with parameters, changed while it runs, asked for results, stopped."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from memtherm.core.ranges import Addresses, Counts
from memtherm.core.scheme import Action
from memtherm.errors import HostCannot, InvalidInput, MemthermError, TargetGone
from memtherm.kdamond import features as kernel_features
from memtherm.kdamond import layout
from memtherm.kdamond.features import Feature
from memtherm.kdamond.ownership import Claim, KdamondSlots, stop
from memtherm.kdamond.parameters import Context, Intervals, Kdamond, KernelWatermarkMetric, Operations
from memtherm.kdamond.startable import check_startable
from memtherm.kdamond.tree import CommandCanceled, KernelRefused, Patience
from memtherm.linux.process import open_process

_SCHEMES = f"{layout.CONTEXT}/schemes"
_NO_LIMIT_BYTES = 1 << 62


@dataclass(frozen=True, kw_only=True)
class KernelStatistics:
    """What a scheme did since it was made (damon-spec §2.10); None where this kernel does not count it."""

    nr_tried: int
    tried_bytes: int
    nr_applied: int
    applied_bytes: int
    nr_quota_exceeded: int
    filter_passed_bytes: int | None
    nr_snapshots: int | None


@dataclass(frozen=True, kw_only=True)
class TriedRegions:
    """The regions on which a scheme was tried in one apply, as columns in the kernel's order (damon-spec §2.11).

    Attributes:
        start, end: bytes, half-open (uint64).
        nr_accesses: samples of a window that found an access (int64).
        age_windows: aggregation windows (int64).
        filter_passed_bytes: bytes that passed the filters by page (int64); None before Linux 6.14, and for an action
            `stat` without such filters.
        probe_hits: (regions, probes) int64.
        total_bytes: of all of them.
    """

    start: Addresses
    end: Addresses
    nr_accesses: Counts
    age_windows: Counts
    filter_passed_bytes: Counts | None
    probe_hits: NDArray[np.int64]
    total_bytes: int

    def __len__(self) -> int:
        return len(self.start)


class RunningKdamond:
    """A kdamond that runs for us; a context manager that stops it and gives it back.  Not for several threads at once.

    Every question raises TargetGone once the kdamond has ended by itself because all its targets have exited, and
    OwnershipLost where another program has rewritten the tree since.

    Attributes:
        parameters: as they were started or committed last.
        features: what this kernel has.
        events: what there was to say on the way, in sentences.
    """

    def __init__(self, claim: Claim, parameters: Kdamond) -> None:
        self._claim = claim
        self._tree = claim.tree
        self._owner = claim.ownership
        self._was_stopped = False
        self.events = list(claim.events)
        self.parameters = parameters
        kernel_features.unfold(self._tree, self._owner)
        self.features = kernel_features.look(self._tree, owner=self._owner)
        wanted = layout.entries(parameters, self.features)
        # nr_contexts is the first to be written, and leaves fresh directories.
        self._written: dict[str, str] = {}
        layout.write(self._tree, self._owner, wanted, self._written)
        claim.require_no_module()
        try:
            self._tree.write(self._owner, "state", "on")
        except KernelRefused:
            # Perhaps a target has exited meanwhile, which this tells better.
            check_startable(parameters.context)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def index(self) -> int:
        """Its number in the tree."""
        return self._claim.index

    def is_running(self) -> bool:
        return self._tree.read("state", owner=self._owner) == "on"

    def thread(self, *, patience: Patience | None = None) -> int | None:
        """The id of the kernel's thread; None once it has ended.

        Args:
            patience: how long to ask where the kernel is busy with another's command; TargetBusy then.
        """
        thread = self._tree.read_number("pid", owner=self._owner, patience=patience)
        return None if thread < 0 else thread

    def has_living_targets(self) -> bool:
        """Whether something that it was started for is still there: then it does not end by itself."""
        context = self.parameters.context
        if context.operations is Operations.PADDR:
            return True
        return any(_is_alive(target.pid) for target in context.targets if not target.is_obsolete)

    def commit(self, parameters: Kdamond) -> None:
        """Change the parameters while it runs (damon-spec §1.16); what was measured and charged is kept.

        Intervals that tune themselves, and are the same as before, go on as they are.  Obsolete targets are gone
        afterwards from `parameters`.

        Raises:
            InvalidInput, NotSupported: nothing was changed.
        """
        context, before = parameters.context, self.parameters.context
        check_startable(context, was_started=True)
        if any(target.is_obsolete for target in context.targets[len(before.targets) :]):
            raise InvalidInput("an obsolete target that was never there", hint="targets are told apart by their places")
        # What this kernel lacks is said before anything changes.
        refresh = [one for one in layout.entries(parameters, self.features) if one.path == layout.REFRESH]
        with self._refresh_stopped(refresh):
            now = parameters
            if before.intervals.goal.windows:
                keeps_tuning = context.intervals == before.intervals
                tuned = self.tuned_intervals(renew=keeps_tuning)
                now = replace(parameters, context=replace(context, intervals=tuned)) if keeps_tuning else parameters
            now = replace(now, context=self._with_quotas_lifted(now.context))
            self._commit(layout.entries(now, self.features), "commit")
        self.parameters = parameters
        if any(target.is_obsolete for target in context.targets):
            self._forget_obsolete_targets()

    def _with_quotas_lifted(self, context: Context) -> Context:
        """With a limit that is never reached where a quota is taken back.

        A kernel before 7.1 reckons no effective size without a limit, so that the last one, used up, would hold for
        ever; seen on 6.12.
        """
        if self.features.has(Feature.PAUSE):
            return context
        schemes = list(context.schemes)
        for index, (old, new) in enumerate(zip(self.parameters.context.schemes, schemes, strict=False)):
            if old.quota.is_set and not new.quota.is_set:
                schemes[index] = replace(new, quota=replace(new.quota, size_bytes=_NO_LIMIT_BYTES))
        return replace(context, schemes=tuple(schemes))

    def commit_goals(self, parameters: Kdamond) -> None:
        """Change nothing but the goals of quotas, which is cheaper than `commit`.

        Raises InvalidInput where something else differs, NotSupported.
        """
        self.features.require(Feature.GOALS)
        if _without_goals(parameters) != _without_goals(self.parameters):
            raise InvalidInput("something else than goals differs", hint="commit the parameters as a whole")
        check_startable(parameters.context, was_started=True)
        wanted = [
            entry
            for index, scheme in enumerate(parameters.context.schemes)
            for entry in layout.goal_entries(f"{_SCHEMES}/{index}/quotas", scheme.quota.goals)
            if entry.feature not in self.features.absent
        ]
        self._commit(wanted, "commit_schemes_quota_goals")
        self.parameters = parameters

    def set_goal_values(self, scheme: int, values: Sequence[int]) -> None:
        """Give the current values of a scheme's goals, for those of user_input; one for each goal."""
        context = self.parameters.context
        old = context.schemes[scheme]
        goals = tuple(replace(goal, current_value=value) for goal, value in zip(old.quota.goals, values, strict=True))
        new = replace(old, quota=replace(old.quota, goals=goals))
        schemes = (*context.schemes[:scheme], new, *context.schemes[scheme + 1 :])
        self.commit_goals(replace(self.parameters, context=replace(context, schemes=schemes)))

    def pause(self) -> None:
        """Neither watch nor act until `resume` (Linux 7.2).  Raises NotSupported."""
        self._set_paused(True)

    def resume(self) -> None:
        self._set_paused(False)

    def statistics(self, *, renew: bool = True) -> tuple[KernelStatistics, ...]:
        """Of each scheme.

        Args:
            renew: ask the kernel; else as it wrote them last, see Kdamond.refresh_interval_s.
        """
        if renew:
            self._command("update_schemes_stats")
        return tuple(self._statistics_of(f"{_SCHEMES}/{index}/stats") for index in self._schemes())

    def tried_bytes(self) -> tuple[int, ...]:
        """For each scheme the bytes that it was tried on in its next apply, which is waited for (Linux 6.6).

        Raises CommandCanceled while the kdamond rests, or is paused.
        """
        self._require(Feature.TRIED_BYTES)
        self._walk("update_schemes_tried_bytes")
        return tuple(self._total_bytes(index) for index in self._schemes())

    def tried_regions(self, *, schemes: Sequence[int] | None = None) -> tuple[TriedRegions, ...]:
        """The regions that each scheme was tried on in its next apply, which is waited for (Linux 6.2).

        Args:
            schemes: indices of those to read; None: all.

        Raises CommandCanceled while the kdamond rests, or is paused.
        """
        self._require(Feature.TRIED_REGIONS)
        self._walk("update_schemes_tried_regions")
        return tuple(self._regions_of(index) for index in (self._schemes() if schemes is None else schemes))

    def clear_tried_regions(self) -> None:
        """Free what the kernel keeps for the files of tried regions."""
        self._require(Feature.TRIED_REGIONS)
        self._command("clear_schemes_tried_regions")

    def tuned_intervals(self, *, renew: bool = True) -> Intervals:
        """The intervals as the kernel has fitted them (Linux 6.15); `renew` as in statistics."""
        self._require(Feature.INTERVALS_GOAL)
        if renew:
            self._command("update_tuned_intervals")
        intervals = layout.read_intervals(self._tree, self._owner)
        # The kernel has written these files.
        for entry in layout.interval_entries(intervals):
            self._written[entry.path] = entry.text
        return intervals

    def effective_quotas(self, *, renew: bool = True) -> tuple[int, ...]:
        """For each scheme the limit of its quota in this charge window, bytes (Linux 6.9); `renew` as in statistics."""
        self._require(Feature.EFFECTIVE_BYTES)
        if renew:
            self._command("update_schemes_effective_quotas")
        return tuple(self._bytes(f"{_SCHEMES}/{index}/quotas/effective_bytes") for index in self._schemes())

    def stop(self) -> None:
        """Stop it.  What it found last can be read without `renew`; `close` gives the directory back."""
        self._was_stopped = True
        stop(self._tree, self._owner)

    def close(self) -> tuple[str, ...]:
        """Stop it and give its directory back.  May be called again.  Returns what there is to say."""
        self._was_stopped = True
        said = self._claim.release()
        self.events += said
        return said

    def _require(self, feature: Feature) -> None:
        self.features.require(feature)

    def _schemes(self) -> range:
        return range(len(self.parameters.context.schemes))

    def _command(self, word: str) -> None:
        try:
            self._tree.write(self._owner, "state", word, patience=self._patience())
        except (CommandCanceled, KernelRefused) as error:
            if self.is_running():
                raise
            raise self._ended() from error

    def _walk(self, word: str) -> None:
        """Have the next apply of each scheme written down."""
        if not self._schemes():
            return  # 6.12 would wait for an apply for ever
        self._command(word)
        # Before 6.14 the answer may come ahead of the first apply; seen on 6.12, at the start.
        if self.features.has(Feature.ALLOW_FILTERS) is False and not self._was_tried():
            self._command(word)

    def _was_tried(self) -> bool:
        """Unknown, and so true, where there is no file for it."""
        if not self.features.has(Feature.TRIED_BYTES):
            return True
        return any(self._total_bytes(index) for index in self._schemes())

    def _longest_s(self) -> float:
        """The longest time that a command may wait for an apply, or for the end of a window."""
        context = self.parameters.context
        return max(
            context.intervals.aggregation_interval_s,
            context.intervals.goal.max_sampling_interval_s * context.intervals.samples_per_window,
            *(scheme.apply_interval_s for scheme in context.schemes),
        )

    def _patience(self) -> Patience:
        """Commands of others of ours hold the lock for an apply interval, which is likely as long as our own."""
        patience = self._tree.patience
        return replace(patience, limit_s=max(patience.limit_s, 2 * self._longest_s()))

    def _ended(self) -> MemthermError:
        if self._was_stopped:
            return InvalidInput(f"kdamond {self.index} was stopped", hint="start another one")
        if self.has_living_targets():
            return HostCannot(
                f"kdamond {self.index} was stopped by somebody else",
                hint="see `memtherm kernel status` for who uses it",
            )
        return TargetGone(
            f"all targets of kdamond {self.index} have exited, and it ended by itself", hint="start it for others"
        )

    def _commit(self, wanted: list[layout.Entry], command: str) -> None:
        """Write and commit; where that fails, the files are put back, so that no later commit takes them in."""
        before = dict(self._written)
        try:
            layout.write(self._tree, self._owner, [one for one in wanted if one.path != layout.REFRESH], self._written)
            if command == "commit" and self._may_be_deaf():
                self._commit_or_start_again()
            else:
                self._command(command)
        except (InvalidInput, HostCannot):
            self._put_back(before)
            raise

    def _may_be_deaf(self) -> bool:
        """Whether a commit may wait for ever, where no signal ends it.

        Before commands had a way of their own to the kernel's thread (6.14, with filters that allow), a kdamond took
        commits at the end of a window only, and there is none while all schemes rest.  Seen on 6.12.
        """
        schemes = self.parameters.context.schemes
        may_rest = all(one.watermarks.metric is not KernelWatermarkMetric.NONE for one in schemes)
        return self.features.has(Feature.ALLOW_FILTERS) is False and bool(schemes) and may_rest

    def _commit_or_start_again(self) -> None:
        """Commit; if that takes too long, stop the kdamond, which ends the waiting, and start it with what was written.

        Raises as a command does.
        """
        was_too_long = threading.Event()

        def give_up() -> None:
            was_too_long.set()
            with suppress(MemthermError):
                stop(self._tree, self._owner)

        timer = threading.Timer(max(1.0, 2 * self._longest_s()), give_up)
        timer.daemon = True
        timer.start()
        try:
            self._command("commit")
        except MemthermError:
            if not was_too_long.is_set():
                raise
        finally:
            timer.cancel()
            timer.join()
        if was_too_long.is_set():
            self._tree.write(self._owner, "state", "on")
            self.events.append(
                f"kdamond {self.index} rested by its watermarks, where this kernel takes no change: "
                "it was started again, and its statistics begin anew"
            )

    @contextmanager
    def _refresh_stopped(self, then: list[layout.Entry]) -> Iterator[None]:
        """The kernel renews no file meanwhile: between our writes and the commit, it would undo new intervals.

        Args:
            then: the file's entry for afterwards, unless that fails.
        """
        before = layout.Entry(layout.REFRESH, self._written.get(layout.REFRESH, "0"))
        after = [before]
        if before.text != before.default:
            layout.write(self._tree, self._owner, [replace(before, text="0")], self._written)
            # The kernel's thread does one thing after the other: then no refresh is under way any more.
            self._command("update_schemes_stats")
        try:
            yield
            after = then
        finally:
            layout.write(self._tree, self._owner, after, self._written)

    def _put_back(self, before: dict[str, str]) -> None:
        tuned = {entry.path for entry in layout.interval_entries(self.parameters.context.intervals)}
        wanted = [
            replace(entry, text=before.get(entry.path, entry.default)) if entry.path in tuned else entry
            for entry in layout.entries(self.parameters, self.features)
            if entry.path != layout.REFRESH
        ]
        with suppress(MemthermError):
            layout.write(self._tree, self._owner, wanted, self._written)

    def _forget_obsolete_targets(self) -> None:
        """The kernel has destroyed these targets, and wants the directories to match (damon-spec §1.16)."""
        context = self.parameters.context
        left = tuple(target for target in context.targets if not target.is_obsolete)
        self.parameters = replace(self.parameters, context=replace(context, targets=left))
        layout.write(self._tree, self._owner, layout.entries(self.parameters, self.features), self._written)

    def _set_paused(self, is_paused: bool) -> None:
        self._require(Feature.PAUSE)
        self.commit(replace(self.parameters, context=replace(self.parameters.context, is_paused=is_paused)))

    def _number(self, path: str) -> int:
        return self._tree.read_number(path, owner=self._owner)

    def _bytes(self, path: str) -> int:
        return self._number(path) * self.parameters.context.address_unit

    def _statistics_of(self, folder: str) -> KernelStatistics:
        counts_passed = self.features.has(Feature.FILTER_PASSED)
        counts_snapshots = self.features.has(Feature.MAX_NR_SNAPSHOTS)
        return KernelStatistics(
            nr_tried=self._number(f"{folder}/nr_tried"),
            tried_bytes=self._bytes(f"{folder}/sz_tried"),
            nr_applied=self._number(f"{folder}/nr_applied"),
            applied_bytes=self._bytes(f"{folder}/sz_applied"),
            nr_quota_exceeded=self._number(f"{folder}/qt_exceeds"),
            filter_passed_bytes=self._bytes(f"{folder}/sz_ops_filter_passed") if counts_passed else None,
            nr_snapshots=self._number(f"{folder}/nr_snapshots") if counts_snapshots else None,
        )

    def _total_bytes(self, index: int) -> int:
        return self._bytes(f"{_SCHEMES}/{index}/tried_regions/total_bytes")

    def _regions_of(self, index: int) -> TriedRegions:
        scheme = self.parameters.context.schemes[index]
        # The kernel counts nothing where `stat` has nothing to filter, and each file has its price.
        counts = scheme.action is not Action.STAT or bool(scheme.ops_filters)
        has_passed = counts and bool(self.features.has(Feature.FILTER_PASSED))
        nr_probes = len(self.parameters.context.probes)
        names = ["start", "end", "nr_accesses", "age", *["sz_filter_passed"] * has_passed]
        names += [f"probes/{probe}/hits" for probe in range(nr_probes)]
        rows = self._tree.read_rows(f"{_SCHEMES}/{index}/tried_regions", names, owner=self._owner)
        table = np.array(rows, np.uint64).reshape(len(rows), len(names))
        unit = np.uint64(self.parameters.context.address_unit)
        start, end = table[:, 0] * unit, table[:, 1] * unit
        return TriedRegions(
            start=start,
            end=end,
            nr_accesses=table[:, 2].astype(np.int64),
            age_windows=table[:, 3].astype(np.int64),
            filter_passed_bytes=(table[:, 4] * unit).astype(np.int64) if has_passed else None,
            probe_hits=table[:, len(names) - nr_probes :].astype(np.int64),
            total_bytes=int((end - start).sum()),
        )


def start(parameters: Kdamond, *, slots: KdamondSlots | None = None) -> RunningKdamond:
    """Claim a kdamond, and let it run with `parameters`.  Where that fails, nothing is left behind.

    Raises:
        InvalidInput: the kernel refuses the parameters, or would silently do something else.
        TargetGone: a target has exited.
        NotSupported: this kernel lacks something.
        NotPermitted: not root.
        TargetBusy: somebody else has the DAMON tree.
    """
    check_startable(parameters.context)
    claim = (slots or KdamondSlots()).claim()
    try:
        return RunningKdamond(claim, parameters)
    except BaseException:
        claim.release()
        raise


def _is_alive(pid: int) -> bool:
    try:
        with open_process(pid) as process:
            return process.is_alive()
    except TargetGone:
        return False


def _without_goals(parameters: Kdamond) -> Kdamond:
    context = parameters.context
    schemes = tuple(replace(one, quota=replace(one.quota, goals=())) for one in context.schemes)
    return replace(parameters, context=replace(context, schemes=schemes))
