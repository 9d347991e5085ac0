/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* All that differs between processor architectures: registers, thread pointer, system call numbers. */
#ifndef AUTOTRACE_ARCH_H
#define AUTOTRACE_ARCH_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* The registers of the current task in user mode, saved when it entered the kernel (variation.h). */
static __always_inline struct pt_regs *user_registers(void);

#if defined(__TARGET_ARCH_x86)

#define ARCH_THREAD_SIZE (16 << 10) /* arch/x86/include/asm/page_64_types.h */

struct pt_regs {
	unsigned long r14, bx, r10, r8, ax, cx, dx, si, di, orig_ax, sp;
} __attribute__((preserve_access_index));

/* A kernel function's parameters and result, at a kprobe's context. */
#define ARCH_PARAM0(regs) ((regs)->di)
#define ARCH_PARAM1(regs) ((regs)->si)
#define ARCH_PARAM2(regs) ((regs)->dx)
#define ARCH_PARAM3(regs) ((regs)->cx)
#define ARCH_PARAM4(regs) ((regs)->r8)
#define ARCH_RESULT(regs) ((regs)->ax)

/* A C++ function's parameters, where its result is an object with a destructor: what the function is given first is
 * where that goes (Itanium C++ ABI, "Non-trivial Return Values"). And the one behind its object and an argument of an
 * empty class, which takes no register. */
#define ARCH_MAKER_PARAM0(regs) ARCH_PARAM1(regs)
#define ARCH_MAKER_PARAM1(regs) ARCH_PARAM2(regs)
#define ARCH_PARAM_BEHIND_EMPTY(regs) ARCH_PARAM1(regs)

/* A user function's stack pointer at its entry, there and behind its return, which has taken the return address. */
#define ARCH_STACK(regs) ((regs)->sp)
#define ARCH_STACK_RETURNED(regs) ((regs)->sp - 8)

/* A Go function's parameters and first result, and the current g (Go's ABIInternal, "amd64 architecture"). */
#define ARCH_GO_PARAM0(regs) ((regs)->ax)
#define ARCH_GO_PARAM1(regs) ((regs)->bx)
#define ARCH_GO_PARAM2(regs) ((regs)->cx)
#define ARCH_GO_PARAM3(regs) ((regs)->di)
#define ARCH_GO_RESULT(regs) ((regs)->ax)
#define ARCH_GO_G(regs) ((regs)->r14)

/* The number of the system call that a thread is in, and its arguments. */
#define ARCH_CALL(regs) BPF_CORE_READ(regs, orig_ax)
#define ARCH_ARG0(regs) BPF_CORE_READ(regs, di)
#define ARCH_ARG1(regs) BPF_CORE_READ(regs, si)
#define ARCH_ARG2(regs) BPF_CORE_READ(regs, dx)
#define ARCH_ARG3(regs) BPF_CORE_READ(regs, r10)

/* Where glibc keeps what a thread has under the first pthread keys, from the thread pointer on: pairs of a count
 * and a pointer (nptl/descr.h, specific_1stblock). */
#define ARCH_PTHREAD_KEYS 0x310

/* What pthread_self() gives, 0 if it is not known how. */
static __always_inline __u64 arch_thread_pointer(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return BPF_CORE_READ(task, thread.fsbase);
}

/* Go keeps the current g below the thread pointer (runtime/go_tls.h, runtime.tlsg: -8 on linux/amd64). */
static __always_inline __u64 arch_go_g(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 base = BPF_CORE_READ(task, thread.fsbase), g = 0;

	bpf_probe_read_user(&g, sizeof(g), (void *)(base - 8));
	return g;
}

#define NR_read 0
#define NR_write 1
#define NR_close 3
#define NR_poll 7
#define NR_readv 19
#define NR_writev 20
#define NR_select 23
#define NR_sendfile 40
#define NR_connect 42
#define NR_accept 43
#define NR_sendto 44
#define NR_recvfrom 45
#define NR_sendmsg 46
#define NR_recvmsg 47
#define NR_getsockopt 55
#define NR_epoll_wait 232
#define NR_pselect6 270
#define NR_ppoll 271
#define NR_splice 275
#define NR_epoll_pwait 281
#define NR_accept4 288
#define NR_recvmmsg 299
#define NR_sendmmsg 307
#define NR_epoll_pwait2 441

#elif defined(__TARGET_ARCH_arm64)

#define ARCH_THREAD_SIZE (16 << 10) /* arch/arm64/include/asm/memory.h, with pages of 4 KiB */

struct user_pt_regs {
	__u64 regs[31];
} __attribute__((preserve_access_index));

struct pt_regs {
	union {
		struct user_pt_regs user_regs;
		struct {
			__u64 regs[31];
			__u64 sp;
		};
	};
	__u64 orig_x0;
	__s32 syscallno;
} __attribute__((preserve_access_index));

#define ARCH_PARAM0(at) ((at)->regs[0])
#define ARCH_PARAM1(at) ((at)->regs[1])
#define ARCH_PARAM2(at) ((at)->regs[2])
#define ARCH_PARAM3(at) ((at)->regs[3])
#define ARCH_PARAM4(at) ((at)->regs[4])
#define ARCH_RESULT(at) ((at)->regs[0])

/* Where the result goes is in x8, and an empty class takes a register (AAPCS64, "Result Return"). */
#define ARCH_MAKER_PARAM0(at) ARCH_PARAM0(at)
#define ARCH_MAKER_PARAM1(at) ARCH_PARAM1(at)
#define ARCH_PARAM_BEHIND_EMPTY(at) ARCH_PARAM2(at)

#define ARCH_STACK(at) ((at)->sp)
#define ARCH_STACK_RETURNED(at) ((at)->sp)

#define ARCH_GO_PARAM0(at) ((at)->regs[0])
#define ARCH_GO_PARAM1(at) ((at)->regs[1])
#define ARCH_GO_PARAM2(at) ((at)->regs[2])
#define ARCH_GO_PARAM3(at) ((at)->regs[3])
#define ARCH_GO_RESULT(at) ((at)->regs[0])
#define ARCH_GO_G(at) ((at)->regs[28])

#define ARCH_CALL(at) BPF_CORE_READ(at, syscallno)
#define ARCH_ARG0(at) BPF_CORE_READ(at, orig_x0)
#define ARCH_ARG1(at) BPF_CORE_READ(at, regs[1])
#define ARCH_ARG2(at) BPF_CORE_READ(at, regs[2])
#define ARCH_ARG3(at) BPF_CORE_READ(at, regs[3])

/* Go keeps g in R28 (runtime/asm_arm64.s), which stands among the registers saved at a system call's entry. */
static __always_inline __u64 arch_go_g(void)
{
	struct pt_regs *regs = user_registers();

	return BPF_CORE_READ(regs, regs[28]);
}

#define ARCH_PTHREAD_KEYS 0

static __always_inline __u64 arch_thread_pointer(void)
{
	return 0;
}

#define NR_epoll_pwait 22
#define NR_close 57
#define NR_read 63
#define NR_write 64
#define NR_readv 65
#define NR_writev 66
#define NR_sendfile 71
#define NR_pselect6 72
#define NR_ppoll 73
#define NR_splice 76
#define NR_accept 202
#define NR_connect 203
#define NR_sendto 206
#define NR_recvfrom 207
#define NR_getsockopt 209
#define NR_sendmsg 211
#define NR_recvmsg 212
#define NR_accept4 242
#define NR_recvmmsg 243
#define NR_sendmmsg 269
#define NR_epoll_pwait2 441

#else
#error "no table for this architecture: add one here"
#endif

#endif
