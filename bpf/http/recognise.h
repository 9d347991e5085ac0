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

static __always_inline bool upper(__u8 c)
{
	return c >= 'A' && c <= 'Z';
}

/* A method is a token (RFC 9110 section 9.1), in practice of capital letters; a status line starts with
 * "HTTP/1." (RFC 9112 section 4). Fewer than three bytes are believed if they could become either. */
static __always_inline enum message_start recognise(const __u8 *data, __u32 length)
{
	if (!length || !upper(data[0]))
		return START_NONE;
	if (length >= 2 && !upper(data[1]))
		return START_NONE;
	if (length >= 3 && !upper(data[2]))
		return START_NONE;
	if (length >= 5 && data[0] == 'H' && data[1] == 'T' && data[2] == 'T' && data[3] == 'P' &&
	    data[4] == '/')
		return START_RESPONSE;
	return START_REQUEST;
}

#endif
