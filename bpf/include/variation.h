/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* What differs between kernels, from 5.10 on: all of it is here, each with the commit that made the difference. What a
 * kernel has is asked of its BTF when the programs are loaded, never of its version.
 *
 * Two differences are in which functions there are. User space leaves out the programs of those that a kernel lacks:
 * `tcp_sendpage` and `unix_stream_sendpage`, through which sendfile and splice send until Linux 6.5, dc97391e6610
 * ("sock: Remove ->sendpage*() in favour of sendmsg(MSG_SPLICE_PAGES)"). Later the bytes come to the other sends, in
 * an iov_iter that is not in user memory.
 */
#ifndef AUTOTRACE_VARIATION_H
#define AUTOTRACE_VARIATION_H

#include "arch.h"

/* Set by user space: tcp_recvmsg had a parameter `nonblock` before its flags until Linux 5.19,
 * ec095263a965 ("net: remove noblock parameter from recvmsg() entities"). Defined where it is used (messages.h). */
extern const volatile __u32 recvmsg_has_nonblock;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Where the bytes of a call are, as the socket layer sees it. */
enum iter_type {
	ITER_IOVEC,
	ITER_UBUF,
};

struct iov_iter {
	__u8 iter_type;
	unsigned long iov_offset;
	unsigned long count;
	unsigned long nr_segs;
	void *ubuf;		   /* Linux 6.0, fcb14cb1bdac ("new iov_iter flavour - ITER_UBUF") */
	const struct iovec *__iov; /* Linux 6.4, 747b1f65d39a ("overlay struct iovec and ubuf/len") */
};

/* Before Linux 6.4. */
struct iov_iter___iov {
	const struct iovec *iov;
};

/* Before Linux 5.14, 8cd54c1c8480 ("separate direction from flavour"): the lowest bit is the direction. */
struct iov_iter___type {
	unsigned int type;
};

struct msghdr {
	struct iov_iter msg_iter;
};

/* Before Linux 6.13, 90ee6ed776c0 ("fs: port files to file_ref"). */
struct file___counted {
	struct {
		__s64 counter;
	} f_count;
};

#pragma clang attribute pop

static __always_inline bool is_user_buffer(struct iov_iter *iter)
{
	return bpf_core_enum_value_exists(enum iter_type, ITER_UBUF) &&
	       iter->iter_type == bpf_core_enum_value(enum iter_type, ITER_UBUF);
}

static __always_inline bool is_iovec(struct iov_iter *iter)
{
	__u32 type;

	if (bpf_core_field_exists(iter->iter_type))
		type = iter->iter_type;
	else
		type = ((struct iov_iter___type *)iter)->type & ~1U;
	return type == bpf_core_enum_value(enum iter_type, ITER_IOVEC);
}

/* Is there one reference to a file? */
static __always_inline bool has_one_reference(struct file *file)
{
	struct file___counted *counted = (struct file___counted *)file;

	if (bpf_core_field_exists(counted->f_count))
		return BPF_CORE_READ(counted, f_count.counter) == 1;
	/* file_ref_t counts from 0 (include/linux/file_ref.h, FILE_REF_ONEREF). */
	return BPF_CORE_READ(file, f_ref.refcnt.counter) == 0;
}

/* The registers of a task in user mode, saved when it entered the kernel. The helper takes the pointer that a program of
 * a task iterator is given, and the one below. */
static __always_inline struct pt_regs *user_registers_of(struct task_struct *task)
{
	/* Since Linux 5.15, dd6e10fbd9fb ("bpf: Add bpf_task_pt_regs() helper"). It knows what newer kernels keep above
	 * the registers (FRED, Linux 6.9); older ones keep nothing there. */
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return (struct pt_regs *)bpf_task_pt_regs(task);
	return BPF_CORE_READ(task, stack) + ARCH_THREAD_SIZE - bpf_core_type_size(struct pt_regs);
}

static __always_inline struct pt_regs *user_registers(void)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return user_registers_of(bpf_get_current_task_btf());
	return user_registers_of((struct task_struct *)bpf_get_current_task());
}

#endif
