/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* gRPC-Go: which goroutine serves a stream, and which one makes it. autotrace/probes/libraries/go_grpc_*.toml say which
 * program stands where.
 *
 * A connection has one goroutine that reads its frames and one that writes them, so these name it: no program has to
 * look for the socket, and it does not matter whether there is TLS in between.
 */
#include "../include/goroutines.h"

/* Keeps the types of abi.h in the object's BTF; see struct at_abi. */
const struct at_abi *const volatile abi_types = 0;

/* golang.org/x/net/http2/hpack: type HeaderField struct { Name, Value string; Sensitive bool } */
#define FIELD_SIZE 40
#define FIELD_VALUE 16

/* createHeaderFields puts :method, :scheme and :path first. */
#define PATH_FIELD 2

/* internal/transport: type headerFrame struct { streamID uint32; hf []hpack.HeaderField; ... }, clientHeaders from v1.82
 * on. */
#define HEADER_FRAME_FIELDS 8

/* type outStream struct { id uint32; state outStreamState; itl *itemList; ... }, type itemList struct { head *itemNode;
 * ... }, type itemNode struct { it interface{}; ... } */
#define OUT_STREAM_ITEMS 16
#define ITEM_VALUE 8

/* func (t *http2Server) operateHeaders(...): the goroutine that reads the connection of t. The one that started it has
 * read the connection preface, and what came with it. */
SEC("uprobe")
int grpc_server_reads(struct pt_regs *ctx)
{
	struct at_watched *process = current_watched();
	struct goroutine reader;

	if (!process)
		return 0;
	reader = goroutine_of(process, ARCH_GO_G(ctx));
	set_owner(ARCH_GO_PARAM0(ctx), &reader);
	return 0;
}

/* func (s *Server) handleStream(t transport.ServerTransport, stream *transport.ServerStream, ...): the goroutine that
 * serves the stream. */
SEC("uprobe")
int grpc_handler_enters(struct pt_regs *ctx)
{
	struct at_watched *process = current_watched();
	struct goroutine reader, handler;
	__u64 stream = ARCH_GO_PARAM3(ctx), method[2] = {};
	struct claim claim;
	__u32 id = 0;

	if (!process || !process->stream_method_offset || !find_owner(ARCH_GO_PARAM2(ctx), &reader))
		return 0;
	if (process->stream_by_pointer)
		stream = read_user_u64(stream);
	handler = goroutine_of(process, ARCH_GO_G(ctx));
	bpf_probe_read_user(&id, sizeof(id), (void *)(stream + process->stream_id_offset));
	if (!id || !handler.id)
		return 0;
	begin_claim(&claim, AT_RX, id);
	claim.event.carrier = reader.id;
	claim.event.carrier_parent = reader.parent;
	claim.event.task = handler.id;
	claim.event.parent = handler.parent;
	claim.event.flags = AT_STREAM_GRPC;
	/* Else it may be one of the workers of grpc.NumStreamWorkers, which serve one stream after the other. */
	if (handler.parent == reader.id)
		claim.event.flags |= AT_STREAM_OWN_TASK;
	bpf_probe_read_user(method, sizeof(method), (void *)(stream + process->stream_method_offset));
	add_path(&claim, method[0], method[1]);
	send_claim(&claim);
	return 0;
}

/* func (t *http2Client) createHeaderFields(...) ([]hpack.HeaderField, error), at its returns: the goroutine that makes a
 * call. What it returns becomes the fields of a header frame, which goes to the goroutine that writes. */
SEC("uprobe")
int grpc_call_prepared(struct pt_regs *ctx)
{
	struct at_watched *process = current_watched();
	struct goroutine caller;

	if (!process)
		return 0;
	caller = goroutine_of(process, ARCH_GO_G(ctx));
	set_owner(ARCH_GO_RESULT(ctx), &caller);
	return 0;
}

/* The fields of the header frame that a new stream begins with, made by `caller`; 0 if they are not there. `frame` is
 * where the frame stands, or something else. */
static __always_inline __u64 fields_of(__u64 frame, struct goroutine *caller)
{
	__u64 fields = read_user_u64(frame + HEADER_FRAME_FIELDS);

	return take_owner(fields, caller) ? fields : 0;
}

/* The goroutine that writes, before it writes the header frame of a new stream.
 *
 *   func (l *loopyWriter) clientHeaderHandler(hdr *clientHeaders) error                   from v1.82 on
 *   func (l *loopyWriter) originateStream(str *outStream, hdr *headerFrame) error         from v1.52 on
 *   func (l *loopyWriter) originateStream(str *outStream) error     before: the frame stands first in str.itl
 *
 * Which of them it is need not be known: only what createHeaderFields returned is taken for the fields. In all of
 * them the first parameter begins with the stream's id. */
SEC("uprobe")
int grpc_call_written(struct pt_regs *ctx)
{
	struct at_watched *process = current_watched();
	__u64 stream = ARCH_GO_PARAM1(ctx), fields, item, path[2] = {};
	struct goroutine caller, writer;
	struct claim claim;
	__u32 id = 0;

	if (!process)
		return 0;
	fields = fields_of(ARCH_GO_PARAM2(ctx), &caller);
	if (!fields)
		fields = fields_of(stream, &caller);
	if (!fields) {
		item = read_user_u64(read_user_u64(stream + OUT_STREAM_ITEMS));
		fields = fields_of(read_user_u64(item + ITEM_VALUE), &caller);
	}
	if (!fields)
		return 0;
	writer = goroutine_of(process, ARCH_GO_G(ctx));
	if (bpf_probe_read_user(&id, sizeof(id), (void *)stream) || !id || !writer.id)
		return 0;
	begin_claim(&claim, AT_TX, id);
	claim.event.carrier = writer.id;
	claim.event.task = caller.id;
	claim.event.parent = caller.parent;
	claim.event.flags = AT_STREAM_GRPC;
	bpf_probe_read_user(path, sizeof(path), (void *)(fields + PATH_FIELD * FIELD_SIZE + FIELD_VALUE));
	add_path(&claim, path[0], path[1]);
	send_claim(&claim);
	return 0;
}

/* The helpers used (bpf_probe_read_*, bpf_ringbuf_*) are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
