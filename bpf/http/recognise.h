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

/* A method is a token (RFC 9110 section 9.1), in practice of capital letters; a status line starts with
 * "HTTP/1." (RFC 9112 section 4). Too few bytes to tell are believed if they could become either. */
static __always_inline enum message_start recognise(const __u8 *data, __u32 length)
{
	if (length >= 5 && data[0] == 'H' && data[1] == 'T' && data[2] == 'T' && data[3] == 'P' &&
	    data[4] == '/')
		return START_RESPONSE;
	for (__u32 i = 0; i < METHOD_MAX; i++) {
		if (i == length)
			return i ? START_REQUEST : START_NONE;
		if (data[i] == ' ')
			return i > 2 && (i + 1 == length || begins_target(data[i + 1], data)) ? START_REQUEST
											      : START_NONE;
		if (!upper(data[i]) && (data[i] != '-' || i < 3))
			return START_NONE;
	}
	return START_NONE;
}

#endif
