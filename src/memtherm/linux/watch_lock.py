"""One watcher a target: two would clear each other's accessed bits.

The lock is an abstract Unix socket, named after the target.  The kernel frees it with its holder,
however that ends; it needs no directory and no privilege, and it is seen by every user of the
network namespace.
"""

import socket
import struct

from memtherm.errors import TargetBusy

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class WatchLock:
    """Held from construction to `close`.

    Args:
        pid: the target.
        start_time_ticks: its start time, so that a reused pid is another target.

    Raises:
        TargetBusy: somebody else holds it.
    """

    def __init__(self, pid: int, start_time_ticks: int) -> None:
        name = f"\0memtherm/watch/{pid}/{start_time_ticks}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(name)
            self._socket.listen(8)
        except OSError as problem:
            self._socket.close()
            raise TargetBusy(
                f"pid {pid} is already watched by {_holder(name)}",
                hint="two watchers would clear each other's accessed bits; stop the other one first",
            ) from problem

    def close(self) -> None:
        self._socket.close()


def _holder(name: str) -> str:
    """Who listens there, as far as it can be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(name)
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return "another memtherm"
    return f"memtherm, pid {_CREDENTIALS.unpack(credentials)[0]}"
