"""Swap space of the host: /proc/swaps and /proc/meminfo."""

from dataclasses import dataclass

from memtherm.linux.hidden import is_hidden


@dataclass(frozen=True)
class SwapDevice:
    """A line of /proc/swaps.

    Attributes:
        path: the device or the file.
        is_zram: compressed memory: what goes there leaves the process, but needs memory still.
        size_bytes: what it can hold.
        used_bytes: what it holds.
        priority: the kernel fills higher ones first.
    """

    path: str
    is_zram: bool
    size_bytes: int
    used_bytes: int
    priority: int


@dataclass(frozen=True)
class SwapState:
    """All swap.  Without any, all is 0 and `devices` is empty.

    Attributes:
        total_bytes: SwapTotal of /proc/meminfo.
        free_bytes: SwapFree of /proc/meminfo.
        devices: in the kernel's order.
    """

    total_bytes: int
    free_bytes: int
    devices: tuple[SwapDevice, ...]

    @property
    def has_zram(self) -> bool:
        return any(device.is_zram for device in self.devices)


def parse_swaps(text: str) -> tuple[SwapDevice, ...]:
    """The devices in the text of /proc/swaps (sizes there are in KiB)."""
    devices = []
    for line in text.splitlines()[1:]:
        # From the right: a path may hold spaces, as `\040`, and older kernels wrote them bare.
        path, _kind, size, used, priority = line.rsplit(maxsplit=4)
        devices.append(
            SwapDevice(
                path=path,
                is_zram=path.startswith("/dev/zram"),
                size_bytes=int(size) * 1024,
                used_bytes=int(used) * 1024,
                priority=int(priority),
            )
        )
    return tuple(devices)


def parse_meminfo(text: str) -> dict[str, int]:
    """Key → bytes (or plain number) of the text of /proc/meminfo."""
    values = {}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        values[key] = int(number) * (1024 if unit == "kB" else 1)
    return values


def read_meminfo() -> dict[str, int]:
    """/proc/meminfo of now: key → bytes (or plain number)."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return parse_meminfo(file.read())


def read_swap() -> SwapState:
    """Swap of now.  Empty where MEMTHERM_WITHOUT=swap hides it, or the kernel has none."""
    if is_hidden("swap"):
        return SwapState(total_bytes=0, free_bytes=0, devices=())
    try:
        with open("/proc/swaps", encoding="utf-8", errors="surrogateescape") as file:
            devices = parse_swaps(file.read())
    except FileNotFoundError:  # CONFIG_SWAP off
        devices = ()
    memory = read_meminfo()
    return SwapState(total_bytes=memory.get("SwapTotal", 0), free_bytes=memory.get("SwapFree", 0), devices=devices)
