/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* For which request Node makes a call: autotrace/probes/libraries/node_calls.toml says which program stands where.
 *
 * nghttp2 hands Node what it has received frame by frame, out of nghttp2_session_mem_recv. Node calls JavaScript for a
 * frame, and what JavaScript left to do at once (process.nextTick, promises) is done before it returns. So a call that
 * is begun in between is begun because of the last frame that was handed over.
 */
#ifndef AUTOTRACE_GRPC_NODE_CALLS_H
#define AUTOTRACE_GRPC_NODE_CALLS_H

#include "recognise.h"
#include "sessions.h"

/* nghttp2.h: typedef struct { size_t length; int32_t stream_id; uint8_t type, flags, reserved; } nghttp2_frame_hd; a
 * nghttp2_frame begins with one. */
#define FRAME_STREAM_ID 8

/* The session `id` is handed `length` bytes. */
static __always_inline void session_receives(struct thread *thread, __u64 id, __u64 length)
{
	__u64 sk = thread->http2_received;

	thread->http2_received = 0;
	if (sk > SEVERAL && thread->http2_length == length)
		take_session_sign(id, sk);
}

/* The id of the connection that a session is on; 0 if it is not known, or has any of these flags. */
static __always_inline __u64 conn_of(__u64 id, __u32 unwanted)
{
	const struct http2_session *session = known_session(id, unwanted);

	return session ? session->conn_id : 0;
}

/* This thread, if `session` is handing over what it received. */
static __always_inline struct thread *thread_handling(__u64 session)
{
	struct thread *thread = current_watched() ? known_thread() : 0;

	return thread && thread->http2_handled == session ? thread : 0;
}

/* ssize_t nghttp2_session_mem_recv(nghttp2_session *session, const uint8_t *in, size_t inlen) */
SEC("uprobe")
int node_receives(struct pt_regs *ctx)
{
	struct thread *thread = current_watched() ? known_thread() : 0;
	__u64 session = ARCH_PARAM0(ctx);

	if (!thread)
		return 0;
	session_receives(thread, session, ARCH_PARAM2(ctx));
	thread->http2_handled = session;
	thread->http2_stream = 0;
	thread->http2_run = thread->run;
	return 0;
}

SEC("uprobe")
int node_received(struct pt_regs *ctx)
{
	struct thread *thread = current_watched() ? known_thread() : 0;

	if (thread)
		thread->http2_handled = 0;
	return 0;
}

/* static int Http2Session::OnFrameReceive(nghttp2_session *session, const nghttp2_frame *frame, void *user_data): a whole
 * frame, of DATA its end. The others than these two do not say that a request has come. */
SEC("uprobe")
int node_frame_received(struct pt_regs *ctx)
{
	struct thread *thread = thread_handling(ARCH_PARAM0(ctx));
	struct {
		__u32 stream;
		__u8 type, flags, reserved, pad;
	} frame = {};

	if (!thread)
		return 0;
	thread->http2_stream = 0;
	if (bpf_probe_read_user(&frame, sizeof(frame), (void *)(ARCH_PARAM1(ctx) + FRAME_STREAM_ID)))
		return 0;
	if (frame.type == FRAME_HEADERS || frame.type == FRAME_DATA)
		thread->http2_stream = frame.stream;
	return 0;
}

/* static int Http2Session::OnDataChunkReceived(nghttp2_session *session, uint8_t flags, int32_t id, ...) */
SEC("uprobe")
int node_data_received(struct pt_regs *ctx)
{
	struct thread *thread = thread_handling(ARCH_PARAM0(ctx));

	if (thread)
		thread->http2_stream = ARCH_PARAM2(ctx);
	return 0;
}

/* int32_t nghttp2_submit_request(nghttp2_session *session, ...) */
SEC("uprobe")
int node_call_begins(struct pt_regs *ctx)
{
	struct thread *thread = current_watched() ? known_thread() : 0;

	if (!thread)
		return 0;
	thread->http2_calling = 0;
	if (thread->http2_handled && thread->http2_stream && thread->http2_run == thread->run)
		thread->http2_calling = ARCH_PARAM0(ctx);
	return 0;
}

/* It returns the number of the stream, or an error, which is negative. */
SEC("uprobe")
int node_call_begun(struct pt_regs *ctx)
{
	struct thread *thread = current_watched() ? known_thread() : 0;
	__s32 stream = ARCH_RESULT(ctx);
	struct claim claim;
	__u64 conn, cause;

	if (!thread || !thread->http2_calling || stream <= 0)
		return 0;
	conn = conn_of(thread->http2_calling, 0);
	/* What is received on a connection of one's own making are answers. */
	cause = conn_of(thread->http2_handled, AT_CONN_OUTGOING);
	thread->http2_calling = 0;
	if (!conn || !cause)
		return 0;
	begin_claim(&claim, AT_TX, stream);
	claim.event.h.conn = conn;
	claim.event.cause = cause;
	claim.event.cause_stream = thread->http2_stream;
	send_claim_alone(&claim);
	return 0;
}

#endif
