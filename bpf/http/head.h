/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Where the head of a message ends and how long its body is, so that the body stays in the kernel.
 *
 * Only what is certain counts: one Content-Length, no transfer coding, no answer that has a length and no body. For
 * every other message the window goes to user space whole, and its parser finds the end (RFC 9112 section 6). */
#ifndef AUTOTRACE_HTTP_HEAD_H
#define AUTOTRACE_HTTP_HEAD_H

#include "../include/maps.h"

#define HEAD_STEPS 32 /* pairs of words, and lines, that are looked at in a round */
#define HEAD_ROUNDS 8 /* enough for a head of 3 KiB */
#define HEAD_GOES_ON (~0U)

#define NEW_LINES 0x0a0a0a0a0a0a0a0aULL
#define LOW_BITS 0x0101010101010101ULL
#define HIGH_BITS 0x8080808080808080ULL
#define LOWER_CASE 0x2020202020202020ULL

/* Eight letters as a little-endian word. */
#define WORD(a, b, c, d, e, f, g, h)                                                             \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 | (__u64)(e) << 32 | \
	 (__u64)(f) << 40 | (__u64)(g) << 48 | (__u64)(h) << 56)
#define CONTENT WORD('c', 'o', 'n', 't', 'e', 'n', 't', '-')
#define LENGTH WORD('l', 'e', 'n', 'g', 't', 'h', ':', 0)
#define TRANSFER WORD('t', 'r', 'a', 'n', 's', 'f', 'e', 'r')
#define LENGTH_DIGITS 12
#define FIELD_LOOK 16 /* bytes that tell whether a line matters; of a number that is cut read_length tells */

/* Not aligned; x86-64 and arm64 read it at once, and so the kernel's verifier lets it pass there. */
static __always_inline const __u64 *words_at(const struct scratch *scratch, __u64 at)
{
	return (const __u64 *)(scratch->data + (at & (AT_DATA_MAX - 1)));
}

/* The highest bit of each byte of a word that is a line feed; only the lowest that is set is exact, and `HIGH_BITS` are
 * still to be picked out. */
static __always_inline __u64 line_feeds(__u64 word)
{
	return ((word ^ NEW_LINES) - LOW_BITS) & ~word;
}

/* How many bytes of a word stand before the end of its first line, with that end. */
static __always_inline __u64 line_end(__u64 feeds)
{
	return ((((feeds & -feeds) - 1) & LOW_BITS) * LOW_BITS) >> 56;
}

/* The number that stands in the scratch data at `at`, in a line that ends before `length`. LENGTH_UNSURE if it is
 * not a plain one. */
__noinline __u64 read_length(__u32 slot, __u32 at, __u32 length)
{
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	__u64 number = 0;
	__u32 digits = 0;
	__u8 c;

	if (!scratch)
		return LENGTH_UNSURE;
	for (__u32 i = 0; i <= LENGTH_DIGITS; i++, at++) {
		if (at >= length)
			return LENGTH_UNSURE;
		c = scratch->data[at & (AT_DATA_MAX - 1)];
		if (c >= '0' && c <= '9') {
			number = number * 10 + c - '0';
			digits++;
		} else if (c == '\r' || c == '\n') {
			return digits ? number : LENGTH_UNSURE;
		} else if (c != ' ' || digits) {
			return LENGTH_UNSURE;
		}
	}
	return LENGTH_UNSURE;
}

/* A field line begins in the scratch data at `at`. */
static __always_inline void look_at_field(struct head *head, const struct scratch *scratch, __u32 slot,
					  __u32 at, __u32 length)
{
	const __u64 *words = words_at(scratch, at);
	__u64 name = words[0] | LOWER_CASE;

	if (name == TRANSFER) {
		head->length = LENGTH_UNSURE;
	} else if (name == CONTENT) {
		name = (words[1] | LOWER_CASE) & (~0ULL >> 8);
		if (name == LENGTH)
			head->length = head->length == LENGTH_NONE ? read_length(slot, at + 15, length)
								   : LENGTH_UNSURE;
	}
}

/* Can the line that begins in the scratch data at `at` tell the length of the body? Then behind `Content-` stands an
 * `l`. */
static __always_inline bool may_matter(const struct scratch *scratch, __u64 at)
{
	const __u8 *line = scratch->data + (at & (AT_DATA_MAX - 1));
	__u8 first = line[0] | 0x20;

	return first == 't' || (first == 'c' && (line[8] | 0x20) == 'l');
}

/* The scratch data, whose first byte has stream position `position`, ends in a line of the head. Is too little of it
 * there to tell whether it matters? It is not looked at again when the rest of it comes. */
static __always_inline bool cuts_field(const struct scratch *scratch, __u64 position, __u32 length)
{
	__u64 seen = position + length - scratch->head.line;
	__u8 first = scratch->data[(length - seen) & (AT_DATA_MAX - 1)] | 0x20;

	return !seen || (seen < FIELD_LOOK && (first == 't' || first == 'c'));
}

/* A line of a head ends in the scratch data before `at`, at stream position `end`. Returns whether the head ends
 * with it. A function of its own for the verifier's sake: see iov.h. */
__noinline int line_ends(__u32 slot, __u32 at, __u32 length, __u64 end)
{
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	struct head *head;
	__u64 line;

	if (!scratch)
		return 1;
	head = &scratch->head;
	line = end - head->line;
	if (line == 1 || (line == 2 && (at < 2 || scratch->data[(at - 2) & (AT_DATA_MAX - 1)] == '\r')))
		return 1;
	head->line = end;
	if (at < length)
		look_at_field(head, scratch, slot, at, length);
	return 0;
}

/* HEAD_STEPS of what `read_head` does, from `scratch->at` on; HEAD_GOES_ON if more are to be done. A function of its
 * own: the verifier goes through each round of a loop, but only once through this one. */
__noinline __u32 read_lines(__u32 slot, __u64 position, __u32 length)
{
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	__u64 at, end = length, feeds, later_feeds;
	const __u64 *words;

	if (!scratch)
		return 0;
	for (__u64 i = 0; i < HEAD_STEPS; i++) {
		/* From memory: so the verifier does not follow its value through every step. */
		at = *(volatile __u64 *)&scratch->at;
		if (at >= end)
			return 0;
		words = words_at(scratch, at);
		feeds = line_feeds(words[0]);
		later_feeds = line_feeds(words[1]);
		if (!((feeds | later_feeds) & HIGH_BITS)) {
			scratch->at = at + 16;
			continue;
		}
		feeds &= HIGH_BITS;
		at += feeds ? line_end(feeds) : 8 + line_end(later_feeds & HIGH_BITS);
		scratch->at = at;
		if (at > end)
			return 0;
		/* Most lines are neither empty nor of interest. */
		if (at < end && position + at - scratch->head.line > 2 && !may_matter(scratch, at))
			scratch->head.line = position + at;
		else if (line_ends(slot, at, length, position + at))
			return at;
	}
	return HEAD_GOES_ON;
}

/* Read on in the head, known so far to `scratch->head`, of which the scratch data has the next `length` bytes, the first
 * with stream position `position`. Returns how many of them belong to it, if it ends among them; else 0. */
static __always_inline __u32 read_head(struct scratch *scratch, __u32 slot, __u64 position, __u32 length)
{
	__u32 end;

	scratch->at = 0;
	for (__u32 i = 0; i < HEAD_ROUNDS; i++) {
		end = read_lines(slot, position, length);
		if (end != HEAD_GOES_ON)
			return end;
	}
	return 0;
}

#endif
