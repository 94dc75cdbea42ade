"""Where the schemes of a policy run on this host: in the kernel, or in user space, and why; for `check`."""

from memtherm.core.scheme import Action
from memtherm.kdamond.features import KernelFeatures, look
from memtherm.kdamond.hand_down import Situation, hand_down
from memtherm.kdamond.ownership import KdamondSlots
from memtherm.kdamond.parameters import Intervals, Operations
from memtherm.policy.values import Policy
from memtherm.session.kernel_guards import why_not_without_swap


def placements(policy: Policy) -> list[str]:
    """A sentence for each scheme; only looks, and writes nothing.

    What a kernel can do is known for sure only once a kdamond runs: `run` says it again then.
    """
    slots = KdamondSlots()
    state = slots.look()
    if not state.is_usable:
        return [f"where it runs: all in user space: {state.sentence}"]
    features = look(slots.tree) if state.kdamonds else KernelFeatures()
    situation = _situation(policy, features)
    found = []
    for scheme in policy.schemes:
        result = hand_down(scheme, situation)
        reason = result if isinstance(result, str) else ""
        if not reason and situation.operations is not Operations.PADDR:
            reason = why_not_without_swap(scheme.action)
        is_counted = scheme.action is Action.STAT and not reason
        found.append(
            f'where it runs: "{scheme.name}" in user space: {reason}'
            if reason
            else f'where it runs: "{scheme.name}" in the kernel, where method = "kdamond" watches'
            + ("" if is_counted else "; guards watch it from outside")
        )
    return found


def _situation(policy: Policy, features: KernelFeatures) -> Situation:
    is_physical = any(target.physical for target in policy.targets)
    attributes = policy.attributes
    return Situation(
        operations=Operations.PADDR if is_physical else Operations.VADDR,
        features=features,
        intervals=Intervals(
            sampling_interval_s=attributes.sampling_interval_s,
            aggregation_interval_s=attributes.aggregation_interval_s,
        ),
        labels={index: (target.label,) for index, target in enumerate(policy.targets)},
    )
