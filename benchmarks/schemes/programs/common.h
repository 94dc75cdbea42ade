/* What the C programs of benchmarks/schemes share: repeatable numbers, memory, text that compresses as text does. */
#ifndef SCHEMES_COMMON_H
#define SCHEMES_COMMON_H

#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE_BYTES ((size_t)4096)
#define HUGE_BYTES ((size_t)2 << 20)
#define MIB ((size_t)1 << 20)

/* splitmix64: the n-th number of a seed, without a state. */
static inline uint64_t mixed(uint64_t n) {
    n += 0x9e3779b97f4a7c15u;
    n = (n ^ (n >> 30)) * 0xbf58476d1ce4e5b9u;
    n = (n ^ (n >> 27)) * 0x94d049bb133111ebu;
    return n ^ (n >> 31);
}

static inline void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

/* Memory that begins at a huge page, so that a run does not depend on where mmap puts it. */
static inline void *new_memory(size_t bytes) {
    char *start = mmap(NULL, bytes + HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                       -1, 0);
    if (start == MAP_FAILED)
        die("mmap");
    return (void *)(((uintptr_t)start + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1));
}

/* Records with the same field names and different values: zram stores them in about a third. */
static inline void fill_with_text(char *to, size_t bytes, uint64_t seed) {
    char line[128];
    while (bytes > 0) {
        uint64_t value = mixed(seed++);
        int length = snprintf(line, sizeof line, "{\"id\":%u,\"state\":\"%s\",\"score\":%u,\"region\":\"north-west\"},",
                              (unsigned)(value >> 40), value & 1 ? "active" : "waiting", (unsigned)(value & 0xffff));
        size_t part = (size_t)length < bytes ? (size_t)length : bytes;
        memcpy(to, line, part);
        to += part;
        bytes -= part;
    }
}

static inline uint64_t number(int count, char **arguments, int index, const char *name) {
    if (index >= count) {
        fprintf(stderr, "%s: %s is missing\n", arguments[0], name);
        exit(2);
    }
    return strtoull(arguments[index], NULL, 10);
}

#endif
