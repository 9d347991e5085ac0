/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The socket core on kprobes: for kernels without BPF trampolines; io_uring is seen.
 *
 * A kretprobe can be missed: the kernel has a bounded number of instances of it, and each call that is blocked in
 * the function holds one. So nothing that matters waits for the return of a call that can block. Received bytes are
 * taken where they are copied: TCP's at tcp_cleanup_rbuf, those of Unix sockets at the return of the function that
 * copies one piece. A missed end of a send is made up for by the next call of its thread, and counted.
 */
#include "control.h"
#include "late_calls.h"
#include "messages.h"
#include "side_calls.h"

#include "../process/lifecycle.h"

/* The thread does something else now, so its last call is over, whether its return was seen or not. */
static __always_inline void make_up_for_missed(struct thread *thread)
{
	struct sock *sk = (struct sock *)thread->sending_sk;
	struct conn *conn = sk ? find_conn(sk) : 0;
	struct standing standing;

	if (!sk && !thread->receiving_sk)
		return;
	count(AT_MISSED_RETURNS);
	thread->sending_sk = 0;
	thread->receiving_sk = 0;
	if (!conn)
		return;
	if (conn->family == AF_UNIX) {
		conn->reach[AT_TX].end += thread->moved;
		conn->reach[AT_TX].tail_len = 0;
	} else {
		standing = standing_of(sk);
		catch_up(conn, &standing);
	}
	conn->reach[AT_TX].last_ts = bpf_ktime_get_ns();
	conn->dirty[AT_TX] = 1;
	thread->dirty_sk = (__u64)sk;
}

/* An iov_iter, read at once: each read of kernel memory costs as much as a map lookup. */
#define ITER_MAX 40
struct iter {
	__u8 bytes[ITER_MAX];
};

static __always_inline struct iter read_iter(__u64 message)
{
	struct iter iter = {};
	__u64 size = bpf_core_type_size(struct iov_iter);

	bpf_probe_read_kernel(&iter, size < ITER_MAX ? size : ITER_MAX,
			      &((struct msghdr *)message)->msg_iter);
	return iter;
}

static __always_inline void any_send_begins(struct sock *sk, struct msghdr *message)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? current_thread() : 0;
	struct standing standing;
	struct iter iter;

	if (!thread || !sk)
		return;
	make_up_for_missed(thread);
	thread->message = (__u64)message;
	thread->moved = 0;
	if (!message) {
		send_unseen_begins(sk);
		return;
	}
	standing = standing_of(sk);
	iter = read_iter((__u64)message);
	message_send_begins(process, thread, sk, &standing, (struct iov_iter *)&iter, 0);
}

static __always_inline void any_send_ends(__s64 taken)
{
	struct thread *thread = known_thread();
	struct user_bytes bytes = {};
	struct standing standing;
	struct iter iter;

	if (!thread || !thread->sending_sk)
		return;
	standing = standing_of((struct sock *)thread->sending_sk);
	if (taken > 0 && thread->message && end_needs_bytes(thread)) {
		iter = read_iter(thread->message);
		bytes = bytes_behind(thread, (struct iov_iter *)&iter, taken);
	}
	send_ends(thread, &standing, &bytes, taken);
}

SEC("kprobe/tcp_sendmsg")
int tcp_send_begins(struct pt_regs *ctx)
{
	any_send_begins((struct sock *)ARCH_PARAM0(ctx), (struct msghdr *)ARCH_PARAM1(ctx));
	return 0;
}

SEC("kretprobe/tcp_sendmsg")
int tcp_send_ends(struct pt_regs *ctx)
{
	any_send_ends((__s32)ARCH_RESULT(ctx));
	return 0;
}

/* Until Linux 6.5; see variation.h. */
SEC("kprobe/tcp_sendpage")
int tcp_sendpage_begins(struct pt_regs *ctx)
{
	any_send_begins((struct sock *)ARCH_PARAM0(ctx), 0);
	return 0;
}

SEC("kretprobe/tcp_sendpage")
int tcp_sendpage_ends(struct pt_regs *ctx)
{
	any_send_ends((__s32)ARCH_RESULT(ctx));
	return 0;
}

static __always_inline void received(struct at_watched *process, struct thread *thread, struct sock *sk,
				     __s64 got)
{
	struct user_bytes bytes = {};
	struct standing standing;
	struct iter iter;

	if (nothing_received(got, thread->receiving_flags))
		return;
	standing = standing_of(sk);
	if (got > 0 && thread->message) {
		iter = read_iter(thread->message);
		bytes = bytes_behind(thread, (struct iov_iter *)&iter, got);
	}
	message_received(process, thread, sk, &standing, &bytes, thread->receiving_flags, got);
}

static __always_inline void any_receive_begins(struct sock *sk, struct msghdr *message, __u32 flags)
{
	struct thread *thread = current_watched() ? current_thread() : 0;

	if (!thread)
		return;
	make_up_for_missed(thread);
	thread->moved = 0;
	thread->receiving_sk = flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE) ? 0 : (__u64)sk;
	thread->receiving_flags = flags;
	thread->message = (__u64)message;
}

SEC("kprobe/tcp_recvmsg")
int tcp_receive_begins(struct pt_regs *ctx)
{
	__u64 flags = ARCH_PARAM3(ctx), flags_with_nonblock = ARCH_PARAM4(ctx);

	if (recvmsg_has_nonblock)
		flags = flags_with_nonblock;
	any_receive_begins((struct sock *)ARCH_PARAM0(ctx), (struct msghdr *)ARCH_PARAM1(ctx), flags);
	return 0;
}

/* void tcp_cleanup_rbuf(struct sock *sk, int copied): `copied` since the call began. It comes once at the end, and
 * before each wait in a call that waits for more. */
SEC("kprobe/tcp_cleanup_rbuf")
int tcp_copied(struct pt_regs *ctx)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? known_thread() : 0;
	struct sock *sk = (struct sock *)ARCH_PARAM0(ctx);
	__s64 copied = (__s32)ARCH_PARAM1(ctx);
	struct standing standing;

	if (!thread || copied <= 0)
		return 0;
	if (thread->receiving_sk == (__u64)sk) {
		copied -= thread->moved;
		thread->moved += copied;
		if (copied > 0)
			received(process, thread, sk, copied);
	} else if (!thread->receiving_sk && !thread->receiving_flags) { /* tcp_read_sock, for splice */
		standing = standing_of(sk);
		receive_unseen_ends(sk, &standing, copied);
	}
	return 0;
}

/* ssize_t tcp_splice_read(struct socket *sock, ...): tcp_cleanup_rbuf tells its bytes. */
SEC("kprobe/tcp_splice_read")
int tcp_splice_begins(struct pt_regs *ctx)
{
	any_receive_begins(0, 0, 0);
	return 0;
}

/* Only for what tcp_cleanup_rbuf is not called for: the end of the stream, errors. Missing it loses no bytes. */
SEC("kretprobe/tcp_recvmsg")
int tcp_receive_ends(struct pt_regs *ctx)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? known_thread() : 0;
	__s64 got = (__s32)ARCH_RESULT(ctx);
	struct sock *sk;

	if (!thread)
		return 0;
	sk = (struct sock *)thread->receiving_sk;
	thread->receiving_sk = 0;
	if (sk && got <= 0)
		received(process, thread, sk, got);
	thread->receiving_flags = 0;
	return 0;
}

static __always_inline void any_close(struct sock *sk)
{
	struct thread *thread = current_watched() ? known_thread() : 0;

	if (thread)
		make_up_for_missed(thread);
	released(sk);
}

SEC("kprobe/tcp_close")
int tcp_closes(struct pt_regs *ctx)
{
	any_close((struct sock *)ARCH_PARAM0(ctx));
	return 0;
}

static __always_inline struct sock *sock_of(__u64 socket)
{
	return BPF_CORE_READ((struct socket *)socket, sk);
}

SEC("kprobe/unix_stream_sendmsg")
int unix_send_begins(struct pt_regs *ctx)
{
	any_send_begins(sock_of(ARCH_PARAM0(ctx)), (struct msghdr *)ARCH_PARAM1(ctx));
	return 0;
}

/* int skb_copy_datagram_from_iter(struct sk_buff *skb, int offset, struct iov_iter *from, int len): for each piece of
 * what is sent. Of a call whose return is missed, this tells how much it sent: a Unix socket has no write_seq. */
SEC("kprobe/skb_copy_datagram_from_iter")
int unix_sends_piece(struct pt_regs *ctx)
{
	struct thread *thread = current_watched() ? known_thread() : 0;

	if (thread && thread->sending_sk)
		thread->moved += (__u32)ARCH_PARAM3(ctx);
	return 0;
}

SEC("kretprobe/unix_stream_sendmsg")
int unix_send_ends(struct pt_regs *ctx)
{
	any_send_ends((__s32)ARCH_RESULT(ctx));
	return 0;
}

/* Until Linux 6.5; see variation.h. */
SEC("kprobe/unix_stream_sendpage")
int unix_sendpage_begins(struct pt_regs *ctx)
{
	any_send_begins(sock_of(ARCH_PARAM0(ctx)), 0);
	return 0;
}

SEC("kretprobe/unix_stream_sendpage")
int unix_sendpage_ends(struct pt_regs *ctx)
{
	any_send_ends((__s32)ARCH_RESULT(ctx));
	return 0;
}

SEC("kprobe/unix_stream_recvmsg")
int unix_receive_begins(struct pt_regs *ctx)
{
	any_receive_begins(sock_of(ARCH_PARAM0(ctx)), (struct msghdr *)ARCH_PARAM1(ctx), ARCH_PARAM3(ctx));
	return 0;
}

SEC("kprobe/unix_stream_splice_read")
int unix_splice_begins(struct pt_regs *ctx)
{
	any_receive_begins(sock_of(ARCH_PARAM0(ctx)), 0, 0);
	return 0;
}

static __always_inline void unix_took_piece(__s64 got)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? known_thread() : 0;

	if (!thread || !thread->receiving_sk || got <= 0)
		return;
	thread->moved += got;
	received(process, thread, (struct sock *)thread->receiving_sk, got);
}

/* int unix_stream_read_actor(struct sk_buff *skb, int skip, int chunk, struct unix_stream_read_state *state): copies
 * one piece. It never waits for the peer, so its kretprobe is there when it is needed. */
SEC("kretprobe/unix_stream_read_actor")
int unix_piece_copied(struct pt_regs *ctx)
{
	unix_took_piece((__s32)ARCH_RESULT(ctx));
	return 0;
}

SEC("kretprobe/unix_stream_splice_actor")
int unix_piece_spliced(struct pt_regs *ctx)
{
	unix_took_piece((__s32)ARCH_RESULT(ctx));
	return 0;
}

/* The end of the stream and errors; and the bytes, where the compiler has left nothing of the two above to hook. */
static __always_inline void unix_receive_returns(__s64 got)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? known_thread() : 0;
	struct sock *sk;

	if (!thread)
		return;
	sk = (struct sock *)thread->receiving_sk;
	thread->receiving_sk = 0;
	if (sk && !thread->moved)
		received(process, thread, sk, got);
}

SEC("kretprobe/unix_stream_recvmsg")
int unix_receive_ends(struct pt_regs *ctx)
{
	unix_receive_returns((__s32)ARCH_RESULT(ctx));
	return 0;
}

SEC("kretprobe/unix_stream_splice_read")
int unix_splice_ends(struct pt_regs *ctx)
{
	unix_receive_returns((__s64)ARCH_RESULT(ctx));
	return 0;
}

SEC("kprobe/unix_release")
int unix_closes(struct pt_regs *ctx)
{
	struct sock *sk = sock_of(ARCH_PARAM0(ctx));

	if (sk)
		any_close(sk);
	return 0;
}

/* The helpers used (bpf_probe_read_*, bpf_ringbuf_*) are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
