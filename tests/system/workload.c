/* A program whose memory use is known: it maps and fills `--size` bytes, then touches only its hot stripes, one
 * byte of each page, pass after pass.  Its first line says where everything is; each line on its input is answered
 * with how far it is; the end of its input is its end.  tests/support/workload.py drives it.
 *
 *   --move BYTES:SECONDS  each so many seconds, counted from "began_s", all stripes move on by so many bytes, around
 *   --zipf PAGES          page i of a stripe is touched once in (1 + i / PAGES) periods; late passes make up for it
 *   --scatter ODD         page i of a stripe lies at i * ODD modulo its pages
 *   --processes COUNT     others share the memory, as a fork does: they read it all, then the stripes in each pass
 *   --probe 1             a thread times mmap, a page fault and munmap, at real-time priority where it may */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define HUGE (2UL << 20)
#define MAX_STRIPES 64
#define PROBE_SIZE (16 * PAGE)

enum memory { ANONYMOUS, SHARED, MAPPED_FILE, PRIVATE_FILE };
enum pages { SMALL_PAGES, HUGE_PAGES, DEFAULT_PAGES };

struct stripe {
	size_t offset, length;
};

struct options {
	size_t size;
	struct stripe hot[MAX_STRIPES];
	int stripes;
	enum memory memory;
	enum pages pages;
	int write;
	double period_s; /* from the start of one pass to the start of the next; 0: no pause */
	const char *path;
	size_t move, zipf, scatter;
	double move_every_s;
	int processes, probe;
};

struct progress {
	unsigned long passes, beat;
	double longest_pass_s, busy_s, cpu_s;
};

/* What the probing thread has seen since it was last asked. */
static _Atomic double longest_map_s, longest_fault_s;

static void fail(const char *what)
{
	fprintf(stderr, "workload: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void misuse(const char *what)
{
	fprintf(stderr, "workload: bad value: %s\n", what);
	exit(2);
}

static double clock_s(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static double now_s(void)
{
	return clock_s(CLOCK_MONOTONIC);
}

static struct timespec duration(double duration_s)
{
	time_t whole = (time_t)duration_s;

	return (struct timespec){ .tv_sec = whole, .tv_nsec = (long)((duration_s - whole) * 1e9) };
}

static int choice(const char *text, const char *const names[])
{
	for (int i = 0; names[i]; i++)
		if (!strcmp(text, names[i]))
			return i;
	misuse(text);
	return -1;
}

static struct options parse(int argc, char **argv)
{
	static const char *const memories[] = { "anonymous", "shared", "file", "private-file", NULL };
	static const char *const pages[] = { "small", "huge", "default", NULL };
	static const char *const accesses[] = { "read", "write", NULL };
	static const struct option known[] = {
		{ "size", 1, NULL, 's' },   { "hot", 1, NULL, 'h' },	{ "memory", 1, NULL, 'm' }, { "pages", 1, NULL, 'p' },
		{ "access", 1, NULL, 'a' }, { "period", 1, NULL, 't' }, { "path", 1, NULL, 'f' },   { "move", 1, NULL, 'v' },
		{ "zipf", 1, NULL, 'z' },   { "scatter", 1, NULL, 'c' }, { "processes", 1, NULL, 'n' }, { "probe", 1, NULL, 'b' },
		{ 0 },
	};
	struct options options = { 0 };
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (option) {
		case 's':
			options.size = strtoull(optarg, NULL, 10);
			break;
		case 'h': {
			struct stripe *stripe = &options.hot[options.stripes];

			if (options.stripes++ == MAX_STRIPES ||
			    sscanf(optarg, "%zu:%zu", &stripe->offset, &stripe->length) != 2)
				misuse(optarg);
			break;
		}
		case 'm':
			options.memory = choice(optarg, memories);
			break;
		case 'p':
			options.pages = choice(optarg, pages);
			break;
		case 'a':
			options.write = choice(optarg, accesses);
			break;
		case 't':
			options.period_s = atof(optarg);
			break;
		case 'f':
			options.path = optarg;
			break;
		case 'v':
			if (sscanf(optarg, "%zu:%lf", &options.move, &options.move_every_s) != 2 || options.move_every_s <= 0)
				misuse(optarg);
			break;
		case 'z':
			options.zipf = strtoull(optarg, NULL, 10);
			break;
		case 'c':
			options.scatter = strtoull(optarg, NULL, 10);
			break;
		case 'n':
			options.processes = atoi(optarg);
			break;
		case 'b':
			options.probe = atoi(optarg);
			break;
		default:
			exit(2);
		}
	}
	if (!options.size || options.size % PAGE || (options.memory >= MAPPED_FILE) != !!options.path)
		misuse("size or path");
	for (int i = 0; i < options.stripes; i++)
		if (options.hot[i].offset > options.size || options.hot[i].length > options.size - options.hot[i].offset)
			misuse("a stripe outside of the memory");
	return options;
}

/* The first half of each page does not compress, the second does: zram holds it like common data. */
static void fill_page(char *page, uint64_t *state)
{
	uint64_t *words = (uint64_t *)page;

	for (size_t i = 0; i < PAGE / sizeof(*words) / 2; i++) {
		*state ^= *state << 13;
		*state ^= *state >> 7;
		*state ^= *state << 17;
		words[i] = *state;
	}
	memset(page + PAGE / 2, 1, PAGE / 2);
}

/* A file full of data that is on the disk: only then are its pages clean, and can be dropped at once. */
static int filled_file(const struct options *options, uint64_t *state)
{
	char page[PAGE] __attribute__((aligned(8)));
	int file = open(options->path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (file < 0)
		fail(options->path);
	for (size_t offset = 0; offset < options->size; offset += PAGE) {
		fill_page(page, state);
		if (write(file, page, PAGE) != (ssize_t)PAGE)
			fail("write");
	}
	if (fsync(file))
		fail("fsync");
	return file;
}

/* On a huge page's border, with a hole on both sides, so that it is one mapping and stays it. */
static char *map(const struct options *options, int file)
{
	size_t room_size = options->size + 3 * HUGE;
	char *room = mmap(NULL, room_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *start = (char *)(((uintptr_t)room + 2 * HUGE - 1) / HUGE * HUGE);
	int kind = options->memory == ANONYMOUS    ? MAP_PRIVATE | MAP_ANONYMOUS :
		   options->memory == SHARED	   ? MAP_SHARED | MAP_ANONYMOUS :
		   options->memory == PRIVATE_FILE ? MAP_PRIVATE :
						     MAP_SHARED;

	if (room == MAP_FAILED || munmap(room, room_size))
		fail("mmap");
	if (mmap(start, options->size, PROT_READ | PROT_WRITE, kind | MAP_FIXED_NOREPLACE, file, 0) != start)
		fail("mmap");
	/* A kernel without huge pages refuses both; small pages are what it gives anyway. */
	if (options->pages == SMALL_PAGES && madvise(start, options->size, MADV_NOHUGEPAGE) && errno != EINVAL)
		fail("MADV_NOHUGEPAGE");
	if (options->pages == HUGE_PAGES && madvise(start, options->size, MADV_HUGEPAGE))
		fail("MADV_HUGEPAGE");
	return start;
}

static char *populate(const struct options *options)
{
	uint64_t state = 88172645463325252ULL;
	int file = options->memory >= MAPPED_FILE ? filled_file(options, &state) : -1;
	char *start = map(options, file);

	for (size_t offset = 0; offset < options->size; offset += PAGE) {
		if (file < 0)
			fill_page(start + offset, &state);
		else
			(void)*(volatile char *)(start + offset);
	}
	return start;
}

/* Where the stripes are now: the same for all who know when this began. */
static size_t moved(const struct options *options, double began_s)
{
	return options->move ? (size_t)((now_s() - began_s) / options->move_every_s) * options->move % options->size : 0;
}

/* Periods that have begun; passes, where there is no pause between them. */
static unsigned long beats(const struct options *options, double began_s, const struct progress *progress)
{
	return options->period_s > 0 ? 1 + (unsigned long)((now_s() - began_s) / options->period_s) : 1 + progress->passes;
}

/* One pass.  `beat` is now, and `passed` how many there were since the last one. */
static void touch(const struct options *options, char *start, size_t shift, unsigned long beat, unsigned long passed)
{
	for (int i = 0; i < options->stripes; i++) {
		size_t count = (options->hot[i].length + PAGE - 1) / PAGE, first = options->hot[i].offset + shift;

		for (size_t page = 0; page < count; page++) {
			size_t place = first + PAGE * (options->scatter ? page * options->scatter % count : page);
			volatile char *byte = start + (place < options->size ? place : place - options->size);

			if (options->zipf && beat % (1 + page / options->zipf) >= passed)
				continue;
			if (options->write)
				*byte = (char)beat;
			else
				(void)*byte;
		}
	}
}

static void one_pass(const struct options *options, char *start, double started_s, struct progress *progress)
{
	unsigned long beat = beats(options, started_s, progress);
	double began_s = now_s(), began_cpu_s = clock_s(CLOCK_THREAD_CPUTIME_ID), took_s;

	touch(options, start, moved(options, started_s), beat, beat - progress->beat);
	progress->beat = beat;
	took_s = now_s() - began_s;
	progress->passes++;
	progress->busy_s += took_s;
	progress->cpu_s += clock_s(CLOCK_THREAD_CPUTIME_ID) - began_cpu_s;
	if (took_s > progress->longest_pass_s)
		progress->longest_pass_s = took_s;
}

/* Other processes map all of it too, and read what is hot; they end with this one. */
static void share(const struct options *options, char *start)
{
	struct options reading = *options;
	struct timespec pause = duration(options->period_s);
	int ready[2];
	char sign = 0;

	reading.write = 0;
	if (pipe(ready))
		fail("pipe");
	for (int other = 1; other < options->processes; other++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (size_t offset = 0; offset < options->size; offset += PAGE)
			(void)*(volatile char *)(start + offset);
		if (write(ready[1], &sign, 1) != 1)
			fail("write");
		for (;; nanosleep(&pause, NULL))
			touch(&reading, start, 0, 1, 1);
	}
	for (int other = 1; other < options->processes; other++)
		if (read(ready[0], &sign, 1) != 1)
			fail("read");
}

static void note_longest(_Atomic double *longest_s, double took_s)
{
	if (took_s > *longest_s)
		*longest_s = took_s;
}

/* Real-time priority, so that the wait for a CPU does not look like one for the kernel's locks. */
static void *probe(void *unused)
{
	struct sched_param priority = { .sched_priority = 1 };
	struct timespec pause = duration(0.0005);

	(void)unused;
	pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority);
	for (;; nanosleep(&pause, NULL)) {
		double began_s = now_s(), mapped_s, faulted_s;
		volatile char *room = mmap(NULL, PROBE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (room == MAP_FAILED)
			fail("mmap");
		mapped_s = now_s();
		*room = 1;
		faulted_s = now_s();
		munmap((void *)room, PROBE_SIZE);
		note_longest(&longest_map_s, mapped_s - began_s);
		note_longest(&longest_map_s, now_s() - faulted_s);
		note_longest(&longest_fault_s, faulted_s - mapped_s);
	}
	return NULL;
}

/* Wait for a line at most this long.  Answers it; the longest pass starts anew.  Ends the program with its input. */
static void answer_input(double wait_s, struct progress *progress)
{
	struct pollfd input = { .fd = 0, .events = POLLIN };
	struct timespec wait = duration(wait_s);
	char line[64];

	if (ppoll(&input, 1, &wait, NULL) <= 0)
		return;
	if (read(0, line, sizeof(line)) <= 0)
		exit(0);
	printf("{\"passes\": %lu, \"longest_pass_s\": %.9f, \"busy_s\": %.9f, \"cpu_s\": %.9f, "
	       "\"longest_map_s\": %.9f, \"longest_fault_s\": %.9f}\n",
	       progress->passes, progress->longest_pass_s, progress->busy_s, progress->cpu_s,
	       atomic_exchange(&longest_map_s, 0), atomic_exchange(&longest_fault_s, 0));
	progress->longest_pass_s = 0;
}

int main(int argc, char **argv)
{
	static char buffer[PAGE]; /* so that stdio maps no memory of its own next to ours */
	struct options options = parse(argc, argv);
	struct progress progress = { 0 };
	char *start = populate(&options);
	pthread_t thread;
	double began_s, next_s;

	if (options.processes > 1)
		share(&options, start);
	if (options.probe && pthread_create(&thread, NULL, probe, NULL))
		fail("pthread_create");
	began_s = next_s = now_s();
	setvbuf(stdout, buffer, _IOLBF, sizeof(buffer));
	printf("{\"pid\": %d, \"start\": %lu, \"began_s\": %.9f}\n", getpid(), (unsigned long)start, began_s);
	for (;;) {
		double wait_s = next_s - now_s();

		answer_input(wait_s > 0 ? wait_s : 0, &progress);
		if (now_s() < next_s)
			continue;
		one_pass(&options, start, began_s, &progress);
		/* A deadline that was missed is not made up for: passes keep their distance. */
		next_s += options.period_s;
		if (next_s < now_s())
			next_s = now_s();
	}
}
