/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The socket core on system call tracepoints: works on every kernel, sees no io_uring.
 *
 * Two programs, each on the tracepoints of just the calls that matter (autotrace/kernel/hooks.py has the list), so
 * that all other system calls of the machine cost nothing. The arguments are read from the registers saved at the
 * entry of the call, on its return too: nothing has to be kept between the two.
 */
#include "control.h"
#include "receive_calls.h"
#include "side_calls.h"

#include "../process/lifecycle.h"

/* What a sending call was given. Of sendmmsg it is the first message: the others are counted. */
static __always_inline struct user_bytes sent_bytes(__u32 call, struct pt_regs *regs)
{
	struct user_bytes nowhere = {};

	switch (call) {
	case CALL_SENDFILE:
	case CALL_SPLICE:
		return nowhere;
	case CALL_WRITE:
		return one_buffer(ARCH_ARG1(regs), ARCH_ARG2(regs));
	case CALL_WRITEV:
		return iov_array(ARCH_ARG1(regs), ARCH_ARG2(regs));
	default:
		return msg_bytes(ARCH_ARG1(regs));
	}
}

SEC("tracepoint")
int call_enters(struct call_args *ctx)
{
	struct at_watched *process = current_watched();
	struct user_bytes bytes = {};
	struct standing standing;
	struct thread *thread;
	struct pt_regs *regs;
	struct sock *sk;
	__u32 call;

	if (!process)
		return LEAVE_EVENT;
	call = call_of(ctx->number);
	regs = user_registers();
	sk = stream_sock(call == CALL_SPLICE ? ARCH_ARG2(regs) : ARCH_ARG0(regs));
	if (!sk)
		return LEAVE_EVENT;
	if (call == CALL_CLOSE) {
		if (last_reference(ARCH_ARG0(regs)))
			released(sk);
	} else if (call == CALL_SENDFILE || call == CALL_SPLICE) {
		send_unseen_begins(sk);
	} else if ((thread = current_thread())) {
		bytes = sent_bytes(call, regs);
		standing = standing_of(sk);
		send_begins(process, thread, sk, &standing, &bytes, 0);
	}
	return LEAVE_EVENT;
}

static __always_inline void send_returns(struct thread *thread, __u32 call, struct pt_regs *regs,
					 __s64 result)
{
	struct standing standing = standing_of((struct sock *)thread->sending_sk);
	struct user_bytes bytes = {};

	if (end_needs_bytes(thread))
		bytes = sent_bytes(call, regs);
	if (call == CALL_SENDMMSG && result > 0)
		result = mmsg_total(ARCH_ARG1(regs), result);
	send_ends(thread, &standing, &bytes, result);
}

static __always_inline void splice_returns(struct sock *sk, __s64 result)
{
	struct standing standing = standing_of(sk);

	receive_unseen_ends(sk, &standing, result);
}

SEC("tracepoint")
int call_exits(struct call_args *ctx)
{
	struct at_watched *process = current_watched();
	__s64 result = ctx->result;
	struct pt_regs *regs;
	struct thread *thread;
	struct sock *sk;
	__u32 call;

	if (!process)
		return LEAVE_EVENT;
	call = call_of(ctx->number);
	regs = user_registers();
	if (call < CALL_FIRST_SEND) {
		receive_returns(process, call, regs, result);
	} else if (call <= CALL_LAST_SEND) {
		thread = known_thread();
		if (thread && thread->sending_sk)
			send_returns(thread, call, regs, result);
		else if (call == CALL_SPLICE && (sk = stream_sock(ARCH_ARG0(regs))))
			splice_returns(sk, result);
	}
	return LEAVE_EVENT;
}

/* The helpers used (bpf_probe_read_*, bpf_ringbuf_*) are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
