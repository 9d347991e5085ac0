/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The only definition of what crosses from the BPF programs to user space.
 *
 * autotrace/abi.py is generated from the BTF that clang makes of these types (make bpf), and the loader
 * refuses an object whose types differ. All padding is explicit. Times are CLOCK_MONOTONIC nanoseconds.
 */
#ifndef AUTOTRACE_ABI_H
#define AUTOTRACE_ABI_H

#include "kernel.h"

#define AT_TAIL_MAX 8	 /* last bytes of a direction that are remembered */
#define AT_ADDR_MAX 128	 /* sun_path is the longest address, 108 bytes */
#define AT_COMM_MAX 16	 /* TASK_COMM_LEN */
#define AT_PATH_MAX 128	 /* most bytes of a path that a runtime's word on a stream carries */
#define AT_LINEAGE_MAX 8 /* a context and its nearest ancestors */
#define AT_DATA_MAX 8192 /* most head bytes one chunk can carry; the configured head size may be less */

enum at_event_type {
	AT_CONN_OPEN = 1,
	AT_CHUNK = 2,
	AT_PROGRESS = 3,
	AT_CONN_CLOSE = 4,
	AT_PROCESS_START = 5,
	AT_PROCESS_EXIT = 6,
	AT_PROCESS_SEEN = 7, /* an exec of a process that is not watched; user space may decide to watch it */
	AT_PROCESS_TLS = 8,  /* the first connection of a watched program that speaks TLS */
	AT_FRAMES = 9,
	AT_STREAM = 10,
};

enum at_direction {
	AT_RX = 0,
	AT_TX = 1,
};

/* Why something the kernel saw did not reach user space. Indexes of the `counters` array map. */
enum at_counter {
	AT_SENT = 0,	      /* records handed over */
	AT_LOST_REQUEST = 1,  /* ring full: the start of a request */
	AT_LOST_RESPONSE = 2, /* ring full: the start of a response */
	AT_LOST_CHUNK = 3,    /* ring full: a later part of a head */
	AT_LOST_OPEN = 4,     /* ring full: a connection's description (sent again with its next turn) */
	AT_LOST_CLOSE = 5,    /* ring full: a connection's end */
	AT_LOST_PROGRESS = 6, /* ring full: a count (sent again by the next sweep) */
	AT_LOST_PROCESS = 7,  /* a process's start or end (ring full), or a child (map full) */
	AT_CONNS_FULL = 8,    /* no room for another connection: its bytes were not seen */
	AT_THREADS_FULL = 9,  /* no room for another thread: its causes are not known */
	AT_UNRECOGNISED_TURNS =
		10,		/* turns of connections that have not spoken a known protocol: not captured */
	AT_READ_FAULTS = 11,	/* user memory that could not be read */
	AT_MISSED_RETURNS = 12, /* kretprobes that did not run: the end of a call was told late */
	AT_TLS_CONNS = 13,	/* connections that speak TLS: their own bytes are not captured */
	AT_TLS_UNBOUND =
		14, /* calls of a TLS library whose plaintext belongs to no known connection: not captured */
	AT_TLS_CONFLICTS = 15, /* TLS sessions given up: two connections were claimed for one */
	AT_TLS_FULL = 16,      /* no room for another TLS session */
	AT_LOST_FRAMES = 17,   /* ring full: frames of an HTTP/2 connection */
	AT_UNWALKED =
		18, /* calls after which an HTTP/2 direction had to be found anew: their rest was not seen */
	AT_HTTP2_FULL = 19, /* no room for another HTTP/2 connection: its frames were not seen */
	AT_LOST_CLAIM = 20, /* ring full: a runtime's word on a request */
	AT_COUNTERS = 21,
};

/* What came before a record of frames in its direction. */
enum at_frames_origin {
	AT_FRAMES_FOLLOW = 0, /* the record before it */
	AT_FRAMES_START = 1,  /* nothing: the direction begins here */
	AT_FRAMES_JOIN = 2,   /* frames that were not seen */
};

/* What a runtime's word on a request says besides. */
enum at_stream_flag {
	AT_STREAM_GRPC = 1,	/* it is a call of gRPC */
	AT_STREAM_OWN_TASK = 2, /* the task was made for this request and serves no other */
};

enum at_conn_flag {
	AT_CONN_FROM_START = 1, /* seen being made */
	AT_CONN_OUTGOING = 2,	/* made by connect() in a watched process */
	AT_CONN_ESTABLISHED = 4,
	AT_CONN_TLS = 8, /* what is captured is its plaintext, and positions count plaintext bytes from 0 */
};

struct at_header {
	__u32 type; /* enum at_event_type */
	__u32 size; /* of the whole record */
	__u64 ts;
	__u64 conn; /* connection id, 0 for process events */
	__u32 pid;  /* thread group id */
	__u32 tid;
};

/* Who did it, and what its thread had done just before; see Context in autotrace/model/context.py. */
struct at_context {
	__u64 ts;
	__u64 task;
	__u64 cause;
	__u32 pid;
	__u32 tid; /* 0: one of io_uring's, which works for any thread of its process */
	__u32 run;
	__u32 pad;
};

/* How far one direction has come. */
struct at_reach {
	__u64 end;
	__u64 last_ts;
	__u8 tail[AT_TAIL_MAX]; /* the last tail_len bytes, oldest first */
	__u32 tail_len;
	__u32 pad;
};

struct at_conn_event { /* AT_CONN_OPEN, AT_CONN_CLOSE */
	struct at_header h;
	__u64 sock;
	__u64 peer_sock;
	__u32 netns;
	__u16 family;
	__u16 flags; /* enum at_conn_flag */
	__u16 local_port;
	__u16 remote_port;
	__u32 error;		  /* errno */
	struct at_context opened; /* all 0 unless AT_CONN_OUTGOING and seen */
	struct at_reach rx;
	struct at_reach tx;
	__u8 local[AT_ADDR_MAX]; /* 16 bytes for IP (IPv4 in the first 4); a path for Unix sockets */
	__u8 remote[AT_ADDR_MAX];
};

struct at_chunk_event { /* AT_CHUNK; data_len bytes follow */
	struct at_header h;
	struct at_context at;
	struct at_reach other; /* of the other direction; last_ts is 0 but on a turn's first chunk */
	__u64 position;
	__u32 turn;
	__u32 direction; /* enum at_direction */
	__u32 data_len;
	__u32 body_len; /* bytes of a message's body that followed the data, and stayed in the kernel */
	/* TLS, on a turn's first chunk: the ciphertext of its first byte stands at or behind the TCP sequence number
	 * wire_from and, of a turn that was received, before wire_end. 0: not known. */
	__u32 wire_from;
	__u32 wire_end;
};

/* AT_FRAMES; data_len bytes follow: frames of one direction without what nobody needs, see bpf/grpc/walk.h. The first
 * `lead` of them belong to a frame of the record before. Behind them follow `lineage` numbers of 64 bits: which
 * contextvars.Context of Python the bytes were sent in, and which it was copied from, nearest first. */
struct at_frames_event {
	struct at_header h;
	struct at_context at;
	__u64 position; /* of the call's first byte */
	__u32 number;	/* counts the direction's records from 1 */
	__u32 direction;
	__u32 origin; /* enum at_frames_origin */
	__u32 lead;
	__u32 data_len;
	__u32 lineage; /* at most AT_LINEAGE_MAX; 0: not known */
};

/* AT_STREAM: a runtime's own word on a request; see StreamClaim in autotrace/model/events.py. path_len bytes follow. */
struct at_stream_event {
	struct at_header h;   /* conn is 0 if the runtime tells the connection by `carrier` only */
	__u64 carrier;	      /* the task that moves the request's bytes; 0: not known */
	__u64 carrier_parent; /* the task that started that one; 0: not known */
	__u64 task;	      /* the task that serves the request, or that makes it; 0: not known */
	__u64 parent;	      /* the task that started this one; 0: not known */
	__u64 cause;	      /* the connection whose request made the process begin this one; 0: not known */
	__u32 stream;	      /* HTTP/2; 0: the next request that the carrier moves */
	__u32 cause_stream;   /* of the request that is the cause */
	__u32 direction;      /* of the request: enum at_direction */
	__u32 flags;	      /* enum at_stream_flag */
	__u32 pad;
	__u32 path_len; /* 0: not known, or longer than AT_PATH_MAX */
};

struct at_progress_event { /* AT_PROGRESS */
	struct at_header h;
	struct at_reach reach;
	__u32 direction;
	__u32 pad;
};

struct at_process_event { /* AT_PROCESS_START, AT_PROCESS_EXIT, AT_PROCESS_SEEN, AT_PROCESS_TLS */
	struct at_header h;
	__u32 parent;
	__u32 pad;
	__u8 comm[AT_COMM_MAX]; /* after an exec: the name of the program */
};

/* The value of the `watched` map: what the programs need to know of a process. Key: thread group id. */
struct at_watched {
	__u32 speaks_tls;	    /* when AT_PROCESS_TLS was sent last, in a unit of its own; 0: never */
	__u32 goid_offset;	    /* Go: offset of goid in runtime.g; 0: not Go or not known */
	__u32 parent_goid_offset;   /* of parentGoid; 0: not known (before Go 1.21) */
	__u32 stream_method_offset; /* gRPC-Go: of method in transport.Stream; 0: not gRPC-Go or not known */
	__u32 stream_id_offset;	    /* of id */
	__u32 stream_by_pointer;    /* a server's stream begins with a pointer to its transport.Stream */
	/* CPython: offsets of thread_id and of context in PyThreadState; 0: not CPython or not known */
	__u32 python_thread_id;
	__u32 python_context;
};

/* The commands of the `control` program. */
enum at_command {
	AT_STOP = 0,   /* capture no more bytes of this connection */
	AT_FORGET = 1, /* its process is gone, and it is a Unix socket: nothing else tells of its end */
};

/* Names every type above once: BTF holds only types that something refers to. */
struct at_abi {
	enum at_event_type event_type;
	enum at_direction direction;
	enum at_counter counter;
	enum at_conn_flag conn_flag;
	enum at_frames_origin frames_origin;
	enum at_command command;
	enum at_stream_flag stream_flag;
	struct at_header header;
	struct at_context context;
	struct at_reach reach;
	struct at_conn_event conn_event;
	struct at_chunk_event chunk_event;
	struct at_frames_event frames_event;
	struct at_stream_event stream_event;
	struct at_progress_event progress_event;
	struct at_process_event process_event;
	struct at_watched watched;
};

#endif
