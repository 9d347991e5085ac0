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

static __always_inline void capture_write(const struct at_watched *process, struct thread *thread, __u64 sk,
					  struct conn *conn, struct user_bytes *bytes)
{
	__u64 cause = conn->speaker == AT_TX ? 0 : take_cause(thread, conn->id);
	struct at_context at;

	fill_context(&at, process, thread, bpf_ktime_get_ns(), cause);
	capture((struct sock *)sk, AT_TX, conn->reach[AT_TX].end, bytes, &at);
}

/* A call of the library begins. `direction` is that of its plaintext, of which up to `length` bytes stand, or will
 * stand, at `buffer`. `done` is where the library will say how many they were, 0 if its result says that. */
static __always_inline void tls_call_begins(__u64 id, __u32 direction, __u64 buffer, __u64 length, __u64 done)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? current_thread() : 0;
	struct user_bytes bytes = one_buffer(buffer, length);
	struct tls_session *session;
	struct conn *conn;

	if (!thread || !id)
		return;
	session = find_session(id);
	if (!session)
		session = add_session(id, 0);
	if (!session)
		return;
	/* A first write can be what ends the handshake, with what was received (Node). */
	tls_session_used(thread, session, id, direction != AT_TX || is_fresh(session));
	thread->tls_call.session = id;
	thread->tls_call.buffer = buffer;
	thread->tls_call.length = length;
	thread->tls_call.done = done;
	thread->tls_call.run = thread->run;
	thread->tls_call.direction = direction;
	thread->tls_call.captured = 0;
	if (direction != AT_TX || !length || !buffer)
		return;
	conn = session_conn(session);
	if (!conn)
		return;
	capture_write(process, thread, session->sk, conn, &bytes);
	thread->tls_call.captured = 1;
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
	capture((struct sock *)sk, AT_RX, from, bytes, &at);
	moved(conn, AT_RX, from + bytes->length, bytes, now);
}

static __always_inline void plaintext_sent(const struct at_watched *process, struct thread *thread, __u64 sk,
					   struct conn *conn, struct user_bytes *bytes)
{
	/* Its connection became known inside the call only. */
	if (!thread->tls_call.captured && bytes->base)
		capture_write(process, thread, sk, conn, bytes);
	moved(conn, AT_TX, conn->reach[AT_TX].end + bytes->length, bytes, bpf_ktime_get_ns());
	if (conn->dirty[AT_TX])
		thread->dirty_sk = sk;
}

/* The call of the library that the thread is in has returned `result`. */
static __always_inline void tls_call_ends(__s64 result)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? known_thread() : 0;
	struct tls_session *session;
	struct user_bytes bytes;
	struct conn *conn;
	__u32 direction;
	__u64 moved_bytes = 0;

	if (!thread || !thread->tls_call.session)
		return;
	session = find_session(thread->tls_call.session);
	thread->tls_call.session = 0;
	direction = thread->tls_call.direction;
	if (!session || result <= 0 || direction == TLS_NO_BYTES)
		return;
	if (!thread->tls_call.done)
		moved_bytes = result;
	else if (bpf_probe_read_user(&moved_bytes, sizeof(moved_bytes), (void *)thread->tls_call.done))
		count(AT_READ_FAULTS);
	/* No more than it was given, whatever stands there. */
	if (!moved_bytes || moved_bytes > thread->tls_call.length)
		return;
	conn = session_conn(session);
	if (!conn) {
		session->position[direction & 1] += moved_bytes;
		count(AT_TLS_UNBOUND);
		return;
	}
	bytes = one_buffer(thread->tls_call.buffer, moved_bytes);
	if (direction == AT_RX)
		plaintext_received(process, thread, session->sk, conn, &bytes);
	else
		plaintext_sent(process, thread, session->sk, conn, &bytes);
}

#endif
