// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Reads the page table of one process: the entry of single addresses
 * (walk_addresses), or the present and accessed bits of whole ranges
 * (walk_ranges).  Writes nothing but its own map.  One source for every
 * architecture: what its entries mean stands in entry_*.h.  See README.md.
 */
#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#include "walk.h"

#define kernel_type __attribute__((preserve_access_index))

/* Only the fields that we use; CO-RE finds where they are in this kernel. */
typedef struct {
	int counter;
} kernel_type atomic_t;

struct mm_struct {
	void *pgd;
	atomic_t mm_users;
} kernel_type;

struct task_struct {
	unsigned int flags;
	struct mm_struct *mm;
	struct task_struct *group_leader;
	__u64 start_boottime;
	__u64 self_exec_id;
} kernel_type;

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} kernel_type;

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} kernel_type;

#define KERNEL_THREAD_FLAG 0x00200000	/* PF_KTHREAD: may borrow an mm */

#define PAGE_SHIFT 12
#define PMD_SHIFT 21
#define PUD_SHIFT 30
#define LEVEL_SHIFT(level) (PAGE_SHIFT + 9 * ((level) - 1))
#define PMD_SIZE (1ULL << PMD_SHIFT)
#define PUD_SIZE (1ULL << PUD_SHIFT)

enum { LEVEL_FAILED = 0, LEVEL_PTE = 1, LEVEL_PMD = 2, LEVEL_PUD = 3 };

#define SKIP_LIMIT 64	/* more makes the verifier slow */
#define NO_TABLE (~0ULL)	/* not a multiple of 1 GiB, so never a pmd_base */

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* The .bss map: one mmap-able array element, 700 KiB; sizes are in walk.h. */
struct shared shared;

#ifdef WALK_ARM64
#include "entry_arm64.h"
#else
#include "entry_x86_64.h"
#endif

static __always_inline bool is_user_address(__u64 address)
{
	return !(address >> user_address_bits(shared.request.levels));
}

/* Kernel address of the table that `entry` leads to, or 0: no RAM is there. */
static __always_inline __u64 table_address(__u64 entry)
{
	__u64 physical = entry & shared.request.physical_mask;

	if (physical >= shared.request.physical_limit) {
		shared.response.refused_reads++;
		return 0;
	}
	return shared.request.page_offset + physical;
}

/* 0 or an error, as the helper; counts the errors. */
static __always_inline long read_kernel(void *to, __u32 size, __u64 address)
{
	long error = bpf_probe_read_kernel(to, size, (void *)address);

	if (error)
		shared.response.failed_reads++;
	return error;
}

/*
 * An entry, read from kernel address `place`, with the accessed and dirty bits
 * of its contiguous group, if it is in one: hardware may set them in any one
 * of the group's entries, and Linux, too, takes one for all.
 */
static __always_inline __u64 with_group(__u64 entry, __u64 place)
{
	__u64 *group = shared.scratch.pte_table;
	__u32 index;

	if (!is_contiguous(entry))
		return entry;
	if (read_kernel(group, GROUP_ENTRIES * sizeof(entry), place & -(GROUP_ENTRIES * sizeof(entry))))
		return entry;
#pragma unroll
	for (index = 0; index < GROUP_ENTRIES; index++)
		entry |= group_bits(group[index]);
	return entry;
}

/*
 * Goes down to level `lowest`, or to where the way ends before.  Returns the
 * level of the last entry read, the entry itself and the kernel address where
 * it stands; LEVEL_FAILED if one could not be read.
 */
static __always_inline __u32 descend(__u64 address, __u32 lowest, __u64 *entry, __u64 *place)
{
	__u64 table = shared.response.pgd;
	__u32 levels = shared.request.levels;
	__u32 level;

#pragma unroll
	for (level = 5; level >= LEVEL_PTE; level--) {
		__u64 index = (address >> LEVEL_SHIFT(level)) & (TABLE_ENTRIES - 1);

		if (level < lowest)
			break;
		if (level > levels)
			continue;
		*entry = 0;
		*place = table + index * sizeof(*entry);
		if (read_kernel(entry, sizeof(*entry), *place))
			return LEVEL_FAILED;
		if (level == lowest || !is_table(*entry))
			return level;
		table = table_address(*entry);
		if (!table)
			return LEVEL_FAILED;
	}
	return LEVEL_FAILED;
}

static long walk_one_address(__u32 index, void *context)
{
	__u64 address, entry = 0, place = 0;
	__u32 level = shared.request.levels;

	if (index >= ADDRESS_CAPACITY)
		return 1;
	address = shared.addresses[index];
	if (is_user_address(address))
		level = descend(address, LEVEL_PTE, &entry, &place);
	shared.entries[index] = with_group(entry, place);
	shared.entry_levels[index] = level;
	return 0;
}

static __always_inline __u64 low_bits(__s64 count)
{
	if (count <= 0)
		return 0;
	return count >= 64 ? ~0ULL : (1ULL << count) - 1;
}

/*
 * Makes scratch.mask the pages [first, last) of a unit.  In memory, for the
 * verifier: masks in registers gave it 267,000 instructions to look at.
 */
static __always_inline void set_mask(__u32 first, __u32 last)
{
	__u32 word;

#pragma clang loop unroll(disable)
	for (word = 0; word < BITMAP_WORDS; word++) {
		__s64 base = word * 64;

		shared.scratch.mask[word] = low_bits(last - base) & ~low_bits(first - base);
	}
}

static __always_inline void fill_from_leaf(struct unit *unit, __u64 entry, __u32 first, __u32 last)
{
	__u64 accessed = entry & ENTRY_ACCESSED ? ~0ULL : 0;
	__u32 word;

	set_mask(first, last);
#pragma unroll
	for (word = 0; word < BITMAP_WORDS; word++) {
		__u64 mask = shared.scratch.mask[word];

		unit->present[word] = mask;
		unit->accessed[word] = mask & accessed;
	}
}

/*
 * Returns whether any page is present.  Three entries at a time: 0.27 ms for
 * 1 GiB of pages instead of 0.55 ms one by one.
 */
static __always_inline bool fill_from_table(struct unit *unit, __u32 first, __u32 last)
{
	__u64 any = 0;
	__u32 word, bit;

	set_mask(first, last);
#pragma clang loop unroll(disable)
	for (word = 0; word < BITMAP_WORDS; word++) {
		__u64 *entries = &shared.scratch.pte_table[word * 64];
		__u64 last = entries[63], group;
		__u64 present = is_page(last);
		__u64 accessed = last >> ENTRY_ACCESSED_SHIFT & 1;

#pragma unroll
		for (bit = 63; bit > 0; bit -= 3) {
			group = three_entries(&entries[bit - 3]);
			present = present << 3 | three_present(group);
			accessed = accessed << 3 | (group >> ENTRY_ACCESSED_SHIFT & 7);
			/* One group after the other: clang would load all 64 first and run out of stack. */
			asm volatile("" : "+r"(present), "+r"(accessed) : : "memory");
		}
		accessed = spread_over_groups(entries, accessed);
		present &= shared.scratch.mask[word];
		any |= present;
		unit->present[word] = present;
		unit->accessed[word] = accessed & present;
	}
	return any;
}

/*
 * Makes scratch.pmd_table that of `address`.  False when there is none: then
 * the cursor has been moved over the hole, or `*leaf` is a PUD leaf.
 */
static __always_inline bool load_pmd_table(__u64 address, __u64 *leaf)
{
	__u64 entry = 0, table = 0, place = 0, hole;
	__u32 level = descend(address, LEVEL_PUD, &entry, &place);

	*leaf = 0;
	if (level == LEVEL_PUD && is_table(entry)) {
		table = table_address(entry);
		shared.response.table_reads++;
		if (table && !read_kernel(shared.scratch.pmd_table, sizeof(shared.scratch.pmd_table), table)) {
			shared.scratch.pmd_base = address & -PUD_SIZE;
			shared.scratch.pmd_physical = table;
			return true;
		}
	} else if (level == LEVEL_PUD && is_leaf(entry)) {
		*leaf = entry;
		return false;
	}
	hole = PUD_SIZE;
	if (level > LEVEL_PUD)
		hole = level == 5 ? 1ULL << LEVEL_SHIFT(5) : 1ULL << LEVEL_SHIFT(4);
	shared.response.cursor_address = (address & -hole) + hole;
	return false;
}

/*
 * Reads the table that `entry` of the PMD table leads to.  The entry is read
 * again afterwards: a table that was freed or collapsed in between may hold
 * anything.  Returns 0, or 1 when the step has to be done again, or an error.
 */
static __always_inline long load_pte_table(__u64 entry, __u32 index)
{
	const __u64 relevant = shared.request.physical_mask | ENTRY_TABLE_BITS;
	__u64 table = table_address(entry), again = 0;

	shared.response.table_reads++;
	if (!table || read_kernel(shared.scratch.pte_table, sizeof(shared.scratch.pte_table), table))
		return -1;
	if (read_kernel(&again, sizeof(again), shared.scratch.pmd_physical + index * sizeof(again)))
		return -1;
	if (((again ^ entry) & relevant) == 0)
		return 0;
	shared.response.moved_tables++;
	shared.scratch.pmd_table[index] = again;
	return 1;
}

/* How many entries behind `index` are empty too; counts no further than SKIP_LIMIT. */
static __always_inline __u64 empty_pmds(__u32 index)
{
	__u32 skipped;

#pragma clang loop unroll(disable)
	for (skipped = 0; skipped < SKIP_LIMIT; skipped++)
		if (index + skipped + 1 >= TABLE_ENTRIES || shared.scratch.pmd_table[index + skipped + 1])
			break;
	return skipped;
}

/* One 2 MiB of one range, or one hole. */
static long walk_one_step(__u32 step, void *context)
{
	__u32 range_index = shared.response.cursor_range;
	__u32 count = shared.response.unit_count;
	__u64 address, start, end, unit_start, entry = 0;
	__u32 first, last, index;
	struct unit *unit;
	long outcome;

	if (range_index >= shared.request.count || range_index >= RANGE_CAPACITY ||
	    count >= UNIT_CAPACITY || shared.response.table_reads >= TABLE_READ_LIMIT)
		return 1;
	start = shared.ranges[range_index].start;
	end = shared.ranges[range_index].end;
	address = shared.response.cursor_address;
	if (address < start)
		address = start;
	if (address >= end || !is_user_address(address)) {
		shared.response.cursor_range = range_index + 1;
		/* The next range may begin in the unit that the cursor has just left. */
		shared.response.cursor_address = 0;
		return 0;
	}

	if (shared.scratch.pmd_base != (address & -PUD_SIZE) && !load_pmd_table(address, &entry) && !entry)
		return 0;

	unit_start = address & -PMD_SIZE;
	first = (address - unit_start) >> PAGE_SHIFT;
	last = end - unit_start >= PMD_SIZE ? TABLE_ENTRIES : (end - unit_start) >> PAGE_SHIFT;
	unit = &shared.units[count];
	unit->address = unit_start;
	if (entry) {
		unit->kind = UNIT_PUD_LEAF;
		fill_from_leaf(unit, entry, first, last);
		shared.response.unit_count = count + 1;
		goto next;
	}

	index = (address >> PMD_SHIFT) & (TABLE_ENTRIES - 1);
	entry = shared.scratch.pmd_table[index];
	if (is_leaf(entry)) {
		unit->kind = UNIT_PMD_LEAF;
		fill_from_leaf(unit, with_group(entry, shared.scratch.pmd_physical + index * sizeof(entry)), first, last);
		shared.response.unit_count = count + 1;
	} else if (is_table(entry)) {
		outcome = load_pte_table(entry, index);
		if (outcome > 0)
			return 0;
		unit->kind = UNIT_PTE_TABLE;
		if (!outcome && fill_from_table(unit, first, last))
			shared.response.unit_count = count + 1;
	} else {
		unit_start += empty_pmds(index) << PMD_SHIFT;
	}
next:
	shared.response.cursor_address = unit_start + PMD_SIZE;
	return 0;
}

/* Says who the task is; true if its memory is to be walked. */
static __always_inline bool enter(struct task_struct *task)
{
	struct mm_struct *mm = task->mm;

	if (shared.response.status == WALK_DONE || shared.response.status == WALK_CHANGED)
		return false;	/* another thread of the process was served */
	shared.response.start_ns = task->group_leader->start_boottime;
	if (shared.request.expected_start_ns && shared.request.expected_start_ns != shared.response.start_ns) {
		shared.response.status = WALK_OTHER_PROCESS;
		return false;
	}
	if (task->flags & KERNEL_THREAD_FLAG) {
		shared.response.status = WALK_KERNEL_THREAD;
		return false;
	}
	shared.response.status = WALK_NO_MEMORY;
	if (!mm || mm->mm_users.counter <= 0)
		return false;
	shared.response.mm = (__u64)mm;
	shared.response.exec_id = task->self_exec_id;
	shared.response.pgd = (__u64)mm->pgd;
	return true;
}

/* Judges the walk; the byte makes the caller's read() of one byte end here, with no further thread visited. */
static __always_inline void leave(struct bpf_iter__task *context, struct task_struct *task)
{
	struct mm_struct *mm = task->mm;
	char served = 1;

	if (mm && (__u64)mm == shared.response.mm && mm->mm_users.counter > 0 &&
	    task->self_exec_id == shared.response.exec_id)
		shared.response.status = WALK_DONE;
	else
		shared.response.status = WALK_CHANGED;
	bpf_seq_write(context->meta->seq, &served, sizeof(served));
}

SEC("iter/task")
int walk_addresses(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;

	if (!task || !enter(task))
		return 0;
	bpf_loop(shared.request.count, walk_one_address, NULL, 0);
	leave(context, task);
	return 0;
}

SEC("iter/task")
int walk_ranges(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;

	if (!task || !enter(task))
		return 0;
	shared.scratch.pmd_base = NO_TABLE;
	shared.response.cursor_range = shared.request.cursor_range;
	shared.response.cursor_address = shared.request.cursor_address;
	bpf_loop(STEP_LIMIT, walk_one_step, NULL, 0);
	leave(context, task);
	return 0;
}
