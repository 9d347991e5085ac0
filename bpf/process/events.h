/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* What is told of processes. */
#ifndef AUTOTRACE_PROCESS_EVENTS_H
#define AUTOTRACE_PROCESS_EVENTS_H

#include "../include/context.h"

static __always_inline void send_process_event(__u32 type, __u32 pid, __u32 parent)
{
	__u64 wakeup = wakeup_flag(sizeof(struct at_process_event));
	struct at_process_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		count(AT_LOST_PROCESS);
		return;
	}
	event->h.type = type;
	event->h.size = sizeof(*event);
	event->h.ts = bpf_ktime_get_ns();
	event->h.conn = 0;
	event->h.pid = pid;
	event->h.tid = bpf_get_current_pid_tgid();
	event->parent = parent;
	event->pad = 0;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	/* Until user space has found the library, its plaintext goes by unseen. */
	bpf_ringbuf_submit(event, type == AT_PROCESS_TLS ? BPF_RB_FORCE_WAKEUP : wakeup);
	count(AT_SENT);
}

/* Nanoseconds are shifted by this: 34 s. */
#define TLS_TOLD_AGAIN_SHIFT 35

/* User space looks for the TLS library of a program when it first speaks TLS, and now and then when a new connection
 * does, for that may be by another library, which the program has loaded since. */
static __always_inline void tell_of_tls(void)
{
	struct at_watched *process = current_watched();
	__u32 now = (bpf_ktime_get_ns() >> TLS_TOLD_AGAIN_SHIFT) + 1;

	if (!process || process->speaks_tls == now)
		return;
	process->speaks_tls = now;
	send_process_event(AT_PROCESS_TLS, bpf_get_current_pid_tgid() >> 32, 0);
}

#endif
