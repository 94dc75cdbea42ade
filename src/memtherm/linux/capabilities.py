"""Capabilities of this process (capabilities(7)), by name."""

from collections.abc import Iterable

from memtherm.linux.hidden import hidden_features

# In the order of their bits.
_NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)


def parse_capabilities(status: str) -> frozenset[str]:
    """Names of the effective capabilities in the text of /proc/PID/status."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            return frozenset(name for bit, name in enumerate(_NAMES) if bits >> bit & 1)
    return frozenset()


def effective() -> frozenset[str]:
    """Effective capabilities of this process, such as `CAP_SYS_NICE`, without those that MEMTHERM_WITHOUT hides."""
    with open("/proc/self/status", encoding="utf-8", errors="surrogateescape") as file:
        return parse_capabilities(file.read()) - hidden_features()


def missing(needed: Iterable[str]) -> tuple[str, ...]:
    """Those of `needed` that this process does not have, in their order."""
    here = effective()
    return tuple(name for name in needed if name not in here)


def in_initial_user_namespace() -> bool:
    """Whether our capabilities count for the whole host: some are asked for in the first user namespace."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() == ["0", "0", "4294967295"]
