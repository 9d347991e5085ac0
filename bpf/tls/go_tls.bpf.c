/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Go's crypto/tls. autotrace/probes/libraries/go_tls.toml says which program stands where.
 *
 * The stack of a goroutine moves, so no uretprobe is used: the programs for returns stand at the return instructions.
 */
#include "tls.h"

/* Keeps the types of abi.h in the object's BTF; see struct at_abi. */
const struct at_abi *const volatile abi_types = 0;

static __always_inline struct tls_key goroutine(__u64 g)
{
	struct tls_key key = {.session = g, .tgid = bpf_get_current_pid_tgid() >> 32};

	return key;
}

/* A global function: see iov.h. */
__noinline int go_call_begins(__u64 g, __u64 id, __u32 direction, __u64 buffer, __u64 length)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? current_thread() : 0;
	struct tls_key key = goroutine(g);
	struct tls_session *session;
	struct tls_call call = {};

	if (!thread || !id)
		return 0;
	session = find_or_add_session(id);
	if (!session)
		return 0;
	call_begins(process, thread, session, &call, id, direction, buffer, length, 0);
	bpf_map_update_elem(&go_tls_calls, &key, &call, BPF_ANY);
	return 0;
}

/* func (c *Conn) Read(b []byte) (int, error) */
SEC("uprobe")
int go_tls_read_enters(struct pt_regs *ctx)
{
	go_call_begins(ARCH_GO_G(ctx), ARCH_GO_PARAM0(ctx), AT_RX, ARCH_GO_PARAM1(ctx), ARCH_GO_PARAM2(ctx));
	return 0;
}

/* func (c *Conn) Write(b []byte) (int, error) */
SEC("uprobe")
int go_tls_write_enters(struct pt_regs *ctx)
{
	go_call_begins(ARCH_GO_G(ctx), ARCH_GO_PARAM0(ctx), AT_TX, ARCH_GO_PARAM1(ctx), ARCH_GO_PARAM2(ctx));
	return 0;
}

SEC("uprobe")
int go_tls_call_returns(struct pt_regs *ctx)
{
	struct at_watched *process = current_watched();
	struct thread *thread = process ? current_thread() : 0;
	struct tls_key key = goroutine(ARCH_GO_G(ctx));
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
	struct tls_key key = goroutine(ARCH_GO_G(ctx));

	if (current_watched() && !bpf_map_lookup_elem(&go_tls_calls, &key))
		go_call_begins(ARCH_GO_G(ctx), ARCH_GO_PARAM0(ctx), TLS_NO_BYTES, 0, 0);
	return 0;
}

SEC("uprobe")
int go_tls_handshake_returns(struct pt_regs *ctx)
{
	struct tls_key key = goroutine(ARCH_GO_G(ctx));
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
