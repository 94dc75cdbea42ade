/* gather NODES ROUNDS STEPS: random walks over a sparse random graph.
 *
 * Each step waits for the one before it, so that the kernel is bound by memory and by the TLB: huge pages make it
 * faster.  Beside the graph stands one buffer of 2 MiB for each part of it, of which 64 KiB are used: there huge
 * pages only cost memory.
 */
#include "common.h"

#define DEGREE 8
#define BUFFERS 128
#define USED_BYTES ((size_t)64 << 10)

int main(int count, char **arguments) {
    size_t nodes = number(count, arguments, 1, "NODES");
    uint64_t rounds = number(count, arguments, 2, "ROUNDS");
    uint64_t steps = number(count, arguments, 3, "STEPS");
    uint32_t *edges = new_memory(nodes * DEGREE * sizeof *edges);
    for (int i = 0; i < BUFFERS; i++)
        fill_with_text(new_memory(HUGE_BYTES), USED_BYTES, (uint64_t)i << 32);
    for (size_t i = 0; i < nodes * DEGREE; i++)
        edges[i] = (uint32_t)(mixed(i) % nodes);
    uint64_t sum = 0;
    for (uint64_t round = 0; round < rounds; round++) {
        size_t node = round % nodes;
        for (uint64_t step = 0; step < steps; step++) {
            node = edges[node * DEGREE + (mixed(step ^ round << 32) & (DEGREE - 1))];
            sum += node;
        }
    }
    printf("{\"rounds\": %llu, \"sum\": %llu}\n", (unsigned long long)rounds, (unsigned long long)sum);
    return 0;
}
