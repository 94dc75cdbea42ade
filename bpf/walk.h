/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the page-table walk and its caller share: the only truth for these
 * layouts.  Everything stands in one structure, the only variable of the
 * object's .bss, so an offset in `struct shared` is an offset in the mapping.
 * tests/bpf/test_layout.py holds Python's numpy types to the object's BTF.
 */
#ifndef MEMTHERM_WALK_H
#define MEMTHERM_WALK_H

#define ADDRESS_CAPACITY 4096
#define RANGE_CAPACITY 1024
#define TABLE_ENTRIES 512
#define BITMAP_WORDS (TABLE_ENTRIES / 64)
#define GROUP_ENTRIES 16	/* of a contiguous group (arm64) */

/*
 * 8 GiB of 4 KiB pages in one call.  A kernel that does not preempt itself
 * runs nothing else on this CPU during a call: 2.3 ms.  A call more costs
 * 10 us.
 */
#define UNIT_CAPACITY 4096
#define TABLE_READ_LIMIT 4096

/* Steps of one walk_ranges call; one that meets an empty entry takes ~10 ns. */
#define STEP_LIMIT 65536

enum walk_status {
	WALK_NO_TASK = 0,	/* no such process: the program never saw one */
	WALK_DONE = 1,
	WALK_NO_MEMORY = 2,	/* it exited: its threads have no mm any more */
	WALK_KERNEL_THREAD = 3,
	WALK_CHANGED = 4,	/* exit or exec during the walk: results are void */
	WALK_OTHER_PROCESS = 5,	/* the pid belongs to another process by now */
};

enum unit_kind {
	UNIT_PTE_TABLE = 1,	/* 512 pages, each with bits of its own */
	UNIT_PMD_LEAF = 2,	/* one 2 MiB page: one entry speaks for all 512 bits */
	UNIT_PUD_LEAF = 3,	/* 2 MiB of a 1 GiB page */
};

struct request {
	__u64 page_offset;		/* kernel address of physical address 0 */
	__u64 physical_mask;		/* bits of an entry that are an address */
	__u64 physical_limit;		/* nothing at or above it is read */
	__u64 expected_start_ns;	/* of the process; 0: any */
	__u64 cursor_address;		/* walk_ranges: go on here, */
	__u32 cursor_range;		/* in this range */
	__u32 levels;			/* of tables */
	__u32 count;			/* of addresses or of ranges */
	__u32 prot_none_shift;		/* arm64: the bit of entries that are present but not valid */
};

struct response {
	__u64 start_ns;		/* when the process started, since boot */
	__u64 mm;		/* identity of the address space, with: */
	__u64 exec_id;		/* how often the task's line has called exec */
	__u64 pgd;		/* kernel address of the top table */
	__u64 failed_reads;	/* tables or entries that could not be read */
	__u64 refused_reads;	/* not tried: at or above physical_limit */
	__u64 moved_tables;	/* replaced while we read them; read again */
	__u64 cursor_address;
	__u32 cursor_range;
	__u32 unit_count;
	__u32 table_reads;
	enum walk_status status;
};

struct range {
	__u64 start;		/* page aligned */
	__u64 end;		/* exclusive, page aligned */
};

/* The present and accessed bits of the 512 pages from `address` on. */
struct unit {
	__u64 address;		/* multiple of 2 MiB */
	enum unit_kind kind;
	__u32 unused;
	__u64 present[BITMAP_WORDS];
	__u64 accessed[BITMAP_WORDS];	/* only where present */
};

/*
 * State from one step of walk_ranges to the next.  In a map and never on the
 * stack: the verifier of Linux 6.1 looks at a bpf_loop() callback once and
 * takes what the callback's caller has on its stack for constant.
 */
struct scratch {
	__u64 pmd_base;		/* the GiB that pmd_table is of; else NO_TABLE */
	__u64 pmd_physical;	/* where pmd_table was read from */
	__u64 mask[BITMAP_WORDS];	/* pages of the unit that are in the range */
	__u64 pmd_table[TABLE_ENTRIES];
	__u64 pte_table[TABLE_ENTRIES];
};

struct shared {
	struct request request;
	struct response response;
	__u64 addresses[ADDRESS_CAPACITY];	/* in */
	__u64 entries[ADDRESS_CAPACITY];	/* out: last entry on the way down */
	__u8 entry_levels[ADDRESS_CAPACITY];	/* out: 1 PTE .. 5 PGD; 0 failed */
	struct range ranges[RANGE_CAPACITY];	/* in */
	struct unit units[UNIT_CAPACITY];	/* out */
	struct scratch scratch;
};

_Static_assert(sizeof(struct request) == 56, "request");
_Static_assert(sizeof(struct response) == 80, "response");
_Static_assert(sizeof(struct range) == 16, "range");
_Static_assert(sizeof(struct unit) == 144, "unit");
_Static_assert(sizeof(struct scratch) == 16 + 64 + 2 * 4096, "scratch");
_Static_assert(sizeof(struct shared) ==
	       56 + 80 + ADDRESS_CAPACITY * 17 + RANGE_CAPACITY * 16 +
	       UNIT_CAPACITY * 144 + 16 + 64 + 2 * 4096,
	       "shared has no hidden padding");

#endif
