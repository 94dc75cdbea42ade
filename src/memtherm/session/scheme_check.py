"""Schemes that must not be let loose, and the one door by which a running session takes new ones."""

from collections.abc import Sequence

from memtherm.act.guard import action_refusal
from memtherm.core.goals import GoalMetric
from memtherm.core.guard import GuardSettings
from memtherm.core.scheme import Action, Scheme
from memtherm.errors import InvalidInput, NotSupported
from memtherm.policy.values import Policy, named
from memtherm.probe.choose import WRITES_ONLY
from memtherm.session.schemes import SchemeRunner

_FOR_COLD_MEMORY = (Action.COLD, Action.PAGEOUT)
# What a quota makes these take first is what was accessed least.
_COLDEST_FIRST = (*_FOR_COLD_MEMORY, Action.LRU_DEPRIO, Action.MIGRATE_COLD)


def refuse_unsafe(
    schemes: Sequence[Scheme],
    *,
    guard: GuardSettings,
    apply: bool,
    by_kernel: bool = False,
    own_memory: bool = False,
) -> None:
    """Refuse what cannot be applied, or would hurt.  A dry run may be of anything.

    Args:
        by_kernel: the kernel's DAMON may carry schemes out, which has more actions, and needs no ptrace.
        own_memory: the memory is this process's own, which it advises itself.

    Raises:
        InvalidInput: a scheme for cold memory without an upper bound of the access rate, huge page advice
            on another process without `allow_ptrace`, a migration without a destination.
        NotSupported: an action that cannot be done on a process.
    """
    for scheme in schemes if apply else ():
        _refuse_unbounded(scheme)
        if scheme.action is not Action.STAT and not by_kernel and (reason := action_refusal(scheme.action)):
            raise NotSupported(f'scheme "{scheme.name}": {reason}', hint="`memtherm doctor` lists the actions")
        needs_ptrace = scheme.action in (Action.HUGEPAGE, Action.NOHUGEPAGE) and not by_kernel and not own_memory
        if needs_ptrace and not guard.allow_ptrace:
            raise InvalidInput(
                f'scheme "{scheme.name}": {scheme.action} stops the target for a moment, to have it advise itself',
                hint="write allow_ptrace = true in [guard]; collapse makes huge pages without",
            )
        if scheme.action in (Action.MIGRATE_HOT, Action.MIGRATE_COLD) and not scheme.destinations:
            raise InvalidInput(
                f'scheme "{scheme.name}": {scheme.action} has no destination', hint="destinations = [{ node = 1 }]"
            )


def _refuse_unbounded(scheme: Scheme) -> None:
    """A scheme for cold memory that forgot to say so would act on the hottest as well."""
    if scheme.action in _FOR_COLD_MEMORY and scheme.pattern.access_rate.maximum is None:
        raise InvalidInput(
            f'scheme "{scheme.name}": {scheme.action} without an upper bound of the access rate acts on hot memory',
            hint='for memory that was not accessed write access_rate = "0%", or 0% 0% in a scheme line; '
            "an upper bound of 100% where hot memory is really meant",
        )


def refuse_unseen(schemes: Sequence[Scheme], *, probe: str) -> None:
    """Refuse what means reads, where the probe sees writes only; a dry run, too, for what it told would be wrong.

    Raises:
        InvalidInput: a scheme for memory that is accessed little, or that acts on memory that was not accessed.
    """
    for scheme in schemes if probe in WRITES_ONLY else ():
        rate = scheme.pattern.access_rate
        means_cold = rate.maximum is not None and rate.maximum < 1
        takes_cold = scheme.action is not Action.STAT and not rate.minimum
        if means_cold or takes_cold or scheme.action in _COLDEST_FIRST:
            raise InvalidInput(
                f'scheme "{scheme.name}": the {probe} probe sees writes only, and to it memory that is only read '
                f"looks unused; this scheme ({scheme.action}) would take that for cold",
                hint="use another probe, or a scheme for memory that is written, with a lower bound of the access "
                "rate and no upper one",
            )


class GuardedSchemes:
    """What a session lets its user change while it runs."""

    def __init__(
        self,
        runner: SchemeRunner,
        *,
        policy: Policy,
        apply: bool,
        probe: str,
        by_kernel: bool = False,
        own_memory: bool = False,
    ) -> None:
        self._runner = runner
        self._probe = probe
        self._by_kernel = by_kernel
        self._own_memory = own_memory
        self._policy = policy
        self._apply = apply

    def replace(self, schemes: Sequence[Scheme]) -> None:
        """Other schemes from the next window on; one with the name of an old one keeps its statistics and charge.

        Raises:
            InvalidInput, NotSupported: as when a session begins; then the old ones stay.
        """
        if not self._policy.schemes:
            raise InvalidInput("the session began without schemes", hint="begin it with a policy that has some")
        replaced = Policy(schemes=named(schemes)).schemes
        refuse_unsafe(
            replaced,
            guard=self._policy.guard,
            apply=self._apply,
            by_kernel=self._by_kernel,
            own_memory=self._own_memory,
        )
        refuse_unseen(replaced, probe=self._probe)
        self._runner.replace(replaced)

    def set_goal_value(self, scheme: str, value: float) -> None:
        """The present value of the `user_input` goal of a scheme.

        Raises:
            InvalidInput: no scheme of that name has such a goal, or the value is negative.
        """
        known = [one.name for one in self._runner.schemes if _has_user_input(one)]
        if scheme not in known:
            raise InvalidInput(
                f'no scheme "{scheme}" has a user_input goal', hint=f"there is: {', '.join(known) or 'none'}"
            )
        if not value >= 0:
            raise InvalidInput(f"the value of a goal is {value}", hint="a value is from 0 up")
        self._runner.user_input[scheme] = value


def _has_user_input(scheme: Scheme) -> bool:
    return any(goal.metric is GoalMetric.USER_INPUT for goal in scheme.quota.goals)
