"""How often a whole address space may be cleared by clear_refs."""

# It may hold up the target for a twentieth of the time at most.  It flushes no TLB: at 100 ms a set that
# lives there was seen again whole, at 5 ms 70 % of it (damon-spec §5.3).
_SHARE = 20
_SHORTEST_S = 0.1


def shortest_interval_s(cost_s: float) -> float:
    """The shortest time between two clearings of which each takes so many seconds."""
    return max(_SHORTEST_S, _SHARE * cost_s)
