/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Turn capture: the head of what each side says goes to user space, the rest is only counted. */
#ifndef AUTOTRACE_HTTP_TURNS_H
#define AUTOTRACE_HTTP_TURNS_H

#include "../include/conn.h"
#include "../include/iov.h"
#include "recognise.h"

/* Fill in and send the chunk whose data stands in `scratch`. Returns 0 if the ring had no room. */
static __always_inline bool send_chunk(struct conn *conn, struct scratch *scratch, __u32 direction,
				       __u64 position, __u32 length, bool first_of_turn)
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
	if (first_of_turn)
		event->other = conn->reach[!direction];
	else
		__builtin_memset(&event->other, 0, sizeof(event->other));
	length &= 2 * AT_DATA_MAX - 1;
	if (length > AT_DATA_MAX)
		return 0;
	event->h.size = sizeof(*event) + length;
	if (bpf_ringbuf_output(&events, scratch, sizeof(*event) + length, wakeup_flag()))
		return 0;
	count(AT_SENT);
	return 1;
}

/* `bytes` move on `conn` in `direction`; the first of them has stream position `position`.
 *
 * Positions make this idempotent: a write that was refused or cut short and is tried again starts at a
 * position that was captured already, and only what is new is sent.
 */
static __always_inline void capture(struct conn *conn, struct sock *sk, __u32 direction, __u64 position,
				    const struct user_bytes *bytes, const struct at_context *at)
{
	__u64 call_end = position + bytes->length, from, window_end;
	bool new_turn = conn->speaker != direction, first_of_turn = new_turn;
	enum message_start start;
	struct scratch *scratch;
	__u32 zero = 0, length, room;

	if (conn->protocol == PROTOCOL_STOPPED)
		return;
	if (new_turn) {
		conn->turn++;
		conn->speaker = direction;
		conn->turn_start = position;
		conn->captured_end = position;
		conn->skip = 0;
		conn->reach[direction & 1].tail_len = 0;
	}
	from = conn->captured_end > position ? conn->captured_end : position;
	if (from >= call_end)
		return;
	scratch = bpf_map_lookup_elem(&scratches, &zero);
	if (!scratch)
		return;
	room = head_size;
	window_end = conn->turn_start + room;
	if (from >= window_end || conn->skip) {
		/* Past the head. A call that starts like a message is a pipelined one: it has a head too. */
		if (conn->protocol != PROTOCOL_HTTP1)
			goto counted;
		length = copy_bytes(bytes, from - position, 8);
		if (from != position || recognise(scratch->data, length) == START_NONE || length < 5)
			goto counted;
		conn->turn_start = position;
		conn->skip = 0;
		window_end = position + room;
	}
	if (window_end - from < room)
		room = window_end - from;
	length = copy_bytes(bytes, from - position, room);
	if (!length)
		goto counted;
	start = recognise(scratch->data, length);
	if (conn->protocol == PROTOCOL_UNKNOWN) {
		if (!new_turn || start == START_NONE) {
			conn->skip = 1;
			if (new_turn)
				count(AT_UNRECOGNISED_TURNS);
			return;
		}
		conn->protocol = PROTOCOL_HTTP1;
	}
	if (!conn->announced)
		conn->announced = send_conn_event(AT_CONN_OPEN, (__u64)sk, at->ts, 0);
	scratch->event.at = *at;
	conn->captured_end = from + length;
	if (!conn->announced || !send_chunk(conn, scratch, direction, from, length, first_of_turn)) {
		if (start == START_RESPONSE)
			count(AT_LOST_RESPONSE);
		else if (new_turn)
			count(AT_LOST_REQUEST);
		else
			count(AT_LOST_CHUNK);
	} else {
		/* The new turn told how far the other side had come. */
		if (first_of_turn)
			conn->dirty &= ~DIRTY(!direction);
	}
	if (from + length >= call_end) {
		conn->reach[direction & 1].tail_len = 0;
		return;
	}
counted:
	keep_tail(&conn->reach[direction & 1], bytes, bytes->length);
	conn->dirty |= DIRTY(direction);
}

#endif
