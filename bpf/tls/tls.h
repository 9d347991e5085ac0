/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The plaintext of TLS sessions, whatever the library: programs of a library (openssl.bpf.c) turn its calls into these
 * and do nothing else.
 *
 * Plaintext is captured as a socket's bytes are, on the connection that carries it: a write when it begins, a read
 * when it ends. Positions count the bytes of the session from 0, so both ends agree on them.
 */
#ifndef AUTOTRACE_TLS_H
#define AUTOTRACE_TLS_H

#include "../socket/core.h"

#define TLS_NO_BYTES 2 /* a call that moves no plaintext; the other values are enum at_direction */

static __always_inline struct tls_session *add_session(__u64 id, bool from_start)
{
	struct tls_key key = {.session = id, .tgid = bpf_get_current_pid_tgid() >> 32};
	struct tls_session fresh = {.from_start = from_start};

	if (bpf_map_update_elem(&tls_sessions, &key, &fresh, BPF_ANY)) {
		count(AT_TLS_FULL);
		return 0;
	}
	return bpf_map_lookup_elem(&tls_sessions, &key);
}

static __always_inline void session_begins(__u64 id)
{
	if (id && current_watched())
		add_session(id, 1);
}

static __always_inline void session_ends(__u64 id)
{
	struct tls_key key = {.session = id, .tgid = bpf_get_current_pid_tgid() >> 32};

	if (current_watched())
		bpf_map_delete_elem(&tls_sessions, &key);
}

/* Has no plaintext moved yet? */
static __always_inline bool is_fresh(const struct tls_session *session)
{
	return !session->sk && !session->position[AT_RX] && !session->position[AT_TX];
}

/* `call` of the library begins: see tls_call_begins. */
static __always_inline void call_begins(const struct at_watched *process, struct thread *thread,
					struct tls_session *session, struct tls_call *call, __u64 id,
					__u32 direction, __u64 buffer, __u64 length, __u64 done)
{
	struct user_bytes bytes = one_buffer(buffer, length);
	struct conn *conn;

	call->session = id;
	call->buffer = buffer;
	call->length = length;
	call->done = done;
	call->run = thread->run;
	call->direction = direction;
	call->captured = 0;
	call->outer = 0;
	if (direction != AT_TX || !length || !buffer)
		return;
	conn = session_conn(session);
	if (!conn)
		return;
	capture_write(process, thread, session->sk, conn, &bytes);
	call->captured = 1;
}

static __always_inline struct tls_session *find_or_add_session(__u64 id)
{
	struct tls_session *session = find_session(id);

	return session ? session : add_session(id, 0);
}

/* A call of the library begins. `direction` is that of its plaintext, of which up to `length` bytes stand, or will
 * stand, at `buffer`. `done` is where the library will say how many they were, 0 if its result says that. A global
 * function: see iov.h. */
__noinline int tls_call_begins(__u64 id, __u32 direction, __u64 buffer, __u64 length, __u64 done)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? current_thread() : 0;
	struct tls_session *session;

	if (!thread || !id)
		return 0;
	if (in_tls_call(thread) && thread->tls_call.outer && thread->tls_call.session == id)
		return 0;
	session = find_or_add_session(id);
	if (!session)
		return 0;
	/* A first write can be what ends the handshake, with what was received (Node). */
	tls_session_used(thread, session, id, direction != AT_TX || is_fresh(session));
	call_begins(process, thread, session, &thread->tls_call, id, direction, buffer, length, done);
	return 0;
}

/* The call that has just begun is made of other calls of the library: they are not looked at. */
static __always_inline void tls_call_is_outer(void)
{
	struct thread *thread = current_watched() ? known_thread() : 0;

	if (thread)
		thread->tls_call.outer = 1;
}

/* The program asks what became of its early data. */
static __always_inline void tls_early_data_asked(__u64 id)
{
	struct thread *thread = current_watched() ? known_thread() : 0;

	if (thread)
		thread->tls_call =
			(struct tls_call){.session = id, .run = thread->run, .direction = TLS_NO_BYTES};
}

/* The other end has thrown away what was sent as early data: the program sends it again. These are the same bytes of
 * the stream, so they are no second request (RFC 8446 section 4.2.10). */
static __always_inline void tls_early_data_refused(void)
{
	struct thread *thread = current_watched() ? known_thread() : 0;
	struct tls_session *session = thread ? find_session(thread->tls_call.session) : 0;
	struct conn *conn;

	if (!session || !session->early)
		return;
	conn = session_conn(session);
	if (conn && conn->reach[AT_TX].end == session->early)
		conn->reach[AT_TX].end = 0;
	if (session->position[AT_TX] == session->early)
		session->position[AT_TX] = 0;
	session->early = 0;
}

static __always_inline void plaintext_received(const struct at_watched *process, struct thread *thread,
					       __u64 sk, struct conn *conn, struct user_bytes *bytes)
{
	__u64 now = bpf_ktime_get_ns(), from = conn->reach[AT_RX].end;
	struct at_context at;

	if (conn->speaker != AT_RX)
		tell_what_was_sent(thread, (struct sock *)sk);
	set_cause(thread, conn->id);
	fill_context(&at, process, thread, now, 0);
	capture(conn, (struct sock *)sk, AT_RX, from, bytes, &at);
	moved(conn, AT_RX, from + bytes->length, bytes, now);
	frames_received(thread, conn, sk, bytes->length);
}

static __always_inline void plaintext_sent(const struct at_watched *process, struct thread *thread, __u64 sk,
					   struct conn *conn, struct user_bytes *bytes, bool captured)
{
	/* Its connection became known inside the call only. */
	if (!captured && bytes->base)
		capture_write(process, thread, sk, conn, bytes);
	moved(conn, AT_TX, conn->reach[AT_TX].end + bytes->length, bytes, bpf_ktime_get_ns());
	if (conn->dirty[AT_TX])
		thread->dirty_sk = sk;
}

/* `call` of the library has returned `result`. */
static __always_inline void call_ends(const struct at_watched *process, struct thread *thread,
				      const struct tls_call *call, __s64 result)
{
	struct tls_session *session = find_session(call->session);
	__u32 direction = call->direction;
	__u64 moved_bytes = 0;
	struct user_bytes bytes;
	struct conn *conn;

	if (!session || result <= 0 || direction == TLS_NO_BYTES)
		return;
	if (!call->done)
		moved_bytes = result;
	else if (bpf_probe_read_user(&moved_bytes, sizeof(moved_bytes), (void *)call->done))
		count(AT_READ_FAULTS);
	/* No more than it was given, whatever stands there. */
	if (!moved_bytes || moved_bytes > call->length)
		return;
	if (call->outer && direction == AT_TX)
		session->early += moved_bytes;
	conn = session_conn(session);
	if (!conn) {
		session->position[direction & 1] += moved_bytes;
		count(AT_TLS_UNBOUND);
		return;
	}
	bytes = one_buffer(call->buffer, moved_bytes);
	if (direction == AT_RX)
		plaintext_received(process, thread, session->sk, conn, &bytes);
	else
		plaintext_sent(process, thread, session->sk, conn, &bytes, call->captured);
}

/* The call of the library that the thread is in has returned `result`; `outer` if it is one made of others. A global
 * function: see iov.h. */
__noinline int tls_call_ends(__s64 result, __u32 outer)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? known_thread() : 0;
	struct tls_call call;

	if (!thread || !thread->tls_call.session || thread->tls_call.outer > outer)
		return 0;
	call = thread->tls_call;
	thread->tls_call.session = 0;
	call_ends(process, thread, &call, result);
	return 0;
}

#endif
