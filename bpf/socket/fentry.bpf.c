/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The socket core on fentry and fexit: the cheapest hooks, and io_uring is seen.
 *
 * A context is the function's parameters as 64-bit numbers, then (fexit) its result. Programs whose function a
 * kernel lacks are left out by user space.
 */
#include "control.h"
#include "late_calls.h"
#include "messages.h"
#include "side_calls.h"

#include "../process/lifecycle.h"

/* A parameter as a plain number, where there is no thread to take it through (see plain_number). */
static __always_inline __u64 first_parameter(__u64 *ctx)
{
	__u64 first = 0;

	bpf_probe_read_kernel(&first, sizeof(first), ctx);
	return first;
}

static __always_inline struct sock *socket_sock(__u64 socket)
{
	return BPF_CORE_READ((struct socket *)socket, sk);
}

/* What a typed pointer points to is read without a call. */
static __always_inline struct standing typed_standing(struct sock *sk)
{
	struct standing standing = {.state = sk->__sk_common.skc_state};
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);

	if (tcp) {
		standing.written = tcp->write_seq;
		standing.copied = tcp->copied_seq;
	}
	return standing;
}

static __always_inline void any_send_begins(struct at_watched *process, struct sock *sk,
					    struct msghdr *message, bool ahead)
{
	struct thread *thread = current_thread();
	struct standing standing;

	if (!thread || !sk)
		return;
	standing = typed_standing(sk);
	message_send_begins(process, thread, (struct sock *)plain_number(thread, sk), &standing,
			    &message->msg_iter, ahead);
}

static __always_inline void any_send_ends(struct sock *sk, struct msghdr *message, __s64 taken)
{
	struct thread *thread = known_thread();
	struct user_bytes bytes = {};
	struct standing standing;

	if (!thread || !thread->sending_sk || thread->sending_sk != plain_number(thread, sk))
		return;
	standing = typed_standing(sk);
	if (taken > 0 && message && end_needs_bytes(thread))
		bytes = bytes_behind(thread, &message->msg_iter, taken);
	send_ends(thread, &standing, &bytes, taken);
}

static __always_inline void any_receive_ends(struct at_watched *process, struct sock *sk,
					     struct msghdr *message, __u64 flags, __s64 got)
{
	struct thread *thread = current_thread();
	struct user_bytes bytes = {};
	struct standing standing;

	if (!thread || !sk)
		return;
	standing = typed_standing(sk);
	if (got > 0)
		bytes = bytes_behind(thread, &message->msg_iter, got);
	message_received(process, thread, (struct sock *)plain_number(thread, sk), &standing, &bytes, flags,
			 got);
}

/* int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size) */
SEC("fentry/tcp_sendmsg")
int tcp_send_begins(__u64 *ctx)
{
	struct at_watched *process = current_watched();

	if (process)
		any_send_begins(process, (struct sock *)ctx[0], (struct msghdr *)ctx[1], 1);
	return 0;
}

/* Attached as long as there may be memory that cannot be read when a send begins (autotrace/kernel/send_ends.py). */
SEC("fexit/tcp_sendmsg")
int tcp_send_ends(__u64 *ctx)
{
	any_send_ends((struct sock *)ctx[0], (struct msghdr *)ctx[1], (__s32)ctx[3]);
	return 0;
}

/* The same, for the second time that is attached: before Linux 5.13 ("bpf: Allow trampoline re-attach for tracing and lsm
 * programs") one that was detached cannot be attached again. */
SEC("fexit/tcp_sendmsg")
int tcp_send_ends_again(__u64 *ctx)
{
	any_send_ends((struct sock *)ctx[0], (struct msghdr *)ctx[1], (__s32)ctx[3]);
	return 0;
}

/* int tcp_sendpage(struct sock *sk, struct page *page, int offset, size_t size, int flags): see variation.h. */
SEC("fentry/tcp_sendpage")
int tcp_sendpage_begins(__u64 *ctx)
{
	struct standing standing;
	struct sock *sk;

	if (!current_watched())
		return 0;
	sk = (struct sock *)first_parameter(ctx);
	standing = standing_of(sk);
	send_unseen_ahead(sk, &standing, ctx[3]);
	return 0;
}

/* int sk_stream_wait_memory(struct sock *sk, long *timeo_p): in a send, if there is no room for more. It fails where the
 * send is cut: at once if that may not wait. */
SEC("fexit/sk_stream_wait_memory")
int tcp_send_waited(__u64 *ctx)
{
	struct thread *thread = current_watched() ? known_thread() : 0;

	if (thread)
		send_waited(thread, (struct sock *)plain_number(thread, (struct sock *)ctx[0]),
			    (__s32)ctx[2] != 0);
	return 0;
}

/* int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, [int nonblock,] int flags, int *addr_len) */
SEC("fexit/tcp_recvmsg")
int tcp_receive_ends(__u64 *ctx)
{
	struct at_watched *process;
	__u64 flags, got;

	/* The barriers keep each read at an offset that the verifier sees. */
	if (recvmsg_has_nonblock) {
		flags = ctx[4];
		got = ctx[6];
		barrier_var(got);
	} else {
		flags = ctx[3];
		got = ctx[5];
		barrier_var(got);
	}
	if (nothing_received((__s32)got, (__u32)flags))
		return 0;
	process = current_watched();
	if (process)
		any_receive_ends(process, (struct sock *)ctx[0], (struct msghdr *)ctx[1], (__u32)flags,
				 (__s32)got);
	return 0;
}

static __always_inline void spliced(__u64 *ctx, __s64 got)
{
	struct standing standing;
	struct sock *sk;

	if (got <= 0 || !current_watched())
		return;
	sk = socket_sock(first_parameter(ctx));
	standing = standing_of(sk);
	receive_unseen_ends(sk, &standing, got);
}

/* ssize_t tcp_splice_read(struct socket *sock, loff_t *ppos, struct pipe_inode_info *pipe, size_t len,
 * unsigned int flags) */
SEC("fexit/tcp_splice_read")
int tcp_splice_ends(__u64 *ctx)
{
	spliced(ctx, (__s64)ctx[5]);
	return 0;
}

/* void tcp_close(struct sock *sk, long timeout) */
SEC("fentry/tcp_close")
int tcp_closes(__u64 *ctx)
{
	released((struct sock *)first_parameter(ctx));
	return 0;
}

/* int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len) */
SEC("fentry/unix_stream_sendmsg")
int unix_send_begins(__u64 *ctx)
{
	struct at_watched *process = current_watched();

	if (process)
		any_send_begins(process, ((struct socket *)ctx[0])->sk, (struct msghdr *)ctx[1], 0);
	return 0;
}

SEC("fexit/unix_stream_sendmsg")
int unix_send_ends(__u64 *ctx)
{
	any_send_ends(((struct socket *)ctx[0])->sk, (struct msghdr *)ctx[1], (__s32)ctx[3]);
	return 0;
}

/* ssize_t unix_stream_sendpage(struct socket *socket, struct page *page, int offset, size_t size, int flags): as
 * tcp_sendpage. */
SEC("fentry/unix_stream_sendpage")
int unix_sendpage_begins(__u64 *ctx)
{
	if (current_watched())
		send_unseen_begins(socket_sock(first_parameter(ctx)));
	return 0;
}

SEC("fexit/unix_stream_sendpage")
int unix_sendpage_ends(__u64 *ctx)
{
	any_send_ends(((struct socket *)ctx[0])->sk, 0, (__s32)ctx[5]);
	return 0;
}

/* int unix_stream_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags) */
SEC("fexit/unix_stream_recvmsg")
int unix_receive_ends(__u64 *ctx)
{
	__s64 got = (__s32)ctx[4];
	__u32 flags = ctx[3];
	struct at_watched *process;

	if (nothing_received(got, flags))
		return 0;
	process = current_watched();
	if (process)
		any_receive_ends(process, ((struct socket *)ctx[0])->sk, (struct msghdr *)ctx[1], flags, got);
	return 0;
}

/* ssize_t unix_stream_splice_read(struct socket *sock, loff_t *ppos, struct pipe_inode_info *pipe, size_t size,
 * unsigned int flags) */
SEC("fexit/unix_stream_splice_read")
int unix_splice_ends(__u64 *ctx)
{
	spliced(ctx, (__s64)ctx[5]);
	return 0;
}

/* int unix_release(struct socket *sock) */
SEC("fentry/unix_release")
int unix_closes(__u64 *ctx)
{
	struct sock *sk = socket_sock(first_parameter(ctx));

	if (sk)
		released(sk);
	return 0;
}

/* The helpers used (bpf_probe_read_*, bpf_ringbuf_*) are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
