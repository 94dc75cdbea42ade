"""What schemes did ↔ plain values; a module of its own because its imports take 20 ms, and most reports need none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from memtherm.core.history import SchemeTimes
from memtherm.core.plan import Refusal
from memtherm.core.report import QuotaReport, SchemeReport
from memtherm.core.scheme import Action, SchemeStatistics
from memtherm.record.side import known_fields


def plain_schemes(windows: Sequence[SchemeTimes]) -> list[Any]:
    return [[one.time_s, [_plain_scheme(scheme) for scheme in one.schemes]] for one in windows]


def schemes(plain: Sequence[Any]) -> SchemeTimes:
    return SchemeTimes(float(plain[0]), tuple(_scheme(one) for one in plain[1]))


def _plain_scheme(one: SchemeReport) -> dict[str, Any]:
    plain = {field.name: getattr(one, field.name) for field in fields(SchemeReport) if field.name != "tried"}
    plain["action"] = one.action.value
    plain["refused"] = [[refusal.reason, refusal.size_bytes] for refusal in one.refused]
    plain["total"] = vars(one.total)
    plain["quota"] = None if one.quota is None else vars(one.quota)
    return plain


def _scheme(plain: Mapping[str, Any]) -> SchemeReport:
    quota = plain["quota"]
    return SchemeReport(
        **{
            **known_fields(SchemeReport, plain),
            "action": Action(plain["action"]),
            "refused": tuple(Refusal(reason, size) for reason, size in plain["refused"]),
            "total": SchemeStatistics(**known_fields(SchemeStatistics, plain["total"])),
            "quota": None if quota is None else QuotaReport(**known_fields(QuotaReport, quota)),
        }
    )
