/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Which connection a TLS session belongs to.
 *
 * A library that reads and writes the socket itself does it inside a call that a program of bpf/tls sees: that is
 * certain. Where the application moves the ciphertext (memory BIOs), there are two signs:
 *
 *   received   the thread received from just one TLS connection, then called the library to read from this session
 *              (or to write the first bytes of it, which can end the handshake)
 *   sent       the thread called the library for just this session, then sent on a TLS connection. Sessions and
 *              connections that are bound do not count, nor do more calls for the one that was sent for last.
 *              If it called for several, the last of them counts where it agrees with what was received.
 *
 * both without a wait between. One sign is not believed, for either can be an accident of buffering; one of each
 * kind for the same pair is, if none spoke for another connection of the session, or another session of the
 * connection, in between. From then on every sign of the first
 * kind must agree, or the session is given up.
 *
 * TLS in TLS: what a session says can be the records of another one. That session's connection is found in the same way,
 * with the calls for the first, which carries it, in the place of the socket's. There are two layers at most: what is
 * inside the second is not looked at.
 */
#ifndef AUTOTRACE_TLS_BINDING_H
#define AUTOTRACE_TLS_BINDING_H

#include "../include/context.h"

enum sign {
	SIGN_RECEIVED = 1,
	SIGN_SENT = 2,
	SIGN_BOTH = 3,
};

/* Turns of a TLS handshake before which no plaintext can have passed: the hello of each side. */
#define HELLO_TURNS 2

/* Where the positions of an inner session's plaintext begin. Before it, the session that carries it may have said
 * something else on the same connection: a byte of that must not have the same name. */
#define INNER_POSITIONS (1ULL << 48)

#define TLS_RECORD_LOOK 3 /* bytes that tell a TLS record */

/* Does a turn start with a TLS record (RFC 8446 section 5.1): a handshake, or what a connection older than the agent
 * is in the middle of? */
static __always_inline bool starts_tls_record(const __u8 *data, __u32 length)
{
	return length >= TLS_RECORD_LOOK && data[0] >= 0x14 && data[0] <= 0x17 && data[1] == 3 &&
	       data[2] <= 4;
}

static __always_inline struct tls_session *find_session(__u64 session)
{
	struct tls_key key = {.session = session, .tgid = bpf_get_current_pid_tgid() >> 32};

	return bpf_map_lookup_elem(&tls_sessions, &key);
}

/* From here on what the connection carries is the plaintext, of which nothing has moved yet. */
static __always_inline void start_plaintext(struct conn *conn)
{
	conn->speaker = TURN_NONE;
	conn->turn = 0;
	__builtin_memset(conn->reach, 0, sizeof(conn->reach));
	__builtin_memset(conn->turn_start, 0, sizeof(conn->turn_start));
	__builtin_memset(conn->captured_end, 0, sizeof(conn->captured_end));
	__builtin_memset(conn->body_end, 0, sizeof(conn->body_end));
	__builtin_memset(conn->in_head, 0, sizeof(conn->in_head));
	__builtin_memset(conn->told, 0, sizeof(conn->told));
	__builtin_memset(conn->skip, 0, sizeof(conn->skip));
	__builtin_memset(conn->dirty, 0, sizeof(conn->dirty));
}

/* The TCP sequence number up to which a direction has come; 0 if it is no TCP. */
static __always_inline __u32 wire_position(const struct conn *conn, __u64 sk, __u32 direction)
{
	struct tcp_sock *tcp = (struct tcp_sock *)sk;

	if (conn->family == AF_UNIX)
		return 0;
	return direction == AT_TX ? BPF_CORE_READ(tcp, write_seq) : BPF_CORE_READ(tcp, copied_seq);
}

/* What the connection says is TLS records: its own bytes, or the plaintext of its session. The turn that began with them
 * goes on being counted as such until a session is bound: see HELLO_TURNS. */
static __always_inline void mark_tls(struct conn *conn)
{
	__u32 turn = conn->turn;
	__u8 speaker = conn->speaker;

	if (!conn->tls)
		conn->heard = conn->reach[AT_RX].end;
	start_plaintext(conn);
	conn->turn = turn;
	conn->speaker = speaker;
	if (conn->tls) {
		conn->nested = 1;
		return;
	}
	conn->tls = 1;
	conn->flags |= AT_CONN_TLS;
	count(AT_TLS_CONNS);
}

/* The session whose plaintext is captured; 0 if it is not known yet. */
static __always_inline __u64 plaintext_session(const struct conn *conn)
{
	return conn->nested ? conn->inner : conn->ssl;
}

/* Where its positions begin. */
static __always_inline __u64 first_position(const struct conn *conn)
{
	return conn->nested ? INNER_POSITIONS : 0;
}

/* Is what the session `id` says on its connection the records of another one? */
static __always_inline bool carries(const struct conn *conn, __u64 id)
{
	return conn->nested && conn->ssl == id;
}

/* The connection of a session; 0 if it is not known or over. */
static __always_inline struct conn *session_conn(struct tls_session *session)
{
	__u64 key = session->sk;
	struct conn *conn = key ? bpf_map_lookup_elem(&conns, &key) : 0;

	return conn && conn->id == session->conn_id && !session->given_up ? conn : 0;
}

static __always_inline void give_up(struct tls_session *session)
{
	session->given_up = 1;
	count(AT_TLS_CONFLICTS);
}

/* `session` is that of the TLS connection `sk`. A global function: see iov.h. */
__noinline int bind_session(__u64 id, __u64 sk, __u32 by_signs)
{
	struct tls_session *session = find_session(id);
	struct conn *conn = bpf_map_lookup_elem(&conns, &sk);
	__u64 bound;

	if (!session || !conn || !conn->tls || session->given_up)
		return 0;
	if (session->sk && session_conn(session)) {
		if (session->sk != sk)
			give_up(session);
		return 0;
	}
	bound = plaintext_session(conn);
	/* Another session speaks on it: the one nearer to the socket came first. */
	if (bound && bound != id && !carries(conn, id))
		return 0;
	session->sk = sk;
	session->conn_id = conn->id;
	session->by_signs = by_signs;
	if (bound == id || carries(conn, id)) /* a forked child goes on with it */
		return 1;
	if (!session->from_start &&
	    (conn->turn > HELLO_TURNS || session->position[0] || session->position[1]))
		conn->flags &= ~AT_CONN_FROM_START;
	if (conn->nested)
		conn->inner = id;
	else
		conn->ssl = id;
	start_plaintext(conn);
	conn->reach[AT_RX].end = first_position(conn) + session->position[AT_RX];
	conn->reach[AT_TX].end = first_position(conn) + session->position[AT_TX];
	return 1;
}

/* A sign that the session `id` is that of the connection `sk`; `carrier` is the session that moved its records, 0 if it
 * was the socket. A global function: see iov.h. */
__noinline int take_sign(__u64 id, __u64 sk, __u64 carrier, __u32 sign)
{
	struct tls_session *session = find_session(id);
	struct conn *conn = bpf_map_lookup_elem(&conns, &sk);

	if (!session || !conn || id == carrier)
		return 0;
	if (session_conn(session)) {
		if (session->by_signs && sign == SIGN_RECEIVED && session->sk != sk)
			give_up(session);
		return 0;
	}
	if (conn->ssl != carrier || conn->inner)
		return 0;
	if (session->candidate != sk || session->candidate_id != conn->id || conn->claim != id) {
		conn->claim = id;
		session->candidate = sk;
		session->candidate_id = conn->id;
		session->signs = 0;
	}
	session->signs |= sign;
	if (session->signs == SIGN_BOTH)
		bind_session(id, sk, 1);
	return 0;
}

/* Has a sign spoken for this pair, and none for another one since? */
static __always_inline bool agrees(__u64 id, const struct conn *conn, __u64 sk)
{
	struct tls_session *session = find_session(id);

	return session && session->signs && session->candidate == sk && session->candidate_id == conn->id &&
	       conn->claim == id;
}

/* Is the thread inside a call of a TLS library? A wait inside it would be one whose end was not seen. */
static __always_inline bool in_tls_call(const struct thread *thread)
{
	return thread->tls_call.session && thread->tls_call.run == thread->run;
}

/* The call of crypto/tls that the goroutine on this thread is inside; 0 if it is in none, or not Go. */
static __always_inline struct tls_call *go_call_inside(void)
{
	struct tls_key key = {.session = arch_go_g(), .tgid = bpf_get_current_pid_tgid() >> 32};

	return key.session ? bpf_map_lookup_elem(&go_tls_calls, &key) : 0;
}

static __always_inline void forget_old_signs(struct thread *thread)
{
	if (thread->tls_run == thread->run)
		return;
	thread->tls_run = thread->run;
	thread->tls_received = 0;
	thread->tls_called = 0;
	thread->tls_sent = 0;
}

static __always_inline void keep_one(__u64 *slot, __u64 value)
{
	if (!*slot)
		*slot = value;
	else if (*slot != value)
		*slot = SEVERAL;
}

/* The thread moves TLS records, and is in no call of the library for their session: what that tells of the session.
 * `from` is the connection `sk`, or `carrier` if it moved them; `bound` is the session, if it is known. */
static __always_inline void keep_signs(struct thread *thread, struct conn *conn, __u64 sk, __u64 carrier,
				       __u64 bound, __u32 direction)
{
	forget_old_signs(thread);
	if (direction == AT_RX) {
		keep_one(&thread->tls_received, carrier ? carrier : sk);
		return;
	}
	if (bound)
		return;
	if (thread->tls_called > SEVERAL)
		take_sign(thread->tls_called, sk, carrier, SIGN_SENT);
	else if (thread->tls_called == SEVERAL && agrees(thread->tls_last, conn, sk))
		take_sign(thread->tls_last, sk, carrier, SIGN_SENT);
	thread->tls_sent = thread->tls_called;
	thread->tls_called = 0;
}

/* The thread moves bytes of the TLS connection `sk`. A global function: see iov.h. */
__noinline int tls_bytes_move(__u64 sk, __u32 direction)
{
	struct conn *conn = bpf_map_lookup_elem(&conns, &sk);
	struct thread *thread = known_thread();
	struct tls_call *go_call;
	__u64 inside;

	if (!conn || !thread)
		return 0;
	if (!conn->ssl && conn->speaker != direction) {
		conn->speaker = direction;
		conn->turn++;
	}
	if (!conn->ssl && direction == AT_TX)
		conn->heard = wire_position(conn, sk, AT_RX);
	inside = in_tls_call(thread) ? thread->tls_call.session : 0;
	if (inside && inside == conn->ssl)
		return 0;
	if (!inside && !conn->ssl) {
		go_call = go_call_inside();
		inside = go_call ? go_call->session : 0;
	}
	if (inside) {
		bind_session(inside, sk, 0);
		return 0;
	}
	keep_signs(thread, conn, sk, 0, conn->ssl, direction);
	return 0;
}

/* The thread received TLS records from `from`, then called the library for the session `id`. */
static __always_inline void take_received_sign(__u64 id, __u64 from)
{
	/* The address of a session is one of user memory, that of a socket is not. */
	struct tls_session *carrier = (__s64)from > 0 ? find_session(from) : 0;

	if (carrier)
		take_sign(id, carrier->sk, from, SIGN_RECEIVED);
	else
		take_sign(id, from, 0, SIGN_RECEIVED);
}

/* The thread calls its library for a session; `reads` if that can consume what was received. */
static __always_inline void tls_session_used(struct thread *thread, struct tls_session *session, __u64 id,
					     bool reads)
{
	forget_old_signs(thread);
	if (reads && thread->tls_received != id) {
		if (thread->tls_received > SEVERAL)
			take_received_sign(id, thread->tls_received);
		thread->tls_received = 0;
	}
	if (session->sk)
		return;
	thread->tls_last = id;
	if (thread->tls_called || thread->tls_sent != id)
		keep_one(&thread->tls_called, id);
}

#endif
