/* scattered SPAN_MIB DENSE_MIB ROUNDS READS: one page used in each 64 KiB of a wide span, beside a dense hot part.
 *
 * The dense part is read at random, READS times a round, each read at a place that the one before it tells: that
 * gains from huge pages.  The span holds one header page
 * in each 64 KiB, which are looked at once in eight rounds: huge pages make it sixteen times as large.
 */
#include "common.h"

#define STEP_BYTES ((size_t)64 << 10)

int main(int count, char **arguments) {
    size_t span_bytes = number(count, arguments, 1, "SPAN_MIB") * MIB;
    size_t dense = number(count, arguments, 2, "DENSE_MIB") * MIB / sizeof(uint64_t);
    uint64_t rounds = number(count, arguments, 3, "ROUNDS");
    uint64_t reads = number(count, arguments, 4, "READS");
    char *span = new_memory(span_bytes);
    uint64_t *table = new_memory(dense * sizeof *table);
    for (size_t i = 0; i < dense; i++)
        table[i] = mixed(i) & 0xffff;
    for (size_t at = 0; at < span_bytes; at += STEP_BYTES)
        fill_with_text(span + at, PAGE_BYTES, at);
    uint64_t sum = 0;
    for (uint64_t round = 0; round < rounds; round++) {
        for (uint64_t i = 0; i < reads; i++)
            sum += table[mixed(round * reads + i + sum) % dense];
        if (round % 8 == 0)
            for (size_t at = 0; at < span_bytes; at += STEP_BYTES)
                span[at] = (char)('a' + round % 26);
    }
    printf("{\"rounds\": %llu, \"sum\": %llu}\n", (unsigned long long)rounds, (unsigned long long)sum);
    return 0;
}
