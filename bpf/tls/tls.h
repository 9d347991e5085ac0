/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The plaintext of TLS sessions, whatever the library: programs of a library (openssl.bpf.c) turn its calls into these
 * and do nothing else.
 *
 * Plaintext is captured as a socket's bytes are, on the connection that carries it: a write when it begins, a read
 * when it ends. Positions count the bytes of the session from 0, so both ends agree on them.
 *
 * What a session moves can be the records of another one, whose library calls this one, or whose program does in between.
 * Of that only the inner one's plaintext is captured; see binding.h.
 */
#ifndef AUTOTRACE_TLS_H
#define AUTOTRACE_TLS_H

#include "../socket/core.h"

#define TLS_NO_BYTES 2 /* a call that moves no plaintext; the other values are enum at_direction */

/* A call of a C library, at its entry: its direction, and the stack pointer, which is a multiple of 8. */
#define TLS_CALL(ctx, direction) (ARCH_STACK(ctx) | (direction))
#define TLS_CALL_DIRECTION 3

/* What is said of a call whose plaintext is the records of another session: of one in whose call it was made. */
#define RECORDS_MOVE 1
#define RECORDS_OF_CALLER 2

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

/* The key of the goroutine `g`, or of this thread if that is 0. */
static __always_inline struct tls_key task_key(__u64 g)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct tls_key key = {.session = g ? g : (__u32)pid_tgid, .tgid = pid_tgid >> 32};

	return key;
}

/* `call` has called a library for another session. */
static __always_inline bool keep_caller(__u64 g, const struct tls_call *call)
{
	struct tls_key key = task_key(g);

	return !bpf_map_update_elem(&tls_callers, &key, call, BPF_ANY);
}

/* `call` is over: the one that it was made out of goes on. Returns 0 if there is none. */
static __always_inline bool take_caller(__u64 g, struct tls_call *call)
{
	struct tls_key key = task_key(g);
	struct tls_call *caller = call->nested ? bpf_map_lookup_elem(&tls_callers, &key) : 0;

	if (!caller)
		return 0;
	*call = *caller;
	bpf_map_delete_elem(&tls_callers, &key);
	return 1;
}

/* The session `id`, for which the thread is in a call (of the goroutine `g`, if that is not 0), moves the records of
 * another session. `nested` if the call was made out of another one. A global function: see iov.h. */
__noinline int records_move(__u64 id, __u32 direction, __u32 nested, __u64 g)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? known_thread() : 0;
	struct tls_session *session = find_session(id);
	struct tls_key key = task_key(g);
	struct tls_call *caller = nested ? bpf_map_lookup_elem(&tls_callers, &key) : 0;
	__u64 sk = session ? session->sk : 0;
	struct conn *conn = bpf_map_lookup_elem(&conns, &sk);

	if (!conn || !thread || !session || !carries(conn, id))
		return 0;
	session->conn_id = conn->id; /* another one, if a tunnel has just begun */
	if (!conn->inner && conn->speaker != direction) {
		conn->speaker = direction;
		conn->turn++;
	}
	if (!conn->inner && direction == AT_TX)
		conn->heard = wire_position(conn, sk, AT_RX);
	if (!caller) {
		keep_signs(thread, conn, sk, id, conn->inner, direction);
		return 0;
	}
	if (caller->session != conn->inner)
		bind_session(caller->session, sk, 0);
	capture_waiting_write(process, thread, caller, sk, conn);
	return 0;
}

/* `call` of the library begins, of which all is set but `captured`. Returns 1 if it moves the records of another session. */
static __always_inline bool call_begins(const struct at_watched *process, struct thread *thread,
					struct tls_session *session, struct tls_call *call)
{
	struct user_bytes bytes = one_buffer(call->buffer, call->length);
	struct conn *conn;

	if (call->direction != AT_TX || !call->length || !call->buffer)
		return 0;
	conn = session_conn(session);
	if (!conn)
		return 0;
	if (!carries(conn, call->session))
		capture_write(process, thread, session->sk, conn, &bytes, 0);
	call->captured = 1;
	return carries(conn, call->session); /* as these bytes may have shown */
}

static __always_inline struct tls_session *find_or_add_session(__u64 id)
{
	struct tls_session *session = find_session(id);

	return session ? session : add_session(id, 0);
}

/* The thread is in a call of the library from here on. `place` is TLS_CALL(). Of its plaintext up to `length` bytes stand,
 * or will stand, at `buffer`. `done` is where the library will say how many they were, 0 if its result says that. Returns
 * the session, or 0 if the call is not looked at. */
static __always_inline struct tls_session *enter_call(struct thread *thread, __u64 id, __u64 place,
						      __u64 buffer, __u64 length, __u64 done)
{
	__u32 direction = place & TLS_CALL_DIRECTION;
	struct tls_call *call = &thread->tls_call;
	__u64 stack = place - direction;
	struct tls_session *session;
	bool nested = 0;

	if (!id || (in_tls_call(thread) && call->outer && call->session == id))
		return 0;
	session = find_or_add_session(id);
	if (!session)
		return 0;
	/* Stacks grow down: a call that stands below this one is over, and its return was not seen. */
	if (in_tls_call(thread) && stack < call->stack)
		nested = call->session == id ? call->nested : keep_caller(0, call);
	/* A first write can be what ends the handshake, with what was received (Node). */
	tls_session_used(thread, session, id, direction != AT_TX || is_fresh(session));
	call->session = id;
	call->buffer = buffer;
	call->length = length;
	call->done = done;
	call->stack = stack;
	call->run = thread->run;
	call->direction = direction;
	call->captured = 0;
	call->outer = 0;
	call->nested = nested;
	return session;
}

/* A call of the library begins that has no plaintext yet; see enter_call. It is not what tls_write_begins is, because a
 * program that can capture takes the kernel a hundred times as long to verify. A global function: see iov.h. */
__noinline int tls_call_begins(__u64 id, __u64 place, __u64 buffer, __u64 length, __u64 done)
{
	struct thread *thread = current_watched() ? current_thread() : 0;

	return thread && enter_call(thread, id, place, buffer, length, done);
}

/* What tls_write_begins does, but that it only tells if the call moves the records of another session. A global function:
 * see iov.h. */
__noinline int thread_write_begins(__u64 id, __u64 place, __u64 buffer, __u64 length, __u64 done)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? current_thread() : 0;
	struct tls_session *session = thread ? enter_call(thread, id, place, buffer, length, done) : 0;

	if (!session || !call_begins(process, thread, session, &thread->tls_call))
		return 0;
	return thread->tls_call.nested ? RECORDS_OF_CALLER : RECORDS_MOVE;
}

/* A call of the library begins that is given its plaintext; see enter_call. */
static __always_inline void tls_write_begins(__u64 id, __u64 place, __u64 buffer, __u64 length, __u64 done)
{
	int records = thread_write_begins(id, place, buffer, length, done);

	if (records)
		records_move(id, AT_TX, records == RECORDS_OF_CALLER, 0);
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
	if (conn && conn->reach[AT_TX].end == first_position(conn) + session->early)
		conn->reach[AT_TX].end = first_position(conn);
	if (session->position[AT_TX] == session->early)
		session->position[AT_TX] = 0;
	session->early = 0;
}

static __always_inline void plaintext_received(const struct at_watched *process, struct thread *thread,
					       __u64 id, __u64 sk, struct conn *conn,
					       struct user_bytes *bytes)
{
	__u64 now = bpf_ktime_get_ns(), from = conn->reach[AT_RX].end;
	struct at_context at;

	if (conn->speaker != AT_RX)
		tell_what_was_sent(thread, (struct sock *)sk);
	set_cause(thread, conn->id);
	fill_context(&at, process, thread, now, 0);
	capture_plaintext(conn, (struct sock *)sk, AT_RX, from, bytes, &at, conn->heard,
			  wire_position(conn, sk, AT_RX));
	if (carries(conn, id)) /* as these bytes may have shown */
		return;
	moved(conn, AT_RX, from + bytes->length, bytes, now);
	frames_received(thread, conn, sk, bytes);
}

static __always_inline void plaintext_sent(const struct at_watched *process, struct thread *thread, __u64 id,
					   __u64 sk, struct conn *conn, struct user_bytes *bytes,
					   bool captured)
{
	/* Its connection became known inside the call only. */
	if (!captured && bytes->base)
		capture_write(process, thread, sk, conn, bytes, 1);
	if (carries(conn, id))
		return;
	moved(conn, AT_TX, conn->reach[AT_TX].end + bytes->length, bytes, bpf_ktime_get_ns());
	if (conn->dirty[AT_TX])
		thread->dirty_sk = sk;
}

/* `call` of the library has returned `result`. Returns 1 if it has moved the records of another session, and call_begins
 * could not tell that. */
static __always_inline bool call_ends(const struct at_watched *process, struct thread *thread,
				      const struct tls_call *call, __s64 result)
{
	struct tls_session *session = find_session(call->session);
	__u32 direction = call->direction;
	__u64 moved_bytes = 0;
	struct user_bytes bytes;
	struct conn *conn;

	if (!session || result <= 0 || direction == TLS_NO_BYTES)
		return 0;
	if (!call->done)
		moved_bytes = result;
	else if (bpf_probe_read_user(&moved_bytes, sizeof(moved_bytes), (void *)call->done))
		count(AT_READ_FAULTS);
	/* No more than it was given, whatever stands there. */
	if (!moved_bytes || moved_bytes > call->length)
		return 0;
	if (call->outer && direction == AT_TX)
		session->early += moved_bytes;
	conn = session_conn(session);
	if (!conn) {
		session->position[direction & 1] += moved_bytes;
		count(AT_TLS_UNBOUND);
		return 0;
	}
	bytes = one_buffer(call->buffer, moved_bytes);
	if (carries(conn, call->session))
		return !call->captured;
	if (direction == AT_RX)
		plaintext_received(process, thread, call->session, session->sk, conn, &bytes);
	else
		plaintext_sent(process, thread, call->session, session->sk, conn, &bytes, call->captured);
	return carries(conn, call->session); /* as these bytes may have shown */
}

/* The thread's call of the library has returned `result`. Returns what call_ends does. A global function: see iov.h. */
__noinline int thread_call_ends(__s64 result)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? known_thread() : 0;

	return thread && call_ends(process, thread, &thread->tls_call, result);
}

/* The call of the library that began with this stack pointer has returned `result`. Those that an outer one is made of
 * stand below it. */
static __always_inline void tls_call_ends(__s64 result, __u64 stack)
{
	struct thread *thread = current_watched() ? known_thread() : 0;
	struct tls_call *call;

	if (!thread)
		return;
	call = &thread->tls_call;
	if (!call->session || call->stack != stack)
		return;
	if (thread_call_ends(result))
		records_move(call->session, call->direction, call->nested, 0);
	if (!take_caller(0, call))
		call->session = 0;
}

#endif
