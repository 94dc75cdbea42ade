"""What a policy file or scheme lines come to: frozen values without a trace of their text."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from memtherm.core.attributes import TUNED, MonitoringAttributes
from memtherm.core.guard import GuardSettings
from memtherm.core.scheme import Scheme
from memtherm.errors import InvalidInput

MAX_PID = 2**22  # PID_MAX_LIMIT of 64-bit Linux
MAX_USER = 2**32 - 2  # 2**32 - 1 means "no user" to the kernel
PHYSICAL = "physical memory"
_SELECTING = ("name", "pid", "user", "cgroup")
_EXAMPLES = {"name": 'name = "redis-server"', "user": 'user = "postgres"', "cgroup": 'cgroup = "/system.slice"'}


@dataclass(frozen=True, kw_only=True)
class TargetSelector:
    """What a policy is for: processes of a name, of a user or in a cgroup, one process, or physical memory.

    Attributes:
        name: exact, or a shell pattern such as `worker-*`.
        user: a user's name, or number.
        cgroup: path of a control group, such as `/system.slice/db.service`; those below it belong to it.
        children: the processes that these start are targets, too, and what those start.
        physical: all memory of the host, whoever uses it; only the kernel's DAMON sees it.
        ranges: only these addresses, half-open, ascending; only the kernel's DAMON keeps to them.
        label: by which schemes and filters mean these processes; without one the text of what selects them.

    Raises:
        InvalidInput: not exactly one of name, pid, user and cgroup, an empty text, a number that none has.
    """

    name: str | None = None
    pid: int | None = None
    user: str | int | None = None
    cgroup: str | None = None
    children: bool = False
    physical: bool = False
    ranges: tuple[tuple[int, int], ...] = ()
    label: str = ""

    def __post_init__(self) -> None:
        given = {key: value for key in _SELECTING if (value := getattr(self, key)) is not None}
        if self.physical and (given or self.children):
            raise InvalidInput(
                "a target is both physical memory and processes", hint="watch them by two runs, each with its policy"
            )
        if self.physical:
            given = {"physical": PHYSICAL}
        self._check_ranges()
        if len(given) != 1:
            what = f"a target has both a {' and a '.join(given)}" if given else "a target has no name and no pid"
            raise InvalidInput(what, hint=f"give exactly one of {', '.join(_SELECTING)} and physical")
        for key, value in given.items():
            if isinstance(value, str) and not value.strip():
                raise InvalidInput(f"the {key} of a target is empty", hint=f"write it like {_EXAMPLES[key]}")
        if self.pid is not None and not 1 <= self.pid <= MAX_PID:
            raise InvalidInput(f"pid {self.pid} cannot exist", hint=f"a pid is from 1 to {MAX_PID}")
        if isinstance(self.user, int) and not 0 <= self.user <= MAX_USER:
            raise InvalidInput(f"user {self.user} cannot exist", hint=f"a user's number is from 0 to {MAX_USER}")
        if not isinstance(self.children, bool):
            raise InvalidInput(f"children is {self.children!r}", hint="it is True or False")
        if not self.label:
            object.__setattr__(self, "label", str(next(iter(given.values()))))

    def _check_ranges(self) -> None:
        last_end = 0
        for start, end in self.ranges:
            if not last_end <= start < end < 2**64:
                raise InvalidInput(
                    f"the range {start:#x}-{end:#x} is empty, or begins before the one ahead of it has ended",
                    hint="ranges are START-END, half-open, in ascending order",
                )
            last_end = end


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Targets, and what is to be done about their memory.

    Attributes:
        targets: may be empty: then they come with the call.
        schemes: in the order of the file; each has a name, and no two the same.

    Raises:
        InvalidInput: two schemes of one name.
    """

    targets: tuple[TargetSelector, ...] = ()
    schemes: tuple[Scheme, ...] = ()
    attributes: MonitoringAttributes = TUNED
    guard: GuardSettings = field(default_factory=GuardSettings)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for scheme in self.schemes:
            if scheme.name in seen:
                raise InvalidInput(
                    f'two schemes have the name "{scheme.name}"', hint="results are told apart by the names of schemes"
                )
            seen.add(scheme.name)


def named(schemes: Iterable[Scheme]) -> tuple[Scheme, ...]:
    """The schemes, those without a name now with one such as `scheme 2 (pageout)`."""
    return tuple(
        scheme if scheme.name else replace(scheme, name=f"scheme {number} ({scheme.action})")
        for number, scheme in enumerate(schemes, start=1)
    )
