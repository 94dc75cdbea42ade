"""What a user sets about the guards: the rules that keep an action from memory (design: acting safely)."""

from dataclasses import dataclass

from memtherm.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class GuardSettings:
    """Settings of the guards that a policy may change; all other guards are always on.

    Attributes:
        min_target_bytes: targets with less resident memory than this are left alone: acting on
            small programs costs more than it gives.
        override_application_hints: act against huge page advice that the application gave itself
            (VmFlags `hg` and `nh`).

    Raises:
        InvalidInput: a size that is not a whole number of bytes from 0 up.
    """

    min_target_bytes: int = 64 * 1024 * 1024
    override_application_hints: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.min_target_bytes, int) or isinstance(self.min_target_bytes, bool):
            raise InvalidInput(
                f"min_target_bytes is {self.min_target_bytes!r}", hint="give a whole number of bytes, such as 67108864"
            )
        if self.min_target_bytes < 0:
            raise InvalidInput(f"min_target_bytes is {self.min_target_bytes}", hint="0 switches the guard off")
        if not isinstance(self.override_application_hints, bool):
            raise InvalidInput(
                f"override_application_hints is {self.override_application_hints!r}", hint="it is True or False"
            )
