/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The frame walker: it follows each direction of an HTTP/2 connection from frame to frame, over any split of the bytes
 * into calls and pieces, and passes on what user space needs:
 *
 * - header and payload of HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, GOAWAY and CONTINUATION;
 * - the header of DATA, once the last byte of its payload has moved. If the payload begins like a gRPC message that
 *   fills it or more, or goes on with a message's prefix that a frame before cut, the flag DATA_FIRST_BYTES is set, and
 *   the payload's first 5 bytes follow (zeros where it is shorter).
 *
 * Nothing stands between them: whoever reads them knows from the headers what is there. All other payload is counted.
 * Where the walker cannot go on (bytes that moved unseen, a call with too many frames, or one that brings something else
 * where a call before it was cut), it says so (AT_UNWALKED), and looks for the next call that begins with a frame.
 */
#ifndef AUTOTRACE_GRPC_WALK_H
#define AUTOTRACE_GRPC_WALK_H

#include "../include/conn.h"
#include "../include/iov.h"
#include "recognise.h"

/* Frames of one call: two steps for each, and one for each piece of memory. Two loops, one in the other, so that the
 * verifier walks each of them once. */
#define WALK_STEPS 128
#define WALK_ROUNDS 128

#define END_STREAM 0x01
#define DATA_PADDED 0x08
#define DATA_FIRST_BYTES 0x40 /* no flag of DATA (section 6.1) */
#define PREFIX_SIZE 5	      /* of a gRPC message: whether it is compressed, and its size */

/* Send the record in walk `slot`, and begin the next one. */
__noinline int send_frames(__u32 slot)
{
	struct walk *walk = bpf_map_lookup_elem(&walks, &slot);
	__u32 length, lineage;

	if (!walk)
		return 0;
	length = walk->event.data_len;
	if (!length)
		return 0;
	/* A record that finds no room has its number too, so that user space sees the gap. */
	walk->side.number++;
	walk->event.number = walk->side.number;
	walk->event.origin = walk->side.origin;
	walk->side.origin = AT_FRAMES_FOLLOW;
	barrier_var(length);
	if (length > AT_DATA_MAX)
		return 0;
	lineage = walk->event.lineage;
	if (lineage) {
		__builtin_memcpy(walk->data + length, &walk->lineage, sizeof(walk->lineage));
		barrier_var(lineage);
		if (lineage > AT_LINEAGE_MAX)
			return 0;
		length += lineage * sizeof(__u64);
	}
	walk->event.h.size = sizeof(walk->event) + length;
	count(bpf_ringbuf_output(&events, walk, sizeof(walk->event) + length,
				 wakeup_flag(sizeof(walk->event) + length))
		      ? AT_LOST_FRAMES
		      : AT_SENT);
	walk->event.data_len = 0;
	walk->event.lead = 0;
	walk->headers = 0;
	return 0;
}

/* What is sent in the call that walk `slot` is about descends from these contexts of Python. */
__noinline int add_lineage(__u32 slot)
{
	struct walk *walk = bpf_map_lookup_elem(&walks, &slot);
	struct python_lineage *known = walk ? python_lineage(walk->event.at.task) : 0;

	if (!known)
		return 0;
	walk->lineage = *known;
#pragma unroll
	for (__u32 i = 0; i < AT_LINEAGE_MAX; i++)
		walk->event.lineage += walk->lineage.made[i] != 0;
	return 0;
}

/* Room for `wanted` bytes in the record: their offset, at most AT_DATA_MAX. */
static __always_inline __u64 room_for(struct walk *walk, __u32 wanted, __u32 slot)
{
	if (walk->event.data_len + wanted > AT_DATA_MAX)
		send_frames(slot);
	return walk->event.data_len;
}

/* The header of the frame that is walked goes into the record, and with it the first bytes of its payload if these are
 * wanted. */
static __always_inline void pass_header_on(struct walk *walk, bool first_bytes, __u32 slot)
{
	__u64 at = room_for(walk, FRAME_HEADER + PREFIX_SIZE, slot);

	barrier_var(at);
	if (at > AT_DATA_MAX)
		return;
	__builtin_memcpy(walk->data + at, walk->side.header, FRAME_HEADER);
	walk->event.data_len = at + FRAME_HEADER;
	walk->headers++;
	if (!first_bytes)
		return;
	walk->data[at + 4] |= DATA_FIRST_BYTES;
	__builtin_memcpy(walk->data + at + FRAME_HEADER, walk->side.first, PREFIX_SIZE);
	walk->event.data_len = at + FRAME_HEADER + PREFIX_SIZE;
}

static __always_inline void moved_on(struct walk *walk, __u64 by)
{
	walk->from += by;
	walk->piece_left -= by;
	walk->call_left -= by;
}

static __always_inline __u32 wanted_first(const struct http2_side *side)
{
	__u32 length = frame_length(side->header);

	return length < PREFIX_SIZE ? length : PREFIX_SIZE;
}

/* DATA ends: tell if its first bytes can be a message's prefix or a part of one. What a stream's message is made of, user
 * space knows. A payload that is shorter than a prefix cuts it; the next one of that stream is told whatever it is. A
 * stream that shares its bit with another has at worst five bytes told that nobody needs. */
static __always_inline bool wants_first_bytes(struct http2_side *side)
{
	__u64 stream = 1ULL << (side->header[8] >> 1 & 63);
	__u32 length = frame_length(side->header);
	bool after_cut = (side->cut_streams & stream) != 0;
	__u64 size;

	if (!length)
		return 0;
	side->cut_streams &= ~stream;
	if (side->header[4] & DATA_PADDED || side->first_len != wanted_first(side))
		return 0;
	if (side->first[0] > 1 && !after_cut)
		return 0;
	if (length < PREFIX_SIZE) {
		if (!(side->header[4] & END_STREAM))
			side->cut_streams |= stream;
		return 1;
	}
	size = (__u64)side->first[1] << 24 | (__u32)side->first[2] << 16 | (__u32)side->first[3] << 8 |
	       side->first[4];
	return after_cut || size + PREFIX_SIZE >= length;
}

static __always_inline void payload_ends(struct walk *walk, __u32 slot)
{
	struct http2_side *side = &walk->side;

	side->in_payload = 0;
	if (side->header_len == FRAME_HEADER && side->header[3] == FRAME_DATA) {
		side->header[4] &= ~DATA_FIRST_BYTES; /* a peer may set it, and it means nothing */
		pass_header_on(walk, wants_first_bytes(side), slot);
	}
	side->header_len = 0;
}

/* The next piece of memory. Returns 0 if there is none. */
__noinline int next_piece(__u32 slot)
{
	struct walk *walk = bpf_map_lookup_elem(&walks, &slot);
	struct iovec piece;

	if (!walk || !walk->base || !walk->pieces)
		return 0;
	if (!read_piece(&piece, walk->base, 0)) {
		walk->fault = 1;
		return 0;
	}
	walk->base += sizeof(piece);
	walk->pieces--;
	if (walk->skip >= piece.iov_len) {
		walk->skip -= piece.iov_len;
		return 1;
	}
	walk->from = (__u64)piece.iov_base + walk->skip;
	walk->piece_left = piece.iov_len - walk->skip;
	walk->skip = 0;
	return 1;
}

/* Bytes of a frame header. Returns 0 if they cannot be read. */
__noinline int walk_header(__u32 slot)
{
	struct walk *walk = bpf_map_lookup_elem(&walks, &slot);
	struct http2_side *side;
	__u64 available;
	__u32 have;

	if (!walk)
		return 0;
	side = &walk->side;
	have = side->header_len;
	available = walk->piece_left < walk->call_left ? walk->piece_left : walk->call_left;
	if (available > FRAME_HEADER - have)
		available = FRAME_HEADER - have;
	barrier_var(have);
	if (have >= FRAME_HEADER)
		return 0;
	barrier_var(available);
	/* The first is always true, and the verifier does not know it. */
	if (have + available > FRAME_HEADER || available > FRAME_HEADER)
		return 0;
	if (available == FRAME_HEADER) {
		if (bpf_probe_read_user(side->header, FRAME_HEADER, (void *)walk->from)) {
			count(AT_READ_FAULTS);
			walk->fault = 1;
			return 0;
		}
	} else {
		/* Byte by byte: a header that is split is rare. */
		for (__u32 i = 0; i < FRAME_HEADER; i++) {
			if (i < have || i >= have + available)
				continue;
			if (bpf_probe_read_user(&side->header[i], 1, (void *)(walk->from + i - have))) {
				count(AT_READ_FAULTS);
				walk->fault = 1;
				return 0;
			}
		}
	}
	side->header_len = have + available;
	moved_on(walk, available);
	if (side->header_len < FRAME_HEADER)
		return 1;
	side->left = frame_length(side->header);
	side->in_payload = 1;
	side->passed_on = 0;
	side->first_len = 0;
	__builtin_memset(side->first, 0, PREFIX_SIZE);
	switch (side->header[3]) {
	case FRAME_HEADERS:
	case FRAME_RST_STREAM:
	case FRAME_SETTINGS:
	case FRAME_PUSH_PROMISE:
	case FRAME_GOAWAY:
	case FRAME_CONTINUATION:
		side->passed_on = 1;
		pass_header_on(walk, 0, slot);
	}
	if (!side->left)
		payload_ends(walk, slot);
	return 1;
}

/* Keep the first bytes of DATA, of which the next `size` bytes are there. None are kept behind one that was not read. */
static __always_inline void keep_first_bytes(struct walk *walk, __u64 size)
{
	struct http2_side *side = &walk->side;
	__u32 have = side->first_len, wanted = wanted_first(side);

	if (have >= wanted || side->left != frame_length(side->header) - have)
		return;
	if (!have && size >= PREFIX_SIZE) {
		if (!bpf_probe_read_user(side->first, PREFIX_SIZE, (void *)walk->from))
			side->first_len = PREFIX_SIZE;
		return;
	}
	/* Byte by byte: a prefix that is split is rare. */
	for (__u32 i = 0; i < PREFIX_SIZE; i++) {
		if (i < have || i >= have + size)
			continue;
		if (bpf_probe_read_user(&side->first[i], 1, (void *)(walk->from + i - have)))
			return;
		side->first_len = i + 1;
	}
}

/* Bytes of a payload, or of the preface. Returns 0 if they cannot be read. */
__noinline int walk_payload(__u32 slot)
{
	struct walk *walk = bpf_map_lookup_elem(&walks, &slot);
	struct http2_side *side;
	__u64 size, at;

	if (!walk)
		return 0;
	side = &walk->side;
	size = walk->piece_left < walk->call_left ? walk->piece_left : walk->call_left;
	if (size > side->left)
		size = side->left;
	if (side->passed_on) {
		at = room_for(walk, 1, slot);
		barrier_var(at);
		if (at >= AT_DATA_MAX)
			return 0;
		if (size > AT_DATA_MAX - at)
			size = AT_DATA_MAX - at;
		barrier_var(size);
		if (!size || size > AT_DATA_MAX)
			return 0;
		if (bpf_probe_read_user(walk->data + at, size, (void *)walk->from)) {
			count(AT_READ_FAULTS);
			walk->fault = 1;
			return 0;
		}
		walk->event.data_len = at + size;
		if (!walk->headers)
			walk->event.lead += size;
	} else if (side->header_len == FRAME_HEADER && side->header[3] == FRAME_DATA) {
		keep_first_bytes(walk, size);
	}
	side->left -= size;
	moved_on(walk, size);
	if (!side->left)
		payload_ends(walk, slot);
	return 1;
}

/* One step on. Returns 0 at the end of the call, or where it cannot go on. */
__noinline int walk_step(__u32 slot)
{
	struct walk *walk = bpf_map_lookup_elem(&walks, &slot);

	if (!walk || !walk->call_left)
		return 0;
	if (!walk->piece_left)
		return next_piece(slot);
	return walk->side.in_payload ? walk_payload(slot) : walk_header(slot);
}

__noinline int walk_round(__u32 slot)
{
	for (__u32 i = 0; i < WALK_STEPS; i++)
		if (!walk_step(slot))
			return 0;
	return 1;
}

static __always_inline void lose_side(struct http2_side *side)
{
	side->lost = 1;
	side->left = 0;
	side->in_payload = 0;
	side->header_len = 0;
	side->cut_streams = 0;
	count(AT_UNWALKED);
}

/* A call brings again what one before it did not take, up to `offset`. Do frames go on there, as far as can be told? It
 * need not be the same again: nginx without TLS puts other streams' frames before what is left. */
static __always_inline bool goes_on_the_same(const struct http2_side *side, __u64 offset, __u32 slot)
{
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	__u64 most;

	if (!scratch || side->in_payload || side->header_len)
		return 1;
	if (copy_bytes(&scratch->bytes, offset, FRAME_HEADER, slot) < FRAME_HEADER)
		return 1;
	/* How large its peer allows them to be is not known. */
	most = scratch->bytes.length - offset - FRAME_HEADER;
	if (most < FRAME_SIZE_USUAL)
		most = FRAME_SIZE_USUAL;
	return is_header_of_frame(scratch->data, most) || scratch->data[3] == FRAME_CONTINUATION;
}

/* Where in the call that begins at `position` the walk of a direction goes on; its length if there is nothing new, or
 * if it cannot go on. */
static __always_inline __u64 first_new(struct http2_side *side, __u64 position, __u64 length, __u32 slot)
{
	__u64 missed;

	if (!side->lost && position > side->position) {
		missed = position - side->position;
		if (side->in_payload && !side->passed_on && missed <= side->left) {
			/* The payload of DATA can come from a file (sendfile): it was to be counted anyway. */
			side->left -= missed;
			side->position = position;
		} else {
			lose_side(side);
		}
	}
	if (!side->lost && position < side->position && side->position - position < length &&
	    !goes_on_the_same(side, side->position - position, slot))
		lose_side(side);
	if (side->lost) {
		if (!begins_with_frames(slot))
			return length;
		side->lost = 0;
		side->position = position;
		side->origin = AT_FRAMES_JOIN;
	}
	return side->position - position < length ? side->position - position : length;
}

/* What `capture` does for an HTTP/2 connection, with the call described in scratch `slot`. Returns 0 if memory that had
 * to be read could not be. A global function: see iov.h. */
__noinline int walk_described(__u64 key, __u32 slot)
{
	struct http2_conn *http2 = bpf_map_lookup_elem(&http2_conns, &key);
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	struct walk *walk = bpf_map_lookup_elem(&walks, &slot);
	struct conn *conn = bpf_map_lookup_elem(&conns, &key);
	struct http2_side *side;
	__u64 position, length, offset;
	__u32 direction;

	if (!http2 || !scratch || !walk || !conn)
		return 1;
	direction = scratch->event.direction & 1;
	position = scratch->event.position;
	length = scratch->bytes.length;
	side = &http2->sides[direction];
	conn->speaker = direction;
	offset = first_new(side, position, length, slot);
	if (offset >= length)
		return 1;
	if (!conn->announced) {
		/* It may have been handed from one process to another (a forking server, SCM_RIGHTS). */
		conn->pid = scratch->event.at.pid;
		conn->announced = send_conn_event(AT_CONN_OPEN, key, scratch->event.at.ts, 0);
	}
	__builtin_memset(&walk->event, 0, sizeof(walk->event));
	walk->event.h.type = AT_FRAMES;
	walk->event.h.ts = scratch->event.at.ts;
	walk->event.h.conn = conn->id;
	walk->event.h.pid = scratch->event.at.pid;
	walk->event.h.tid = scratch->event.at.tid;
	walk->event.at = scratch->event.at;
	walk->event.position = position;
	walk->event.direction = direction;
	if (direction == AT_TX && walk->event.at.task)
		add_lineage(slot);
	walk->side = *side;
	walk->headers = 0;
	walk->fault = 0;
	walk->call_left = length - offset;
	if (scratch->bytes.pieces) {
		walk->base = scratch->bytes.base;
		walk->pieces = scratch->bytes.pieces;
		walk->skip = scratch->bytes.skip + offset;
		walk->piece_left = 0;
	} else {
		walk->base = 0;
		walk->from = scratch->bytes.base + offset;
		walk->piece_left = length - offset;
	}
	for (__u32 i = 0; i < WALK_ROUNDS; i++)
		if (!walk_round(slot))
			break;
	send_frames(slot);
	walk->side.position = position + length;
	if (walk->fault)
		/* What could not be read now can be when the call is over. */
		walk->side.position -= walk->call_left;
	else if (walk->call_left)
		lose_side(&walk->side);
	*side = walk->side;
	return !walk->fault;
}

/* The first `have` bytes of a side came in calls too short to tell: the header of its SETTINGS is walked from there. */
static __always_inline void resume_settings(struct http2_side *side, const struct conn *conn, __u32 have)
{
	side->header[1] = conn->settings_length[0];
	side->header[2] = conn->settings_length[1];
	side->header[3] = FRAME_SETTINGS;
	side->header_len = have;
}

/* The call in scratch `slot` does not start like HTTP/1. If it starts like HTTP/2, its connection is walked from now on;
 * returns 0 if it is not. A global function: see iov.h. */
__noinline int begin_walks(__u64 key, __u32 slot)
{
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	struct conn *conn = bpf_map_lookup_elem(&conns, &key);
	struct walk *walk = bpf_map_lookup_elem(&walks, &slot);
	struct http2_side *side, *other;
	bool seen_from_start, client;
	__u32 direction, length, before, settings = 0;

	if (!scratch || !conn || !walk)
		return 0;
	direction = scratch->event.direction & 1;
	length = copy_bytes(&scratch->bytes, 0, PREFACE_SIZE, slot);
	before = conn->turn == 1 ? conn->preface : 0;
	client = before ? preface_goes_on(slot, length, before) : is_preface(scratch->data, length);
	if (conn->turn == 1 && conn->settings == FRAME_HEADER)
		settings = scratch->event.position - conn->turn_start[direction];
	/* Nothing else has moved on it before. */
	seen_from_start = conn->flags & AT_CONN_FROM_START && !conn->reach[!direction].last_ts &&
			  (before || settings || !conn->reach[direction].last_ts);
	if (!client && conn->flags & AT_CONN_FROM_START && !seen_from_start)
		return 0;
	if (!client && !settings) {
		if (seen_from_start && !(length >= FRAME_HEADER && is_first_settings(scratch->data)))
			return 0;
		if (!seen_from_start && !begins_with_frames(slot))
			return 0;
	}
	__builtin_memset(&walk->fresh, 0, sizeof(walk->fresh));
	side = &walk->fresh.sides[direction];
	other = &walk->fresh.sides[!direction];
	side->position = scratch->event.position;
	side->origin = client || seen_from_start ? AT_FRAMES_START : AT_FRAMES_JOIN;
	if (client) {
		side->left = PREFACE_SIZE - before;
		side->in_payload = 1;
	} else if (settings) {
		resume_settings(side, conn, settings);
	}
	other->position = conn->reach[!direction].end;
	if (client && conn->settings && conn->settings == other->position - conn->turn_start[!direction]) {
		/* The server's first bytes, too few to tell, came before the preface. */
		other->origin = AT_FRAMES_START;
		resume_settings(other, conn, conn->settings);
	} else if (seen_from_start) {
		other->origin = AT_FRAMES_START;
		if (!client) {
			other->left = PREFACE_SIZE;
			other->in_payload = 1;
		}
	} else {
		other->lost = 1;
	}
	if (bpf_map_update_elem(&http2_conns, &key, &walk->fresh, BPF_ANY)) {
		count(AT_HTTP2_FULL);
		return 0;
	}
	conn->protocol = PROTOCOL_HTTP2;
	return 1;
}

#endif
