/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* What a runtime says of a request; see StreamClaim in autotrace/model/events.py. */
#ifndef AUTOTRACE_CLAIMS_H
#define AUTOTRACE_CLAIMS_H

#include "context.h"

struct claim {
	struct at_stream_event event;
	__u8 path[AT_PATH_MAX];
};

/* An empty claim; what is known of the request is to be filled in. */
static __always_inline void begin_claim(struct claim *claim, __u32 direction, __u32 stream)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();

	__builtin_memset(&claim->event, 0, sizeof(claim->event));
	claim->event.h.type = AT_STREAM;
	claim->event.h.ts = bpf_ktime_get_ns();
	claim->event.h.pid = pid_tgid >> 32;
	claim->event.h.tid = pid_tgid;
	claim->event.direction = direction;
	claim->event.stream = stream;
}

/* The path is the `length` bytes at `text` of user memory. */
static __always_inline void add_path(struct claim *claim, __u64 text, __u64 length)
{
	if (!length || length > AT_PATH_MAX)
		return;
	if (bpf_probe_read_user(claim->path, length, (void *)text))
		count(AT_READ_FAULTS);
	else
		claim->event.path_len = length;
}

/* Send a claim that has no path: what is on the stack behind it was never written. */
static __always_inline void send_claim_alone(struct claim *claim)
{
	__u64 size = sizeof(claim->event);

	claim->event.h.size = size;
	count(bpf_ringbuf_output(&events, &claim->event, size, wakeup_flag(size)) ? AT_LOST_CLAIM : AT_SENT);
}

static __always_inline void send_claim(struct claim *claim)
{
	__u64 length = claim->event.path_len, size;

	barrier_var(length);
	if (length > AT_PATH_MAX)
		return;
	size = sizeof(claim->event) + length;
	claim->event.h.size = size;
	count(bpf_ringbuf_output(&events, claim, size, wakeup_flag(size)) ? AT_LOST_CLAIM : AT_SENT);
}

#endif
