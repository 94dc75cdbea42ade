"""Every exception that memtherm raises on purpose.

MemthermError                 anything below; has `hint`: what to do about it
├── InvalidInput              your call, option or file is wrong       (also ValueError)
│   ├── InvalidPolicy         a policy file; has `problems`, all of them
│   └── KernelRefused         the kernel's DAMON does not take it      (in kdamond/)
├── HostCannot                this host cannot, or may not
│   ├── NotPermitted          a privilege is missing                   (also PermissionError)
│   ├── NotSupported          the kernel or a library lacks it
│   ├── ProbeNotTrusted       a probe failed its canary
│   ├── TargetBusy            someone else already watches the target
│   │   └── OwnershipLost     the kernel's DAMON is no longer ours     (in kdamond/)
│   └── CommandCanceled       a kdamond did not answer a command      (in kdamond/)
└── TargetGone                the target exited or was replaced        (also ProcessLookupError)
"""

from collections.abc import Sequence


class MemthermError(Exception):
    """Base of the tree.  `hint` says what the reader can do; it may be empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class InvalidInput(MemthermError, ValueError):
    """A call, an option or a file asks for something that cannot be meant."""


class InvalidPolicy(InvalidInput):
    """A policy file is wrong.

    Attributes:
        problems: one line of text for each problem of the file, with its line number.
    """

    def __init__(self, message: str, *, problems: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        """The message, and below it each problem where there are several."""
        return "\n  ".join([self.message, *(self.problems if len(self.problems) > 1 else ())])


class HostCannot(MemthermError):
    """This host cannot do it, or does not let us."""


class NotPermitted(HostCannot, PermissionError):
    """A capability or a permission is missing."""


class NotSupported(HostCannot):
    """The kernel or a library of this host lacks what is needed."""


class ProbeNotTrusted(HostCannot):
    """A probe gave wrong answers about memory that we know (design: the canary)."""


class TargetBusy(HostCannot):
    """Another monitor watches the target: both would clear each other's accessed bits."""


class TargetGone(MemthermError, ProcessLookupError):
    """The target exited, or its pid now belongs to another process."""
