"""`--probe softdirty` from the command line: what is written shows, what is read does not, and no scheme is misled."""

import json

from support.children import Child
from support.command import assert_refused, memtherm
from support.requires import require

MIB = 1 << 20
WATCHING = ("--json", "-n", "2", "--sampling", "200ms", "--aggregation", "1s")


def bytes_seen(snapshot: dict[str, list[dict[str, float]]], start: int, end: int) -> float:
    """How much of a range was accessed: bytes, by the rate."""
    return sum(
        max(0, min(end, region["end"]) - max(start, region["start"])) * (region["access_rate"] > 0)
        for region in snapshot["regions"]
    )


def test_what_is_written_shows_and_what_is_read_does_not() -> None:
    require("soft_dirty")
    with Child() as child:
        written, read = child.map_aligned(32 * MIB), child.map_aligned(32 * MIB)
        for address in (written, read):
            child.write(address, 8192)
        child.keep_touching([(written, 8192, 1)], write=True, pause_s=0.01)
        result = memtherm("monitor", "--probe", "softdirty", *WATCHING, "--pid", str(child.pid))
        child.stop_touching()
        child.keep_touching([(read, 8192, 1)], pause_s=0.01)
        second = memtherm("monitor", "--probe", "softdirty", *WATCHING, "--pid", str(child.pid))
    assert result.exit_code == second.exit_code == 0, result.stderr + second.stderr
    assert "watching by softdirty: sees writes only" in result.stderr
    hot, cold = (one.json_lines()[-1] for one in (result, second))
    for snapshot in (hot, cold):
        conditions = snapshot["conditions"]
        assert (conditions["probe"], conditions["clearing"], conditions["grain"]) == ("softdirty", "clear_refs", "page")
        assert any("sees writes only" in doubt for doubt in conditions["doubts"])
    assert bytes_seen(hot, written, written + 32 * MIB) > 16 * MIB
    assert bytes_seen(cold, read, read + 32 * MIB) < 8 * MIB


def test_a_scheme_for_cold_memory_is_refused_dry_or_not() -> None:
    with Child() as child:
        for more in ((), ("--apply",)):
            result = memtherm(
                "run", "--probe", "softdirty", "--scheme", "4K max 0% 0% 1s max pageout", *more, "--pid", str(child.pid)
            )
            lines = "\n".join(line for line in result.stderr.splitlines() if not line.startswith("memtherm: dry run"))
            told = type(result)(result.exit_code, result.stdout, lines)
            assert_refused(told, 2, "softdirty probe sees writes only", "use another probe")


def test_a_scheme_for_written_memory_runs() -> None:
    require("soft_dirty")
    with Child() as child:
        address = child.map_aligned(8 * MIB)
        child.keep_touching([(address, 2048, 1)], write=True, pause_s=0.01)
        scheme = "4K max 10% 100% 0s max stat"
        words = ("run", "--probe", "softdirty", "--json", "-n", "2", "--scheme", scheme, "--pid", str(child.pid))
        result = memtherm(*words)
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout.splitlines()[-1])["schemes"][0]["matched_bytes"] > 0


def test_auto_never_takes_it() -> None:
    with Child() as child:
        hidden = {"MEMTHERM_WITHOUT": "bpf"}
        result = memtherm("monitor", "--json", "-n", "1", "--pid", str(child.pid), environment=hidden)
        assert result.json_lines()[0]["conditions"]["probe"] == "smaps"
