"""Settings of transparent huge pages (THP): /sys/kernel/mm/transparent_hugepage."""

from dataclasses import dataclass
from pathlib import Path

from memtherm.linux.hidden import is_hidden

_DIRECTORY = Path("/sys/kernel/mm/transparent_hugepage")


@dataclass(frozen=True)
class HugePageFacts:
    """How the host makes huge pages.

    Attributes:
        mode: `always`, `madvise` or `never` for anonymous memory; `absent` if the kernel has none.
        shared_memory_mode: of shared memory: `always`, `within_size`, `advise`, `never`, `deny`, `force` or `absent`.
        pmd_size_bytes: size of a huge page; 0 if absent.
    """

    mode: str
    shared_memory_mode: str
    pmd_size_bytes: int

    @property
    def is_usable(self) -> bool:
        """MADV_COLLAPSE works in every mode, `never` too (damon-spec §5.2)."""
        return self.pmd_size_bytes > 0


def parse_choice(text: str) -> str:
    """The word in brackets: `always [madvise] never` → `madvise`."""
    return text.partition("[")[2].partition("]")[0]


def read_huge_pages() -> HugePageFacts:
    """The settings of now."""
    if is_hidden("thp"):
        return HugePageFacts(mode="absent", shared_memory_mode="absent", pmd_size_bytes=0)
    size = _read("hpage_pmd_size")
    return HugePageFacts(
        mode=parse_choice(_read("enabled")) or "absent",
        shared_memory_mode=parse_choice(_read("shmem_enabled")) or "absent",
        pmd_size_bytes=int(size) if size else 0,
    )


def _read(name: str) -> str:
    try:
        return (_DIRECTORY / name).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
