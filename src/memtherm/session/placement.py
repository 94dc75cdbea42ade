"""Where the schemes of a policy run on this host: in the kernel, or in user space, and why; for `check`."""

from dataclasses import replace

from memtherm.core.scheme import Action, Scheme
from memtherm.errors import InvalidInput
from memtherm.kdamond.features import Feature, KernelFeatures, look
from memtherm.kdamond.hand_down import Situation, hand_down
from memtherm.kdamond.ownership import KdamondSlots
from memtherm.kdamond.parameters import Intervals, Operations
from memtherm.kdamond.tried_stream import why_not_heard
from memtherm.policy.values import Policy
from memtherm.session.kernel_guards import watches_refaults, why_not_without_swap
from memtherm.session.kernel_schemes import NOWHERE
from memtherm.session.method import ASKED_FOR
from memtherm.session.ways import needs_kernel


def placements(policy: Policy, *, slots: KdamondSlots | None = None) -> list[str]:
    """A sentence for each scheme, or one for all of them; only looks, and writes nothing.

    What a kernel can do is known for sure only once a kdamond runs: `run` says it again then.
    """
    slots = slots or KdamondSlots()
    try:
        needs = needs_kernel(policy.attributes.method, policy.targets)
    except InvalidInput as problem:
        return [f"where it runs: {NOWHERE}: `memtherm run` refuses it: {problem} ({problem.hint})"]
    state = slots.look()
    if not state.is_usable and needs:
        why = "the kernel's DAMON is asked for" if needs == ASKED_FOR else needs
        hint = f" ({state.hint})" if state.hint else ""
        return [f"where it runs: {NOWHERE}: {why}, and `memtherm run` refuses it here: {state.sentence}{hint}"]
    if not state.is_usable:
        return [f"where it runs: all in user space: {state.sentence}"]
    features = look(slots.tree) if state.kdamonds else KernelFeatures()
    situation = _situation(policy, features)
    where = "" if needs else ', where method = "kdamond" watches'
    return [f'where it runs: "{scheme.name}" {_place(scheme, policy, situation, where)}' for scheme in policy.schemes]


def _place(scheme: Scheme, policy: Policy, situation: Situation, where: str) -> str:
    is_physical = situation.operations is Operations.PADDR
    result = hand_down(scheme, situation)
    reason = result if isinstance(result, str) else ""
    if not reason and not is_physical:
        reason = why_not_without_swap(scheme.action)
    if not reason and not is_physical and watches_refaults(scheme.action, policy.guard) and (deaf := why_not_heard()):
        reason = f"the refault guard could not see what the kernel pages out: {deaf}"
    if reason:
        return f"{NOWHERE if is_physical else 'in user space'}: {reason}"
    guarded = "" if scheme.action is Action.STAT else "; guards watch it from outside"
    if not _is_known(scheme, situation):
        guarded += " (as far as known: which features this kernel has shows only once a kdamond is set up)"
    return f"in the kernel{where}{guarded}"


def _is_known(scheme: Scheme, situation: Situation) -> bool:
    """Whether it would be handed down even if the kernel had none of the features that are not known."""
    features = situation.features
    if situation.operations is not Operations.VADDR and features.operations is None:
        return False
    least = replace(features, absent=frozenset(Feature) - features.present)
    return not isinstance(hand_down(scheme, replace(situation, features=least)), str)


def _situation(policy: Policy, features: KernelFeatures) -> Situation:
    attributes = policy.attributes
    operations = Operations.VADDR
    if any(target.physical for target in policy.targets):
        operations = Operations.PADDR
    elif any(target.ranges for target in policy.targets):
        operations = Operations.FVADDR
    return Situation(
        operations=operations,
        features=features,
        intervals=Intervals(
            sampling_interval_s=attributes.sampling_interval_s,
            aggregation_interval_s=attributes.aggregation_interval_s,
        ),
        labels={index: (target.label,) for index, target in enumerate(policy.targets)},
    )
