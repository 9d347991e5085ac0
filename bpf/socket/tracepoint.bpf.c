/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The socket core on system call tracepoints: works on every kernel, sees no io_uring.
 *
 * Two raw tracepoints see every system call; a table tells the few that matter. Raw tracepoints hand over the
 * registers on both sides of the call, so nothing has to be kept between them, and they need no tracefs.
 */
#include "core.h"
#include "control.h"

#include "../process/lifecycle.h"

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
	CALL_CONNECT,
	CALL_ACCEPT,
	CALL_GETSOCKOPT,
	CALL_CLOSE,
	CALL_WAIT,
};

#define CALLS 512

const volatile __u8 calls[CALLS] = {
	[NR_read] = CALL_READ,	       [NR_readv] = CALL_READV,
	[NR_recvfrom] = CALL_RECVFROM, [NR_recvmsg] = CALL_RECVMSG,
	[NR_recvmmsg] = CALL_RECVMMSG, [NR_write] = CALL_WRITE,
	[NR_writev] = CALL_WRITEV,     [NR_sendto] = CALL_WRITE, /* the same first three arguments */
	[NR_sendmsg] = CALL_SENDMSG,   [NR_sendmmsg] = CALL_SENDMMSG,
	[NR_sendfile] = CALL_SENDFILE, [NR_splice] = CALL_SPLICE,
	[NR_connect] = CALL_CONNECT,   [NR_accept] = CALL_ACCEPT,
	[NR_accept4] = CALL_ACCEPT,    [NR_getsockopt] = CALL_GETSOCKOPT,
	[NR_close] = CALL_CLOSE,       [NR_epoll_pwait] = CALL_WAIT,
	[NR_epoll_pwait2] = CALL_WAIT, [NR_ppoll] = CALL_WAIT,
	[NR_pselect6] = CALL_WAIT,
#ifdef NR_epoll_wait
	[NR_epoll_wait] = CALL_WAIT,   [NR_poll] = CALL_WAIT,
	[NR_select] = CALL_WAIT,
#endif
};

static __always_inline __u32 call_of(__u64 number)
{
	return number < CALLS ? calls[number] : CALL_NONE;
}

/* include/trace/events/syscalls.h: sys_enter(regs, id) */
SEC("raw_tp/sys_enter")
int call_enters(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 call = call_of(ctx->args[1]);
	struct user_bytes bytes = {};
	struct at_watched *process;
	struct pt_regs *regs;
	struct sock *sk;

	if (call != CALL_CLOSE && (call < CALL_FIRST_SEND || call > CALL_LAST_SEND))
		return 0;
	process = current_watched();
	regs = (struct pt_regs *)ctx->args[0];
	if (!process || ARCH_IS_COMPAT(regs))
		return 0;
	sk = stream_sock(call == CALL_SPLICE ? ARCH_ARG2(regs) : ARCH_ARG0(regs));
	if (!sk)
		return 0;
	switch (call) {
	case CALL_CLOSE:
		close_begins(ARCH_ARG0(regs), sk);
		return 0;
	case CALL_SENDFILE:
	case CALL_SPLICE:
		send_unseen_begins(sk);
		return 0;
	case CALL_WRITE:
		bytes = one_buffer(ARCH_ARG1(regs), ARCH_ARG2(regs));
		break;
	case CALL_WRITEV:
		bytes = iov_array(ARCH_ARG1(regs), ARCH_ARG2(regs));
		break;
	default: /* sendmsg, and the first message of sendmmsg: the others are counted */
		bytes = msg_bytes(ARCH_ARG1(regs));
	}
	send_begins(process, sk, &bytes);
	return 0;
}

static __always_inline void receive_returns(struct at_watched *process, __u32 call, struct pt_regs *regs,
					    __s64 result)
{
	struct user_bytes bytes = {};
	struct sock *sk;

	if (result == -EAGAIN)
		return;
	if ((call == CALL_RECVFROM && (ARCH_ARG3(regs) & MSG_PEEK)) ||
	    (call == CALL_RECVMSG && (ARCH_ARG2(regs) & MSG_PEEK)))
		return;
	sk = stream_sock(ARCH_ARG0(regs));
	if (!sk)
		return;
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
	receive_ends(process, sk, &bytes, result);
}

/* sys_exit(regs, ret): the argument registers still hold what the call was given. */
SEC("raw_tp/sys_exit")
int call_exits(struct bpf_raw_tracepoint_args *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx->args[0];
	__s64 result = ctx->args[1];
	__u32 call = call_of(ARCH_CALL_NUMBER(regs));
	struct at_watched *process;
	struct thread *thread;
	struct sock *sk;

	if (call == CALL_NONE || call == CALL_CLOSE)
		return 0;
	process = current_watched();
	if (!process || ARCH_IS_COMPAT(regs))
		return 0;
	if (call < CALL_FIRST_SEND) {
		receive_returns(process, call, regs, result);
	} else if (call <= CALL_LAST_SEND) {
		thread = known_thread();
		if (call == CALL_SENDMMSG && result > 0)
			result = mmsg_total(ARCH_ARG1(regs), result);
		if (thread && thread->sending_sk)
			send_ends(thread, result);
		else if (call == CALL_SPLICE && (sk = stream_sock(ARCH_ARG0(regs))))
			receive_unseen_ends(sk, result);
	} else if (call == CALL_WAIT) {
		waited();
	} else if (call == CALL_ACCEPT) {
		if (result >= 0 && (sk = stream_sock(result)))
			accepted(sk);
	} else if (call == CALL_GETSOCKOPT) {
		if (ARCH_ARG1(regs) == SOL_SOCKET && ARCH_ARG2(regs) == SO_ERROR &&
		    (sk = stream_sock(ARCH_ARG0(regs))))
			looked_at(sk);
	} else if (call == CALL_CONNECT && result == 0) {
		sk = stream_sock(ARCH_ARG0(regs));
		if (sk && BPF_CORE_READ(sk, __sk_common.skc_family) == AF_UNIX)
			unix_connected(process, sk);
	}
	return 0;
}

/* include/trace/events/sock.h: inet_sock_set_state(sk, oldstate, newstate) */
SEC("raw_tp/inet_sock_set_state")
int socket_state_changes(struct bpf_raw_tracepoint_args *ctx)
{
	tcp_state_changes((struct sock *)ctx->args[0], ctx->args[2]);
	return 0;
}

/* The helpers used (bpf_probe_read_*, bpf_ringbuf_*) are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
