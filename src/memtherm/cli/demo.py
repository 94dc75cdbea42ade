"""`memtherm demo`: the main job on a built-in workload, with the truth beside what was seen."""

import click


@click.command("demo", short_help="The main job on a built-in program, with the truth beside it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(*, as_json: bool) -> None:
    """Watch a built-in program whose hot memory is known, then page out what is cold.

    Takes about half a minute.  The program is started and ended by the demo; nothing else is touched.
    """
    import json

    from memtherm.cli.demo_run import run_demo
    from memtherm.units import format_size

    figures = run_demo((lambda _: None) if as_json else print)
    if as_json:
        print(json.dumps(figures))
        return
    print(
        f"\nhot memory: {format_size(figures['hot_bytes_true'])}, seen: {format_size(figures['hot_bytes_seen'])} "
        f"(precision {figures['precision']:.3f}, recall {figures['recall']:.3f})\n"
        f"cost: {figures['agent_cpu_percent']} % of one CPU for the agent, "
        f"{figures['target_slowdown_percent']} % slower passes of the program\n"
        f"resident: {format_size(figures['rss_before_bytes'])} before, "
        f"{format_size(figures['rss_after_bytes'])} after; "
        f"{format_size(figures['applied_bytes'])} verified as paged out"
    )
    for refusal in figures["refused"]:
        print(f"refused: {format_size(refusal['size_bytes'])}: {refusal['reason']}")
