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

/* The first parameters as plain numbers: the verifier follows the types of what it sees read from a context, and lets
 * such a pointer neither into a global function nor into a map. */
struct parameters {
	__u64 value[7];
};

static __always_inline struct parameters first_parameters(__u64 *ctx, __u32 count)
{
	struct parameters first;

	bpf_probe_read_kernel(&first, count * sizeof(first.value[0]), ctx);
	return first;
}

static __always_inline struct sock *socket_sock(__u64 socket)
{
	return BPF_CORE_READ((struct socket *)socket, sk);
}

/* int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size) */
SEC("fentry/tcp_sendmsg")
int tcp_send_begins(__u64 *ctx)
{
	struct at_watched *process = current_watched();
	struct parameters given;

	if (!process)
		return 0;
	given = first_parameters(ctx, 2);
	message_send_begins(process, (struct sock *)given.value[0], (struct msghdr *)given.value[1]);
	return 0;
}

static __always_inline void any_send_ends(__u64 *ctx, __s64 taken)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? known_thread() : 0;

	if (thread && thread->sending_sk)
		message_send_ends(process, thread, (struct msghdr *)first_parameters(ctx, 2).value[1], taken);
}

SEC("fexit/tcp_sendmsg")
int tcp_send_ends(__u64 *ctx)
{
	any_send_ends(ctx, (__s32)ctx[3]);
	return 0;
}

/* int tcp_sendpage(struct sock *sk, struct page *page, int offset, size_t size, int flags): sendfile and splice
 * until Linux 6.5, dc97391e6610 ("sock: Remove ->sendpage*() in favour of sendmsg(MSG_SPLICE_PAGES)"). */
SEC("fentry/tcp_sendpage")
int tcp_sendpage_begins(__u64 *ctx)
{
	if (current_watched())
		send_unseen_begins((struct sock *)first_parameters(ctx, 1).value[0]);
	return 0;
}

static __always_inline void pages_send_ends(__s64 taken)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? known_thread() : 0;

	if (thread && thread->sending_sk)
		message_send_ends(process, thread, 0, taken);
}

SEC("fexit/tcp_sendpage")
int tcp_sendpage_ends(__u64 *ctx)
{
	pages_send_ends((__s32)ctx[5]);
	return 0;
}

/* int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, [int nonblock,] int flags, int *addr_len) */
SEC("fexit/tcp_recvmsg")
int tcp_receive_ends(__u64 *ctx)
{
	struct at_watched *process = current_watched();
	struct parameters given;

	if (!process)
		return 0;
	given = first_parameters(ctx, recvmsg_has_nonblock ? 7 : 6);
	message_received(process, (struct sock *)given.value[0], (struct msghdr *)given.value[1],
			 (__u32)given.value[recvmsg_has_nonblock ? 4 : 3],
			 (__s32)given.value[recvmsg_has_nonblock ? 6 : 5]);
	return 0;
}

/* ssize_t tcp_splice_read(struct socket *sock, loff_t *ppos, struct pipe_inode_info *pipe, size_t len,
 * unsigned int flags) */
SEC("fexit/tcp_splice_read")
int tcp_splice_ends(__u64 *ctx)
{
	if (current_watched())
		receive_unseen_ends(socket_sock(first_parameters(ctx, 1).value[0]), (__s64)ctx[5]);
	return 0;
}

/* void tcp_close(struct sock *sk, long timeout) */
SEC("fentry/tcp_close")
int tcp_closes(__u64 *ctx)
{
	released((struct sock *)first_parameters(ctx, 1).value[0]);
	return 0;
}

/* int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len) */
SEC("fentry/unix_stream_sendmsg")
int unix_send_begins(__u64 *ctx)
{
	struct at_watched *process = current_watched();

	struct parameters given;

	if (!process)
		return 0;
	given = first_parameters(ctx, 2);
	message_send_begins(process, socket_sock(given.value[0]), (struct msghdr *)given.value[1]);
	return 0;
}

SEC("fexit/unix_stream_sendmsg")
int unix_send_ends(__u64 *ctx)
{
	any_send_ends(ctx, (__s32)ctx[3]);
	return 0;
}

/* ssize_t unix_stream_sendpage(struct socket *socket, struct page *page, int offset, size_t size, int flags): until
 * Linux 6.5, as tcp_sendpage. */
SEC("fentry/unix_stream_sendpage")
int unix_sendpage_begins(__u64 *ctx)
{
	if (current_watched())
		send_unseen_begins(socket_sock(first_parameters(ctx, 1).value[0]));
	return 0;
}

SEC("fexit/unix_stream_sendpage")
int unix_sendpage_ends(__u64 *ctx)
{
	pages_send_ends((__s32)ctx[5]);
	return 0;
}

/* int unix_stream_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags) */
SEC("fexit/unix_stream_recvmsg")
int unix_receive_ends(__u64 *ctx)
{
	struct at_watched *process = current_watched();
	struct parameters given;

	if (!process)
		return 0;
	given = first_parameters(ctx, 2);
	message_received(process, socket_sock(given.value[0]), (struct msghdr *)given.value[1], (__u32)ctx[3],
			 (__s32)ctx[4]);
	return 0;
}

/* ssize_t unix_stream_splice_read(struct socket *sock, loff_t *ppos, struct pipe_inode_info *pipe, size_t size,
 * unsigned int flags) */
SEC("fexit/unix_stream_splice_read")
int unix_splice_ends(__u64 *ctx)
{
	if (current_watched())
		receive_unseen_ends(socket_sock(first_parameters(ctx, 1).value[0]), (__s64)ctx[5]);
	return 0;
}

/* int unix_release(struct socket *sock) */
SEC("fentry/unix_release")
int unix_closes(__u64 *ctx)
{
	struct sock *sk = socket_sock(first_parameters(ctx, 1).value[0]);

	if (sk)
		released(sk);
	return 0;
}

/* The helpers used (bpf_probe_read_*, bpf_ringbuf_*) are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
