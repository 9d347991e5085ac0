/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The system calls that move bytes, and what is made of the return of one that receives: from the registers saved at
 * its entry, so nothing has to be kept between the two. */
#ifndef AUTOTRACE_SOCKET_RECEIVE_CALLS_H
#define AUTOTRACE_SOCKET_RECEIVE_CALLS_H

#include "core.h"

enum call {
	CALL_NONE,
	CALL_READ,
	CALL_READV,
	CALL_RECVFROM,
	CALL_RECVMSG,
	CALL_RECVMMSG,
	CALL_FIRST_SEND,
	CALL_WRITE = CALL_FIRST_SEND,
	CALL_WRITEV,
	CALL_SENDMSG,
	CALL_SENDMMSG,
	CALL_SENDFILE,
	CALL_SPLICE,
	CALL_LAST_SEND = CALL_SPLICE,
	CALL_CLOSE,
};

#define CALLS 512

/* clang-format off */
const volatile __u8 calls[CALLS] = {
	[NR_read] = CALL_READ,
	[NR_readv] = CALL_READV,
	[NR_recvfrom] = CALL_RECVFROM,
	[NR_recvmsg] = CALL_RECVMSG,
	[NR_recvmmsg] = CALL_RECVMMSG,
	[NR_write] = CALL_WRITE,
	[NR_writev] = CALL_WRITEV,
	[NR_sendto] = CALL_WRITE, /* the same first three arguments */
	[NR_sendmsg] = CALL_SENDMSG,
	[NR_sendmmsg] = CALL_SENDMMSG,
	[NR_sendfile] = CALL_SENDFILE,
	[NR_splice] = CALL_SPLICE,
	[NR_close] = CALL_CLOSE,
};
/* clang-format on */

static __always_inline __u32 call_of(__u64 number)
{
	barrier_var(number); /* so that what is compared is what the table is entered with */
	return number < CALLS ? calls[number] : CALL_NONE;
}

static __always_inline __u64 receive_flags(__u32 call, struct pt_regs *regs)
{
	if (call == CALL_RECVMSG)
		return ARCH_ARG2(regs);
	return call == CALL_RECVFROM || call == CALL_RECVMMSG ? ARCH_ARG3(regs) : 0;
}

static __always_inline void receive_returns(struct at_watched *process, __u32 call, struct pt_regs *regs,
					    __s64 result)
{
	__u64 flags = receive_flags(call, regs);
	struct user_bytes bytes = {};
	struct standing standing;
	struct thread *thread;
	struct sock *sk;

	if (result == -EAGAIN || flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
		return;
	sk = stream_sock(ARCH_ARG0(regs));
	thread = sk ? current_thread() : 0;
	if (!thread)
		return;
	standing = standing_of(sk);
	if (flags & MSG_TRUNC) {
		receive_unseen_ends(sk, &standing, result);
		return;
	}
	switch (call) {
	case CALL_READV:
		bytes = iov_array(ARCH_ARG1(regs), ARCH_ARG2(regs));
		break;
	case CALL_RECVMMSG:
		if (result > 0)
			result = mmsg_total(ARCH_ARG1(regs), result);
		/* fall through: the bytes of the first message are captured, all are counted */
	case CALL_RECVMSG:
		bytes = msg_bytes(ARCH_ARG1(regs));
		break;
	default:
		bytes = one_buffer(ARCH_ARG1(regs), result > 0 ? result : 0);
	}
	receive_ends(process, thread, sk, &standing, &bytes, result);
}

#endif
