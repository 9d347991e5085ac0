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

/* The connection is about to send more in its turn. If it received something meanwhile that nobody saw, this is the next
 * turn: the first answer on a connection older than the probes can come to a call that began before them. */
static __always_inline void end_missed_turn(struct conn *conn, __u32 heard)
{
	if (conn->protocol != PROTOCOL_HTTP1 || conn->speaker != AT_TX || conn->reach[AT_RX].last_ts ||
	    conn->flags & AT_CONN_FROM_START || conn->heard == heard)
		return;
	conn->speaker = AT_RX;
	conn->turn++;
	/* How long it was is not known: a byte stands for it. */
	conn->reach[AT_RX].end++;
	conn->reach[AT_RX].last_ts = bpf_ktime_get_ns();
}

/* Plaintext that a call of a TLS library encrypts; `late` if its ciphertext may have been sent already. */
static __always_inline void capture_write(const struct at_watched *process, struct thread *thread, __u64 sk,
					  struct conn *conn, struct user_bytes *bytes, bool late)
{
	__u32 from = late ? 0 : wire_position(conn, sk, AT_TX);
	__u32 heard = wire_position(conn, sk, AT_RX);
	struct at_context at;
	__u64 cause;

	end_missed_turn(conn, heard);
	conn->heard = heard;
	cause = conn->speaker == AT_TX ? 0 : take_cause(thread, conn->id);
	fill_context(&at, process, thread, bpf_ktime_get_ns(), cause);
	capture_plaintext(conn, (struct sock *)sk, AT_TX, conn->reach[AT_TX].end, bytes, &at, from, 0);
}

/* If `call`, in which the thread is, is a write of a TLS library whose connection was not known when it began, and is
 * now, the plaintext is captured before its ciphertext leaves. */
static __always_inline void capture_waiting_write(const struct at_watched *process, struct thread *thread,
						  struct tls_call *call, __u64 sk, struct conn *conn)
{
	struct user_bytes bytes = one_buffer(call->buffer, call->length);

	/* Of a call that is over the session is 0, as is that of a connection which is not known. */
	if (!call->session || call->captured || call->direction != AT_TX || !call->buffer ||
	    call->session != plaintext_session(conn) || call->run != thread->run)
		return;
	call->captured = 1;
	capture_write(process, thread, sk, conn, &bytes, 0);
}

/* A send has begun whose end no program sees: it is counted now, as if all of its `length` bytes were taken. How far it
 * has really come is asked of the socket whenever that is told (catch_up). */
static __always_inline void count_ahead(struct conn *conn, struct sock *sk, struct thread *thread,
					__u64 position, __u64 length)
{
	struct at_reach *reach = &conn->reach[AT_TX];

	/* What was counted before and not taken is sent again. */
	if (position != conn->sent_ahead)
		reach->tail_len = 0;
	reach->end = position;
	reach->last_ts = bpf_ktime_get_ns();
	conn->sent_ahead = position + length;
	thread->ahead.sk = 0;
	if (conn->protocol == PROTOCOL_HTTP1 && conn->sent_ahead > conn->captured_end[AT_TX]) {
		conn->dirty[AT_TX] = 1;
		thread->dirty_sk = (__u64)sk;
	}
}

/* And what it may tell with its last bytes. Returns 0 if they cannot be read. */
static __always_inline bool keep_tail_ahead(struct conn *conn, struct sock *sk, struct thread *thread,
					    __u64 position, const struct user_bytes *bytes)
{
	struct at_reach *reach = &conn->reach[AT_TX];
	struct ahead *ahead = &thread->ahead;

	if (conn->protocol != PROTOCOL_HTTP1 || !thread->tail_wanted) {
		reach->tail_len = 0;
		return 1;
	}
	ahead->sk = (__u64)sk;
	ahead->position = position;
	ahead->bytes = *bytes;
	__builtin_memcpy(ahead->tail, reach->tail, AT_TAIL_MAX);
	ahead->tail_len = reach->tail_len;
	return keep_tail(reach, bytes, bytes->length);
}

/* A send that waited for room goes on, or (`cut`) ends here: what it has handed over until now was all. */
static __always_inline void send_waited(struct thread *thread, struct sock *sk, bool cut)
{
	struct ahead *ahead = &thread->ahead;
	struct conn *conn = find_conn(sk);
	struct user_bytes bytes;
	struct standing standing;
	struct at_reach *reach;

	if (!conn || conn->tls)
		return;
	standing = standing_of(sk);
	catch_up(conn, &standing);
	reach = &conn->reach[AT_TX];
	reach->last_ts = bpf_ktime_get_ns();
	if (conn->protocol == PROTOCOL_HTTP1 && conn->sent_ahead > conn->captured_end[AT_TX]) {
		conn->dirty[AT_TX] = 1;
		thread->dirty_sk = (__u64)sk;
	}
	if (!cut)
		return;
	conn->sent_ahead = reach->end;
	reach->tail_len = 0;
	if (ahead->sk != (__u64)sk)
		return;
	__builtin_memcpy(reach->tail, ahead->tail, AT_TAIL_MAX);
	reach->tail_len = ahead->tail_len;
	bytes = ahead->bytes;
	if (reach->end > ahead->position)
		keep_tail(reach, &bytes, reach->end - ahead->position);
}

/* `ahead`: no program sees the end of the send, unless something of its memory cannot be read now. */
static __always_inline void send_begins(const struct at_watched *process, struct thread *thread,
					struct sock *sk, const struct standing *standing,
					struct user_bytes *bytes, bool ahead)
{
	struct conn *conn = find_conn(sk);
	struct tls_call *go_call = 0;
	struct at_context at;
	__u64 cause = 0, position;
	bool bound;

	if (!can_send(standing))
		return;
	if (!conn)
		conn = make_conn(sk, AT_CONN_ESTABLISHED);
	if (!conn)
		return;
	if (!conn->tls) {
		thread->sending_sk = (__u64)sk;
		thread->unread = 0;
		thread->tail_wanted = 0;
		thread->ahead.sk = 0;
		if (conn->speaker != AT_TX)
			cause = take_cause(thread, conn->id);
		if (bytes->pieces && !bytes->length)
			bytes->length = pieces_length(bytes->base, bytes->pieces);
		if (!bytes->length || (conn->protocol == PROTOCOL_STOPPED && !conn->asks_tunnel)) {
			if (ahead)
				thread->sending_sk = 0;
			return;
		}
		fill_context(&at, process, thread, bpf_ktime_get_ns(), cause);
		position = sent_position(conn, standing);
		thread->unread = !capture(conn, sk, AT_TX, position, bytes, &at);
		thread->tail_wanted = wants_tail(conn, AT_TX, position + bytes->length);
		if (!conn->tls) { /* nor have these bytes shown that it is */
			if (!ahead || thread->unread)
				return;
			count_ahead(conn, sk, thread, position, bytes->length);
			if (keep_tail_ahead(conn, sk, thread, position, bytes))
				thread->sending_sk = 0;
			else
				thread->unread = 1;
			return;
		}
		thread->sending_sk = 0;
	}
	bound = conn->ssl;
	tls_bytes_move((__u64)sk, AT_TX);
	/* Go's first write may make the handshake, which begins with this. */
	if (!bound && conn->ssl)
		go_call = go_call_inside();
	capture_waiting_write(process, thread, go_call ? go_call : &thread->tls_call, (__u64)sk, conn);
}

/* The thread has received bytes of HTTP/2, which it may now hand to nghttp2 or grpc-core: see bpf/grpc/sessions.h. */
static __always_inline void frames_received(struct thread *thread, const struct conn *conn, __u64 sk,
					    const struct user_bytes *bytes)
{
	if (conn->protocol != PROTOCOL_HTTP2)
		return;
	thread->http2_received = thread->http2_received ? SEVERAL : sk;
	thread->http2_length = bytes->length;
	thread->http2_last = 0;
	if (conn->flags & AT_CONN_FROM_START)
		return;
	thread->http2_last = sk;
	thread->http2_buffer = bytes->pieces ? first_of_pieces(bytes->base, bytes->skip) : bytes->base;
}

/* A send whose bytes are not in user memory (sendfile, splice): they are only counted. */
static __always_inline void send_unseen_begins(struct sock *sk)
{
	struct thread *thread = current_thread();

	struct conn *conn = find_conn(sk);

	if (thread && conn && !conn->tls) {
		thread->sending_sk = (__u64)sk;
		thread->unread = 0;
		thread->tail_wanted = 0;
	}
}

/* The same where no program sees the end of the send, which is of `length` bytes. */
static __always_inline void send_unseen_ahead(struct sock *sk, const struct standing *standing, __u64 length)
{
	struct thread *thread = current_thread();
	struct conn *conn = find_conn(sk);

	if (!thread || !conn || conn->tls || !can_send(standing) || conn->protocol == PROTOCOL_STOPPED)
		return;
	count_ahead(conn, sk, thread, sent_position(conn, standing), length);
	conn->reach[AT_TX].tail_len = 0;
}

/* Does the end of the sending call in progress look at its bytes? */
static __always_inline bool end_needs_bytes(const struct thread *thread)
{
	return thread->unread || thread->tail_wanted;
}

/* `taken` is what the call returned, `bytes` what it was given (nothing if that is not in user memory, or not
 * needed). */
static __always_inline void send_ends(struct thread *thread, const struct standing *standing,
				      struct user_bytes *bytes, __s64 taken)
{
	struct sock *sk = (struct sock *)thread->sending_sk;
	__u64 now = bpf_ktime_get_ns(), end;
	struct conn *conn = find_conn(sk);
	struct at_watched *process;
	struct at_context at;

	thread->sending_sk = 0;
	if (!conn || taken <= 0 || conn->protocol == PROTOCOL_STOPPED)
		return;
	end = conn->family == AF_UNIX ? conn->reach[AT_TX].end + taken : sent_position(conn, standing);
	bytes->length = taken;
	if (thread->unread && bytes->base) {
		process = current_watched();
		if (!process)
			return;
		fill_context(&at, process, thread, now, 0);
		capture(conn, sk, AT_TX, end - taken, bytes, &at);
	}
	moved(conn, AT_TX, end, bytes, now);
	if (conn->dirty[AT_TX])
		thread->dirty_sk = (__u64)sk;
}

/* Before a thread's next request is told, what it sent for the last one is: user space then knows whether that
 * one is over. */
static __always_inline void tell_what_was_sent(struct thread *thread, struct sock *receiving)
{
	struct standing standing;
	struct conn *dirty;

	if (!thread->dirty_sk || thread->dirty_sk == (__u64)receiving)
		return;
	dirty = find_conn((struct sock *)thread->dirty_sk);
	if (dirty && dirty->announced && dirty->dirty[AT_TX]) {
		standing = standing_of((struct sock *)thread->dirty_sk);
		catch_up(dirty, &standing);
		send_progress(dirty, AT_TX);
	}
	thread->dirty_sk = 0;
}

/* `got` is what the call returned: bytes, 0 at the end of the stream, or a negative errno. */
static __always_inline void receive_ends(const struct at_watched *process, struct thread *thread,
					 struct sock *sk, const struct standing *standing,
					 struct user_bytes *bytes, __s64 got)
{
	__u64 now = bpf_ktime_get_ns(), end;
	struct conn *conn = find_conn(sk);
	struct at_context at;

	if (got <= 0) {
		/* The end of a stream makes an event loop act too, like bytes do. */
		if (conn) {
			set_cause(thread, conn->id);
			if (conn->ended && !conn->tls)
				close_conn(sk, conn, conn->error);
		}
		return;
	}
	if (!conn) {
		if (standing->state == TCP_CLOSE)
			return;
		conn = make_conn(sk, AT_CONN_ESTABLISHED);
		if (!conn)
			return;
		/* It was made after these bytes were taken. */
		if (conn->family != AF_UNIX)
			conn->reach[AT_RX].end -= got;
	}
	set_cause(thread, conn->id);
	if (conn->tls) {
		tls_bytes_move((__u64)sk, AT_RX);
		return;
	}
	thread->tls_received = 0;
	end = received_position(conn, standing, got);
	if (conn->speaker != AT_RX) {
		tell_what_was_sent(thread, sk);
		catch_up(conn, standing);
	}
	bytes->length = got;
	fill_context(&at, process, thread, now, 0);
	capture(conn, sk, AT_RX, end - got, bytes, &at);
	if (conn->tls) { /* as these bytes have shown */
		tls_bytes_move((__u64)sk, AT_RX);
		return;
	}
	moved(conn, AT_RX, end, bytes, now);
	frames_received(thread, conn, (__u64)sk, bytes);
	if (conn->ended && !has_unread_bytes(sk))
		close_conn(sk, conn, conn->error);
}

/* A receive whose bytes do not come to user memory (splice, MSG_TRUNC). */
static __always_inline void receive_unseen_ends(struct sock *sk, const struct standing *standing, __s64 got)
{
	struct thread *thread = current_thread();
	struct user_bytes nowhere = {};
	struct conn *conn = find_conn(sk);

	if (!conn || !thread || got <= 0)
		return;
	set_cause(thread, conn->id);
	if (conn->tls)
		return;
	moved(conn, AT_RX, received_position(conn, standing, got), &nowhere, bpf_ktime_get_ns());
}

/* A connection that is only being made cannot be known: its socket's address had another one, whose end was not
 * seen (see sweep). */
static __always_inline void end_stale(struct sock *sk)
{
	struct conn *conn = find_conn(sk);

	if (conn)
		close_conn(sk, conn, conn->error);
}

/* connect() has begun (TCP: the socket went to SYN_SENT). */
static __always_inline struct conn *connect_begins(const struct at_watched *process, struct sock *sk)
{
	struct thread *thread = current_thread();
	struct at_context opened = {};
	struct conn *conn;

	if (!thread)
		return 0;
	fill_context(&opened, process, thread, bpf_ktime_get_ns(), take_cause(thread, 0));
	end_stale(sk);
	conn = make_conn(sk, AT_CONN_FROM_START | AT_CONN_OUTGOING);
	if (conn)
		conn->opened = opened;
	return conn;
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
	end_stale(sk);
	/* Bytes that came before accept() was called are in the queue, not yet read: nothing was missed. */
	make_conn(sk, AT_CONN_FROM_START | AT_CONN_ESTABLISHED);
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

/* A socket is released: for its program the connection is over. TCP may go on for as long as the other end likes
 * (FIN_WAIT_2), or have done with it before. One that was never made ends with TCP's state, which says why. */
static __always_inline void released(struct sock *sk)
{
	struct conn *conn = find_conn(sk);
	struct standing standing;

	if (conn && (conn->flags & AT_CONN_ESTABLISHED)) {
		standing = standing_of(sk);
		catch_up(conn, &standing);
		close_conn(sk, conn, conn->error);
	}
}

/* A thread that is not known has not done anything yet whose run would matter. */
static __always_inline void waited(void)
{
	struct thread *thread = known_thread();

	if (thread)
		thread->run++;
}

static __always_inline void tcp_state_changes(struct sock *sk, int state)
{
	struct conn *conn = find_conn(sk);
	struct at_watched *process;
	struct standing standing;

	if (conn && (conn->flags & AT_CONN_ESTABLISHED)) {
		/* The socket still has its old state; in the new one its last number may count a FIN. */
		standing = standing_of(sk);
		catch_up(conn, &standing);
	}
	if (state == TCP_SYN_SENT) {
		process = current_watched();
		if (process)
			connect_begins(process, sk);
	} else if (conn && state == TCP_ESTABLISHED) {
		/* The sequence numbers are chosen between SYN_SENT and here. */
		start_positions(conn, sk);
		conn->flags |= AT_CONN_ESTABLISHED;
	} else if (conn && state == TCP_CLOSE) {
		conn->error = BPF_CORE_READ(sk, sk_err);
		if (conn->announced && (conn->tls ? !is_released(sk) : has_unread_bytes(sk)))
			conn->ended = 1;
		else
			close_conn(sk, conn, conn->error);
	}
}

#endif
