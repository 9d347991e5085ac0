/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Does a turn start like HTTP/1? A cheap look that keeps other protocols' bytes in the kernel; user space's
 * parser has the last word and can stop the capture of a connection. */
#ifndef AUTOTRACE_HTTP_RECOGNISE_H
#define AUTOTRACE_HTTP_RECOGNISE_H

#include "../include/maps.h"

enum message_start {
	START_NONE,
	START_REQUEST,
	START_RESPONSE,
};

#define HTTP ('H' | 'T' << 8 | 'T' << 16 | 'P' << 24) /* as a little-endian word */
#define METHOD_MAX 18	  /* UPDATEREDIRECTREF, the longest one registered, and the space behind it */
#define RECOGNISE_LOOK 24 /* bytes that tell enough */

static __always_inline bool upper(__u8 c)
{
	return c >= 'A' && c <= 'Z';
}

#define CONNECT_LOOK 3

/* Is it CONNECT, the only method that begins like this? */
static __always_inline bool is_connect(const __u8 *method)
{
	return method[0] == 'C' && method[1] == 'O' && method[2] == 'N';
}

/* Can `c` be the first byte of the target of a request whose method begins with `method` (RFC 9112 section 3.2)?
 * PRI * is HTTP/2 (RFC 9113 section 3.4), and some protocols' commands look like methods. */
static __always_inline bool begins_target(__u8 c, const __u8 *method)
{
	if (is_connect(method))
		return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || upper(c) || c == '[';
	return c == '/' || c == ' ' || c == 'h' || c == 'H' || (c == '*' && method[0] == 'O');
}

/* A method is a token (RFC 9110 section 9.1), in practice of capital letters. Too few bytes to tell are believed if
 * they could become a request. A function of its own for the verifier's sake: see iov.h. */
__noinline bool begins_request(__u32 slot, __u32 length)
{
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	const __u8 *data;

	if (!scratch)
		return 0;
	data = scratch->data;
	for (__u32 i = 0; i < METHOD_MAX; i++) {
		if (i == length)
			return i != 0;
		if (data[i] == ' ')
			return i > 2 && (i + 1 == length || begins_target(data[i + 1], data));
		if (!upper(data[i]) && (data[i] != '-' || i < 3))
			return 0;
	}
	return 0;
}

/* What begins with the `length` bytes in `scratch`, which is slot `slot`. A status line starts with "HTTP/1." (RFC
 * 9112 section 4); fewer bytes of it pass for a request. */
static __always_inline enum message_start recognise(const struct scratch *scratch, __u32 slot, __u32 length)
{
	if (length >= 5 && *(const __u32 *)scratch->data == HTTP && scratch->data[4] == '/')
		return START_RESPONSE;
	return begins_request(slot, length) ? START_REQUEST : START_NONE;
}

#endif
