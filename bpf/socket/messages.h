/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The bytes of a call as the socket layer gets them: struct msghdr and its iov_iter, of every kernel. Shared by the
 * flavours that hook the socket layer itself (fentry, kprobe), which see io_uring too. */
#ifndef AUTOTRACE_SOCKET_MESSAGES_H
#define AUTOTRACE_SOCKET_MESSAGES_H

#include "core.h"

const volatile __u32 recvmsg_has_nonblock = 0;

/* A pointer as a number. The verifier follows the types of what a program is given, and lets such a pointer neither
 * into arithmetic nor into a global function; what was in a map has no type. */
static __always_inline __u64 plain_number(struct thread *thread, const void *pointer)
{
	*(volatile __u64 *)&thread->number = (__u64)pointer;
	return *(volatile __u64 *)&thread->number;
}

static __always_inline __u64 iovec_array(struct thread *thread, struct iov_iter *iter)
{
	if (bpf_core_field_exists(iter->__iov))
		return plain_number(thread, iter->__iov);
	return plain_number(thread, ((struct iov_iter___iov *)iter)->iov);
}

/* What a sending call has still to send. Nothing if that is not in user memory (sendfile, splice). `iter` is memory
 * that the program may read: the function's own, typed, or a copy. */
static __always_inline struct user_bytes bytes_ahead(struct thread *thread, struct iov_iter *iter)
{
	struct user_bytes bytes = {};

	if (is_user_buffer(iter)) {
		bytes.base = plain_number(thread, iter->ubuf) + iter->iov_offset;
	} else if (is_iovec(iter)) {
		bytes.base = iovec_array(thread, iter);
		bytes.pieces = iter->nr_segs;
		bytes.skip = iter->iov_offset;
	} else {
		return bytes;
	}
	bytes.length = iter->count;
	return bytes;
}

/* How many pieces before `base` hold `wanted` bytes; the bytes of the first of them that are not wanted stand in
 * the upper half. 0 if IOV_PIECES hold less. */
__noinline __u64 pieces_back(__u64 base, __u64 wanted)
{
	struct iovec piece;

	for (__u32 i = 1; i <= IOV_PIECES; i++) {
		if (!read_piece(&piece, base, -(__s64)i))
			return 0;
		if (piece.iov_len >= wanted)
			return i | (piece.iov_len - wanted) << 32;
		wanted -= piece.iov_len;
	}
	return 0;
}

/* The same for as many as a call can have. */
__noinline __u64 all_pieces_back(__u64 base, __u64 wanted)
{
	__u64 back, length;

	for (__u32 i = 0; i < UIO_MAXIOV / IOV_PIECES; i++) {
		back = pieces_back(base, wanted);
		if (back)
			return back + i * IOV_PIECES;
		base -= IOV_PIECES * sizeof(struct iovec);
		length = part_length(base, IOV_PIECES);
		if (!length || length >= wanted)
			return 0;
		wanted -= length;
	}
	return 0;
}

/* The last `done` bytes that a call has moved: an iov_iter only goes forward, over memory that stays. */
static __always_inline struct user_bytes bytes_behind(struct thread *thread, struct iov_iter *iter,
						      __u64 done)
{
	struct user_bytes bytes = {};
	__u64 offset = iter->iov_offset, back;

	if (is_user_buffer(iter)) {
		bytes.base = plain_number(thread, iter->ubuf) + offset - done;
	} else if (is_iovec(iter)) {
		bytes.base = iovec_array(thread, iter);
		bytes.pieces = 1;
		bytes.skip = offset - done;
		if (done > offset) {
			back = all_pieces_back(bytes.base, done - offset);
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

/* `ahead`: see send_begins. */
static __always_inline void message_send_begins(const struct at_watched *process, struct thread *thread,
						struct sock *sk, const struct standing *standing,
						struct iov_iter *iter, bool ahead)
{
	struct user_bytes bytes = bytes_ahead(thread, iter);

	if (bytes.base)
		send_begins(process, thread, sk, standing, &bytes, ahead);
	else if (ahead)
		send_unseen_ahead(sk, standing, iter->count);
	else
		send_unseen_begins(sk);
}

/* Is the result of a receiving call, made with `flags`, no news? */
static __always_inline bool nothing_received(__s64 got, __u64 flags)
{
	return got == -EAGAIN || flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE);
}

/* `bytes` are what was received, if that is in user memory. */
static __always_inline void message_received(const struct at_watched *process, struct thread *thread,
					     struct sock *sk, const struct standing *standing,
					     struct user_bytes *bytes, __u64 flags, __s64 got)
{
	if (got > 0 && (flags & MSG_TRUNC || !bytes->base))
		receive_unseen_ends(sk, standing, got);
	else
		receive_ends(process, thread, sk, standing, bytes, got);
}

#endif
