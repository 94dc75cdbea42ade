/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Entries of x86-64 page tables, as far as the walk must understand them.
 * Source: the Intel and AMD manuals, and Linux's arch/x86 for PROT_NONE.
 */
#ifndef MEMTHERM_ENTRY_X86_64_H
#define MEMTHERM_ENTRY_X86_64_H

#define ENTRY_PRESENT (1ULL << 0)
#define ENTRY_ACCESSED_SHIFT 5
#define ENTRY_HUGE (1ULL << 7)		/* PSE; PAT in the lowest level */
#define ENTRY_PROTNONE_SHIFT 8		/* PROT_NONE where bit 0 is clear */
#define ENTRY_PROTNONE (1ULL << ENTRY_PROTNONE_SHIFT)
#define ENTRY_ACCESSED (1ULL << ENTRY_ACCESSED_SHIFT)

/* With the address, what makes an entry another one for who follows it. */
#define ENTRY_TABLE_BITS (ENTRY_PRESENT | ENTRY_HUGE)

static __always_inline __u32 user_address_bits(__u32 levels)
{
	return levels == 5 ? 56 : 47;
}

/* An entry leads to a table only if present: PROT_NONE entries hold an inverted address. */
static __always_inline bool is_table(__u64 entry)
{
	return (entry & (ENTRY_PRESENT | ENTRY_HUGE)) == ENTRY_PRESENT;
}

/* Above the lowest level.  A leaf even if bits 0 and 8 are clear: then it is being split. */
static __always_inline bool is_leaf(__u64 entry)
{
	return entry & ENTRY_HUGE;
}

/* In the lowest level: 1 or 0. */
static __always_inline __u64 is_page(__u64 entry)
{
	return (entry | entry >> ENTRY_PROTNONE_SHIFT) & 1;
}

/* The present, accessed and PROT_NONE bits of three entries side by side; they do not meet. */
static __always_inline __u64 three_entries(const __u64 *entries)
{
	const __u64 bits = ENTRY_PRESENT | ENTRY_ACCESSED | ENTRY_PROTNONE;

	return (entries[0] & bits) | (entries[1] & bits) << 1 | (entries[2] & bits) << 2;
}

/* A macro: of a function clang 14 makes other code. */
#define three_present(three) (((three) | (three) >> ENTRY_PROTNONE_SHIFT) & 7)

/* There are no contiguous groups here. */
static __always_inline bool is_contiguous(__u64 entry)
{
	return false;
}

static __always_inline __u64 group_bits(__u64 entry)
{
	return 0;
}

static __always_inline __u64 spread_over_groups(const __u64 *entries, __u64 accessed)
{
	return accessed;
}

#endif
