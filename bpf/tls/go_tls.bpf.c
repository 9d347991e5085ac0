/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Go's crypto/tls. autotrace/probes/libraries/go_tls.toml says which program stands where.
 *
 * The stack of a goroutine moves, so no uretprobe is used: the programs for returns stand at the return instructions.
 */
#include "tls.h"

/* Keeps the types of abi.h in the object's BTF; see struct at_abi. */
const struct at_abi *const volatile abi_types = 0;

/* The goroutine `g` enters a call for the session `id`. Returns 0 if it is not looked at. A global function: see iov.h. */
__noinline int go_call_enters(__u64 g, __u64 id, __u32 direction, __u64 buffer, __u64 length)
{
	struct thread *thread = current_watched() ? current_thread() : 0;
	struct tls_key key = task_key(g);
	struct tls_call call = {.session = id, .buffer = buffer, .length = length, .direction = direction};
	struct tls_call *caller;

	if (!thread || !id || !g || !find_or_add_session(id))
		return 0;
	call.run = thread->run;
	caller = bpf_map_lookup_elem(&go_tls_calls, &key);
	if (caller && caller->session != id)
		call.nested = keep_caller(g, caller);
	return !bpf_map_update_elem(&go_tls_calls, &key, &call, BPF_ANY);
}

/* The write that the goroutine has entered begins. What it returns is what thread_write_begins does. A global function: see
 * iov.h. */
__noinline int go_write_begins(__u64 g)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? current_thread() : 0;
	struct tls_key key = task_key(g);
	struct tls_call *call = bpf_map_lookup_elem(&go_tls_calls, &key);
	struct tls_session *session = call ? find_session(call->session) : 0;

	if (!thread || !session || !call_begins(process, thread, session, call))
		return 0;
	return call->nested ? RECORDS_OF_CALLER : RECORDS_MOVE;
}

/* The goroutine's call has returned `result`. Returns what call_ends does. A global function: see iov.h. */
__noinline int go_call_ends(__u64 g, __s64 result)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? current_thread() : 0;
	struct tls_key key = task_key(g);
	struct tls_call *call = bpf_map_lookup_elem(&go_tls_calls, &key);

	return thread && call && call_ends(process, thread, call, result);
}

/* func (c *Conn) Read(b []byte) (int, error) */
SEC("uprobe")
int go_tls_read_enters(struct pt_regs *ctx)
{
	go_call_enters(ARCH_GO_G(ctx), ARCH_GO_PARAM0(ctx), AT_RX, ARCH_GO_PARAM1(ctx), ARCH_GO_PARAM2(ctx));
	return 0;
}

/* func (c *Conn) Write(b []byte) (int, error) */
SEC("uprobe")
int go_tls_write_enters(struct pt_regs *ctx)
{
	__u64 g = ARCH_GO_G(ctx), id = ARCH_GO_PARAM0(ctx);
	int records = 0;

	if (go_call_enters(g, id, AT_TX, ARCH_GO_PARAM1(ctx), ARCH_GO_PARAM2(ctx)))
		records = go_write_begins(g);
	if (records)
		records_move(id, AT_TX, records == RECORDS_OF_CALLER, g);
	return 0;
}

SEC("uprobe")
int go_tls_call_returns(struct pt_regs *ctx)
{
	__u64 g = ARCH_GO_G(ctx);
	struct tls_key key = task_key(g);
	struct tls_call *call = current_watched() ? bpf_map_lookup_elem(&go_tls_calls, &key) : 0;

	if (!call)
		return 0;
	if (go_call_ends(g, ARCH_GO_RESULT(ctx)))
		records_move(call->session, call->direction, call->nested, g);
	if (!take_caller(g, call))
		bpf_map_delete_elem(&go_tls_calls, &key);
	return 0;
}

/* func (c *Conn) clientHandshake(ctx context.Context) error, serverHandshake: once for each connection. Read and Write
 * may call them: then the call is theirs, and goes on. */
SEC("uprobe")
int go_tls_handshake_enters(struct pt_regs *ctx)
{
	struct tls_key key = task_key(ARCH_GO_G(ctx));

	if (current_watched() && !bpf_map_lookup_elem(&go_tls_calls, &key))
		go_call_enters(ARCH_GO_G(ctx), ARCH_GO_PARAM0(ctx), TLS_NO_BYTES, 0, 0);
	return 0;
}

SEC("uprobe")
int go_tls_handshake_returns(struct pt_regs *ctx)
{
	struct tls_key key = task_key(ARCH_GO_G(ctx));
	struct tls_call *call = current_watched() ? bpf_map_lookup_elem(&go_tls_calls, &key) : 0;

	if (call && call->direction == TLS_NO_BYTES)
		bpf_map_delete_elem(&go_tls_calls, &key);
	return 0;
}

/* func (c *Conn) Close() error: the garbage collector may use the address for another one after it. */
SEC("uprobe")
int go_tls_close_enters(struct pt_regs *ctx)
{
	session_ends(ARCH_GO_PARAM0(ctx));
	return 0;
}

/* The helpers used (bpf_probe_read_*, bpf_ringbuf_*) are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
