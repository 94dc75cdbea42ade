"""What a policy file or scheme lines come to: frozen values without a trace of their text."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from memtherm.core.attributes import TUNED, MonitoringAttributes
from memtherm.core.guard import GuardSettings
from memtherm.core.scheme import Scheme
from memtherm.errors import InvalidInput

MAX_PID = 2**22  # PID_MAX_LIMIT of 64-bit Linux


@dataclass(frozen=True, kw_only=True)
class TargetSelector:
    """Which processes a policy is for: those of one name, or one process.

    Raises:
        InvalidInput: not exactly one of the two, an empty name, a pid that no process has.
    """

    name: str | None = None
    pid: int | None = None

    def __post_init__(self) -> None:
        if (self.name is None) == (self.pid is None):
            what = "a target has both a name and a pid" if self.pid is not None else "a target has no name and no pid"
            raise InvalidInput(what, hint="give one of the two")
        if self.name is not None and not self.name.strip():
            raise InvalidInput("the name of a target is empty", hint='write it like name = "redis-server"')
        if self.pid is not None and not 1 <= self.pid <= MAX_PID:
            raise InvalidInput(f"pid {self.pid} cannot exist", hint=f"a pid is from 1 to {MAX_PID}")


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
