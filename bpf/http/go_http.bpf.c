/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Go's net/http with HTTP/1: which goroutine makes a request that another one writes.
 * autotrace/probes/libraries/go_http_*.toml say which program stands where. */
#include "../include/goroutines.h"

/* Keeps the types of abi.h in the object's BTF; see struct at_abi. */
const struct at_abi *const volatile abi_types = 0;

/* func (pc *persistConn) roundTrip(req *transportRequest) (*Response, error): the goroutine that makes a request. A
 * transportRequest begins with the *Request. */
SEC("uprobe")
int http_round_trip_enters(struct pt_regs *ctx)
{
	struct at_watched *process = current_watched();
	struct goroutine caller;

	if (!process)
		return 0;
	caller = goroutine_of(process, ARCH_GO_G(ctx));
	set_owner(read_user_u64(ARCH_GO_PARAM1(ctx)), &caller);
	return 0;
}

/* func (r *Request) write(w io.Writer, ...) error: the connection's goroutine that writes, before it does. */
SEC("uprobe")
int http_request_written(struct pt_regs *ctx)
{
	struct at_watched *process = current_watched();
	struct goroutine caller, writer;
	struct claim claim;

	if (!process || !take_owner(ARCH_GO_PARAM0(ctx), &caller))
		return 0;
	writer = goroutine_of(process, ARCH_GO_G(ctx));
	begin_claim(&claim, AT_TX, 0);
	claim.event.carrier = writer.id;
	claim.event.task = caller.id;
	claim.event.parent = caller.parent;
	send_claim(&claim);
	return 0;
}

/* func (c *conn) serve(ctx context.Context): a goroutine of its own for each connection, which reads its requests and runs
 * their handlers. What it starts belongs to the first of them, until there is a second one. */
SEC("uprobe")
int http_server_serves(struct pt_regs *ctx)
{
	struct at_watched *process = current_watched();
	struct goroutine handler;
	struct claim claim;

	if (!process)
		return 0;
	handler = goroutine_of(process, ARCH_GO_G(ctx));
	if (!handler.id)
		return 0;
	begin_claim(&claim, AT_RX, 0);
	claim.event.carrier = handler.id;
	claim.event.task = handler.id;
	claim.event.parent = handler.parent;
	claim.event.flags = AT_STREAM_OWN_TASK;
	send_claim(&claim);
	return 0;
}

/* The helpers used (bpf_probe_read_*, bpf_ringbuf_*) are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
