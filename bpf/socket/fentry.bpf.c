/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The socket core on fentry and fexit: the cheapest hooks, and io_uring is seen.
 *
 * A context is the function's parameters as 64-bit numbers, then (fexit) its result. Programs whose function a
 * kernel lacks are left out by user space.
 */
#include "control.h"
#include "messages.h"
#include "side_calls.h"

#include "../process/lifecycle.h"

/* int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size) */
SEC("fentry/tcp_sendmsg")
int tcp_send_begins(__u64 *ctx)
{
	struct at_watched *process = current_watched();

	if (process)
		message_send_begins(process, (struct sock *)ctx[0], (struct msghdr *)ctx[1]);
	return 0;
}

static __always_inline void any_send_ends(struct msghdr *message, __s64 taken)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? known_thread() : 0;

	if (thread && thread->sending_sk)
		message_send_ends(process, thread, message, taken);
}

SEC("fexit/tcp_sendmsg")
int tcp_send_ends(__u64 *ctx)
{
	any_send_ends((struct msghdr *)ctx[1], (__s32)ctx[3]);
	return 0;
}

/* int tcp_sendpage(struct sock *sk, struct page *page, int offset, size_t size, int flags): sendfile and splice
 * until Linux 6.5, 1d7e4538a546 ("sendpage -> MSG_SPLICE_PAGES"); tcp_sendmsg with pages since. */
SEC("fentry/tcp_sendpage")
int tcp_sendpage_begins(__u64 *ctx)
{
	if (current_watched())
		send_unseen_begins((struct sock *)ctx[0]);
	return 0;
}

SEC("fexit/tcp_sendpage")
int tcp_sendpage_ends(__u64 *ctx)
{
	any_send_ends(0, (__s32)ctx[5]);
	return 0;
}

/* int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, [int nonblock,] int flags, int *addr_len) */
SEC("fexit/tcp_recvmsg")
int tcp_receive_ends(__u64 *ctx)
{
	struct at_watched *process = current_watched();
	__u32 flags;
	__s64 got;

	if (!process)
		return 0;
	if (recvmsg_has_nonblock) {
		flags = ctx[4];
		got = (__s32)ctx[6];
	} else {
		flags = ctx[3];
		got = (__s32)ctx[5];
	}
	message_received(process, (struct sock *)ctx[0], (struct msghdr *)ctx[1], flags, got);
	return 0;
}

/* ssize_t tcp_splice_read(struct socket *sock, loff_t *ppos, struct pipe_inode_info *pipe, size_t len,
 * unsigned int flags) */
SEC("fexit/tcp_splice_read")
int tcp_splice_ends(__u64 *ctx)
{
	if (current_watched())
		receive_unseen_ends(BPF_CORE_READ((struct socket *)ctx[0], sk), (__s64)ctx[5]);
	return 0;
}

/* void tcp_close(struct sock *sk, long timeout) */
SEC("fentry/tcp_close")
int tcp_closes(__u64 *ctx)
{
	released((struct sock *)ctx[0]);
	return 0;
}

/* int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len) */
SEC("fentry/unix_stream_sendmsg")
int unix_send_begins(__u64 *ctx)
{
	struct at_watched *process = current_watched();

	if (process)
		message_send_begins(process, BPF_CORE_READ((struct socket *)ctx[0], sk),
				    (struct msghdr *)ctx[1]);
	return 0;
}

SEC("fexit/unix_stream_sendmsg")
int unix_send_ends(__u64 *ctx)
{
	any_send_ends((struct msghdr *)ctx[1], (__s32)ctx[3]);
	return 0;
}

/* int unix_stream_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags) */
SEC("fexit/unix_stream_recvmsg")
int unix_receive_ends(__u64 *ctx)
{
	struct at_watched *process = current_watched();

	if (process)
		message_received(process, BPF_CORE_READ((struct socket *)ctx[0], sk), (struct msghdr *)ctx[1],
				 (__u32)ctx[3], (__s32)ctx[4]);
	return 0;
}

/* ssize_t unix_stream_splice_read(struct socket *sock, loff_t *ppos, struct pipe_inode_info *pipe, size_t size,
 * unsigned int flags) */
SEC("fexit/unix_stream_splice_read")
int unix_splice_ends(__u64 *ctx)
{
	if (current_watched())
		receive_unseen_ends(BPF_CORE_READ((struct socket *)ctx[0], sk), (__s64)ctx[5]);
	return 0;
}

/* int unix_release(struct socket *sock) */
SEC("fentry/unix_release")
int unix_closes(__u64 *ctx)
{
	struct sock *sk = BPF_CORE_READ((struct socket *)ctx[0], sk);

	if (sk)
		released(sk);
	return 0;
}

/* The helpers used (bpf_probe_read_*, bpf_ringbuf_*) are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
