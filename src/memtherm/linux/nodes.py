"""Memory nodes (NUMA) of the host and how full they are: /sys/devices/system/node."""

import re
from dataclasses import dataclass
from pathlib import Path

from memtherm.linux.swap import read_meminfo

_ROOT = Path("/sys/devices/system/node")
_LINE = re.compile(r"^Node \d+ (\w+):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class NumaNode:
    """One node.

    Attributes:
        number: as the kernel counts it; numbers may have gaps.
        total_bytes: its memory; 0 for a node of processors or devices only.
        free_bytes: what nobody uses; file caches count as used.
    """

    number: int
    total_bytes: int
    free_bytes: int


def parse_node(number: int, text: str) -> NumaNode:
    """The text of /sys/devices/system/node/nodeN/meminfo."""
    values = {key: int(kibibytes) * 1024 for key, kibibytes in _LINE.findall(text)}
    return NumaNode(number=number, total_bytes=values.get("MemTotal", 0), free_bytes=values.get("MemFree", 0))


def read_nodes(root: Path = _ROOT) -> tuple[NumaNode, ...]:
    """The nodes of now, ascending.  A kernel without NUMA has one: node 0 with all memory."""
    numbers = sorted(int(path.name.removeprefix("node")) for path in root.glob("node[0-9]*"))
    nodes = []
    for number in numbers:
        try:
            text = (root / f"node{number}" / "meminfo").read_text(encoding="ascii")
        except FileNotFoundError:  # taken offline while we look
            continue
        nodes.append(parse_node(number, text))
    if nodes:
        return tuple(nodes)
    memory = read_meminfo()
    return (NumaNode(number=0, total_bytes=memory["MemTotal"], free_bytes=memory["MemFree"]),)
