/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The bytes of a call as the socket layer gets them: struct msghdr and its iov_iter, of every kernel. Shared by the
 * flavours that hook the socket layer itself (fentry, kprobe), which see io_uring too. */
#ifndef AUTOTRACE_SOCKET_MESSAGES_H
#define AUTOTRACE_SOCKET_MESSAGES_H

#include "core.h"

/* Set by user space: tcp_recvmsg had a parameter `nonblock` before its flags until Linux 5.19,
 * ec095263a965 ("net: remove noblock parameter from recvmsg() entities"). */
const volatile __u32 recvmsg_has_nonblock = 0;

/* An iov_iter, read at once: each read of kernel memory costs as much as a map lookup. */
#define ITER_MAX 40
struct iter {
	__u8 bytes[ITER_MAX];
};

static __always_inline struct iter read_iter(struct msghdr *message)
{
	struct iter iter = {};
	__u64 size = bpf_core_type_size(struct iov_iter);

	bpf_probe_read_kernel(&iter, size < ITER_MAX ? size : ITER_MAX, &message->msg_iter);
	return iter;
}

#define ITER_FIELD(iter, flavour, field)                           \
	(*(typeof(((struct flavour *)0)->field) *)((iter)->bytes + \
						   bpf_core_field_offset(struct flavour, field)))

static __always_inline bool is_user_buffer(struct iter *iter)
{
	return bpf_core_enum_value_exists(enum iter_type, ITER_UBUF) &&
	       ITER_FIELD(iter, iov_iter, iter_type) == bpf_core_enum_value(enum iter_type, ITER_UBUF);
}

static __always_inline bool is_iovec(struct iter *iter)
{
	__u32 type;

	if (bpf_core_field_exists(((struct iov_iter *)0)->iter_type))
		type = ITER_FIELD(iter, iov_iter, iter_type);
	else
		type = ITER_FIELD(iter, iov_iter___type, type) & ~1U;
	return type == bpf_core_enum_value(enum iter_type, ITER_IOVEC);
}

static __always_inline __u64 iovec_array(struct iter *iter)
{
	if (bpf_core_field_exists(((struct iov_iter *)0)->__iov))
		return (__u64)ITER_FIELD(iter, iov_iter, __iov);
	return (__u64)ITER_FIELD(iter, iov_iter___iov, iov);
}

/* What a sending call has still to send. Nothing if that is not in user memory (sendfile, splice). */
static __always_inline struct user_bytes bytes_ahead(struct iter *iter)
{
	struct user_bytes bytes = {};

	if (is_user_buffer(iter)) {
		bytes.base = (__u64)ITER_FIELD(iter, iov_iter, ubuf) + ITER_FIELD(iter, iov_iter, iov_offset);
	} else if (is_iovec(iter)) {
		bytes.base = iovec_array(iter);
		bytes.pieces = ITER_FIELD(iter, iov_iter, nr_segs);
		bytes.skip = ITER_FIELD(iter, iov_iter, iov_offset);
	} else {
		return bytes;
	}
	bytes.length = ITER_FIELD(iter, iov_iter, count);
	return bytes;
}

/* How many pieces before `base` hold `wanted` bytes; the bytes of the first of them that are not wanted stand in
 * the upper half. */
__noinline __u64 pieces_back(__u64 base, __u64 wanted)
{
	struct iovec piece;

	for (__u32 i = 1; i <= IOV_PIECES; i++) {
		if (!read_piece(&piece, base - i * sizeof(piece), 0))
			return 0;
		if (piece.iov_len >= wanted)
			return i | (piece.iov_len - wanted) << 32;
		wanted -= piece.iov_len;
	}
	return 0;
}

/* The last `done` bytes that a call has moved: an iov_iter only goes forward, over memory that stays. */
static __always_inline struct user_bytes bytes_behind(struct iter *iter, __u64 done)
{
	struct user_bytes bytes = {};
	__u64 offset = ITER_FIELD(iter, iov_iter, iov_offset), back;

	if (is_user_buffer(iter)) {
		bytes.base = (__u64)ITER_FIELD(iter, iov_iter, ubuf) + offset - done;
	} else if (is_iovec(iter)) {
		bytes.base = iovec_array(iter);
		bytes.pieces = 1;
		bytes.skip = offset - done;
		if (done > offset) {
			back = pieces_back(bytes.base, done - offset);
			bytes.base -= (__u32)back * sizeof(struct iovec);
			bytes.pieces += (__u32)back;
			bytes.skip = back >> 32;
			if (!back)
				return (struct user_bytes){};
		}
	} else {
		return bytes;
	}
	bytes.length = done;
	return bytes;
}

static __always_inline void message_send_begins(const struct at_watched *process, struct sock *sk,
						struct msghdr *message)
{
	struct iter iter = read_iter(message);
	struct user_bytes bytes = bytes_ahead(&iter);

	if (bytes.base)
		send_begins(process, sk, &bytes);
	else
		send_unseen_begins(sk);
}

static __always_inline void message_send_ends(const struct at_watched *process, struct thread *thread,
					      struct msghdr *message, __s64 taken)
{
	struct user_bytes bytes = {};
	struct iter iter;

	if (taken > 0 && message) {
		iter = read_iter(message);
		bytes = bytes_behind(&iter, taken);
	}
	send_ends(process, thread, &bytes, taken);
}

static __always_inline void message_received(const struct at_watched *process, struct sock *sk,
					     struct msghdr *message, __u64 flags, __s64 got)
{
	struct user_bytes bytes = {};
	struct iter iter;

	if (got == -EAGAIN || flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
		return;
	if (got > 0) {
		iter = read_iter(message);
		bytes = bytes_behind(&iter, got);
	}
	if (got > 0 && (flags & MSG_TRUNC || !bytes.base))
		receive_unseen_ends(sk, got);
	else
		receive_ends(process, sk, &bytes, got);
}

#endif
