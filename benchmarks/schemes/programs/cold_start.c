/* cold_start LOADED_MIB REQUESTS: loads much, then answers from little.
 *
 * Makes LOADED_MIB of records and an index of 4 MiB over them; from then on only the index is read.
 */
#include "common.h"

#define SLOTS ((size_t)1 << 19)

int main(int count, char **arguments) {
    size_t loaded_bytes = number(count, arguments, 1, "LOADED_MIB") * MIB;
    uint64_t requests = number(count, arguments, 2, "REQUESTS");
    char *records = new_memory(loaded_bytes);
    uint64_t *index = new_memory(SLOTS * sizeof *index);
    for (size_t at = 0; at < loaded_bytes; at += PAGE_BYTES) {
        fill_with_text(records + at, PAGE_BYTES, at);
        index[mixed(at) % SLOTS] += (unsigned char)records[at + 7] + at;
    }
    uint64_t answer = 0;
    for (uint64_t i = 0; i < requests; i++)
        answer = mixed(answer ^ index[mixed(i + answer) % SLOTS]);
    printf("{\"requests\": %llu, \"answer\": %llu}\n", (unsigned long long)requests, (unsigned long long)answer);
    return 0;
}
