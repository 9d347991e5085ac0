/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Turn capture: the head of what each side says goes to user space, the rest is only counted. Where the kernel can
 * tell the end of the head (head.h), nothing behind it is copied; else the first bytes of the turn are. */
#ifndef AUTOTRACE_HTTP_TURNS_H
#define AUTOTRACE_HTTP_TURNS_H

#include "../grpc/walk.h"
#include "../include/conn.h"
#include "../include/iov.h"
#include "../process/events.h"
#include "../tls/binding.h"
#include "head.h"
#include "recognise.h"

#define FIRST_LOOK 512 /* what is copied of a turn at first: most heads are shorter */

#define NO_HTTP1 2 /* what `capture_described` returns for a turn that does not start like HTTP/1 */

/* Fill in and send the chunk whose data stands in `scratch`. Returns 0 if the ring had no room. */
static __always_inline bool send_chunk(struct conn *conn, struct scratch *scratch, __u32 direction,
				       __u64 position, __u32 length, __u32 body_length)
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
	event->body_len = body_length;
	__builtin_memset(&event->other, 0, sizeof(event->other));
	if (!conn->told[direction & 1]) {
		/* Cleared first: if that side moves meanwhile, it is told again. */
		mark_told(conn, !direction);
		event->other = conn->reach[!direction];
		if (direction == AT_RX)
			withhold_tail(conn, &event->other);
	}
	length &= 2 * AT_DATA_MAX - 1;
	if (length > AT_DATA_MAX)
		return 0;
	event->h.size = sizeof(*event) + length;
	if (bpf_ringbuf_output(&events, scratch, sizeof(*event) + length,
			       wakeup_flag(sizeof(*event) + length))) {
		if (!conn->told[direction & 1])
			conn->dirty[!direction] = 1;
		return 0;
	}
	conn->told[direction & 1] = 1;
	count(AT_SENT);
	return 1;
}

/* Can an answer that begins like this have a body at all (RFC 9110 section 6.4.1)? */
static __always_inline bool may_have_body(const __u8 *status_line, __u32 length)
{
	const __u8 *status = status_line + 9;

	if (length < 12 || status[0] == '1')
		return 0;
	return !((status[0] == '2' || status[0] == '3') && status[1] == '0' && status[2] == '4');
}

/* The scratch data has the next `length` bytes of a turn, the first with stream position `from`; the call has `window`
 * of them that count. Returns how many user space needs: those of a head, if all the others are its body's; else 0,
 * for all that there are. */
static __always_inline __u32 without_body(struct conn *conn, struct scratch *scratch, __u32 slot, __u64 from,
					  __u32 length, __u32 window, enum message_start start)
{
	__u32 direction = scratch->event.direction & 1, end;
	struct head *head = &conn->head[direction];

	if (from == conn->turn_start[direction]) {
		if (start == START_REQUEST)
			conn->whole = scratch->data[0] == 'H';
		conn->in_head[direction] =
			start == START_REQUEST ||
			(start == START_RESPONSE && !conn->whole && may_have_body(scratch->data, length));
		head->line = from;
		head->length = LENGTH_NONE;
	} else if (start == START_REQUEST) {
		conn->whole = 1;
	}
	if (!conn->in_head[direction])
		return 0;
	scratch->head = *head;
	end = read_head(scratch, slot, from, length);
	if (!end && length < window)
		return 0; /* these bytes are read again, with more */
	*head = scratch->head;
	if (!end) {
		if (cuts_field(scratch, from, length))
			head->length = LENGTH_UNSURE;
		return 0;
	}
	conn->in_head[direction] = 0;
	if (head->length == LENGTH_UNSURE)
		return 0;
	if (end < window && (head->length == LENGTH_NONE || head->length < window - end)) {
		conn->whole = 1;
		return 0;
	}
	if (head->length != LENGTH_NONE)
		conn->body_end[direction] = from + end + head->length;
	return end;
}

/* TLS begins in the tunnel that a CONNECT has made (RFC 9110 section 9.3.6), be the way to the proxy TLS or not. From
 * here on it is another connection: to whoever is at the tunnel's other end, with a stream of its own. */
static __always_inline void enter_tunnel(__u64 key, struct conn *conn, __u64 ts)
{
	if (conn->announced)
		send_conn_event(AT_CONN_CLOSE, key, ts, 0);
	conn->id = fresh_id();
	conn->announced = 0;
	conn->asks_tunnel = 0;
	conn->protocol = PROTOCOL_UNKNOWN;
	conn->turn = 0;
	tell_of_tls();
	mark_tls(conn);
}

/* A call on a connection whose last request was a CONNECT: does TLS begin with it? */
static __always_inline bool enters_tunnel(__u64 key, struct conn *conn, __u32 slot,
					  const struct user_bytes *bytes)
{
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	__u32 length = copy_bytes(bytes, 0, TLS_RECORD_LOOK, slot);

	if (!scratch || !length)
		return 0;
	if (conn->nested || !starts_tls_record(scratch->data, length)) {
		conn->asks_tunnel = conn->protocol != PROTOCOL_STOPPED;
		return 0;
	}
	enter_tunnel(key, conn, scratch->event.at.ts);
	return 1;
}

/* Copy what most likely has the whole head of a message: the first piece that a program hands over, or the first bytes
 * of it. Returns the bytes copied. */
static __always_inline __u32 first_look(const struct user_bytes *bytes, __u64 skip, __u32 wanted, __u32 slot)
{
	__u32 room = wanted < FIRST_LOOK ? wanted : FIRST_LOOK, length = 0;

	if (bytes->pieces > 1)
		length = copy_pieces(bytes->base, 1, skip + bytes->skip, room, slot);
	return length < RECOGNISE_LOOK ? copy_bytes(bytes, skip, room, slot) : length;
}

/* Do the `length` bytes in scratch `slot`, of a connection's first turn, bring what HTTP/2 begins with, in calls too short
 * to tell each by itself: the preface, or a server's first SETTINGS? `offset` is where in the turn they stand. Returns
 * NO_HTTP1 if they do (or if what came before looked like it, and was not), 1 if the next call may tell, else 0. A
 * global function: see iov.h. */
__noinline int begins_http2(__u64 key, __u32 slot, __u32 length, __u64 offset)
{
	struct conn *conn = bpf_map_lookup_elem(&conns, &key);
	__u32 bytes;

	if (!conn)
		return 0;
	if (offset == conn->preface && offset < PREFACE_LOOK) {
		bytes = preface_goes_on(slot, length, offset);
		if (bytes >= PREFACE_LOOK)
			return NO_HTTP1;
		conn->preface = bytes;
	}
	if (!(conn->flags & AT_CONN_FROM_START) || (offset ? !conn->settings : length >= FRAME_HEADER))
		return 0;
	bytes = settings_go_on(key, slot, length, offset);
	if (bytes)
		return bytes == FRAME_HEADER ? NO_HTTP1 : 1;
	if (!offset)
		return 0;
	conn->settings = 0;
	conn->skip[conn->speaker & 1] = 1;
	return NO_HTTP1;
}

/* What `capture` does, with the call described in scratch `slot`: bytes, and in its event the context, the direction
 * and the position. A global function: see iov.h. */
__noinline int capture_described(__u64 key, __u32 slot)
{
	struct conn *conn = bpf_map_lookup_elem(&conns, &key);
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	__u64 position, call_end, from, window_end, captured_end;
	__u32 direction, length, wanted, needed, known;
	enum message_start start;
	const struct user_bytes *bytes;
	bool new_turn;

	if (!conn || !scratch)
		return 1;
	bytes = &scratch->bytes;
	direction = scratch->event.direction & 1;
	if (conn->asks_tunnel && conn->speaker != direction && enters_tunnel(key, conn, slot, bytes))
		return 1;
	if (conn->protocol == PROTOCOL_STOPPED)
		return 1;
	position = scratch->event.position;
	call_end = position + bytes->length;
	new_turn = conn->speaker != direction;
	if (new_turn) {
		conn->turn++;
		conn->speaker = direction;
		conn->turn_start[direction] = position;
		conn->captured_end[direction] = position;
		conn->told[direction] = 0;
		conn->body_end[direction] = 0;
		conn->in_head[direction] = 0;
		conn->skip[direction] = 0;
		conn->reach[direction].tail_len = 0;
	}
	captured_end = conn->captured_end[direction];
	from = captured_end > position ? captured_end : position;
	if (from < conn->body_end[direction])
		from = conn->body_end[direction];
	if (from >= call_end)
		return 1;
	if (from == conn->body_end[direction]) {
		conn->turn_start[direction] = from;
		conn->skip[direction] = 0;
	}
	window_end = conn->turn_start[direction] + head_size;
	if (conn->skip[direction] || (call_end > window_end && position != conn->turn_start[direction])) {
		/* A call past the head, or cut by its end. If it starts like a message, it has a head too. */
		if (conn->protocol == PROTOCOL_HTTP1 && from == position) {
			length = copy_bytes(bytes, 0, RECOGNISE_LOOK, slot);
			if (!length)
				return 0;
			if (length >= 5 && recognise(scratch, slot, length) != START_NONE) {
				conn->turn_start[direction] = position;
				conn->skip[direction] = 0;
				window_end = position + head_size;
			}
		}
		if (conn->skip[direction] || from >= window_end)
			return 1;
	}
	if (window_end > call_end)
		window_end = call_end;
	wanted = window_end - from;
	length = first_look(bytes, from - position, wanted, slot);
	if (!length)
		return 0;
	if (is_preface(scratch->data, length))
		return NO_HTTP1;
	if (conn->turn == 1) {
		int begun = begins_http2(key, slot, length, from - conn->turn_start[direction]);

		if (begun)
			return begun;
	}
	start = recognise(scratch, slot, length);
	if (start == START_REQUEST && length > CONNECT_LOOK)
		conn->asks_tunnel = is_connect(scratch->data);
	if (conn->protocol == PROTOCOL_UNKNOWN) {
		if (start == START_NONE) {
			if (!conn->nested && starts_tls_record(scratch->data, length)) {
				tell_of_tls();
				mark_tls(conn);
				return 1;
			}
			conn->skip[direction] = 1;
			return NO_HTTP1;
		}
		conn->protocol = PROTOCOL_HTTP1;
	}
	needed = without_body(conn, scratch, slot, from, length, wanted, start);
	known = wanted;
	if (!needed) {
		if (length < wanted) {
			length = copy_bytes(bytes, from - position, wanted, slot);
			if (!length)
				return 0;
			needed = without_body(conn, scratch, slot, from, length, length, start);
		}
		known = length;
		if (!needed)
			needed = length;
	}
	if (!conn->announced) {
		/* It may have been handed from one process to another (a forking server, SCM_RIGHTS). */
		conn->pid = scratch->event.at.pid;
		conn->announced = send_conn_event(AT_CONN_OPEN, key, scratch->event.at.ts, 0);
	}
	conn->captured_end[direction] = from + known;
	if (!conn->announced || !send_chunk(conn, scratch, direction, from, needed, known - needed)) {
		/* What does not start like a message goes on with one: that one was told of, or counted here. */
		if (start == START_RESPONSE)
			count(AT_LOST_RESPONSE);
		else if (start == START_REQUEST)
			count(AT_LOST_REQUEST);
		else
			count(AT_LOST_CHUNK);
	}
	return known == wanted;
}

/* What `capture` does, with plaintext of TLS. If a turn begins with it, its ciphertext begins at or behind `from` and
 * before `end`; see at_chunk_event. */
static __always_inline bool capture_plaintext(const struct conn *conn, struct sock *sk, __u32 direction,
					      __u64 position, const struct user_bytes *bytes,
					      const struct at_context *at, __u32 from, __u32 end)
{
	__u32 slot = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	int done;

	if (scratch && scratch->taken) { /* which is rare */
		slot = free_slot();
		scratch = bpf_map_lookup_elem(&scratches, &slot);
	}
	if (!scratch) {
		count(AT_READ_FAULTS);
		return 0;
	}
	scratch->taken = 1;
	scratch->bytes = *bytes;
	scratch->event.at = *at;
	scratch->event.position = position;
	scratch->event.direction = direction;
	scratch->event.wire_from = conn->speaker == direction ? 0 : from;
	scratch->event.wire_end = conn->speaker == direction ? 0 : end;
	if (conn->protocol == PROTOCOL_HTTP2) {
		done = walk_described((__u64)sk, slot);
	} else {
		done = capture_described((__u64)sk, slot);
		if (done == NO_HTTP1 && begin_walks((__u64)sk, slot))
			done = walk_described((__u64)sk, slot);
		else if (done == NO_HTTP1)
			count(AT_UNRECOGNISED_TURNS);
	}
	scratch->taken = 0;
	return done != 0;
}

/* `bytes` move on the connection of `sk` in `direction`; the first of them has stream position `position`. Returns 0
 * if memory that had to be read could not be: user memory that was never touched is not there before the call
 * itself needs it.
 *
 * Positions make this idempotent: a write that was refused or cut short and is tried again starts at a
 * position that was captured already, and only what is new is sent.
 */
static __always_inline bool capture(const struct conn *conn, struct sock *sk, __u32 direction, __u64 position,
				    const struct user_bytes *bytes, const struct at_context *at)
{
	return capture_plaintext(conn, sk, direction, position, bytes, at, 0, 0);
}

/* Do the last bytes before `end` tell something that is not known, as the end of a chunked body does? */
static __always_inline bool wants_tail(const struct conn *conn, __u32 direction, __u64 end)
{
	return conn->protocol == PROTOCOL_HTTP1 && end > conn->captured_end[direction & 1] &&
	       end > conn->body_end[direction & 1];
}

/* A call has moved one direction on to `end`. What of it was not captured is told later: how much, and the last
 * bytes of it. */
static __always_inline void moved(struct conn *conn, __u32 direction, __u64 end,
				  const struct user_bytes *bytes, __u64 now)
{
	struct at_reach *reach = &conn->reach[direction & 1];

	reach->last_ts = now;
	reach->end = end;
	if (direction == AT_TX) {
		/* Were there others in between, whose bytes were not seen? */
		if (conn->sent_ahead != end - bytes->length)
			reach->tail_len = 0;
		conn->sent_ahead = end;
	}
	if (conn->protocol != PROTOCOL_HTTP1)
		return;
	if (wants_tail(conn, direction, end))
		keep_tail(reach, bytes, bytes->length);
	else
		reach->tail_len = 0;
	if (end > conn->captured_end[direction & 1])
		conn->dirty[direction & 1] = 1;
}

#endif
