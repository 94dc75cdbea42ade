"""Policies between TOML and damo's JSON."""

from pathlib import Path

from memtherm.cli.new_file import new_file
from memtherm.core.attributes import TUNED
from memtherm.policy.file import load_told
from memtherm.policy.to_damo import policy_damo
from memtherm.policy.to_toml import policy_toml
from memtherm.policy.values import Policy
from memtherm.record.formats import Format


def convert_policy(source: str, target: Path, wanted: Format, *, overwrite: bool) -> tuple[str, ...]:
    """Write a policy as TOML or as damo's kdamonds; what is not in it, in sentences.

    Raises:
        InvalidPolicy, InvalidInput: it is wrong, or cannot be said in that format.
    """
    policy, left_out = load_told(source)
    if wanted is Format.KDAMONDS:
        converted = policy_damo(policy, source=source)
        text, told = converted.text, converted.told
    else:
        text, told = policy_toml(policy), _told_of_toml(policy, source)
    with new_file(target, overwrite=overwrite) as path:
        path.write_text(text, encoding="utf-8")
    return left_out + told


def _told_of_toml(policy: Policy, source: str) -> tuple[str, ...]:
    told = []
    if policy.attributes.interval_goal is not None and (
        policy.attributes.sampling_interval_s,
        policy.attributes.aggregation_interval_s,
    ) != (TUNED.sampling_interval_s, TUNED.aggregation_interval_s):
        told.append("the first intervals are left out: they fit themselves to the target anyhow")
    if source.endswith(".toml"):
        told.append("comments are left out")
    return tuple(told)
