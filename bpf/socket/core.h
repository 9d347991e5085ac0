/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The socket core: what happens when a watched thread sends, receives, connects, accepts or waits.
 *
 * Attach files (tracepoint.bpf.c and its siblings) translate their hook's arguments into these calls and do
 * nothing else. A send is captured when it starts, so that its record always comes before the record of the
 * peer's receive; a receive is captured when it ends.
 */
#ifndef AUTOTRACE_SOCKET_CORE_H
#define AUTOTRACE_SOCKET_CORE_H

#include "../http/turns.h"

static __always_inline void send_begins(const struct at_watched *process, struct sock *sk,
					struct user_bytes *bytes)
{
	__u64 now = bpf_ktime_get_ns(), cause = 0;
	struct thread *thread = current_thread();
	struct conn *conn = find_conn(sk);
	struct at_context at;

	if (!thread)
		return;
	if (!conn)
		conn = make_conn(sk, AT_CONN_ESTABLISHED, 0);
	if (!conn)
		return;
	thread->sending_sk = (__u64)sk;
	if (conn->speaker != AT_TX)
		cause = take_cause(thread, conn->id);
	if (bytes->pieces)
		bytes->length = pieces_length(bytes->base, bytes->pieces);
	if (!bytes->length || conn->protocol == PROTOCOL_STOPPED)
		return;
	fill_context(&at, process, thread, now, cause);
	capture(conn, sk, AT_TX, sent_position(conn, sk), bytes, &at);
}

/* A send whose bytes are not in user memory (sendfile, splice): they are only counted. */
static __always_inline void send_unseen_begins(struct sock *sk)
{
	struct thread *thread = current_thread();

	if (thread && find_conn(sk))
		thread->sending_sk = (__u64)sk;
}

/* `taken` is what the call returned. */
static __always_inline void send_ends(struct thread *thread, __s64 taken)
{
	struct sock *sk = (struct sock *)thread->sending_sk;
	struct conn *conn;

	thread->sending_sk = 0;
	conn = find_conn(sk);
	if (!conn || taken <= 0)
		return;
	conn->reach[AT_TX].last_ts = bpf_ktime_get_ns();
	if (conn->family == AF_UNIX)
		conn->reach[AT_TX].end += taken;
	else
		conn->reach[AT_TX].end = sent_position(conn, sk);
	if (conn->reach[AT_TX].end > conn->captured_end)
		conn->dirty |= DIRTY(AT_TX);
	if (conn->dirty & DIRTY(AT_TX))
		thread->dirty_sk = (__u64)sk;
}

/* Before a thread's next request is told, what it sent for the last one is: user space then knows whether that
 * one is over. */
static __always_inline void tell_what_was_sent(struct thread *thread, struct sock *receiving)
{
	struct conn *dirty;

	if (!thread->dirty_sk || thread->dirty_sk == (__u64)receiving)
		return;
	dirty = find_conn((struct sock *)thread->dirty_sk);
	thread->dirty_sk = 0;
	if (dirty && dirty->announced && (dirty->dirty & DIRTY(AT_TX)))
		send_progress(dirty, AT_TX);
}

/* `got` is what the call returned: bytes, 0 at the end of the stream, or a negative errno. */
static __always_inline void receive_ends(const struct at_watched *process, struct sock *sk,
					 struct user_bytes *bytes, __s64 got)
{
	__u64 now = bpf_ktime_get_ns(), end;
	struct thread *thread = current_thread();
	struct conn *conn = find_conn(sk);
	struct at_context at;

	if (!thread)
		return;
	if (got <= 0) {
		/* The end of a stream makes an event loop act too, like bytes do. */
		if (conn)
			set_cause(thread, conn->id);
		return;
	}
	if (!conn) {
		conn = make_conn(sk, AT_CONN_ESTABLISHED, 0);
		if (!conn)
			return;
		/* It was made after these bytes were taken. */
		if (conn->family != AF_UNIX)
			conn->reach[AT_RX].end -= got;
	}
	end = received_position(conn, sk, got);
	if (conn->speaker != AT_RX) {
		tell_what_was_sent(thread, sk);
		conn->reach[AT_TX].end = sent_position(conn, sk);
	}
	set_cause(thread, conn->id);
	bytes->length = got;
	fill_context(&at, process, thread, now, 0);
	capture(conn, sk, AT_RX, end - got, bytes, &at);
	conn->reach[AT_RX].end = end;
	conn->reach[AT_RX].last_ts = now;
}

/* A receive whose bytes do not come to user memory (splice). */
static __always_inline void receive_unseen_ends(struct sock *sk, __s64 got)
{
	struct thread *thread = current_thread();
	struct conn *conn = find_conn(sk);

	if (!conn || !thread || got <= 0)
		return;
	set_cause(thread, conn->id);
	conn->reach[AT_RX].end = received_position(conn, sk, got);
	conn->reach[AT_RX].last_ts = bpf_ktime_get_ns();
	conn->dirty |= DIRTY(AT_RX);
}

/* connect() has begun (TCP: the socket went to SYN_SENT). */
static __always_inline struct conn *connect_begins(const struct at_watched *process, struct sock *sk)
{
	struct thread *thread = current_thread();
	struct at_context opened = {};

	if (!thread)
		return 0;
	fill_context(&opened, process, thread, bpf_ktime_get_ns(), take_cause(thread, 0));
	return make_conn(sk, AT_CONN_FROM_START | AT_CONN_OUTGOING, &opened);
}

/* connect() of a Unix socket is done: it is made or refused at once. */
static __always_inline void unix_connected(const struct at_watched *process, struct sock *sk)
{
	struct conn *conn = connect_begins(process, sk);

	if (conn)
		conn->flags |= AT_CONN_ESTABLISHED;
}

static __always_inline void accepted(struct sock *sk)
{
	struct conn *conn = find_conn(sk);

	/* Bytes that came before accept() was called are in the queue, not yet read: nothing was missed. */
	if (!conn)
		make_conn(sk, AT_CONN_FROM_START | AT_CONN_ESTABLISHED, 0);
}

/* The thread looked at what became of a connection (getsockopt SO_ERROR): what it does next is because of
 * that connection. */
static __always_inline void looked_at(struct sock *sk)
{
	struct thread *thread = known_thread();
	struct conn *conn = find_conn(sk);

	if (thread && conn)
		set_looked_at(thread, conn->id);
}

/* close() of a Unix socket has begun: they have no state tracepoint. */
static __always_inline void close_begins(__u32 fd, struct sock *sk)
{
	struct conn *conn = find_conn(sk);

	if (conn && conn->family == AF_UNIX && last_reference(fd))
		close_conn(sk, conn, 0);
}

static __always_inline void waited(void)
{
	struct thread *thread = current_thread();

	if (thread)
		thread->run++;
}

static __always_inline void tcp_state_changes(struct sock *sk, int state)
{
	struct conn *conn = find_conn(sk);
	struct at_watched *process;

	if (state == TCP_SYN_SENT) {
		process = current_watched();
		if (process)
			connect_begins(process, sk);
	} else if (conn && state == TCP_ESTABLISHED) {
		/* The sequence numbers are chosen between SYN_SENT and here. */
		start_positions(conn, sk);
		conn->flags |= AT_CONN_ESTABLISHED;
	} else if (conn && state == TCP_CLOSE) {
		close_conn(sk, conn, BPF_CORE_READ(sk, sk_err));
	}
}

#endif
