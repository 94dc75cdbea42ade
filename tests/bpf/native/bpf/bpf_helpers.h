/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The helpers of the kernel, as plain functions: see native_walk.c. */
#include <stddef.h>

#define SEC(name)
#define __always_inline inline

struct seq_file;

long bpf_probe_read_kernel(void *to, __u32 size, const void *from);
long bpf_loop(__u32 count, void *step, void *context, __u64 flags);
long bpf_seq_write(struct seq_file *file, const void *data, __u32 size);
