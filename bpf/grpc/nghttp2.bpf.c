/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* nghttp2 inside Node: the paths of requests on connections that are older than the agent, whose header tables it does
 * not know (autotrace/probes/libraries/nghttp2.toml says which program stands where), and for which request a call is
 * made (node_calls.h, autotrace/probes/libraries/node_calls.toml).
 *
 * Which connection a session is on shows when it is handed what was just received: nothing else of HTTP/2 was received on
 * the thread since a session was handed anything, and it is as many bytes. See sessions.h.
 */
#include "node_calls.h"

/* Keeps the types of abi.h in the object's BTF; see struct at_abi. */
const struct at_abi *const volatile abi_types = 0;

/* nghttp2.h: typedef struct { nghttp2_frame_hd hd; size_t padlen; nghttp2_priority_spec pri_spec; nghttp2_nv *nva;
 * size_t nvlen; nghttp2_headers_category cat; } nghttp2_headers; */
#define HEADERS_FIELDS 40 /* nva, nvlen */

#define FIELDS_MAX 24 /* of a header block that are looked at */

#define NAME_PATH 0x687461703aULL		/* ":path" */
#define NAME_CONTENT_TYPE 0x2d746e65746e6f63ULL /* "content-type" */
#define NAME_CONTENT_TYPE_REST 0x65707974U
#define TYPE_GRPC 0x746163696c707061ULL /* "application/grpc" */
#define TYPE_GRPC_REST 0x637072672f6e6f69ULL
#define PATH_NAME_LENGTH 5
#define CONTENT_TYPE_NAME_LENGTH 12
#define TYPE_GRPC_LENGTH 16

/* nghttp2.h */
struct nghttp2_nv {
	__u64 name;
	__u64 value;
	__u64 name_length;
	__u64 value_length;
	__u64 flags;
};

struct open_stream {
	__u64 conn_id;
	__u32 stream; /* 0: none */
	__u32 pad;
};

/* Key: thread id. The stream that it has just opened, whose path comes next. Written and taken by the programs here. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct open_stream);
} open_streams SEC(".maps");

/* The id of the connection that a session is on; 0 if it is not known, or not older than the agent. */
static __always_inline __u64 session_conn_id(__u64 id)
{
	const struct http2_session *session = believed_session(id);

	return session ? session->conn_id : 0;
}

/* ssize_t nghttp2_session_mem_recv(nghttp2_session *session, const uint8_t *in, size_t inlen) */
SEC("uprobe")
int nghttp2_receives(struct pt_regs *ctx)
{
	struct thread *thread = current_watched() ? known_thread() : 0;

	if (thread)
		session_receives(thread, ARCH_PARAM0(ctx), ARCH_PARAM2(ctx));
	return 0;
}

/* void nghttp2_session_del(nghttp2_session *session) */
SEC("uprobe")
int nghttp2_session_ends(struct pt_regs *ctx)
{
	session_ends(ARCH_PARAM0(ctx));
	return 0;
}

/* nghttp2_stream *nghttp2_session_open_stream(nghttp2_session *session, int32_t stream_id, ...): a request was received,
 * or one is to be sent, and its fields come next. */
SEC("uprobe")
int nghttp2_stream_opens(struct pt_regs *ctx)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct open_stream opened = {.stream = ARCH_PARAM1(ctx)};

	if (!current_watched())
		return 0;
	opened.conn_id = session_conn_id(ARCH_PARAM0(ctx));
	if (opened.conn_id && is_clients(opened.stream))
		bpf_map_update_elem(&open_streams, &tid, &opened, BPF_ANY);
	else
		bpf_map_delete_elem(&open_streams, &tid);
	return 0;
}

/* The stream that this thread has just opened, once. */
static __always_inline bool take_opened(struct open_stream *opened)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct open_stream *found = bpf_map_lookup_elem(&open_streams, &tid);

	if (!found)
		return 0;
	*opened = *found;
	bpf_map_delete_elem(&open_streams, &tid);
	return 1;
}

static __always_inline void begin_claim_of(struct claim *claim, const struct open_stream *opened,
					   __u32 direction)
{
	begin_claim(claim, direction, opened->stream);
	claim->event.h.conn = opened->conn_id;
}

static __always_inline void send_if_it_tells(struct claim *claim)
{
	if (claim->event.path_len || claim->event.flags)
		send_claim(claim);
}

/* int nghttp2_check_path(const uint8_t *value, size_t len): the value of :path in a header block that was received. */
SEC("uprobe")
int nghttp2_path_received(struct pt_regs *ctx)
{
	struct open_stream opened;
	struct claim claim;

	if (!current_watched() || !take_opened(&opened))
		return 0;
	begin_claim_of(&claim, &opened, AT_RX);
	add_path(&claim, ARCH_PARAM0(ctx), ARCH_PARAM1(ctx));
	send_if_it_tells(&claim);
	return 0;
}

static __always_inline bool is_grpc_type(const struct nghttp2_nv *field)
{
	__u64 text[2] = {};
	__u8 next = '+';

	if (field->value_length < TYPE_GRPC_LENGTH)
		return 0;
	bpf_probe_read_user(text, sizeof(text), (void *)field->value);
	if (field->value_length > TYPE_GRPC_LENGTH)
		bpf_probe_read_user(&next, sizeof(next), (void *)(field->value + TYPE_GRPC_LENGTH));
	/* gRPC-Web has another framing. */
	return text[0] == TYPE_GRPC && text[1] == TYPE_GRPC_REST &&
	       (next == '+' || next == ';' || next == ' ');
}

/* Look for what a claim tells among `count` fields at `fields`: the path, and whether it is gRPC's. */
static __always_inline void add_fields(struct claim *claim, __u64 fields, __u64 count)
{
	struct nghttp2_nv field, path = {};
	__u64 name;
	__u32 rest;

	for (__u32 i = 0; i < FIELDS_MAX && i < count; i++) {
		if (bpf_probe_read_user(&field, sizeof(field), (void *)(fields + i * sizeof(field))))
			break;
		name = 0;
		rest = 0;
		if (field.name_length == PATH_NAME_LENGTH) {
			bpf_probe_read_user(&name, PATH_NAME_LENGTH, (void *)field.name);
			if (name == NAME_PATH)
				path = field;
		} else if (field.name_length == CONTENT_TYPE_NAME_LENGTH) {
			bpf_probe_read_user(&name, sizeof(name), (void *)field.name);
			bpf_probe_read_user(&rest, sizeof(rest), (void *)(field.name + sizeof(name)));
			if (name == NAME_CONTENT_TYPE && rest == NAME_CONTENT_TYPE_REST &&
			    is_grpc_type(&field))
				claim->event.flags |= AT_STREAM_GRPC;
		}
	}
	add_path(claim, path.value, path.value_length);
}

/* void nghttp2_http_record_request_method(nghttp2_stream *stream, nghttp2_frame *frame): a client's request, before it is
 * packed. */
SEC("uprobe")
int nghttp2_request_sent(struct pt_regs *ctx)
{
	__u64 frame = ARCH_PARAM1(ctx), fields[2] = {};
	struct open_stream opened;
	struct claim claim;
	__u32 stream = 0;

	if (!current_watched() || !take_opened(&opened))
		return 0;
	bpf_probe_read_user(&stream, sizeof(stream), (void *)(frame + FRAME_STREAM_ID));
	if (stream != opened.stream ||
	    bpf_probe_read_user(fields, sizeof(fields), (void *)(frame + HEADERS_FIELDS)))
		return 0;
	begin_claim_of(&claim, &opened, AT_TX);
	add_fields(&claim, fields[0], fields[1]);
	send_if_it_tells(&claim);
	return 0;
}

/* int nghttp2_submit_response(nghttp2_session *session, int32_t stream_id, const nghttp2_nv *nva, size_t nvlen, ...): the
 * answer tells what the request was of. */
SEC("uprobe")
int nghttp2_response_sent(struct pt_regs *ctx)
{
	struct open_stream opened = {.stream = ARCH_PARAM1(ctx)};
	struct claim claim;

	if (!current_watched())
		return 0;
	opened.conn_id = session_conn_id(ARCH_PARAM0(ctx));
	if (!opened.conn_id || !is_clients(opened.stream))
		return 0;
	begin_claim_of(&claim, &opened, AT_RX);
	add_fields(&claim, ARCH_PARAM2(ctx), ARCH_PARAM3(ctx));
	send_if_it_tells(&claim);
	return 0;
}

/* The helpers used (bpf_probe_read_*, bpf_ringbuf_*) are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
