"""Which processes a session watches: those that were named, found again and again as they come."""

from collections.abc import Iterable, Sequence

from memtherm.errors import InvalidInput, TargetGone
from memtherm.linux.cgroups import Cgroup, find_cgroup
from memtherm.linux.process import open_process
from memtherm.linux.process_table import ProcessTable, user_id_of
from memtherm.policy.values import TargetSelector

_PATTERN_CHARACTERS = "*?["
_INIT = 1


class TargetFinder:
    """Asks again and again which processes belong to the selectors.

    Kernel threads never belong.  Neither do `exclude` and pid 1, unless by pid; nor what `exclude` has started,
    unless by pid, by its exact name, or as a descendant of such.  A child that was seen once is followed when
    its parent ends; one whose parent ends before the next look is not.

    Args:
        exclude: pids, such as the one of this process.

    Raises:
        InvalidInput: no selector, or a user or a cgroup that this host does not have.
    """

    def __init__(self, selectors: Sequence[TargetSelector], *, exclude: frozenset[int]) -> None:
        if not selectors:
            raise InvalidInput("no target was named", hint="name one by its pid or by its name")
        self._selections = [_Selection(selector) for selector in selectors]
        self._exclude = exclude
        self._is_first = True
        self._table = ProcessTable(
            asks_names=any(one.name is not None for one in selectors),
            asks_users=any(one.user is not None for one in selectors),
        )

    @property
    def may_grow(self) -> bool:
        """Whether processes can be found later that are not there now."""
        return any(one.selector.pid is None or one.selector.children for one in self._selections)

    def find(self) -> dict[int, tuple[str, ...]]:
        """Pid → labels of all that belong now: first those named by pid, in their order, then the others, ascending.

        Raises, at the first call only, TargetGone or InvalidInput for a selector without a process.
        """
        if self._is_first:
            for selection in self._selections:
                selection.open()
        self._table.refresh()
        found = self._select()
        # What is handed out is what it was when its facts were read: a pid may be in use again.
        while not self._table.confirm(set().union(*found)):
            found = self._select()
        for selection, pids in zip(self._selections, found, strict=True):
            if self._is_first and not pids:
                raise selection.nobody()
            selection.follow(pids, self._table)
        self._is_first = False
        everything = sorted(set().union(*found))
        by_pid = [one.selector.pid for one in self._selections if one.selector.pid in everything]
        return {pid: self._labels(pid, found) for pid in dict.fromkeys([*by_pid, *everything]) if pid is not None}

    def _labels(self, pid: int, found: Sequence[set[int]]) -> tuple[str, ...]:
        """The labels of the selections in which it was found."""
        labels = [one.selector.label for one, pids in zip(self._selections, found, strict=True) if pid in pids]
        return tuple(dict.fromkeys(label for label in labels if label))

    def _select(self) -> list[set[int]]:
        own = self._exclude | self._table.descendants(self._exclude)
        return [selection.select(self._table, exclude=self._exclude, own=own) for selection in self._selections]


class _Selection:
    """One selector at work."""

    def __init__(self, selector: TargetSelector) -> None:
        self.selector = selector
        self._user_id = None if selector.user is None else user_id_of(selector.user)
        self._cgroup: Cgroup | None = None if selector.cgroup is None else find_cgroup(selector.cgroup)
        self._start_time_ticks = 0
        self._followed: dict[int, int] = {}

    def open(self) -> None:
        """Note which process a pid means.  Raises TargetGone, or InvalidInput for a thread."""
        if self.selector.pid is not None:
            with open_process(self.selector.pid) as process:
                self._start_time_ticks = process.identity.start_time_ticks
                if process.is_kernel_thread():
                    raise InvalidInput(
                        f"pid {process.pid} ({process.identity.name}) is a kernel thread: it has no memory of its own",
                        hint="name a program",
                    )

    def select(self, table: ProcessTable, *, exclude: frozenset[int], own: frozenset[int]) -> set[int]:
        """The processes of the table that belong."""
        named = self._named(table)
        if self.selector.pid is None:
            named = named - {_INIT} - (exclude if self._is_exact_name else own)
        if not self.selector.children:
            return named
        facts = table.facts
        alive = {pid for pid, start in self._followed.items() if pid in facts and facts[pid].start_time_ticks == start}
        roots = named | alive
        return roots | table.descendants(roots, without={*exclude, _INIT} - named)

    def follow(self, pids: Iterable[int], table: ProcessTable) -> None:
        """Note what belongs now, for the time when parents have ended."""
        if self.selector.children:
            self._followed = {pid: table.facts[pid].start_time_ticks for pid in pids}

    def nobody(self) -> TargetGone:
        """The error where nothing belongs."""
        selector = self.selector
        if selector.name is not None:
            what = "is called like" if not self._is_exact_name else "has the name"
            return TargetGone(f"no process {what} {selector.name!r}", hint="`ps -eo pid,comm` lists names")
        if selector.user is not None:
            return TargetGone(f"no process of the user {selector.user!r} runs", hint="`ps -eo pid,user,comm` lists all")
        if selector.cgroup is not None:
            return TargetGone(
                f"no process is in the cgroup {selector.cgroup}, nor below it", hint="`systemd-cgls` lists them"
            )
        return TargetGone(f"process {selector.pid} is gone", hint="it has just exited")

    @property
    def _is_exact_name(self) -> bool:
        return self.selector.name is not None and not set(self.selector.name) & set(_PATTERN_CHARACTERS)

    def _named(self, table: ProcessTable) -> set[int]:
        """Those that the selector names, children left out."""
        selector, facts = self.selector, table.facts
        if selector.pid is not None:
            one = facts.get(selector.pid)
            return {one.pid} if one is not None and one.start_time_ticks == self._start_time_ticks else set()
        if selector.name is not None:
            return {one.pid for one in facts.values() if one.is_called(selector.name)}
        if self._user_id is not None:
            return {one.pid for one in facts.values() if one.user_id == self._user_id}
        assert self._cgroup is not None
        try:
            return set(self._cgroup.pids()) & facts.keys()
        except TargetGone:  # it may come again, as that of a service that is started anew
            return set()
