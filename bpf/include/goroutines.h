/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Goroutines at probes in Go functions, and what one of them hands to another one by a pointer. */
#ifndef AUTOTRACE_GOROUTINES_H
#define AUTOTRACE_GOROUTINES_H

#include "claims.h"

struct go_pointer {
	__u64 address;
	__u32 tgid;
	__u32 pad;
};

struct goroutine {
	__u64 id;
	__u64 parent; /* 0: not known */
};

/* Key: process and a pointer that one goroutine gives to another. Value: who gave it, or whose it is. Written by the
 * programs of one goroutine, read and deleted by those of the other; what was never taken goes when room is needed. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct go_pointer);
	__type(value, struct goroutine);
} go_owners SEC(".maps");

static __always_inline struct go_pointer go_pointer(__u64 address)
{
	struct go_pointer pointer = {.address = address, .tgid = bpf_get_current_pid_tgid() >> 32};

	return pointer;
}

static __always_inline __u64 read_user_u64(__u64 address)
{
	__u64 value = 0;

	bpf_probe_read_user(&value, sizeof(value), (void *)address);
	return value;
}

/* Who runs at a probe whose register for g holds `g`; id 0 if it cannot be told. */
static __always_inline struct goroutine goroutine_of(const struct at_watched *process, __u64 g)
{
	struct goroutine goroutine = {};

	if (!process->goid_offset || !g)
		return goroutine;
	goroutine.id = read_user_u64(g + process->goid_offset);
	if (process->parent_goid_offset)
		goroutine.parent = read_user_u64(g + process->parent_goid_offset);
	return goroutine;
}

static __always_inline void set_owner(__u64 address, const struct goroutine *goroutine)
{
	struct go_pointer pointer = go_pointer(address);

	if (address && goroutine->id)
		bpf_map_update_elem(&go_owners, &pointer, goroutine, BPF_ANY);
}

static __always_inline bool find_owner(__u64 address, struct goroutine *goroutine)
{
	struct go_pointer pointer = go_pointer(address);
	struct goroutine *found = bpf_map_lookup_elem(&go_owners, &pointer);

	if (!found)
		return 0;
	*goroutine = *found;
	return 1;
}

static __always_inline bool take_owner(__u64 address, struct goroutine *goroutine)
{
	struct go_pointer pointer = go_pointer(address);

	if (!find_owner(address, goroutine))
		return 0;
	bpf_map_delete_elem(&go_owners, &pointer);
	return 1;
}

#endif
