/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Who is running: the watched process, its thread's state, its runtime's task. */
#ifndef AUTOTRACE_CONTEXT_H
#define AUTOTRACE_CONTEXT_H

#include "maps.h"

#define PYTHON_KEYS_MAX 4

static __always_inline bool may_be_watched(__u32 tgid)
{
	__u32 slot = tgid % MAYBE_WATCHED;
	__u8 *ever = bpf_map_lookup_elem(&maybe_watched, &slot);

	return ever && *ever;
}

static __always_inline struct at_watched *current_watched(void)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	return may_be_watched(tgid) ? bpf_map_lookup_elem(&watched, &tgid) : 0;
}

static __always_inline struct thread *known_thread(void)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 tid = pid_tgid;

	return may_be_watched(pid_tgid >> 32) ? bpf_map_lookup_elem(&threads, &tid) : 0;
}

/* A function of its own, and put together in a slot, for the sake of the stack: 512 bytes are all that a chain of calls
 * has. */
__noinline int add_thread(__u32 tid)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 slot = free_slot();
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	struct thread *fresh;
	bool full;

	if (!scratch) {
		count(AT_THREADS_FULL);
		return 0;
	}
	scratch->taken = 1;
	fresh = (struct thread *)scratch->data;
	__builtin_memset(fresh, 0, sizeof(*fresh));
	fresh->of_kernel = BPF_CORE_READ(task, flags) & PF_IO_WORKER;
	full = bpf_map_update_elem(&threads, &tid, fresh, BPF_ANY);
	scratch->taken = 0;
	if (full)
		count(AT_THREADS_FULL);
	return !full;
}

static __always_inline struct thread *current_thread(void)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct thread *thread = bpf_map_lookup_elem(&threads, &tid);

	if (thread || !add_thread(tid))
		return thread;
	return bpf_map_lookup_elem(&threads, &tid);
}

/* Which use of which contextvars.Context this thread is in: the context's address, and the low bits of a count
 * that goes up when the thread enters or leaves one. 0 for a thread that does not run Python.
 *
 * A PyThreadState is in the thread's storage under a pthread key (PEP 539) that is among the first, and it
 * holds the thread's own id, which shows that it is one. A function of its own for the sake of its stack. */
__noinline __u64 python_task(__u32 thread_id, __u32 context)
{
	struct {
		__u64 address, count;
	} current = {};
	__u64 self = arch_thread_pointer();
	__u64 keys = self + ARCH_PTHREAD_KEYS, state = 0;

	if (!self)
		return 0;
#pragma unroll
	for (int key = 0; key < PYTHON_KEYS_MAX; key++) {
		bpf_probe_read_user(&state, sizeof(state), (void *)(keys + 16 * key + 8));
		if (!state)
			continue;
		bpf_probe_read_user(&current.address, sizeof(current.address), (void *)(state + thread_id));
		if (current.address != self)
			continue;
		bpf_probe_read_user(&current, sizeof(current), (void *)(state + context));
		return current.address << 16 | (current.count & 0xffff);
	}
	return 0;
}

/* What is known of the context that python_task() told; nothing of goroutines, whose numbers are small. */
static __always_inline struct python_lineage *python_lineage(__u64 task)
{
	struct python_context_key key = {
		.address = task >> 16,
		.tgid = bpf_get_current_pid_tgid() >> 32,
	};

	return key.address ? bpf_map_lookup_elem(&python_contexts, &key) : 0;
}

/* What the runtime of this process runs on this thread: a goroutine, or one use of a Python context. 0 if the
 * runtime has no such thing or it is not known. */
static __always_inline __u64 current_task_id(const struct at_watched *process)
{
	__u64 g, goid = 0;

	if (process->python_context)
		return python_task(process->python_thread_id, process->python_context);
	if (!process->goid_offset)
		return 0;
	g = arch_go_g();
	if (g)
		bpf_probe_read_user(&goid, sizeof(goid), (void *)(g + process->goid_offset));
	return goid;
}

/* The connection whose reading led to a send on connection `conn_id`, once: a second effect of one read is not
 * claimed to be its effect, because an event loop may have turned to a timer in between. A look at what became
 * of another connection since (getsockopt SO_ERROR) is the nearer cause; at this very one, it is none: nginx
 * looks at a connection before it uses it. */
static __always_inline __u64 take_cause(struct thread *thread, __u64 conn_id)
{
	__u64 cause = thread->cause;

	if (thread->looked_at && thread->looked_at != conn_id)
		cause = thread->looked_at;
	if (thread->cause_run != thread->run)
		cause = 0;
	thread->cause = 0;
	thread->looked_at = 0;
	return cause;
}

static __always_inline void start_of_cause(struct thread *thread)
{
	if (thread->cause_run != thread->run)
		thread->cause = 0;
	thread->cause_run = thread->run;
	thread->looked_at = 0;
}

static __always_inline void set_cause(struct thread *thread, __u64 conn_id)
{
	start_of_cause(thread);
	thread->cause = conn_id;
}

static __always_inline void set_looked_at(struct thread *thread, __u64 conn_id)
{
	start_of_cause(thread);
	thread->looked_at = conn_id;
}

static __always_inline void fill_context(struct at_context *at, const struct at_watched *process,
					 const struct thread *thread, __u64 ts, __u64 cause)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();

	at->ts = ts;
	at->task = current_task_id(process);
	at->cause = cause;
	at->pid = pid_tgid >> 32;
	at->tid = thread && thread->of_kernel ? 0 : pid_tgid;
	at->run = thread ? thread->run : 0;
	at->pad = 0;
}

#endif
