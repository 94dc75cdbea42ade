"""What a user sets about the guards: the rules that keep an action from memory (design: acting safely)."""

from dataclasses import dataclass

from memtherm.errors import InvalidInput

_MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class GuardSettings:
    """Settings of the guards that a policy may change; all other guards are always on.

    Attributes:
        min_target_bytes: targets with less memory than this, resident and in swap together, are left alone:
            acting on small programs costs more than it gives.
        override_application_hints: act against huge page advice that the application gave itself
            (VmFlags `hg` and `nh`).
        allow_ptrace: let a target be stopped for a moment and made to give huge page advice itself.
        keep_huge_page_advice: leave the huge page advice that was given in place at the end.
        max_refault_rate: share of the working set that may come back from pageout within a minute, per minute;
            a scheme slows down at half of it and stops above it.  0: no such guard.
        max_memory_pressure: share of time that some task may wait for memory (PSI some avg10, of the system and of
            the target's cgroup); a scheme slows down at half of it and stops above it.  0: no such guard.
        max_bytes_per_s: most bytes of one target that are paged out, brought back, moved or collapsed in a second,
            all schemes together; on average: up to 5 s' worth at once.  0: no such limit.
        min_free_swap: share of all swap that is left free.

    Raises:
        InvalidInput: a value out of its range.
    """

    min_target_bytes: int = 64 * _MIB
    override_application_hints: bool = False
    allow_ptrace: bool = False
    keep_huge_page_advice: bool = False
    max_refault_rate: float = 0.002
    max_memory_pressure: float = 0.1
    max_bytes_per_s: int = 1024 * _MIB
    min_free_swap: float = 0.05

    def __post_init__(self) -> None:
        for name in ("min_target_bytes", "max_bytes_per_s"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise InvalidInput(f"{name} is {value!r}", hint="give a whole number of bytes, such as 67108864")
            if value < 0:
                raise InvalidInput(f"{name} is {value}", hint="0 switches the guard off")
        for name in ("override_application_hints", "allow_ptrace", "keep_huge_page_advice"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInput(f"{name} is {getattr(self, name)!r}", hint="it is True or False")
        for name in ("max_refault_rate", "max_memory_pressure", "min_free_swap"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidInput(
                    f"{name} is {getattr(self, name)!r}", hint="a share is from 0 to 1; 0 switches it off"
                )
