/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Processes: children of a watched process are watched from their first instruction on. */
#ifndef AUTOTRACE_PROCESS_LIFECYCLE_H
#define AUTOTRACE_PROCESS_LIFECYCLE_H

#include "events.h"

/* include/trace/events/sched.h: sched_process_fork(parent, child) */
SEC("raw_tp/sched_process_fork")
int process_forks(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *parent = (struct task_struct *)ctx->args[0];
	struct task_struct *child = (struct task_struct *)ctx->args[1];
	__u32 parent_tgid = BPF_CORE_READ(parent, tgid);
	__u32 child_tgid = BPF_CORE_READ(child, tgid);
	struct at_watched *process = bpf_map_lookup_elem(&watched, &parent_tgid);
	__u8 yes = 1;
	__u32 slot;

	if (!process || child_tgid == parent_tgid)
		return 0;
	slot = child_tgid % MAYBE_WATCHED;
	bpf_map_update_elem(&maybe_watched, &slot, &yes, BPF_ANY);
	if (bpf_map_update_elem(&watched, &child_tgid, process, BPF_ANY))
		count(AT_LOST_PROCESS);
	send_process_event(AT_PROCESS_START, child_tgid, parent_tgid);
	return 0;
}

/* sched_process_exec(task, old_pid, bprm) */
SEC("raw_tp/sched_process_exec")
int process_execs(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, old_tid = ctx->args[1];
	struct at_watched *process = bpf_map_lookup_elem(&watched, &tgid);

	if (process) {
		/* The thread that called exec is the main thread from now on. */
		bpf_map_delete_elem(&threads, &old_tid);
		/* Another program now: what was known of its runtime no longer holds. */
		__builtin_memset(process, 0, sizeof(*process));
		send_process_event(AT_PROCESS_START, tgid, 0);
	} else if (report_execs) {
		send_process_event(AT_PROCESS_SEEN, tgid, 0);
	}
	return 0;
}

/* sched_process_exit(task): for every thread; the last one of a group leaves `live` at 0. */
SEC("raw_tp/sched_process_exit")
int thread_exits(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];
	__u32 tid = BPF_CORE_READ(task, pid), tgid = BPF_CORE_READ(task, tgid);

	if (!may_be_watched(tgid))
		return 0;
	/* Whether or not the process is still watched: `live` sinks before this, so that of two threads which end at once
	 * the first to come here can be the last that counts. */
	bpf_map_delete_elem(&threads, &tid);
	if (!bpf_map_lookup_elem(&watched, &tgid))
		return 0;
	if (BPF_CORE_READ(task, signal, live.counter) != 0)
		return 0;
	bpf_map_delete_elem(&watched, &tgid);
	send_process_event(AT_PROCESS_EXIT, tgid, 0);
	return 0;
}

#endif
