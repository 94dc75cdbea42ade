/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* For walk.bpf.c as a program of this machine: the types that it takes from the kernel's header. */
#include <stdint.h>

typedef uint8_t __u8;
typedef uint32_t __u32;
typedef uint64_t __u64;
typedef int64_t __s64;
