/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Receives that were in progress when the hooks were attached. A program on a function's return does not run for a call
 * that began before, and one on its entry was passed by: so these are taken when their system call returns. User space
 * takes this away again once no such call is left, for it costs every receiving call of the machine something. */
#ifndef AUTOTRACE_SOCKET_LATE_CALLS_H
#define AUTOTRACE_SOCKET_LATE_CALLS_H

#include "receive_calls.h"
#include "side_calls.h"

static __always_inline bool is_known(__u32 tid)
{
	return bpf_map_lookup_elem(&threads, &tid) != 0;
}

/* A thread that is known by now has come past a hook, so this call was seen. */
SEC("tracepoint")
int late_call_exits(struct call_args *ctx)
{
	struct at_watched *process = current_watched();

	if (process && !known_thread())
		receive_returns(process, call_of(ctx->number), user_registers(), ctx->result);
	return LEAVE_EVENT;
}

/* Run by user space: writes the thread group and the thread of each thread, as bpf_get_current_pid_tgid() gives them,
 * that may be in such a call. */
SEC("iter/task")
int in_late_call(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct pt_regs *regs;
	__u64 pid_tgid;
	__u32 call;

	if (!task || BPF_CORE_READ(task, flags) & (PF_KTHREAD | PF_IO_WORKER))
		return 0;
	regs = user_registers_of(task);
	call = call_of(ARCH_CALL(regs));
	if (call == CALL_NONE || call >= CALL_FIRST_SEND || !stream_sock_of(task, ARCH_ARG0(regs)))
		return 0;
	pid_tgid = (__u64)BPF_CORE_READ(task, tgid) << 32 | (__u32)BPF_CORE_READ(task, pid);
	if (!is_known(pid_tgid))
		bpf_seq_write(ctx->meta->seq, &pid_tgid, sizeof(pid_tgid));
	return 0;
}

#endif
