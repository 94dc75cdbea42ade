"""Memory nodes: text, fake trees, this host."""

from pathlib import Path

import pytest

from memtherm.linux.nodes import NumaNode, parse_node, read_nodes
from memtherm.linux.swap import read_meminfo

TEXT = "\nNode {0} MemTotal:       {1} kB\nNode {0} MemFree:        {2} kB\nNode {0} MemUsed:         1 kB\n"


def _tree(root: Path, nodes: dict[int, tuple[int, int]]) -> Path:
    for number, (total, free) in nodes.items():
        folder = root / f"node{number}"
        folder.mkdir()
        (folder / "meminfo").write_text(TEXT.format(number, total, free))
    (root / "online").write_text("0\n")
    return root


def test_text_of_a_node() -> None:
    assert parse_node(3, TEXT.format(3, 1024, 512)) == NumaNode(3, 1 << 20, 1 << 19)
    assert parse_node(3, "") == NumaNode(3, 0, 0)


def test_nodes_with_gaps_and_without_memory(tmp_path: Path) -> None:
    root = _tree(tmp_path, {10: (2048, 1024), 0: (4096, 0), 2: (0, 0)})
    assert [node.number for node in read_nodes(root)] == [0, 2, 10]
    assert read_nodes(root)[1] == NumaNode(2, 0, 0)


def test_a_node_that_goes_offline(tmp_path: Path) -> None:
    root = _tree(tmp_path, {0: (4096, 0), 1: (4096, 0)})
    (root / "node1" / "meminfo").unlink()
    assert [node.number for node in read_nodes(root)] == [0]


def test_a_kernel_without_nodes(tmp_path: Path) -> None:
    (node,) = read_nodes(tmp_path)
    memory = read_meminfo()
    assert (node.number, node.total_bytes) == (0, memory["MemTotal"])
    assert node.free_bytes == pytest.approx(memory["MemFree"], abs=64 << 20)


def test_the_host() -> None:
    nodes = read_nodes()
    memory = read_meminfo()
    # A node counts what the kernel keeps for itself at the boot, so that nodes and host differ a little.
    assert sum(node.total_bytes for node in nodes) == pytest.approx(memory["MemTotal"], rel=0.05)
    assert all(0 <= node.free_bytes <= node.total_bytes for node in nodes)
