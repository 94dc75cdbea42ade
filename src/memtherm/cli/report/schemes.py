"""`memtherm report schemes`: what each scheme did, over time."""

from typing import TYPE_CHECKING, Any

import click

from memtherm.cli.report.options import OutputWords, SelectionWords, output_options, record_argument, selection_options

if TYPE_CHECKING:
    from memtherm.cli.report.show import Scene
    from memtherm.views.scheme_history import SchemeHistory

_TIME_ROWS = 12
_MOST_REASONS = 8


@click.command("schemes", short_help="What each scheme matched, tried, applied, refused, and why.")
@record_argument
@selection_options
@output_options
def command(path: str, **options: Any) -> None:
    """Show what each scheme of the recorded run did: in total, over time, and what held it back."""
    from memtherm.cli.report.show import Kind, show
    from memtherm.views.scheme_history import scheme_histories

    show(
        path,
        SelectionWords.take(options),
        OutputWords.take(options),
        Kind(
            compute=lambda history, selection: scheme_histories(history, selection=selection),
            lines=_lines,
            plain=lambda schemes: {"schemes": [_plain(scheme) for scheme in schemes]},
        ),
    )


def _lines(schemes: "tuple[SchemeHistory, ...]", scene: "Scene") -> list[str]:
    if not schemes:
        return ["there was no scheme in the selected time"]
    return [line for scheme in schemes for line in (*_scheme_lines(scheme, scene), "")][:-1]


def _scheme_lines(scheme: "SchemeHistory", scene: "Scene") -> list[str]:
    from memtherm.cli.report.plain import clean
    from memtherm.units import format_rate, format_size

    nr_windows = len(scheme.time_s)
    lines = [
        f"{clean(scheme.name) or 'scheme'} ({scheme.action}), {nr_windows} windows, "
        f"active in {format_rate(float(scheme.is_active.mean()))} of them",
        f"  matched {format_size(float(scheme.matched_bytes.mean()))} in the mean; in all tried "
        f"{format_size(int(scheme.tried_bytes.sum()))}, applied {format_size(int(scheme.applied_bytes.sum()))}, "
        f"refused {format_size(int(scheme.refused_bytes.sum()))}, "
        f"left out by filters {format_size(int(scheme.filtered_bytes.sum()))}",
    ]
    lines += [f"  refused {format_size(one.size_bytes)}: {clean(one.reason)}" for one in scheme.refused[:_MOST_REASONS]]
    lines += [
        f"  in {state.nr_windows} of {nr_windows} windows: {clean(state.text)}"
        for state in scheme.states[:_MOST_REASONS]
    ]
    if (quota := scheme.last.quota) is not None:
        lines.append(
            f"  quota at last: {format_size(quota.charged_bytes)} of {format_size(quota.effective_bytes)} used"
        )
    return [*lines, *(f"  {line}" for line in _time_lines(scheme, scene))]


def _time_lines(scheme: "SchemeHistory", scene: "Scene") -> list[str]:
    import numpy as np

    from memtherm.cli.report.plain import bar, table_lines
    from memtherm.units import format_size

    parts = np.array_split(np.arange(len(scheme.time_s)), min(_TIME_ROWS, len(scheme.time_s)))
    applied = [int(scheme.applied_bytes[part].sum()) for part in parts]
    largest = max(1, *applied)
    rows = [
        (
            scene.since_begin(float(scheme.time_s[part[0]])),
            format_size(float(scheme.matched_bytes[part].mean())),
            format_size(int(scheme.tried_bytes[part].sum())),
            format_size(size),
            format_size(int(scheme.refused_bytes[part].sum())),
            bar(size / largest, max(4, scene.width - 60)),
        )
        for part, size in zip(parts, applied, strict=True)
    ]
    return table_lines(
        ("from", "matched", "tried", "applied", "refused", ""),
        rows,
        width=scene.table_width and scene.table_width - 2,
        spare=("tried", "", "matched"),
    )


def _plain(scheme: "SchemeHistory") -> dict[str, Any]:
    from dataclasses import asdict

    from memtherm.cli.report.plain import plain

    values = {name: value for name, value in plain(scheme).items() if name != "last"}
    return {
        **values,
        "matched_mean_bytes": float(scheme.matched_bytes.mean()),
        "sum_tried_bytes": int(scheme.tried_bytes.sum()),
        "sum_applied_bytes": int(scheme.applied_bytes.sum()),
        "sum_refused_bytes": int(scheme.refused_bytes.sum()),
        "sum_filtered_bytes": int(scheme.filtered_bytes.sum()),
        "total": asdict(scheme.last.total),
    }
