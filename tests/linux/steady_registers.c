/* Keeps known values in all general and vector registers, checks them all the time, and ends with 1 when one changes,
 * with 2 when its alternate signal stack does.
 *
 * Prints its pid and the address and length of a mapping of its own, then a count of rounds for each line on stdin.
 * The loop makes no call of any kind, so that a stop meets it inside; it ends every 2^20 rounds to look at stdin.
 */
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH (64UL << 20)

static uint64_t vectors[16][4] __attribute__((used, aligned(32)));
static uint64_t stack_pointer __attribute__((used)), frame_pointer __attribute__((used));

/* Returns 0 when all registers kept their values for `rounds` rounds. */
__attribute__((noinline)) static long hold_steady(long rounds)
{
	register long left __asm__("rax") = rounds;
	__asm__ volatile(
		"mov %%rsp, stack_pointer(%%rip)\n\t"
		"mov %%rbp, frame_pointer(%%rip)\n\t"
		"mov $0x1111111111111111, %%rbp\n\t"
		/* Known values in the red zone too. */
		"movabs $0x5a5a5a5aa5a5a5a5, %%rbx\n\t"
		"mov %%rbx, -8(%%rsp)\n\t"
		"mov %%rbx, -120(%%rsp)\n\t"
		"mov %%rbx, -128(%%rsp)\n\t"
		"lea vectors(%%rip), %%rdi\n\t"
		".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t"
		"vmovdqa \\n*32(%%rdi), %%ymm\\n\n\t"
		".endr\n\t"
		"mov $0x22222222, %%ecx\n\t"
		"mov $0x33333333, %%edx\n\t"
		"mov $0x44444444, %%esi\n\t"
		"mov $0x88888888, %%r8d\n\t"
		"mov $0x99999999, %%r9d\n\t"
		"mov $0x10101010, %%r10d\n\t"
		"mov $0x11111111, %%r11d\n\t"
		"mov $0x12121212, %%r12d\n\t"
		"mov $0x13131313, %%r13d\n\t"
		"mov $0x14141414, %%r14d\n\t"
		"mov $0x15151515, %%r15d\n\t"
		"1:\n\t"
		"cmp %%rbx, -8(%%rsp)\n\tjne 9f\n\t"
		"cmp %%rbx, -120(%%rsp)\n\tjne 9f\n\t"
		"cmp %%rbx, -128(%%rsp)\n\tjne 9f\n\t"
		"cmp %%rsp, stack_pointer(%%rip)\n\tjne 9f\n\t"
		"cmp $0x22222222, %%rcx\n\tjne 9f\n\t"
		"cmp $0x33333333, %%rdx\n\tjne 9f\n\t"
		"cmp $0x44444444, %%rsi\n\tjne 9f\n\t"
		"cmp $0x10101010, %%r10\n\tjne 9f\n\t"
		"cmp $0x11111111, %%r11\n\tjne 9f\n\t"
		"cmp $0x12121212, %%r12\n\tjne 9f\n\t"
		"cmp $0x13131313, %%r13\n\tjne 9f\n\t"
		"cmp $0x14141414, %%r14\n\tjne 9f\n\t"
		"cmp $0x15151515, %%r15\n\tjne 9f\n\t"
		"cmp $0x88888888, %%r8d\n\tjne 9f\n\t"
		"cmp $0x99999999, %%r9d\n\tjne 9f\n\t"
		/* rbp and rdi have values that do not fit a comparison. */
		"push %%rax\n\t"
		"lea vectors(%%rip), %%rax\n\t"
		"cmp %%rax, %%rdi\n\tpop %%rax\n\tjne 9f\n\t"
		"mov %%rbx, -8(%%rsp)\n\t"
		"push %%rax\n\t"
		"movabs $0x1111111111111111, %%rax\n\t"
		"cmp %%rax, %%rbp\n\tpop %%rax\n\tjne 9f\n\t"
		"mov %%rbx, -8(%%rsp)\n\t"
		".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14\n\t"
		"vpxor \\n*32(%%rdi), %%ymm\\n, %%ymm15\n\t"
		"vptest %%ymm15, %%ymm15\n\tjnz 9f\n\t"
		".endr\n\t"
		"vmovdqa 15*32(%%rdi), %%ymm15\n\t"
		"dec %%rax\n\tjnz 1b\n\t"
		"9:\n\t"
		"mov frame_pointer(%%rip), %%rbp\n\t"
		"vzeroupper\n\t"
		: "+r"(left)
		:
		: "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory",
		  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
		  "xmm13", "xmm14", "xmm15");
	return left;
}

int main(void)
{
	char *memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static char other_stack[1 << 16];
	stack_t set = {.ss_sp = other_stack, .ss_size = sizeof(other_stack)}, now;
	unsigned long rounds = 0;
	char byte;

	sigaltstack(&set, NULL);
	for (int index = 0; index < 16; index++)
		for (int part = 0; part < 4; part++)
			vectors[index][part] = 0x0123456789abcdefUL * (index * 4 + part + 1);
	printf("%d %lu %lu\n", getpid(), (unsigned long)memory, LENGTH);
	fflush(stdout);
	for (;; rounds++) {
		struct pollfd input = {.fd = 0, .events = POLLIN};

		if (hold_steady(1 << 20) != 0)
			return 1;
		sigaltstack(NULL, &now);
		if (now.ss_sp != set.ss_sp || now.ss_size != set.ss_size || now.ss_flags != set.ss_flags)
			return 2;
		if (poll(&input, 1, 0) == 1) {
			if (read(0, &byte, 1) != 1)
				return 0;
			printf("%lu\n", rounds);
			fflush(stdout);
		}
	}
}
