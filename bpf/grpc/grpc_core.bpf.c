/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* grpc-core (C++ services): the paths of calls on connections that are older than the agent, whose header tables it does
 * not know. autotrace/probes/libraries/grpc_core.toml says which program stands where.
 *
 * Which connection a transport (HTTP/2's session here) is on shows when it is handed what was just received: the memory that
 * the thread last received bytes of HTTP/2 into. See sessions.h. What a transport received may be handed to it by
 * another thread; nothing is concluded from that.
 */
#include "sessions.h"

/* Keeps the types of abi.h in the object's BTF; see struct at_abi. */
const struct at_abi *const volatile abi_types = 0;

#define TRANSPORT_SIZE 4096 /* at most */

#define INLINED_BYTES 9 /* behind the refcount and the length, which is one byte */

/* grpc/impl/codegen/slice.h. If `refcount` is 0 the bytes are in the slice itself. */
struct grpc_slice {
	__u64 refcount;
	__u64 length;
	__u64 bytes;
};

/* grpc_core::HPackCompressor::Framer, as far as it is read. Its two pointers show that it is one. */
struct framer {
	__u64 max_frame_size;
	__u32 flags;
	__u32 stream;
	__u64 output; /* the transport's slice buffer */
	__u64 stats;
	__u64 compressor; /* the transport's too */
};

/* Key: thread id. The transport that it reads or writes. Written and read by the programs here; the least used goes when
 * room is needed. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} grpc_transports SEC(".maps");

static __always_inline void works_on(__u64 transport)
{
	__u32 tid = bpf_get_current_pid_tgid();

	bpf_map_update_elem(&grpc_transports, &tid, &transport, BPF_ANY);
}

/* The transport that this thread reads or writes; 0 if that is not known. */
static __always_inline __u64 transport_at_work(void)
{
	__u32 tid = bpf_get_current_pid_tgid();
	__u64 *transport = bpf_map_lookup_elem(&grpc_transports, &tid);

	return transport ? *transport : 0;
}

static __always_inline bool read_slice(struct grpc_slice *slice, __u64 from)
{
	if (bpf_probe_read_user(slice, sizeof(*slice), (void *)from)) {
		count(AT_READ_FAULTS);
		return 0;
	}
	if (!slice->refcount) {
		slice->length &= 0xff;
		slice->bytes = from + INLINED_BYTES;
	}
	return 1;
}

/* absl::Status grpc_chttp2_perform_read(grpc_chttp2_transport *t, const grpc_slice &slice): `slice` was received. */
SEC("uprobe")
int grpc_core_reads(struct pt_regs *ctx)
{
	__u64 transport = ARCH_MAKER_PARAM0(ctx);
	struct grpc_slice slice;
	struct thread *thread;

	if (!current_watched())
		return 0;
	works_on(transport);
	thread = known_thread();
	if (!thread || !thread->http2_last || !read_slice(&slice, ARCH_MAKER_PARAM1(ctx)))
		return 0;
	if (thread->http2_buffer < slice.bytes || thread->http2_buffer - slice.bytes >= slice.length)
		return 0;
	take_session_sign(transport, thread->http2_last);
	thread->http2_last = 0;
	return 0;
}

/* grpc_chttp2_begin_write_result grpc_chttp2_begin_write(grpc_chttp2_transport *t) */
SEC("uprobe")
int grpc_core_writes(struct pt_regs *ctx)
{
	if (current_watched())
		works_on(ARCH_PARAM0(ctx));
	return 0;
}

/* grpc_chttp2_transport::~grpc_chttp2_transport() */
SEC("uprobe")
int grpc_core_transport_ends(struct pt_regs *ctx)
{
	session_ends(ARCH_PARAM0(ctx));
	return 0;
}

static __always_inline void claim_call(const struct http2_session *session, __u32 stream, __u32 direction,
				       const struct grpc_slice *path)
{
	struct claim claim;

	begin_claim(&claim, direction, stream);
	claim.event.h.conn = session->conn_id;
	claim.event.flags |= AT_STREAM_GRPC;
	claim.path[0] = 0; /* Linux before 6.3 lets only what was written be read. */
	add_path(&claim, path->bytes, path->length);
	if (claim.event.path_len && claim.path[0] == '/')
		send_claim(&claim);
}

/* grpc_chttp2_stream *grpc_chttp2_parsing_accept_stream(grpc_chttp2_transport *t, uint32_t id): a call was received, whose
 * fields come next. */
SEC("uprobe")
int grpc_core_stream_opens(struct pt_regs *ctx)
{
	struct http2_session *session = current_watched() ? believed_session(ARCH_PARAM0(ctx)) : 0;
	__u32 stream = ARCH_PARAM1(ctx);

	if (session)
		session->stream = is_clients(stream) ? stream : 0;
	return 0;
}

/* What ParsedMetadata<grpc_metadata_batch> has for setting :path: void (const Buffer &value, grpc_metadata_batch *map).
 * `value` begins with a slice. */
SEC("uprobe")
int grpc_core_path_received(struct pt_regs *ctx)
{
	struct http2_session *session = current_watched() ? believed_session(transport_at_work()) : 0;
	struct grpc_slice path;
	__u32 stream;

	if (!session || !session->stream)
		return 0;
	stream = session->stream;
	session->stream = 0;
	if (read_slice(&path, ARCH_PARAM0(ctx)))
		claim_call(session, stream, AT_RX, &path);
	return 0;
}

/* void HPackCompressor::Framer::Encode(HttpPathMetadata, const Slice &value): a call is about to be sent. */
SEC("uprobe")
int grpc_core_path_sent(struct pt_regs *ctx)
{
	__u64 transport = current_watched() ? transport_at_work() : 0;
	struct http2_session *session = transport ? believed_session(transport) : 0;
	struct framer framer;
	struct grpc_slice path;

	if (!session)
		return 0;
	if (bpf_probe_read_user(&framer, sizeof(framer), (void *)ARCH_PARAM0(ctx))) {
		count(AT_READ_FAULTS);
		return 0;
	}
	if (framer.output - transport >= TRANSPORT_SIZE || framer.compressor - transport >= TRANSPORT_SIZE ||
	    !is_clients(framer.stream))
		return 0;
	if (read_slice(&path, ARCH_PARAM_BEHIND_EMPTY(ctx)))
		claim_call(session, framer.stream, AT_TX, &path);
	return 0;
}

/* The helpers used (bpf_probe_read_*, bpf_ringbuf_*) are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
