/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Does a call start like HTTP/2? By the connection preface, the first frame of a server, or, on a connection that is
 * older than the agent, by frames that could not be anything else. */
#ifndef AUTOTRACE_GRPC_RECOGNISE_H
#define AUTOTRACE_GRPC_RECOGNISE_H

#include "../include/iov.h"

#define PREFACE_SIZE 24 /* RFC 9113 section 3.4 */
#define PREFACE_LOOK 3	/* no method begins like this */

#define FRAME_HEADER 9
#define FRAME_SIZE_USUAL 16384 /* what every peer takes (section 4.2) */

enum frame_type { /* section 6 */
	FRAME_DATA = 0,
	FRAME_HEADERS = 1,
	FRAME_PRIORITY = 2,
	FRAME_RST_STREAM = 3,
	FRAME_SETTINGS = 4,
	FRAME_PUSH_PROMISE = 5,
	FRAME_PING = 6,
	FRAME_GOAWAY = 7,
	FRAME_WINDOW_UPDATE = 8,
	FRAME_CONTINUATION = 9,
};

const volatile __u8 preface[PREFACE_SIZE] = {'P',  'R',	 'I', ' ', '*',	 ' ',  'H',  'T',
					     'T',  'P',	 '/', '2', '.',	 '0',  '\r', '\n',
					     '\r', '\n', 'S', 'M', '\r', '\n', '\r', '\n'};

static __always_inline bool is_preface(const __u8 *data, __u32 length)
{
	if (length < PREFACE_LOOK)
		return 0;
	for (__u32 i = 0; i < PREFACE_SIZE; i++) {
		if (i == length)
			return 1;
		if (data[i] != preface[i])
			return 0;
	}
	return 1;
}

/* How much of the preface there is, if the `length` bytes in scratch `slot` go on with it behind its first `before`
 * bytes; 0 if they do not. A global function: see iov.h. */
__noinline int preface_goes_on(__u32 slot, __u32 length, __u64 before)
{
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);

	if (!scratch)
		return 0;
	for (__u32 i = 0; i < PREFACE_SIZE; i++, before++) {
		barrier_var(before);
		if (i == length || before >= PREFACE_SIZE)
			break;
		if (scratch->data[i] != preface[before])
			return 0;
	}
	return before;
}

static __always_inline __u32 frame_length(const __u8 *header)
{
	return (__u32)header[0] << 16 | (__u32)header[1] << 8 | header[2];
}

static __always_inline __u32 frame_stream(const __u8 *header)
{
	return (__u32)header[5] << 24 | (__u32)header[6] << 16 | (__u32)header[7] << 8 | header[8];
}

/* Could these 9 bytes be the header of a frame of at most `most` bytes that is not in the middle of a header block? The
 * rules are those of section 6 for lengths, flags and streams; the highest bit of the stream is 0 (section 4.1). */
static __always_inline bool is_header_of_frame(const __u8 *header, __u32 most)
{
	__u32 length = frame_length(header), stream = frame_stream(header);
	__u8 flags = header[4];

	if (length > most || stream >> 31)
		return 0;
	switch (header[3]) {
	case FRAME_DATA:
		return stream && !(flags & ~0x09);
	case FRAME_HEADERS:
		return stream && length && !(flags & ~0x2d);
	case FRAME_PRIORITY:
		return stream && length == 5 && !flags;
	case FRAME_RST_STREAM:
		return stream && length == 4 && !flags;
	case FRAME_SETTINGS:
		return !stream && length % 6 == 0 && flags <= 1 && !(flags && length);
	case FRAME_PUSH_PROMISE:
		return stream && length >= 4 && !(flags & ~0x0c);
	case FRAME_PING:
		return !stream && length == 8 && flags <= 1;
	case FRAME_GOAWAY:
		return !stream && length >= 8 && !flags;
	case FRAME_WINDOW_UPDATE:
		return length == 4 && !flags;
	default:
		return 0;
	}
}

static __always_inline bool is_frame_header(const __u8 *header)
{
	return is_header_of_frame(header, FRAME_SIZE_USUAL);
}

#define FRAMES_LOOK 3

/* Does the call in scratch `slot` begin with a frame, as far as can be told? Its header must be one, and either the
 * frame ends with the call or what follows is a frame header too. A global function: see iov.h. */
__noinline int begins_with_frames(__u32 slot)
{
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	__u64 at = 0;

	if (!scratch)
		return 0;
	for (__u32 i = 0; i < FRAMES_LOOK; i++) {
		if (at == scratch->bytes.length && i)
			return 1;
		if (copy_bytes(&scratch->bytes, at, FRAME_HEADER, slot) < FRAME_HEADER)
			return 0;
		if (!is_frame_header(scratch->data))
			return 0;
		at += FRAME_HEADER + frame_length(scratch->data);
	}
	return 1;
}

/* Is it the first frame of a server, its SETTINGS (section 3.4)? It may come before the client's preface. */
static __always_inline bool is_first_settings(const __u8 *header)
{
	return is_frame_header(header) && header[3] == FRAME_SETTINGS && !header[4];
}

/* How much there is of the header of a first SETTINGS, if the `length` bytes in scratch `slot` go on with it behind its
 * first `before` bytes, which were told here too; 0 if they do not. All of it but its length is known beforehand. A
 * global function: see iov.h. */
__noinline int settings_go_on(__u64 key, __u32 slot, __u32 length, __u64 before)
{
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	struct conn *conn = bpf_map_lookup_elem(&conns, &key);
	__u32 size;

	if (!scratch || !conn || before > conn->settings || before >= FRAME_HEADER)
		return 0;
	for (__u32 i = 0; i < FRAME_HEADER; i++, before++) {
		barrier_var(before);
		if (i == length || before >= FRAME_HEADER)
			break;
		if (before == 1)
			conn->settings_length[0] = scratch->data[i];
		else if (before == 2)
			conn->settings_length[1] = scratch->data[i];
		else if (scratch->data[i] != (before == 3 ? FRAME_SETTINGS : 0))
			return 0;
	}
	size = (__u32)conn->settings_length[0] << 8 | conn->settings_length[1];
	if (before > 2 && (size > FRAME_SIZE_USUAL || size % 6))
		return 0;
	conn->settings = before;
	return before;
}

#endif
