/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Turn capture: the head of what each side says goes to user space, the rest is only counted. */
#ifndef AUTOTRACE_HTTP_TURNS_H
#define AUTOTRACE_HTTP_TURNS_H

#include "../include/conn.h"
#include "../include/iov.h"
#include "recognise.h"

/* Fill in and send the chunk whose data stands in `scratch`. Returns 0 if the ring had no room. */
static __always_inline bool send_chunk(struct conn *conn, struct scratch *scratch, __u32 direction,
				       __u64 position, __u32 length)
{
	struct at_chunk_event *event = &scratch->event;

	event->h.type = AT_CHUNK;
	event->h.ts = event->at.ts;
	event->h.conn = conn->id;
	event->h.pid = event->at.pid;
	event->h.tid = event->at.tid;
	event->position = position;
	event->turn = conn->turn;
	event->direction = direction;
	event->data_len = length;
	event->pad = 0;
	__builtin_memset(&event->other, 0, sizeof(event->other));
	if (!conn->told[direction & 1]) {
		/* Cleared first: if that side moves meanwhile, it is told again. */
		conn->dirty[!direction] = 0;
		event->other = conn->reach[!direction];
	}
	length &= 2 * AT_DATA_MAX - 1;
	if (length > AT_DATA_MAX)
		return 0;
	event->h.size = sizeof(*event) + length;
	if (bpf_ringbuf_output(&events, scratch, sizeof(*event) + length, wakeup_flag())) {
		if (!conn->told[direction & 1])
			conn->dirty[!direction] = 1;
		return 0;
	}
	conn->told[direction & 1] = 1;
	count(AT_SENT);
	return 1;
}

/* `bytes` move on `conn` in `direction`; the first of them has stream position `position`. Returns 0 if memory that
 * had to be read could not be: user memory that was never touched is not there before the call itself needs it.
 *
 * Positions make this idempotent: a write that was refused or cut short and is tried again starts at a
 * position that was captured already, and only what is new is sent.
 */
static __always_inline bool capture(struct conn *conn, struct sock *sk, __u32 direction, __u64 position,
				    const struct user_bytes *bytes, const struct at_context *at)
{
	__u64 call_end = position + bytes->length, from, window_end, captured_end;
	bool new_turn = conn->speaker != direction;
	__u32 zero = 0, length, wanted;
	enum message_start start;
	struct scratch *scratch;

	if (conn->protocol == PROTOCOL_STOPPED)
		return 1;
	if (new_turn) {
		conn->turn++;
		conn->speaker = direction;
		conn->turn_start[direction & 1] = position;
		conn->captured_end[direction & 1] = position;
		conn->told[direction & 1] = 0;
		conn->skip[direction & 1] = 0;
		conn->reach[direction & 1].tail_len = 0;
	}
	captured_end = conn->captured_end[direction & 1];
	from = captured_end > position ? captured_end : position;
	if (from >= call_end)
		return 1;
	scratch = bpf_map_lookup_elem(&scratches, &zero);
	if (!scratch)
		return 1;
	window_end = conn->turn_start[direction & 1] + head_size;
	if (from >= window_end || conn->skip[direction & 1]) {
		/* Past the head. A call that starts like a message is a pipelined one: it has a head too. */
		if (conn->protocol != PROTOCOL_HTTP1 || from != position)
			return 1;
		length = copy_bytes(bytes, 0, 8);
		if (!length)
			return 0;
		if (length < 5 || recognise(scratch->data, length) == START_NONE)
			return 1;
		conn->turn_start[direction & 1] = position;
		conn->skip[direction & 1] = 0;
		window_end = position + head_size;
	}
	if (window_end > call_end)
		window_end = call_end;
	wanted = window_end - from;
	length = copy_bytes(bytes, from - position, wanted);
	if (!length)
		return 0;
	start = recognise(scratch->data, length);
	if (conn->protocol == PROTOCOL_UNKNOWN) {
		if (start == START_NONE) {
			conn->skip[direction & 1] = 1;
			count(AT_UNRECOGNISED_TURNS);
			return 1;
		}
		conn->protocol = PROTOCOL_HTTP1;
	}
	if (!conn->announced) {
		/* It may have been handed from one process to another (a forking server, SCM_RIGHTS). */
		conn->pid = at->pid;
		conn->announced = send_conn_event(AT_CONN_OPEN, (__u64)sk, at->ts, 0);
	}
	scratch->event.at = *at;
	conn->captured_end[direction & 1] = from + length;
	if (!conn->announced || !send_chunk(conn, scratch, direction, from, length)) {
		if (start == START_RESPONSE)
			count(AT_LOST_RESPONSE);
		else if (!conn->told[direction & 1])
			count(AT_LOST_REQUEST);
		else
			count(AT_LOST_CHUNK);
	}
	return length == wanted;
}

/* A call has moved one direction on to `end`. What of it was not captured is told later: how much, and the last
 * bytes of it. */
static __always_inline void moved(struct conn *conn, __u32 direction, __u64 end,
				  const struct user_bytes *bytes, __u64 now)
{
	struct at_reach *reach = &conn->reach[direction & 1];

	reach->last_ts = now;
	reach->end = end;
	if (conn->protocol != PROTOCOL_HTTP1)
		return;
	if (end <= conn->captured_end[direction & 1]) {
		reach->tail_len = 0;
		return;
	}
	keep_tail(reach, bytes, bytes->length);
	conn->dirty[direction & 1] = 1;
}

#endif
