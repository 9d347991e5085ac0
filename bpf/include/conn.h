/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Connections: from descriptor to socket, from socket to its state, and their open and close records. */
#ifndef AUTOTRACE_CONN_H
#define AUTOTRACE_CONN_H

#include "context.h"

static __always_inline struct file *open_file(struct task_struct *task, __u32 fd)
{
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct file **table, *file = 0;

	if (fd >= BPF_CORE_READ(fdt, max_fds))
		return 0;
	table = BPF_CORE_READ(fdt, fd);
	bpf_probe_read_kernel(&file, sizeof(file), &table[fd]);
	return file;
}

/* Will close() of this descriptor be the end of the file? */
static __always_inline bool last_reference(__u32 fd)
{
	struct file *file = open_file((struct task_struct *)bpf_get_current_task(), fd);

	return has_one_reference(file);
}

/* The stream socket behind a descriptor of a task, or 0. */
static __always_inline struct sock *stream_sock_of(struct task_struct *task, __u32 fd)
{
	struct file *file = open_file(task, fd);
	struct socket *socket;
	struct sock *sk;
	__u16 family;

	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	if (!sk || BPF_CORE_READ(sk, sk_type) != SOCK_STREAM)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (family == AF_UNIX)
		return sk;
	/* A stream of MPTCP or SCTP is no struct tcp_sock: its numbers stand elsewhere. */
	if ((family != AF_INET && family != AF_INET6) || BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return 0;
	return sk;
}

static __always_inline struct sock *stream_sock(__u32 fd)
{
	return stream_sock_of((struct task_struct *)bpf_get_current_task(), fd);
}

/* Continue a 64-bit position from the kernel's 32-bit sequence number. */
static __always_inline __u64 extend(__u64 last, __u32 seq)
{
	return last + (__s64)(__s32)(seq - (__u32)last);
}

/* What a socket says of itself during a call, read once: each read of kernel memory costs as much as a map lookup. */
struct standing {
	__u32 written; /* TCP's write_seq */
	__u32 copied;  /* TCP's copied_seq */
	__u8 state;
};

static __always_inline struct standing standing_of(struct sock *sk)
{
	struct standing standing = {};

	standing.state = BPF_CORE_READ(sk, __sk_common.skc_state);
	standing.written = BPF_CORE_READ((struct tcp_sock *)sk, write_seq);
	standing.copied = BPF_CORE_READ((struct tcp_sock *)sk, copied_seq);
	return standing;
}

/* Can bytes be sent now? Not before the connection stands, when its sequence numbers are not chosen yet. */
static __always_inline bool can_send(const struct standing *standing)
{
	return standing->state == TCP_ESTABLISHED || standing->state == TCP_CLOSE_WAIT;
}

/* Where sending stands now. Unix sockets have no such number: theirs is counted by the core. Once a FIN is
 * sent, write_seq counts it too, and it is no byte of the stream. */
static __always_inline __u64 sent_position(const struct conn *conn, const struct standing *standing)
{
	__u64 last = conn->reach[AT_TX].end;

	if (conn->family == AF_UNIX || !can_send(standing))
		return last;
	return extend(last, standing->written);
}

/* Where receiving stands after a call that took `bytes`. */
static __always_inline __u64 received_position(const struct conn *conn, const struct standing *standing,
					       __u64 bytes)
{
	__u64 expected = conn->reach[AT_RX].end + bytes, end;

	if (conn->family == AF_UNIX)
		return expected;
	end = extend(expected, standing->copied);
	/* A FIN that came with the last data is counted by copied_seq (tcp_recvmsg_locked, found_fin_ok). */
	return end == expected + 1 ? expected : end;
}

/* What was sent by calls that were counted when they began, or were not seen, or are not over yet. */
static __always_inline void catch_up(struct conn *conn, const struct standing *standing)
{
	struct at_reach *reach = &conn->reach[AT_TX];
	__u64 end;

	if (conn->tls)
		return;
	end = sent_position(conn, standing);
	if (end <= reach->end)
		return;
	reach->end = end;
	if (!reach->last_ts)
		reach->last_ts = bpf_ktime_get_ns();
}

/* `reach` says how far this end has sent: does its tail end there? */
static __always_inline void withhold_tail(const struct conn *conn, struct at_reach *reach)
{
	if (reach->end != conn->sent_ahead)
		reach->tail_len = 0;
}

/* User space is told how far a direction has come. What was counted when it began, and is still being sent, will have
 * come further by the next time. */
static __always_inline void mark_told(struct conn *conn, __u32 direction)
{
	if (direction == AT_RX || conn->reach[AT_TX].end >= conn->sent_ahead)
		conn->dirty[direction & 1] = 0;
}

/* Away from 0, so that going back by a few bytes never wraps. */
static __always_inline void start_positions(struct conn *conn, struct sock *sk)
{
	struct tcp_sock *tcp = (struct tcp_sock *)sk;

	if (conn->family == AF_UNIX)
		return;
	conn->reach[AT_RX].end = (1ULL << 32) + BPF_CORE_READ(tcp, copied_seq);
	conn->reach[AT_TX].end = (1ULL << 32) + BPF_CORE_READ(tcp, write_seq);
}

/* Bytes that have come and were not read can still be read when TCP is done with the connection (a reset, or the
 * end of both directions). close() empties the queue first; a FIN counts as one. */
static __always_inline bool has_unread_bytes(struct sock *sk)
{
	struct tcp_sock *tcp = (struct tcp_sock *)sk;

	return BPF_CORE_READ(sk, sk_receive_queue.qlen) &&
	       (__s32)(BPF_CORE_READ(tcp, rcv_nxt) - BPF_CORE_READ(tcp, copied_seq)) > 1;
}

/* Has the last descriptor of a Unix socket been closed? Its memory may be another's by now: then this can say no
 * although it was, but never yes of a socket in use. */
static __always_inline bool is_released(struct sock *sk)
{
	return !BPF_CORE_READ(sk, sk_socket);
}

static __always_inline struct conn *find_conn(struct sock *sk)
{
	__u64 key = (__u64)sk;

	return bpf_map_lookup_elem(&conns, &key);
}

#define FRESH_ID_TRIES 4

/* An id that no other connection has had; 0 if there is none. Another thread's program may come between any two steps of
 * this one (preempt=full), and kernels before 5.12 have no addition that tells what it made: a number is taken only if
 * nobody has added since it was last looked at. */
static __always_inline __u64 fresh_id(void)
{
	__u32 zero = 0;
	volatile __u64 *id = bpf_map_lookup_elem(&next_id, &zero);
	__u64 before;

	if (!id)
		return 0;
#pragma unroll
	for (int i = 0; i < FRESH_ID_TRIES; i++) {
		before = *id;
		__sync_fetch_and_add(id, 1);
		if (*id == before + 1)
			return (before + 1) << 12 | (bpf_get_smp_processor_id() & 0xfff);
	}
	return 0;
}

/* A function of its own, and put together in a slot, for the sake of the stack: see add_thread. */
__noinline int add_conn(__u64 key, __u32 flags)
{
	__u32 slot = free_slot();
	__u64 id = fresh_id();
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	struct sock *sk = (struct sock *)key;
	struct conn *conn;
	bool full;

	if (!id || !scratch) {
		count(AT_CONNS_FULL);
		return 0;
	}
	scratch->taken = 1;
	conn = (struct conn *)scratch->data;
	__builtin_memset(conn, 0, sizeof(*conn));
	conn->id = id;
	conn->pid = bpf_get_current_pid_tgid() >> 32;
	conn->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	conn->speaker = TURN_NONE;
	conn->flags = flags;
	start_positions(conn, sk);
	full = bpf_map_update_elem(&conns, &key, conn, BPF_ANY);
	scratch->taken = 0;
	if (full)
		count(AT_CONNS_FULL);
	return !full;
}

static __always_inline struct conn *make_conn(struct sock *sk, __u32 flags)
{
	return add_conn((__u64)sk, flags) ? find_conn(sk) : 0;
}

static __always_inline void unix_path(__u8 *to, struct sock *sk)
{
	struct unix_address *address = BPF_CORE_READ((struct unix_sock *)sk, addr);
	__u32 length;

	if (!address)
		return;
	length = BPF_CORE_READ(address, len) - sizeof(address->name[0].sun_family);
	if (length >= AT_ADDR_MAX)
		return;
	/* The mask says to the verifier what the comparison says to the reader; the barrier keeps it there. */
	barrier_var(length);
	length &= AT_ADDR_MAX - 1;
	bpf_probe_read_kernel(to, length, &address->name[0].sun_path);
}

static __always_inline void describe(struct at_conn_event *event, const struct conn *conn, struct sock *sk)
{
	event->sock = (__u64)sk;
	event->family = conn->family;
	event->flags = conn->flags;
	event->opened = conn->opened;
	event->rx = conn->reach[AT_RX];
	event->tx = conn->reach[AT_TX];
	withhold_tail(conn, &event->tx);
	event->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	if (conn->family == AF_UNIX) {
		struct sock *peer = BPF_CORE_READ((struct unix_sock *)sk, peer);

		event->peer_sock = (__u64)peer;
		unix_path(event->local, sk);
		if (peer)
			unix_path(event->remote, peer);
		return;
	}
	event->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	event->remote_port = __builtin_bswap16(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (conn->family == AF_INET) {
		BPF_CORE_READ_INTO((__u32 *)event->local, sk, __sk_common.skc_rcv_saddr);
		BPF_CORE_READ_INTO((__u32 *)event->remote, sk, __sk_common.skc_daddr);
	} else {
		BPF_CORE_READ_INTO((struct in6_addr *)event->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO((struct in6_addr *)event->remote, sk, __sk_common.skc_v6_daddr);
	}
}

/* Send AT_CONN_OPEN or AT_CONN_CLOSE for the connection of socket `key`. Returns 0 if the ring had no room.
 * A global function: see iov.h. */
__noinline int send_conn_event(__u32 type, __u64 key, __u64 ts, __u32 error)
{
	struct conn *conn = bpf_map_lookup_elem(&conns, &key);
	struct at_conn_event *event;
	__u64 wakeup;

	if (!conn)
		return 0;
	wakeup = wakeup_flag(sizeof(*event));
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count(type == AT_CONN_OPEN ? AT_LOST_OPEN : AT_LOST_CLOSE);
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->h.type = type;
	event->h.size = sizeof(*event);
	event->h.ts = ts;
	event->h.conn = conn->id;
	event->h.pid = conn->pid;
	event->error = error;
	describe(event, conn, (struct sock *)key);
	bpf_ringbuf_submit(event, wakeup);
	count(AT_SENT);
	return 1;
}

/* Forget a connection. */
static __always_inline void delete_conn(__u64 key)
{
	struct conn *conn = bpf_map_lookup_elem(&conns, &key);

	if (conn && conn->protocol == PROTOCOL_HTTP2)
		bpf_map_delete_elem(&http2_conns, &key);
	bpf_map_delete_elem(&conns, &key);
}

static __always_inline void close_conn(struct sock *sk, struct conn *conn, __u32 error)
{
	__u64 key = (__u64)sk;

	/* User space hears of connections it knows, and of those that could not be made. */
	if (conn->announced || ((conn->flags & AT_CONN_OUTGOING) && !(conn->flags & AT_CONN_ESTABLISHED)))
		send_conn_event(AT_CONN_CLOSE, key, bpf_ktime_get_ns(), error);
	delete_conn(key);
}

static __always_inline void send_progress(struct conn *conn, __u32 direction)
{
	__u64 wakeup = wakeup_flag(sizeof(struct at_progress_event));
	struct at_progress_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		count(AT_LOST_PROGRESS);
		return;
	}
	mark_told(conn, direction);
	event->h.type = AT_PROGRESS;
	event->h.size = sizeof(*event);
	event->h.ts = bpf_ktime_get_ns();
	event->h.conn = conn->id;
	event->h.pid = conn->pid;
	event->h.tid = 0;
	event->reach = conn->reach[direction & 1];
	if (direction == AT_TX)
		withhold_tail(conn, &event->reach);
	event->direction = direction;
	event->pad = 0;
	bpf_ringbuf_submit(event, wakeup);
	count(AT_SENT);
}

#endif
