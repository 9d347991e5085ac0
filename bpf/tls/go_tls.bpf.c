/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Go's crypto/tls. autotrace/probes/libraries/go_tls.toml says which program stands where.
 *
 * The stack of a goroutine moves, so no uretprobe is used: the programs for returns stand at the return instructions.
 */
#include "tls.h"

/* Keeps the types of abi.h in the object's BTF; see struct at_abi. */
const struct at_abi *const volatile abi_types = 0;

static __always_inline struct tls_key goroutine(struct pt_regs *ctx)
{
	struct tls_key key = {.session = ARCH_GO_G(ctx), .tgid = bpf_get_current_pid_tgid() >> 32};

	return key;
}

static __always_inline void go_call_begins(struct pt_regs *ctx, __u32 direction)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? current_thread() : 0;
	struct tls_key key = goroutine(ctx);
	__u64 id = ARCH_GO_PARAM0(ctx);
	struct tls_session *session;
	struct tls_call call = {};

	if (!thread || !id)
		return;
	session = find_or_add_session(id);
	if (!session)
		return;
	if (direction == TLS_NO_BYTES)
		call_begins(process, thread, session, &call, id, direction, 0, 0, 0);
	else
		call_begins(process, thread, session, &call, id, direction, ARCH_GO_PARAM1(ctx),
			    ARCH_GO_PARAM2(ctx), 0);
	bpf_map_update_elem(&go_tls_calls, &key, &call, BPF_ANY);
}

/* func (c *Conn) Read(b []byte) (int, error) */
SEC("uprobe")
int go_tls_read_enters(struct pt_regs *ctx)
{
	go_call_begins(ctx, AT_RX);
	return 0;
}

/* func (c *Conn) Write(b []byte) (int, error) */
SEC("uprobe")
int go_tls_write_enters(struct pt_regs *ctx)
{
	go_call_begins(ctx, AT_TX);
	return 0;
}

SEC("uprobe")
int go_tls_call_returns(struct pt_regs *ctx)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? current_thread() : 0;
	struct tls_key key = goroutine(ctx);
	struct tls_call *found = thread ? bpf_map_lookup_elem(&go_tls_calls, &key) : 0;
	struct tls_call call;

	if (!found)
		return 0;
	call = *found;
	bpf_map_delete_elem(&go_tls_calls, &key);
	call_ends(process, thread, &call, ARCH_GO_RESULT(ctx));
	return 0;
}

/* func (c *Conn) clientHandshake(ctx context.Context) error, serverHandshake: once for each connection. Read and Write
 * may call them: then the call is theirs, and goes on. */
SEC("uprobe")
int go_tls_handshake_enters(struct pt_regs *ctx)
{
	struct tls_key key = goroutine(ctx);

	if (current_watched() && !bpf_map_lookup_elem(&go_tls_calls, &key))
		go_call_begins(ctx, TLS_NO_BYTES);
	return 0;
}

SEC("uprobe")
int go_tls_handshake_returns(struct pt_regs *ctx)
{
	struct tls_key key = goroutine(ctx);
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
