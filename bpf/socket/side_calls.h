/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* What every flavour of the socket hooks takes from tracepoints: the calls that move no bytes, and TCP's states. */
#ifndef AUTOTRACE_SOCKET_SIDE_CALLS_H
#define AUTOTRACE_SOCKET_SIDE_CALLS_H

#include "core.h"

/* What perf's system call tracepoints hand to a program (kernel/trace/trace_syscalls.c, perf_call_bpf_enter and
 * perf_call_bpf_exit). They leave out the calls of 32-bit programs, whose numbers mean other things. */
struct call_args {
	__u64 common;
	__u32 number;
	__u32 unset;
	__s64 result; /* on return; the first argument on entry */
};

/* What a program on a system call's tracepoint returns: with 0 it would take the event from everybody else who counts or
 * samples it, as `perf stat` does (kernel/trace/trace_syscalls.c: perf_syscall_exit asks trace_call_bpf). */
#define LEAVE_EVENT 1

enum side_call {
	SIDE_WAIT, /* every other call that side_call_exits is attached to */
	SIDE_CONNECT,
	SIDE_ACCEPT,
	SIDE_GETSOCKOPT,
};

static __always_inline enum side_call side_call_of(__u32 number)
{
	switch (number) {
	case NR_connect:
		return SIDE_CONNECT;
	case NR_accept:
	case NR_accept4:
		return SIDE_ACCEPT;
	case NR_getsockopt:
		return SIDE_GETSOCKOPT;
	default:
		return SIDE_WAIT;
	}
}

static __always_inline void connect_returns(const struct at_watched *process, struct pt_regs *regs)
{
	struct sock *sk = stream_sock(ARCH_ARG0(regs));

	if (sk && BPF_CORE_READ(sk, __sk_common.skc_family) == AF_UNIX)
		unix_connected(process, sk);
}

static __always_inline void getsockopt_returns(struct pt_regs *regs)
{
	struct sock *sk;

	if (ARCH_ARG1(regs) != SOL_SOCKET || ARCH_ARG2(regs) != SO_ERROR)
		return;
	sk = stream_sock(ARCH_ARG0(regs));
	if (sk)
		looked_at(sk);
}

SEC("tracepoint")
int side_call_exits(struct call_args *ctx)
{
	enum side_call call = side_call_of(ctx->number);
	__s64 result = ctx->result;
	struct at_watched *process;
	struct sock *sk;

	if (call == SIDE_WAIT) {
		waited();
		return LEAVE_EVENT;
	}
	process = current_watched();
	if (!process)
		return LEAVE_EVENT;
	switch (call) {
	case SIDE_CONNECT:
		if (result == 0)
			connect_returns(process, user_registers());
		break;
	case SIDE_ACCEPT:
		sk = result >= 0 ? stream_sock(result) : 0;
		if (sk)
			accepted(sk);
		break;
	case SIDE_GETSOCKOPT:
		getsockopt_returns(user_registers());
		break;
	default:
		break;
	}
	return LEAVE_EVENT;
}

/* include/trace/events/sock.h: inet_sock_set_state(sk, oldstate, newstate) */
SEC("raw_tp/inet_sock_set_state")
int socket_state_changes(struct bpf_raw_tracepoint_args *ctx)
{
	tcp_state_changes((struct sock *)ctx->args[0], ctx->args[2]);
	return 0;
}

#endif
