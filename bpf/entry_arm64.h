/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Entries ("descriptors") of arm64 page tables with pages of 4 KiB, as far as
 * the walk must understand them.  Source: Arm Architecture Reference Manual
 * D8 (VMSAv8-64), and Linux's arch/arm64 for what is not valid.
 */
#ifndef MEMTHERM_ENTRY_ARM64_H
#define MEMTHERM_ENTRY_ARM64_H

#define ENTRY_PRESENT (1ULL << 0)
#define ENTRY_TABLE (1ULL << 1)		/* clear in a block: 2 MiB or 1 GiB */
#define ENTRY_READ_ONLY_SHIFT 7
#define ENTRY_ACCESSED_SHIFT 10
#define ENTRY_ACCESSED (1ULL << ENTRY_ACCESSED_SHIFT)
#define ENTRY_WRITE_SHIFT 51		/* DBM: hardware clears bit 7 at a write */
#define ENTRY_CONTIGUOUS_SHIFT 52
#define ENTRY_DIRTY_SHIFT 55		/* Linux's own */
#define ENTRY_DIRTY (1ULL << ENTRY_DIRTY_SHIFT)
#define ENTRY_SPLITTING (1ULL << 59)	/* where not valid: of a block, before Linux 6.10 */

#define ENTRY_TABLE_BITS (ENTRY_PRESENT | ENTRY_TABLE)

/* 3, 4 or 5 levels; the top table of 5 (LPA2) has 16 entries only. */
static __always_inline __u32 user_address_bits(__u32 levels)
{
	return levels == 5 ? 52 : levels == 4 ? 48 : 39;
}

static __always_inline bool is_table(__u64 entry)
{
	return (entry & ENTRY_TABLE_BITS) == ENTRY_TABLE_BITS;
}

/*
 * In the lowest level: 1 or 0.  PROT_NONE entries are not valid, but have a
 * bit that swap entries have not: 58 before Linux 6.10, then 11.
 */
static __always_inline __u64 is_page(__u64 entry)
{
	return (entry | entry >> (shared.request.prot_none_shift & 63)) & 1;
}

/* Above the lowest level.  Swap entries have bits 0 and 1 clear. */
static __always_inline bool is_leaf(__u64 entry)
{
	if (entry & ENTRY_TABLE)
		return false;
	return is_page(entry) || entry & ENTRY_SPLITTING;
}

/* The present bits of three entries in bits 0-2, the accessed bits in bits 10-12. */
static __always_inline __u64 three_entries(const __u64 *entries)
{
	return is_page(entries[0]) | is_page(entries[1]) << 1 | is_page(entries[2]) << 2 |
	       (entries[0] & ENTRY_ACCESSED) | (entries[1] & ENTRY_ACCESSED) << 1 |
	       (entries[2] & ENTRY_ACCESSED) << 2;
}

#define three_present(three) ((three) & 7)

static __always_inline bool is_contiguous(__u64 entry)
{
	return is_page(entry) & entry >> ENTRY_CONTIGUOUS_SHIFT & 1;
}

/* What one entry says for its whole contiguous group: accessed, and dirty by either way. */
static __always_inline __u64 group_bits(__u64 entry)
{
	__u64 written = entry >> ENTRY_WRITE_SHIFT & ~(entry >> ENTRY_READ_ONLY_SHIFT) & 1;

	return (entry & (ENTRY_ACCESSED | ENTRY_DIRTY)) | written << ENTRY_DIRTY_SHIFT;
}

/* The accessed bits of 64 entries of the lowest level; of a contiguous group all or none. */
static __always_inline __u64 spread_over_groups(const __u64 *entries, __u64 accessed)
{
	const __u64 all = (1ULL << GROUP_ENTRIES) - 1;
	__u32 first;

#pragma unroll
	for (first = 0; first < 64; first += GROUP_ENTRIES) {
		/* 1 or 0, without a branch: each would double the verifier's work. */
		__u64 any = ((accessed >> first & all) + all) >> GROUP_ENTRIES;

		any &= is_page(entries[first]) & entries[first] >> ENTRY_CONTIGUOUS_SHIFT;
		accessed |= (-any & all) << first;
	}
	return accessed;
}

#endif
