/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Which contextvars.Context of CPython was copied from which. asyncio runs each task in a copy of the context that made
 * the task, and grpcio makes a task for each call. autotrace/probes/libraries/python_contexts.toml says which program
 * stands where.
 */
#include "../include/context.h"

/* Keeps the types of abi.h in the object's BTF; see struct at_abi. */
const struct at_abi *const volatile abi_types = 0;

/* PyContext *PyContext_CopyCurrent(void) returns a copy of the context that the thread is in, and is in as before. */
SEC("uprobe")
int python_context_copied(struct pt_regs *ctx)
{
	struct at_watched *process = current_watched();
	struct python_context_key copy = {
		.address = ARCH_RESULT(ctx),
		.tgid = bpf_get_current_pid_tgid() >> 32,
	};
	struct python_lineage lineage = {}, *above;

	if (!process || !process->python_context || !copy.address)
		return 0;
	above = python_lineage(python_task(process->python_thread_id, process->python_context));
	lineage.made[0] = bpf_ktime_get_ns();
	if (above)
		__builtin_memcpy(&lineage.made[1], above, sizeof(lineage) - sizeof(lineage.made[0]));
	bpf_map_update_elem(&python_contexts, &copy, &lineage, BPF_ANY);
	return 0;
}

/* static void context_tp_dealloc(PyContext *self): another context can come to be at its place, by other ways than a
 * copy, too. */
SEC("uprobe")
int python_context_freed(struct pt_regs *ctx)
{
	struct python_context_key key = {
		.address = ARCH_PARAM0(ctx),
		.tgid = bpf_get_current_pid_tgid() >> 32,
	};

	if (current_watched())
		bpf_map_delete_elem(&python_contexts, &key);
	return 0;
}

/* The helper used (bpf_probe_read_user) is for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
