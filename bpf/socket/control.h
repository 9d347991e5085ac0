/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* What user space runs by itself: the sweep over connections, a list of them, and commands for one of them. */
#ifndef AUTOTRACE_SOCKET_CONTROL_H
#define AUTOTRACE_SOCKET_CONTROL_H

#include "core.h"

/* Keeps the types of abi.h in the object's BTF; see struct at_abi. */
const struct at_abi *const volatile abi_types = 0;

#define SWEEP_QUIET_NS 20000000ULL /* a direction that moved in the last 20 ms is still busy */

/* Tell how far the connections have come that user space knows and that went quiet since it was told. Unix sockets
 * whose close() was not seen (the process exited, or used dup2) end here. */
SEC("iter/bpf_map_elem")
int sweep(struct bpf_iter__bpf_map_elem *ctx)
{
	struct conn *conn = ctx->value;
	__u64 *key = ctx->key, now = bpf_ktime_get_ns();
	struct standing standing;

	if (!conn || !key)
		return 0;
	if (conn->family == AF_UNIX && is_released((struct sock *)*key)) {
		close_conn((struct sock *)*key, conn, 0);
		return 0;
	}
	if (!conn->announced)
		return 0;
	if (conn->ended && is_released((struct sock *)*key)) {
		close_conn((struct sock *)*key, conn, conn->error);
		return 0;
	}
	if (conn->dirty[AT_RX] && now - conn->reach[AT_RX].last_ts > SWEEP_QUIET_NS)
		send_progress(conn, AT_RX);
	if (conn->dirty[AT_TX] && now - conn->reach[AT_TX].last_ts > SWEEP_QUIET_NS) {
		standing = standing_of((struct sock *)*key);
		catch_up(conn, &standing);
		send_progress(conn, AT_TX);
	}
	return 0;
}

/* The ids of all connections, one behind the other. */
SEC("iter/bpf_map_elem")
int followed(struct bpf_iter__bpf_map_elem *ctx)
{
	struct conn *conn = ctx->value;
	__u64 id;

	if (!conn)
		return 0;
	id = conn->id;
	bpf_seq_write(ctx->meta->seq, &id, sizeof(id));
	return 0;
}

/* Run by user space with bpf(BPF_PROG_TEST_RUN): args are command, socket, connection id. Never attached. */
SEC("raw_tp/autotrace_control")
int control(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 command = ctx->args[0], key = ctx->args[1], id = ctx->args[2];
	struct conn *conn = bpf_map_lookup_elem(&conns, &key);

	/* The kernel may have used the address again. */
	if (!conn || conn->id != id)
		return 0;
	if (command == AT_STOP) {
		if (conn->protocol == PROTOCOL_HTTP2)
			bpf_map_delete_elem(&http2_conns, &key);
		conn->protocol = PROTOCOL_STOPPED;
	} else if (command == AT_FORGET) {
		delete_conn(key);
	}
	return 0;
}

#endif
