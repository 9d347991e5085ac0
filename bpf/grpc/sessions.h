/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Which connection an HTTP/2 session of a library (nghttp2's, or a transport of grpc-core) is on.
 *
 * It shows when the session is handed what was just received, in a way that depends on the library. That is believed when
 * four such signs in a row agree, for a program that holds back what it receives can make a false one. If one speaks
 * against it later, nothing more is said of the session.
 */
#ifndef AUTOTRACE_SESSIONS_H
#define AUTOTRACE_SESSIONS_H

#include "../include/claims.h"

#define SIGNS_BELIEVED 4

struct session_key {
	__u64 session;
	__u32 tgid;
	__u32 pad;
};

struct http2_session {
	__u64 sk; /* the socket of its connection */
	__u64 conn_id;
	__u32 signs; /* that have agreed on it */
	__u32 given_up;
	__u32 stream; /* grpc-core: the one whose fields come next; 0: none */
	__u32 pad;
};

/* Key: process and session (its address). The connection that it is on. Written where a session is handed something, read
 * by all programs of the library, deleted when the session is freed; the least used goes when room is needed. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct session_key);
	__type(value, struct http2_session);
} http2_sessions SEC(".maps");

static __always_inline struct session_key session_key(__u64 session)
{
	struct session_key key = {.session = session, .tgid = bpf_get_current_pid_tgid() >> 32};

	return key;
}

static __always_inline bool is_on(const struct http2_session *session, const struct conn *conn)
{
	return conn && conn->id == session->conn_id;
}

/* The session, if its connection is known, is still there and has none of these flags. */
static __always_inline struct http2_session *known_session(__u64 id, __u32 unwanted)
{
	struct session_key key = session_key(id);
	struct http2_session *session = bpf_map_lookup_elem(&http2_sessions, &key);
	struct conn *conn;

	if (!session || session->signs < SIGNS_BELIEVED || session->given_up)
		return 0;
	conn = bpf_map_lookup_elem(&conns, &session->sk);
	return is_on(session, conn) && !(conn->flags & unwanted) ? session : 0;
}

/* The same if its connection is older than the agent. */
static __always_inline struct http2_session *believed_session(__u64 id)
{
	return known_session(id, AT_CONN_FROM_START);
}

/* A sign that the session `id` is on the connection of the socket `sk`. */
static __always_inline void take_session_sign(__u64 id, __u64 sk)
{
	struct session_key key = session_key(id);
	struct http2_session *session = bpf_map_lookup_elem(&http2_sessions, &key);
	struct conn *conn = bpf_map_lookup_elem(&conns, &sk);
	struct http2_session fresh = {.sk = sk, .signs = 1};

	if (!conn)
		return;
	if (session && session->sk == sk && is_on(session, conn)) {
		if (session->signs < SIGNS_BELIEVED)
			session->signs++;
		return;
	}
	if (session && session->signs >= SIGNS_BELIEVED &&
	    is_on(session, bpf_map_lookup_elem(&conns, &session->sk))) {
		session->given_up = 1;
		return;
	}
	fresh.conn_id = conn->id;
	bpf_map_update_elem(&http2_sessions, &key, &fresh, BPF_ANY);
}

static __always_inline void session_ends(__u64 id)
{
	struct session_key key = session_key(id);

	if (current_watched())
		bpf_map_delete_elem(&http2_sessions, &key);
}

/* Did a client open the stream (RFC 9113 section 5.1.1)? The others are pushed: their requests give no spans. */
static __always_inline bool is_clients(__u32 stream)
{
	return stream & 1;
}

#endif
