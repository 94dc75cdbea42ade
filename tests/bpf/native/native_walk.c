// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * walk.bpf.c as a library, on page tables that a test has made: for levels,
 * groups and entries that this machine's kernel does not have.
 */
#include <string.h>

#include "walk.bpf.c"

/* The only memory that can be read, as the kernel's map of RAM. */
char *memory;
__u64 memory_bytes;

long bpf_probe_read_kernel(void *to, __u32 size, const void *from)
{
	__u64 offset = (__u64)from - (__u64)memory;

	if (offset > memory_bytes || size > memory_bytes - offset)
		return -14;	/* EFAULT */
	memcpy(to, from, size);
	return 0;
}

long bpf_loop(__u32 count, void *step, void *context, __u64 flags)
{
	__u32 index;

	for (index = 0; index < count; index++)
		if (((long (*)(__u32, void *))step)(index, context))
			return index + 1;
	return count;
}

long bpf_seq_write(struct seq_file *file, const void *data, __u32 size)
{
	return 0;
}

void run_walk(bool of_ranges, void *pgd)
{
	struct mm_struct mm = { .pgd = pgd, .mm_users = { 1 } };
	struct task_struct task = { .mm = &mm, .group_leader = &task, .start_boottime = 1 };
	struct bpf_iter_meta meta = { 0 };
	struct bpf_iter__task context = { .meta = &meta, .task = &task };

	memset(&shared.response, 0, sizeof(shared.response));
	if (of_ranges)
		walk_ranges(&context);
	else
		walk_addresses(&context);
}
