"""Features that MEMTHERM_WITHOUT hides from us, so that a test can take the way of a lesser host."""

import os

from memtherm.errors import InvalidInput

VARIABLE = "MEMTHERM_WITHOUT"
FEATURES = frozenset(
    {
        "bpf",
        "btf",
        "damon",
        "idle",
        "libbpf",
        "page_monitor",
        "pagemap_scan",
        "process_madvise",
        "psi",
        "soft_dirty",
        "swap",
        "thp",
        "userfaultfd",
        "zram",
    }
)


def hidden_features() -> frozenset[str]:
    """The names in MEMTHERM_WITHOUT: of FEATURES, or capabilities such as `CAP_SYS_NICE`.

    Raises InvalidInput for a name that is neither: a misspelt one would hide nothing, unnoticed.
    """
    names = frozenset(filter(None, (name.strip() for name in os.environ.get(VARIABLE, "").split(","))))
    unknown = sorted(name for name in names - FEATURES if not name.startswith("CAP_"))
    if unknown:
        raise InvalidInput(
            f"{VARIABLE}: unknown feature {', '.join(unknown)}",
            hint=f"known are {', '.join(sorted(FEATURES))} and capabilities such as CAP_SYS_NICE",
        )
    return names


def is_hidden(feature: str) -> bool:
    """Whether MEMTHERM_WITHOUT names `feature`."""
    return feature in hidden_features()
