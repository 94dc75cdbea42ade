/* held_program HABIT [MILLISECONDS]: a program that is to be held by ptrace while it waits, takes signals or ends.
 *
 * Prints its pid and the address and length of a mapping of its own, then does its habit, then prints one line of
 * "result errno milliseconds" (or what the habit says).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LENGTH (64UL << 20)

static long milliseconds;
static volatile sig_atomic_t handled;
static volatile long overruns;

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void on_signal(int number, siginfo_t *information, void *context)
{
	(void)number;
	(void)context;
	handled++;
	overruns += information->si_overrun;
}

static void handle(int number, int flags)
{
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | flags};

	sigaction(number, &action, NULL);
}

static struct timespec duration(void)
{
	return (struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000};
}

static long do_nanosleep(void)
{
	struct timespec time = duration();

	return nanosleep(&time, NULL);
}

static long do_clock_nanosleep(void)
{
	struct timespec time = duration();

	errno = clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
	return errno;
}

static long do_poll(void)
{
	return poll(NULL, 0, milliseconds);
}

static long do_ppoll(void)
{
	struct timespec time = duration();
	sigset_t none;

	sigemptyset(&none);
	return ppoll(NULL, 0, &time, &none);
}

static long do_select(void)
{
	struct timeval time = {milliseconds / 1000, milliseconds % 1000 * 1000};

	return select(0, NULL, NULL, NULL, &time);
}

static long do_futex(void)
{
	struct timespec time = duration();
	static int word = 0;
	long result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &time, NULL, 0);

	return result < 0 && errno == ETIMEDOUT ? 0 : result;
}

static long do_read(void)
{
	char byte;

	return read(0, &byte, 1) - 1;
}

static long wait_epoll(int limit_ms)
{
	struct epoll_event event = {.events = EPOLLIN};
	int descriptor = epoll_create1(0);

	epoll_ctl(descriptor, EPOLL_CTL_ADD, 0, &event);
	return epoll_wait(descriptor, &event, 1, limit_ms);
}

static long do_epoll_endless(void)
{
	return wait_epoll(-1) - 1;
}

static long do_epoll_short(void)
{
	return wait_epoll(milliseconds);
}

/* A signal that is blocked but for this call must end it with EINTR: -1, EINTR is right here. */
static long do_sigsuspend(void)
{
	sigset_t all_but, blocked;

	handle(SIGUSR1, 0);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigprocmask(SIG_BLOCK, &blocked, &all_but);
	return sigsuspend(&all_but);
}

static long do_epoll_signal(void)
{
	handle(SIGUSR1, 0);
	return wait_epoll(-1);
}

static void *sleep_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void *wait_and_end(void *unused)
{
	(void)unused;
	do_read();
	puts("0 0 0");
	exit(0);
}

static long do_many_threads(void)
{
	pthread_t thread;

	for (int count = 0; count < 50; count++)
		pthread_create(&thread, NULL, sleep_for_ever, NULL);
	return do_read();
}

static long do_main_exits(void)
{
	pthread_t thread;

	do_read();
	pthread_create(&thread, NULL, wait_and_end, NULL);
	pthread_exit(NULL);
}

/* A timer with a period of 1 ms: prints signals handled with overruns, and periods, in place of the usual line. */
static long take_signals(int flags)
{
	struct itimerspec period = {{0, 1000000}, {0, 1000000}};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	double begin_ms, end_ms;
	long interrupted = 0;
	timer_t timer;
	char byte;

	handle(SIGRTMIN, flags);
	timer_create(CLOCK_MONOTONIC, &event, &timer);
	begin_ms = now_ms();
	timer_settime(timer, 0, &period, NULL);
	while (read(0, &byte, 1) < 0 && errno == EINTR)
		interrupted++;
	memset(&period, 0, sizeof(period));
	timer_settime(timer, 0, &period, NULL);
	end_ms = now_ms();
	printf("%ld %ld %.1f\n", (long)handled + overruns, interrupted, end_ms - begin_ms);
	exit(0);
}

static long do_signals_restart(void)
{
	return take_signals(SA_RESTART);
}

static long do_signals(void)
{
	return take_signals(0);
}

/* Counts each queued signal, which the kernel never merges: prints the count when input ends. */
static long do_queued(void)
{
	char byte;

	handle(SIGRTMIN, 0);
	puts("ready");
	fflush(stdout);
	while (read(0, &byte, 1) < 0 && errno == EINTR)
		;
	printf("%ld 0 0\n", (long)handled);
	exit(0);
}

static long do_forks(void)
{
	for (double end_ms = now_ms() + milliseconds; now_ms() < end_ms;) {
		int status;
		pid_t child = vfork();

		if (child == 0)
			_exit(7);
		if (child < 0 || waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 7)
			return -1;
	}
	return 0;
}

/* Nearly always inside a restartable sequence, which the kernel sends to its beginning when it is disturbed. */
static long do_sequence(void)
{
#if __has_include(<sys/rseq.h>)
	struct pollfd input = {.fd = 0, .events = POLLIN};
	char *area = (char *)__builtin_thread_pointer() + __rseq_offset;

	while (poll(&input, 1, 0) == 0)
		__asm__ volatile(".pushsection .data\n\t.balign 32\n"
				 "10:\t.long 0, 0\n\t.quad 11f, 12f - 11f, 14f\n\t.popsection\n"
				 "13:\tlea 10b(%%rip), %%rax\n\tmov %%rax, 8(%0)\n\tmov $0x400000, %%ecx\n"
				 "11:\tpause\n\tdec %%ecx\n\tjnz 11b\n"
				 "12:\tjmp 15f\n\t.long 0x53053053\n"
				 "14:\tmovl $0x400000, %%ecx\n\tjmp 15f\n"
				 "15:\n\t" ::"r"(area)
				 : "rax", "rcx", "memory", "cc");
	return 0;
#else
	puts("no");
	return 0;
#endif
}

static long do_exec(void)
{
	do_read();
	execl("/proc/self/exe", "held_program", "read", NULL);
	return -1;
}

static long do_seccomp(void)
{
	prctl(PR_SET_SECCOMP, 1); /* strict: only read, write, _exit and rt_sigreturn */
	(void)!write(1, "ready\n", 6);
	char byte;
	(void)!read(0, &byte, 1);
	(void)!write(1, "0 0 0\n", 6);
	syscall(SYS_exit, 0);
	return 0;
}

/* Waits on a stack that the program made itself: a small part of a block with other data below it. */
static long do_own_stack(void)
{
	static char block[1 << 20] __attribute__((aligned(16)));
	char *top = block + sizeof(block) / 2;
	long result;

	__asm__ volatile("mov %%rsp, %%rbx\n\tmov %1, %%rsp\n\txor %%edi, %%edi\n\tlea -64(%1), %%rsi\n\t"
			 "mov $1, %%edx\n\txor %%eax, %%eax\n\tsyscall\n\tmov %%rbx, %%rsp\n\t"
			 : "=&a"(result)
			 : "r"(top)
			 : "rbx", "rdi", "rsi", "rdx", "rcx", "r11", "memory");
	return result - 1;
}

static const struct {
	const char *name;
	long (*run)(void);
} habits[] = {
	{"nanosleep", do_nanosleep},
	{"clock_nanosleep", do_clock_nanosleep},
	{"poll", do_poll},
	{"ppoll", do_ppoll},
	{"select", do_select},
	{"futex", do_futex},
	{"read", do_read},
	{"epoll_endless", do_epoll_endless},
	{"epoll_short", do_epoll_short},
	{"epoll_signal", do_epoll_signal},
	{"sigsuspend", do_sigsuspend},
	{"many_threads", do_many_threads},
	{"main_exits", do_main_exits},
	{"signals", do_signals},
	{"signals_restart", do_signals_restart},
	{"queued", do_queued},
	{"forks", do_forks},
	{"exec", do_exec},
	{"sequence", do_sequence},
	{"seccomp", do_seccomp},
	{"own_stack", do_own_stack},
};

int main(int count, char **arguments)
{
	char *memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	milliseconds = count > 2 ? atol(arguments[2]) : 0;
	printf("%d %lu %lu\n", getpid(), (unsigned long)memory, LENGTH);
	fflush(stdout);
	for (size_t index = 0; index < sizeof(habits) / sizeof(habits[0]); index++)
		if (strcmp(arguments[1], habits[index].name) == 0) {
			double begin_ms = now_ms();
			long result = habits[index].run();
			int number = errno;

			printf("%ld %d %.1f\n", result, result ? number : 0, now_ms() - begin_ms);
			return 0;
		}
	return 2;
}
