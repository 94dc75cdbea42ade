"""Whose the DAMON tree is, and how several memtherm processes share it.

The kernel has one number of kdamonds for everybody: writing it destroys all of them, and is refused while one runs.
So the first memtherm makes some directories at once, each later one takes one of them, and the last one writes 0.
What the registry of this boot does not account for belongs to somebody else, and is never written (damon-spec §3.6).
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from memtherm.errors import HostCannot, MemthermError, NotPermitted, NotSupported, TargetBusy
from memtherm.kdamond.registry import Owner, Record, Registry, Slot, this_process
from memtherm.kdamond.tree import ONCE, DamonTree, Ownership, OwnershipLost
from memtherm.linux.hidden import is_hidden

DEFAULT_MODULES = Path("/sys/module")
MODULES = ("damon_reclaim", "damon_lru_sort", "damon_stat")
NR_SLOTS = 8
_WITHOUT_IT = "or watch processes by census or sampling, which do without"


class Holder(StrEnum):
    """Who has the tree; only `free` and `ours` can be used."""

    NOT_THERE = "not there"
    NOT_PERMITTED = "not permitted"
    FREE = "free"
    OURS = "memtherm"
    MODULE = "a module of DAMON"
    OTHER = "another owner"


@dataclass(frozen=True)
class KdamondFacts:
    """A kdamond directory from outside.

    Attributes:
        thread: id of the kernel's thread; -1: it does not run; None: the kernel was too busy to say.
        owner: the memtherm process that has it, if it is ours and in use.
    """

    index: int
    thread: int | None
    owner: Owner | None = None

    @property
    def is_running(self) -> bool:
        return self.thread is not None and self.thread >= 0

    @property
    def is_abandoned(self) -> bool:
        """A memtherm process had it, and has ended without giving it up."""
        return self.owner is not None and not self.owner.is_alive


@dataclass(frozen=True, kw_only=True)
class TreeState:
    """Who has the DAMON tree.

    Attributes:
        sentence: in words.
        hint: how to get at it; empty where there is nothing to do.
        kdamonds: all that there are.
        modules: of DAMON, that run.
    """

    holder: Holder
    sentence: str
    hint: str = ""
    kdamonds: tuple[KdamondFacts, ...] = ()
    modules: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether a kdamond can be claimed."""
        if self.holder is Holder.OURS:
            return any(one.owner is None or one.is_abandoned for one in self.kdamonds)
        return self.holder is Holder.FREE

    def require_usable(self) -> None:
        """Raises NotSupported, NotPermitted or TargetBusy, with the sentence, unless it can be used."""
        if self.is_usable:
            return
        kinds: dict[Holder, type[HostCannot]] = {
            Holder.NOT_THERE: NotSupported,
            Holder.NOT_PERMITTED: NotPermitted,
        }
        raise kinds.get(self.holder, TargetBusy)(self.sentence, hint=self.hint)


class Claim:
    """A kdamond directory that is ours until `release`; a context manager.

    Attributes:
        tree: where it is.
        index: its number.
        ownership: what DamonTree.write asks for.
        events: what was found and done on the way, in sentences.
    """

    def __init__(self, slots: "KdamondSlots", index: int, ownership: Ownership, events: tuple[str, ...]) -> None:
        self.tree = slots.tree
        self.index = index
        self.ownership = ownership
        self.events = events
        self._slots = slots

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def require_no_module(self) -> None:
        """Raises TargetBusy while a module of DAMON keeps kdamonds from starting."""
        modules = running_modules(self._slots.modules)
        if modules:
            state = _held_by_modules(modules, ())
            raise TargetBusy(state.sentence, hint=state.hint)

    def release(self) -> tuple[str, ...]:
        """Stop the kdamond and give the directory back; the last one leaves an empty tree.  May be called again.

        Returns what else there is to say.
        """
        return self._slots._release(self)


class KdamondSlots:
    """The kdamonds of all memtherm processes of this host.

    Args:
        folder: of the registry.
        modules: where the kernel shows modules.
        nr_slots: how many directories the first one makes.
    """

    def __init__(
        self,
        tree: DamonTree | None = None,
        *,
        registry: Registry | None = None,
        modules: Path = DEFAULT_MODULES,
        nr_slots: int = NR_SLOTS,
    ) -> None:
        self.tree = tree or DamonTree()
        self._registry = registry or Registry()
        self.modules = modules
        self._nr_slots = nr_slots

    def look(self) -> TreeState:
        """Who has the tree.  Only reads: nothing is opened for writing anywhere."""
        if is_hidden("damon"):
            return TreeState(holder=Holder.NOT_THERE, sentence="DAMON is hidden by MEMTHERM_WITHOUT")
        try:
            count = self.tree.read_number("nr_kdamonds")
        except NotSupported:
            return TreeState(
                holder=Holder.NOT_THERE, sentence="this kernel has no DAMON", hint="see CONFIG_DAMON_SYSFS (Linux 5.18)"
            )
        except NotPermitted as error:
            return TreeState(holder=Holder.NOT_PERMITTED, sentence=error.message, hint=error.hint)
        except TargetBusy as error:
            return TreeState(holder=Holder.OTHER, sentence=error.message, hint=error.hint)
        modules = running_modules(self.modules)
        record = self._registry.read()
        kdamonds = self._look_at_kdamonds(record)
        if count and not self._is_accounted_for(record, count):
            return _held_by_another(kdamonds, modules)
        if modules:
            return _held_by_modules(modules, kdamonds)
        if count:
            return _held_by_us(kdamonds)
        return TreeState(holder=Holder.FREE, sentence="the DAMON tree is free")

    def claim(self) -> Claim:
        """A kdamond directory for this process, fresh and empty.

        Kdamonds that a memtherm process left behind when it died are stopped on the way.

        Raises NotSupported, NotPermitted, TargetBusy (somebody else has the tree, or all slots are in use).
        """
        self.look().require_usable()
        events: list[str] = []
        with self._registry.locked():
            # Again, since only now nobody of us changes it.
            state = self.look()
            if state.holder is Holder.OTHER:
                self._registry.save(Record())
            state.require_usable()
            record = self._adopt() if state.holder is Holder.OURS else self._make()
            record = self._clear_abandoned(record, events)
            slot = next(one for one in record.slots if one.owner is None)
            ownership = Ownership(self.tree, str(slot.index))
            self._save_owner(record, slot, this_process())
        return Claim(self, slot.index, ownership, tuple(events))

    def abandoned(self) -> tuple[KdamondFacts, ...]:
        """Kdamonds of ours whose memtherm process has died."""
        return tuple(one for one in self.look().kdamonds if one.is_abandoned)

    def stop_abandoned(self) -> tuple[str, ...]:
        """Stop what `abandoned` finds, and leave an empty tree where nobody is left.  What was done, in sentences."""
        events: list[str] = []
        if self.look().holder is not Holder.OURS:
            return ()  # nothing is made for it either, not even the lock
        with self._registry.locked():
            if self.look().holder is not Holder.OURS:
                return ()
            record = self._clear_abandoned(self._adopt(), events)
            events += self._leave(record)
        return tuple(events)

    def _make(self) -> Record:
        """Make the directories.  The intent is noted first, so that dying in between leaves nobody's tree."""
        self._registry.save(Record(claimant=this_process(), wanted=self._nr_slots))
        everything = Ownership(self.tree, "")
        try:
            self.tree.write(everything, "nr_kdamonds", str(self._nr_slots))
        except MemthermError:
            self._registry.save(Record())
            raise
        finally:
            everything.close()
        return self._note_directories()

    def _note_directories(self) -> Record:
        slots = (Slot(index, self._inode(index), None) for index in self.tree.numbered(""))
        record = Record(slots=tuple(slots))
        self._registry.save(record)
        return record

    def _adopt(self) -> Record:
        """The record of directories that are ours; noted now where their maker died before it could."""
        record = self._registry.read()
        return record if record.slots else self._note_directories()

    def _clear_abandoned(self, record: Record, events: list[str]) -> Record:
        for slot in record.slots:
            if slot.owner is not None and not slot.owner.is_alive:
                was_running = self._empty(slot.index)
                left = f"kdamond {slot.index} was left by memtherm (pid {slot.owner.pid}), which has ended"
                events.append(f"{left}: it still ran, and was stopped" if was_running else left)
                record = self._save_owner(record, slot, None)
        return record

    def _empty(self, index: int) -> bool:
        """Stop a kdamond of ours and take its directories away.  Returns whether it ran."""
        ownership = Ownership(self.tree, str(index))
        try:
            return empty(self.tree, ownership)
        finally:
            ownership.close()

    def _release(self, claim: Claim) -> tuple[str, ...]:
        if not claim.ownership.is_held:
            return ()
        try:
            with self._registry.locked():
                return self._release_locked(claim)
        finally:
            claim.ownership.close()

    def _release_locked(self, claim: Claim) -> tuple[str, ...]:
        try:
            empty(self.tree, claim.ownership)
        except OwnershipLost as error:
            return (error.message,)
        record = self._registry.read()
        slot = next((one for one in record.slots if one.index == claim.index), None)
        if slot is None or slot.inode != claim.ownership.identity:
            return ("the registry of kdamonds has changed meanwhile",)
        return self._leave(self._save_owner(record, slot, None))

    def _leave(self, record: Record) -> tuple[str, ...]:
        """Empty the tree if nobody of us is left."""
        if any(slot.owner is not None and slot.owner.is_alive for slot in record.slots):
            return ()
        running = [one for one in self._look_at_kdamonds(record) if one.is_running]
        if running:
            names = ", ".join(f"kdamond {one.index}" for one in running)
            return (f"{names} of a memtherm that has ended still runs: `memtherm doctor` offers to stop it",)
        everything = Ownership(self.tree, "")
        try:
            self.tree.write(everything, "nr_kdamonds", "0")
        except TargetBusy as error:
            return (f"the DAMON tree keeps its empty directories: {error.message}",)
        finally:
            everything.close()
        self._registry.save(Record())
        return ()

    def _save_owner(self, record: Record, slot: Slot, owner: Owner | None) -> Record:
        slots = tuple(replace(one, owner=owner) if one.index == slot.index else one for one in record.slots)
        record = replace(record, slots=slots)
        self._registry.save(record)
        return record

    def _look_at_kdamonds(self, record: Record) -> tuple[KdamondFacts, ...]:
        owners = {(slot.index, slot.inode): slot.owner for slot in record.slots}
        return tuple(
            KdamondFacts(index, self._thread(index), owners.get((index, self._inode(index))))
            for index in self.tree.numbered("")
        )

    def _thread(self, index: int) -> int | None:
        try:
            # Once: asking again and again for the lock would be a burden on its owner.
            return self.tree.read_number(f"{index}/pid", patience=ONCE)
        except (TargetBusy, NotSupported):
            return None

    def _inode(self, index: int) -> int:
        try:
            return (self.tree.kdamonds / str(index)).stat().st_ino
        except FileNotFoundError:
            return -1

    def _is_accounted_for(self, record: Record, count: int) -> bool:
        """Whether the directories that are there are those that we have made."""
        if record.slots:
            return len(record.slots) == count and all(self._inode(slot.index) == slot.inode for slot in record.slots)
        # Their maker is at it, or died before it could note them: then they are as they were made.
        return record.claimant is not None and record.wanted == count and self._is_untouched()

    def _is_untouched(self) -> bool:
        return all(
            self._thread(index) == -1 and self.tree.read_number(f"{index}/contexts/nr_contexts") == 0
            for index in self.tree.numbered("")
        )


def empty(tree: DamonTree, ownership: Ownership) -> bool:
    """Stop a kdamond and take away what is in its directory.  Returns whether it ran.

    Raises OwnershipLost, TargetBusy.
    """
    was_running = tree.read("state", owner=ownership) == "on"
    if was_running:
        stop(tree, ownership)
    tree.write(ownership, "contexts/nr_contexts", "0")
    return was_running


def stop(tree: DamonTree, ownership: Ownership) -> None:
    """Stop a kdamond, and wait for it; nothing happens if it has ended by itself."""
    try:
        tree.write(ownership, "state", "off")
    except MemthermError:
        if tree.read("state", owner=ownership) == "on":
            raise


def running_modules(folder: Path = DEFAULT_MODULES) -> tuple[str, ...]:
    """The modules of DAMON that run: while one does, no kdamond of the tree can start."""
    return tuple(name for name in MODULES if _is_enabled(folder / name / "parameters"))


def how_to_disable(module: str, folder: Path = DEFAULT_MODULES) -> str:
    """The command that makes a module of DAMON give the tree free."""
    return f"echo N > {folder / module / 'parameters' / 'enabled'}"


def _is_enabled(parameters: Path) -> bool:
    try:
        if (parameters / "enabled").read_text(encoding="ascii").strip() != "Y":
            return False
        # Where the thread is shown, it tells better than the switch, which older kernels leave as it was set.
        return int((parameters / "kdamond_pid").read_text(encoding="ascii")) >= 0
    except PermissionError:
        return False
    except FileNotFoundError:
        return (parameters / "enabled").exists()


def _held_by_another(kdamonds: tuple[KdamondFacts, ...], modules: tuple[str, ...]) -> TreeState:
    threads = [f"kdamond {one.index} runs as thread {one.thread}" for one in kdamonds if one.is_running]
    unknown = [f"kdamond {one.index} is busy" for one in kdamonds if one.thread is None]
    count = f"{len(kdamonds)} kdamond{'s' if len(kdamonds) != 1 else ''}"
    what = "; ".join([count, *threads, *unknown] if threads or unknown else [count, "none runs"])
    also = "".join(f"; {how_to_disable(module)} is needed as well" for module in modules)
    return TreeState(
        holder=Holder.OTHER,
        sentence=f"the DAMON tree is occupied by another owner ({what})",
        hint=f"nothing is written to it; end the program that set it up (`damo stop` for damo), {_WITHOUT_IT}{also}",
        kdamonds=kdamonds,
        modules=modules,
    )


def _held_by_modules(modules: tuple[str, ...], kdamonds: tuple[KdamondFacts, ...]) -> TreeState:
    return TreeState(
        holder=Holder.MODULE,
        sentence=f"DAMON is occupied by {' and '.join(one.upper() for one in modules)}, a module of the kernel",
        hint="to free it: " + "; ".join([*map(how_to_disable, modules), _WITHOUT_IT]),
        kdamonds=kdamonds,
        modules=modules,
    )


def _held_by_us(kdamonds: tuple[KdamondFacts, ...]) -> TreeState:
    pids = sorted({one.owner.pid for one in kdamonds if one.owner is not None and one.owner.is_alive})
    dead = sum(one.is_abandoned for one in kdamonds)
    free = sum(one.owner is None for one in kdamonds)
    sentence = f"the DAMON tree is memtherm's: {len(kdamonds)} kdamonds, {free} free"
    sentence += f", in use by pid {', '.join(map(str, pids))}" if pids else ""
    sentence += f", {dead} left by a memtherm that has died" if dead else ""
    hint = "" if free or dead else f"all are in use: end one of these processes, {_WITHOUT_IT}"
    return TreeState(holder=Holder.OURS, sentence=sentence, hint=hint, kdamonds=kdamonds)
