"""A process with 8 MiB, all filled, that userfaultfd handles: prints the address, ends with its input."""

import ctypes
import fcntl
import mmap
import platform
import struct
import sys

SIZE = 8 << 20
SYSTEM_CALL = {"x86_64": 323, "aarch64": 282}
UFFDIO_API, UFFDIO_REGISTER = 0xC018AA3F, 0xC020AA00

descriptor = ctypes.CDLL(None, use_errno=True).syscall(SYSTEM_CALL[platform.machine()], 0)
if descriptor < 0:
    sys.exit(f"userfaultfd: errno {ctypes.get_errno()}")
memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.write(b"\1" * SIZE)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
fcntl.ioctl(descriptor, UFFDIO_API, bytearray(struct.pack("3Q", 0xAA, 0, 0)))
fcntl.ioctl(descriptor, UFFDIO_REGISTER, bytearray(struct.pack("4Q", address, SIZE, 1, 0)))
print(address, flush=True)
sys.stdin.read()
