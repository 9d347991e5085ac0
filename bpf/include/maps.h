/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* Every map: its key, its value, who writes it, who reads it, who deletes from it. */
#ifndef AUTOTRACE_MAPS_H
#define AUTOTRACE_MAPS_H

#include "abi.h"
#include "arch.h"
#include "variation.h"

/* Which protocol a connection speaks, as far as the kernel side needs to know. */
enum protocol {
	PROTOCOL_UNKNOWN = 0,
	PROTOCOL_HTTP1 = 1,
	PROTOCOL_STOPPED = 2, /* user space does not want its bytes */
	PROTOCOL_HTTP2 = 3,   /* walked frame by frame: bpf/grpc/walk.h */
};

#define TURN_NONE 2 /* neither side has spoken yet; the other values are enum at_direction */

#define LENGTH_NONE (~0ULL)	  /* of a body: no Content-Length was seen */
#define LENGTH_UNSURE (~0ULL - 1) /* there is one that cannot be relied on */

/* A head that is being read, see head.h. */
struct head {
	__u64 line;   /* position of the first byte of the current line */
	__u64 length; /* of the body, as far as the lines before tell */
};

/* Arrays are by enum at_direction, and what belongs to one direction stands in one: two threads may read and write a
 * connection at the same time. */
struct conn {
	__u64 id;
	__u64 turn_start[2];   /* position of the turn's first byte, or of the last message start in it */
	__u64 captured_end[2]; /* bytes before this position are with user space */
	__u64 body_end[2];     /* position behind the body whose head was read last; 0 if not known */
	struct head head[2];
	struct at_reach reach[2];
	struct at_context opened;
	__u32 turn;
	__u32 pid;   /* who made it, then who moved its first bytes */
	__u32 error; /* errno it ended with, while what had come is still being read */
	__u16 family;
	__u8 speaker; /* whose turn it is: enum at_direction or TURN_NONE */
	__u8 protocol;
	__u8 flags;	 /* enum at_conn_flag */
	__u8 announced;	 /* AT_CONN_OPEN is with user space */
	__u8 dirty[2];	 /* it moved on since user space was told */
	__u8 told[2];	 /* a chunk of this turn was made */
	__u8 skip[2];	 /* this turn is not captured: it did not start like a known protocol */
	__u8 ended;	 /* TCP is done with it, its last bytes are still to be read */
	__u8 in_head[2]; /* a head was begun, and its end was not captured */
	__u8 whole;	 /* the answers' windows go to user space whole: several requests wait, or a HEAD */
	__u8 tls; /* it speaks TLS: its own bytes are not captured, and all of the above is about its plaintext */
	__u8 asks_tunnel; /* its last request was a CONNECT: TLS may begin in the middle of it */
	__u8 nested; /* the plaintext of its session is TLS again: of that, the inner session's is captured */
	__u8 preface;		 /* bytes of HTTP/2's preface that its first calls brought, too few to tell */
	__u8 settings;		 /* the same of the header of a server's first frame, its SETTINGS */
	__u8 settings_length[2]; /* the low bytes of that frame's length, as far as they have come */
	__u8 pad[1];
	__u64 sent_ahead; /* how far the sends that have begun go if all is taken; the tail of what was sent ends there */
	__u32 heard; /* TLS: copied_seq when this end began to send last; until it has, when it was first seen */
	__u64 ssl;   /* the TLS session next to the socket, once that is known */
	__u64 inner; /* the one whose TLS records are the plaintext of that, once it is known */
	__u64 claim; /* until then, the one that the last sign spoke for; see bpf/tls/binding.h */
};

/* The call of a TLS library that a thread is in. */
struct tls_call {
	__u64 session; /* 0: in none */
	__u64 buffer;
	__u64 length;
	__u64 done;  /* where the count is returned; 0: it is the result */
	__u64 stack; /* the stack pointer at its entry, which tells whose return is seen; 0: Go */
	__u32 run;
	__u8 direction; /* enum at_direction, or TLS_NO_BYTES */
	__u8 captured;
	__u8 outer;  /* what it calls of the library for the same session is part of it */
	__u8 nested; /* it was made out of a call for another session, which is in `tls_callers` */
};

/* The memory of one read or write call, as one range of bytes: one buffer (pieces is 0), or an array of struct
 * iovec. See iov.h. */
struct user_bytes {
	__u64 base;
	__u64 length; /* of the buffer; of an array it is found by pieces_length(), if not known otherwise */
	__u64 pieces;
	__u64 skip; /* bytes of the array that come before the first */
};

/* fentry: a send whose last bytes tell something, and that was counted when it began. They are others if it is cut. */
struct ahead {
	__u64 sk; /* 0: there is none */
	__u64 position;
	struct user_bytes bytes;
	__u8 tail[AT_TAIL_MAX]; /* of what was sent before */
	__u32 tail_len;
	__u32 pad;
};

struct thread {
	__u64 cause;	  /* connection that was read last, 0 once it has caused something */
	__u64 looked_at;  /* connection whose fate was asked for since */
	__u64 sending_sk; /* set between the start and the end of a sending system call */
	__u64 dirty_sk;	  /* connection on which it sent bytes that user space was not told of */
	__u32 run;	  /* how often a wait has returned */
	__u32 cause_run;
	__u64 message;	    /* kprobes: the struct msghdr of the sending or receiving call in progress */
	__u64 receiving_sk; /* kprobes: set between the start and the end of a receiving call */
	__u64 moved; /* kprobes: what is known of how many bytes the call in progress has moved so far */
	__u32 receiving_flags;
	/* Of the sending call in progress: */
	__u8 unread;	  /* its bytes could not all be read when it began */
	__u8 tail_wanted; /* its last bytes tell something, and they were not captured */
	__u8 pad[2];
	__u64 number; /* see plain_number */
	struct tls_call tls_call;
	__u64 tls_received; /* where it got TLS records from since its last call of a TLS library for another session:
			     * the connection, or the session whose plaintext they are; or SEVERAL */
	__u64 tls_called; /* the TLS session it used since its last send on a TLS connection; or SEVERAL */
	__u64 tls_sent;	  /* the one it used before that send, if it was just one */
	__u64 tls_last;	  /* the one it used last */
	/* the HTTP/2 connection it received from since its last call of nghttp2, or SEVERAL; and how many bytes */
	__u64 http2_received;
	__u64 http2_length;
	/* the one it received from last, and where in its memory these bytes begin, if the connection is older than the agent */
	__u64 http2_last;
	__u64 http2_buffer;
	__u64 http2_handled; /* the session of nghttp2 that is handing over frames; 0: none. See bpf/grpc/node_calls.h */
	__u64 http2_calling; /* the one in which a call is begun meanwhile */
	__u32 http2_stream;  /* the stream of the last frame; 0: of none that is a part of a message */
	__u32 http2_run;     /* the run that these belong to */
	__u32 tls_run;	     /* the run that the four of TLS belong to */
	__u32 of_kernel;     /* io_uring's: it works for whichever thread of its process asked */
	struct ahead ahead;
};

#define SEVERAL 1

/* A TLS session (SSL * of OpenSSL and the like) of a process, as far as its library tells of it. */
struct tls_key {
	__u64 session;
	__u32 tgid;
	__u32 pad;
};

struct tls_session {
	__u64 sk; /* the socket of its connection; 0: not known */
	__u64 conn_id;
	__u64 candidate; /* socket that one sign speaks for; see bpf/tls/binding.h */
	__u64 candidate_id;
	__u64 position[2]; /* plaintext bytes that moved while the connection was not known */
	__u64 early;	   /* how many were sent as early data */
	__u8 signs;
	__u8 by_signs;	 /* bound by signs, not by a call inside a call */
	__u8 from_start; /* seen being made */
	__u8 given_up;
	__u8 pad[4];
};

/* Key: thread group id. Written by user space (selection) and at fork; read by every program; deleted at exit
 * and by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct at_watched);
} watched SEC(".maps");

/* Key: the low bits of a thread group id. Whether one of those that have them was ever watched: an array is asked
 * faster than the hash `watched`, and most of a machine's processes are not watched. Written together with
 * `watched`; never cleared, for two processes can share an entry. */
#define MAYBE_WATCHED 65536
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAYBE_WATCHED);
	__type(key, __u32);
	__type(value, __u8);
} maybe_watched SEC(".maps");

/* Key: kernel socket. Written by the socket core; deleted when the socket closes, and by user space when the
 * process of a Unix socket is gone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct conn);
} conns SEC(".maps");

/* Key: thread id. Written by the socket core; deleted at thread exit. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, __u32);
	__type(value, struct thread);
} threads SEC(".maps");

/* Key: process and session. Written by the programs of TLS libraries and the socket core; deleted when the session
 * is freed, and by user space when its process is gone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, struct tls_key);
	__type(value, struct tls_session);
} tls_sessions SEC(".maps");

/* Key: process and goroutine (the address of its struct g). The call of crypto/tls that it is in: a goroutine can
 * return on another thread. Written and deleted by the programs of crypto/tls, read by the socket core; what a panic
 * leaves behind goes when room is needed. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct tls_key);
	__type(value, struct tls_call);
} go_tls_calls SEC(".maps");

/* Key: process, and thread or goroutine. The call of a TLS library out of which it has called one for another session,
 * which carries the records of the first: TLS in TLS. Written, read and deleted by the programs of TLS libraries; what
 * an unseen return leaves behind goes when room is needed. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct tls_key);
	__type(value, struct tls_call);
} tls_callers SEC(".maps");

/* A contextvars.Context of CPython. */
struct python_context_key {
	__u64 address;
	__u32 tgid;
	__u32 pad;
};

/* When it was made, then when those were that it descends from, nearest first; 0 behind the last one that is known. No
 * two contexts of a process are made at the same nanosecond, for it has one interpreter lock. */
struct python_lineage {
	__u64 made[AT_LINEAGE_MAX];
};

/* Key: process and context. Written when one is copied from another, and deleted when it is freed, by CPython's
 * programs, so that nothing is known of any other context that comes to be at its place; read by these and the frame
 * walker. The least used goes when room is needed. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct python_context_key);
	__type(value, struct python_lineage);
} python_contexts SEC(".maps");

/* Key: enum at_counter. Written by all programs; read by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, AT_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* One slot: the next connection id of this CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} next_id SEC(".maps");

/* A chunk that is put together, and what it is made of. Twice the room for data, so that the verifier sees that a
 * bounded offset plus a bounded length stays inside. */
struct scratch {
	struct at_chunk_event event;
	__u8 data[2 * AT_DATA_MAX];
	struct user_bytes bytes;
	struct head head; /* read_head works on this copy: a slot is found faster than a connection */
	__u64 at;	  /* how far read_head has come */
	__u64 taken;	  /* somebody works in it */
};

#define SCRATCHES 4

/* Where chunks are put together, in process context only. The programs of fentry can be preempted: another thread's
 * takes the next slot then. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCHES);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* The first slot that nobody works in; SCRATCHES if there is none. */
__noinline __u32 free_slot(void)
{
	struct scratch *scratch;

#pragma unroll
	for (__u32 i = 0; i < SCRATCHES; i++) {
		__u32 slot = i;

		scratch = bpf_map_lookup_elem(&scratches, &slot);
		if (scratch && !scratch->taken)
			return i;
	}
	return SCRATCHES;
}

/* Where one direction of an HTTP/2 connection stands. */
struct http2_side {
	__u64 position; /* of the first byte that was not walked yet */
	__u32 left;	/* bytes of the payload, or of the connection preface, that are still to come */
	__u32 number;	/* records made */
	__u8 header[9]; /* of the frame that is walked, as far as it has come */
	__u8 header_len;
	__u8 first[5];	/* bytes of the DATA that is walked: a gRPC message's prefix may be among them */
	__u8 first_len; /* of them, as far as they have come */
	__u8 in_payload;
	__u8 passed_on; /* the payload goes to user space */
	__u8 lost;	/* where frames begin is not known */
	__u8 origin;	/* enum at_frames_origin, of the next record */
	__u8 pad[4];
	__u64 cut_streams; /* by number modulo 64: those whose last DATA may have cut a gRPC message's prefix */
};

struct http2_conn {
	struct http2_side sides[2]; /* by enum at_direction */
};

/* Key: kernel socket. Made for those connections alone that speak HTTP/2; written by the frame walker; deleted with the
 * connection, and when user space does not want its bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct http2_conn);
} http2_conns SEC(".maps");

/* A call that is walked: the record that is put together (twice the room for data, as in struct scratch), and where in
 * the call's memory the walk stands. */
struct walk {
	struct at_frames_event event;
	__u8 data[2 * AT_DATA_MAX];
	struct http2_side side;
	struct http2_conn fresh; /* of a connection whose walks begin: too large for the stack */
	__u64 base;		 /* the array of pieces, 0 if there is but one buffer */
	__u64 pieces;		 /* that are still to come */
	__u64 skip;		 /* bytes of them that come before what is to be walked */
	__u64 from;		 /* the next byte */
	__u64 piece_left;	 /* bytes from there on to the end of the piece */
	__u64 call_left;	 /* bytes of the call that are still to be walked */
	__u32 fault;		 /* memory could not be read */
	__u32 headers;		 /* frame headers in the record */
	struct python_lineage lineage;
};

/* By the slots of `scratches`, and taken with them. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCHES);
	__type(key, __u32);
	__type(value, struct walk);
} walks SEC(".maps");

/* Records of abi.h. Written by all programs; read by user space. Its size is set by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} events SEC(".maps");

/* Set by user space before the load. */
const volatile __u32 head_size = 4096;	      /* bytes captured of a turn's head; at most AT_DATA_MAX */
const volatile __u32 wakeup_bytes = 64 << 10; /* unread bytes in the ring that wake user space early */
const volatile __u32 report_execs = 0;	      /* report every exec, so that user space can select by rule */

/* In one step: an interrupt's program, or another thread's (preempt=full), may count the same meanwhile. */
static __always_inline void count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &which);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* User space looks at the ring by the clock; it is woken only when much has gathered, and not again before as much
 * has come again. To be asked before a record of `size` bytes is written. */
static __always_inline __u64 wakeup_flag(__u64 size)
{
	__u64 unread = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);

	return unread / wakeup_bytes == (unread + size) / wakeup_bytes ? BPF_RB_NO_WAKEUP
								       : BPF_RB_FORCE_WAKEUP;
}

#endif
