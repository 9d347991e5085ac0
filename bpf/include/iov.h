/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The memory of one read or write call, as one range of bytes, however many pieces it has. */
#ifndef AUTOTRACE_IOV_H
#define AUTOTRACE_IOV_H

#include "maps.h"

/* The functions below that are not inline take plain numbers and look up what they need: so the verifier checks
 * each of them once by itself (a "global" function), not again for every way that leads to it, and kernels before
 * 5.12 accept them. */

#define IOV_PIECES 64	/* what is copied of one call; nginx writes at most 64 at once */
#define UIO_MAXIOV 1024 /* what the kernel takes of one call (include/uapi/linux/uio.h); all is counted */
#define TAIL_PIECES 9	/* that are looked at for a call's last bytes; all but two of them may be empty */

static __always_inline struct user_bytes one_buffer(__u64 base, __u64 length)
{
	struct user_bytes bytes = {.base = base, .length = length};

	return bytes;
}

static __always_inline struct user_bytes iov_array(__u64 base, __u64 pieces)
{
	struct user_bytes bytes = {.base = base, .pieces = pieces};

	return bytes;
}

static __always_inline struct user_bytes msg_bytes(__u64 message)
{
	struct user_msghdr header = {};

	if (bpf_probe_read_user(&header, sizeof(header), (void *)message))
		count(AT_READ_FAULTS);
	return iov_array((__u64)header.msg_iov, header.msg_iovlen);
}

/* The bytes that `messages` messages of recvmmsg or sendmmsg moved. */
__noinline __u64 mmsg_total(__u64 array, __s64 messages)
{
	__u64 total = 0;
	__u32 length;

	for (__u32 i = 0; i < IOV_PIECES && i < messages; i++) {
		struct mmsghdr *message = (struct mmsghdr *)(array + i * sizeof(struct mmsghdr));

		length = 0;
		bpf_probe_read_user(&length, sizeof(length), &message->msg_len);
		total += length;
	}
	return total;
}

static __always_inline bool read_piece(struct iovec *piece, __u64 base, __s64 i)
{
	void *from = (void *)(base + i * (__s64)sizeof(*piece));

	/* The array is the program's own, or the kernel's copy of it: kernel addresses have the top bit set. */
	if ((__s64)base < 0 ? bpf_probe_read_kernel(piece, sizeof(*piece), from)
			    : bpf_probe_read_user(piece, sizeof(*piece), from)) {
		count(AT_READ_FAULTS);
		return 0;
	}
	return 1;
}

/* The bytes of the first IOV_PIECES of an array of pieces. Whole arrays are walked in such parts, so that the verifier
 * has a short loop in a short loop, not one of 1,024 rounds. */
__noinline __u64 part_length(__u64 base, __u64 pieces)
{
	struct iovec piece;
	__u64 length = 0;

	for (__u32 i = 0; i < IOV_PIECES && i < pieces; i++) {
		if (!read_piece(&piece, base, i))
			break;
		length += piece.iov_len;
	}
	return length;
}

/* The bytes of an array of pieces. */
__noinline __u64 pieces_length(__u64 base, __u64 pieces)
{
	__u64 length = 0;

	for (__u32 i = 0; i < UIO_MAXIOV && i < pieces; i += IOV_PIECES)
		length += part_length(base + i * sizeof(struct iovec), pieces - i);
	return length;
}

/* Where the bytes of an array of pieces begin, of whose first piece `skip` bytes do not count. */
__noinline __u64 first_of_pieces(__u64 base, __u64 skip)
{
	struct iovec piece;

	return read_piece(&piece, base, 0) ? (__u64)piece.iov_base + skip : 0;
}

/* Copy up to `room` bytes at `from` into the data of scratch `slot` at `at`. Returns the bytes copied. */
__noinline __u64 copy_buffer(__u64 from, __u64 at, __u64 room, __u32 slot)
{
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);

	if (!scratch || !room)
		return 0;
	/* The barriers keep the compiler from folding these tests into forms that the verifier cannot follow. */
	barrier_var(room);
	if (room > AT_DATA_MAX)
		return 0;
	barrier_var(at);
	if (at >= AT_DATA_MAX)
		return 0;
	if (bpf_probe_read_user(scratch->data + at, room, (void *)from)) {
		count(AT_READ_FAULTS);
		return 0;
	}
	return room;
}

/* Copy up to `room` bytes from offset `skip` of the pieces on into the scratch data. Returns the bytes copied. */
__noinline __u32 copy_pieces(__u64 base, __u64 pieces, __u64 skip, __u32 room, __u32 slot)
{
	struct iovec piece;
	__u32 done = 0, want, got;

	for (__u32 i = 0; i < IOV_PIECES && i < pieces && done < room; i++) {
		if (!read_piece(&piece, base, i))
			break;
		if (skip >= piece.iov_len) {
			skip -= piece.iov_len;
			continue;
		}
		want = room - done;
		if (piece.iov_len - skip < want)
			want = piece.iov_len - skip;
		got = copy_buffer((__u64)piece.iov_base + skip, done, want, slot);
		done += got;
		if (got < want)
			break;
		skip = 0;
	}
	return done;
}

static __always_inline __u32 copy_bytes(const struct user_bytes *bytes, __u64 skip, __u32 room, __u32 slot)
{
	/* A read may fill less than its buffers: what lies behind is not the connection's. */
	if (skip >= bytes->length)
		return 0;
	if (bytes->length - skip < room)
		room = bytes->length - skip;
	if (bytes->pieces)
		return copy_pieces(bytes->base, bytes->pieces, skip + bytes->skip, room, slot);
	return copy_buffer(bytes->base + skip, 0, room, slot);
}

#define UNREAD_TAIL (~0ULL) /* bytes that nothing ends with: they could not be read */

/* `tail` with the last `n` bytes that end at `end` joined to it. The newest byte stands highest (little-endian),
 * so that in memory the bytes are in stream order. */
__noinline __u64 join_tail(__u64 tail, __u64 end, __u64 n)
{
	__u64 last = 0;

	if (!n)
		return tail;
	if (n > AT_TAIL_MAX)
		n = AT_TAIL_MAX;
	if (bpf_probe_read_user(&last, n, (void *)(end - n))) {
		count(AT_READ_FAULTS);
		return UNREAD_TAIL;
	}
	return n == AT_TAIL_MAX ? last : last << (8 * (AT_TAIL_MAX - n)) | tail >> (8 * n);
}

/* The same as `piece_at`, in the first IOV_PIECES of an array of pieces. If it is not in them, the lower half is 0, and in
 * the upper half stands how many bytes behind them it is: 0 if they cannot be read. */
__noinline __u64 piece_in_part(__u64 base, __u64 pieces, __u64 length)
{
	struct iovec piece;

	for (__u32 i = 0; i < IOV_PIECES && i < pieces; i++) {
		if (!read_piece(&piece, base, i))
			return 0;
		if (piece.iov_len >= length)
			return (i + 1) | length << 32;
		length -= piece.iov_len;
	}
	return length << 32;
}

/* The piece in which byte `length` of an array of pieces stands, counted from 1; in the upper half how many bytes of it
 * come before and with that one. 0 if the array ends before. */
__noinline __u64 piece_at(__u64 base, __u64 pieces, __u64 length)
{
	__u64 found;

	for (__u32 i = 0; i < UIO_MAXIOV && i < pieces; i += IOV_PIECES) {
		found = piece_in_part(base + i * sizeof(struct iovec), pieces - i, length);
		if ((__u32)found)
			return found + i;
		length = found >> 32;
		if (!length)
			break;
	}
	return 0;
}

/* `tail` with the bytes of an array of pieces joined to it, `length` in all, of which the last stands where `piece_at`
 * has found it: those of the last two pieces that hold some, which is where the end of a chunked body stands. Bytes
 * before these are not known then, and are 0. */
__noinline __u64 pieces_tail(__u64 tail, __u64 base, __u64 found, __u64 length)
{
	struct iovec piece, before = {};
	__u32 number = found;
	__u64 left = found >> 32;

	if (!read_piece(&piece, base, number - 1))
		return UNREAD_TAIL;
	for (__u32 i = 2; i <= TAIL_PIECES && i <= number; i++) {
		if (!read_piece(&before, base, number - i))
			return UNREAD_TAIL;
		if (before.iov_len)
			break;
	}
	if (before.iov_len + left < length)
		tail = 0;
	tail = join_tail(tail, (__u64)before.iov_base + before.iov_len, before.iov_len);
	if (tail == UNREAD_TAIL)
		return tail;
	return join_tail(tail, (__u64)piece.iov_base + left, left);
}

/* Keep the last bytes of a call that was not copied whole: they tell the end of a chunked body. `length` is
 * what of the call counts (a read may fill less than its buffer). Returns 0 if they cannot be read. */
static __always_inline bool keep_tail(struct at_reach *reach, const struct user_bytes *bytes, __u64 length)
{
	__u64 tail, found = bytes->base;

	if (bytes->pieces)
		found = piece_at(bytes->base, bytes->pieces, length + bytes->skip);
	/* The last bytes lie in a later message than is walked, or not in user memory at all. */
	if (!found) {
		reach->tail_len = 0;
		return 1;
	}
	__builtin_memcpy(&tail, reach->tail, sizeof(tail));
	if (bytes->pieces)
		tail = pieces_tail(tail, bytes->base, found, length + bytes->skip);
	else
		tail = join_tail(tail, bytes->base + length, length);
	if (tail == UNREAD_TAIL) {
		reach->tail_len = 0;
		return 0;
	}
	__builtin_memcpy(reach->tail, &tail, sizeof(tail));
	length += reach->tail_len;
	reach->tail_len = length < AT_TAIL_MAX ? length : AT_TAIL_MAX;
	return 1;
}

#endif
