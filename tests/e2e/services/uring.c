/* HTTP/1.1 by io_uring alone: one thread, one ring, many connections, every byte moved by the ring.
 *
 * uring serve|ask|probe KEY=VALUE...: `serve` answers what comes to `address`, or passes it on to `upstream`; `ask`
 * sends `count` requests to `address` on each of `connections` connections. Each exchange is logged to `log` as JSON.
 * `probe` prints what this kernel's io_uring can do.
 *
 *   address, upstream  a port on 127.0.0.1, or the name of a Unix socket if it has a '/'
 *   by          recv, read, readv, recvmsg or zerocopy: which operations receive and send
 *   async       1 to have every operation done by a kernel thread of this process (IOSQE_ASYNC)
 *   sqpoll      1 to have the ring emptied by one (IORING_SETUP_SQPOLL)
 *   name, request, response  of `ask`: the first part of the path, the sizes of both contents
 * A path is /NAME/REQUEST/RESPONSE/CONNECTION/NUMBER. Bodies are all one letter. The exit code is 3 if this kernel
 * allows no io_uring.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define ENTRIES 256
#define ROOM (1 << 20)
#define PIECES 3

enum state { ACCEPTING, READING_REQUEST, PASSING_ON, READING_UPSTREAM, ANSWERING, ASKING, READING_ANSWER };

struct connection {
	enum state state;
	int fd, upstream, number, asked;
	size_t done, length; /* of the message in `bytes` */
	long taken;	     /* by a zero-copy send that is not over */
	char path[128];
	struct iovec pieces[PIECES];
	struct msghdr message;
	char bytes[ROOM];
};

struct completion {
	struct connection *connection;
	int result;
	unsigned flags;
};

static struct {
	int fd;
	unsigned *sq_tail, *sq_mask, *sq_flags, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
} ring;

static char **arguments;
static FILE *log_file;

static const char *text(const char *key, const char *otherwise)
{
	size_t length = strlen(key);

	for (char **each = arguments; *each; each++)
		if (!strncmp(*each, key, length) && (*each)[length] == '=')
			return *each + length + 1;
	return otherwise;
}

static long number(const char *key, long otherwise)
{
	const char *value = text(key, 0);

	return value ? atol(value) : otherwise;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static char *map_ring(size_t length, off_t what)
{
	char *memory = mmap(0, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, what);

	if (memory == MAP_FAILED)
		fail("mmap");
	return memory;
}

static unsigned open_ring(void)
{
	struct io_uring_params params = {.flags = number("sqpoll", 0) ? IORING_SETUP_SQPOLL : 0,
					 .sq_thread_idle = 50};
	char *sq, *cq;

	ring.fd = syscall(__NR_io_uring_setup, ENTRIES, &params);
	if (ring.fd < 0) {
		perror("io_uring_setup");
		exit(3);
	}
	sq = map_ring(params.sq_off.array + params.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
	cq = map_ring(params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
	ring.sqes = (void *)map_ring(params.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
	ring.sq_tail = (void *)(sq + params.sq_off.tail);
	ring.sq_mask = (void *)(sq + params.sq_off.ring_mask);
	ring.sq_flags = (void *)(sq + params.sq_off.flags);
	ring.sq_array = (void *)(sq + params.sq_off.array);
	ring.cq_head = (void *)(cq + params.cq_off.head);
	ring.cq_tail = (void *)(cq + params.cq_off.tail);
	ring.cq_mask = (void *)(cq + params.cq_off.ring_mask);
	ring.cqes = (void *)(cq + params.cq_off.cqes);
	return params.features;
}

static void print_abilities(unsigned features)
{
	struct io_uring_probe *probe = calloc(1, sizeof(*probe) + 256 * sizeof(struct io_uring_probe_op));

	if (syscall(__NR_io_uring_register, ring.fd, IORING_REGISTER_PROBE, probe, 256))
		fail("io_uring_register");
	printf("{\"own_threads\": %d, \"zerocopy\": %d}\n", !!(features & IORING_FEAT_NATIVE_WORKERS),
	       probe->last_op >= IORING_OP_SEND_ZC);
	exit(0);
}

static int enter(unsigned submit, unsigned wait, unsigned flags)
{
	int result;

	do {
		result = syscall(__NR_io_uring_enter, ring.fd, submit, wait, flags, 0, 0);
	} while (result < 0 && errno == EINTR);
	if (result < 0)
		fail("io_uring_enter");
	return result;
}

static struct io_uring_sqe *begin_entry(int fd, struct connection *connection)
{
	unsigned slot = *ring.sq_tail & *ring.sq_mask;
	struct io_uring_sqe *entry = &ring.sqes[slot];

	memset(entry, 0, sizeof(*entry));
	entry->fd = fd;
	entry->user_data = (unsigned long)connection;
	ring.sq_array[slot] = slot;
	return entry;
}

static void submit(void)
{
	__atomic_store_n(ring.sq_tail, *ring.sq_tail + 1, __ATOMIC_SEQ_CST);
	if (!number("sqpoll", 0))
		enter(1, 0, 0);
	else if (__atomic_load_n(ring.sq_flags, __ATOMIC_SEQ_CST) & IORING_SQ_NEED_WAKEUP)
		enter(0, 0, IORING_ENTER_SQ_WAKEUP);
}

static struct completion wait_for_one(void)
{
	struct io_uring_cqe *entry;
	struct completion got;

	while (__atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE) == *ring.cq_head)
		enter(0, 1, IORING_ENTER_GETEVENTS);
	entry = &ring.cqes[*ring.cq_head & *ring.cq_mask];
	got = (struct completion){(struct connection *)entry->user_data, entry->res, entry->flags};
	__atomic_store_n(ring.cq_head, *ring.cq_head + 1, __ATOMIC_RELEASE);
	return got;
}

static void move(struct connection *connection, int sending, int fd, char *bytes, size_t length)
{
	static const struct {
		const char *name;
		int operations[2], shape; /* 0: a buffer, 1: an array of pieces, 2: a struct msghdr */
	} ways[] = {
	    {"recv", {IORING_OP_RECV, IORING_OP_SEND}, 0},
	    {"read", {IORING_OP_READ, IORING_OP_WRITE}, 0},
	    {"readv", {IORING_OP_READV, IORING_OP_WRITEV}, 1},
	    {"recvmsg", {IORING_OP_RECVMSG, IORING_OP_SENDMSG}, 2},
	    {"zerocopy", {IORING_OP_RECV, IORING_OP_SEND_ZC}, 0},
	    {0},
	};
	struct io_uring_sqe *entry = begin_entry(fd, connection);
	size_t each = length / PIECES;
	int way = 0;

	while (ways[way].name && strcmp(ways[way].name, text("by", "recv")))
		way++;
	entry->opcode = ways[way].operations[sending];
	entry->flags = number("async", 0) ? IOSQE_ASYNC : 0;
	entry->addr = (unsigned long)bytes;
	entry->len = length;
	if (ways[way].shape) {
		for (int i = 0; i < PIECES; i++)
			connection->pieces[i] = (struct iovec){bytes + i * each, each};
		connection->pieces[PIECES - 1].iov_len = length - (PIECES - 1) * each;
		entry->addr = (unsigned long)connection->pieces;
		entry->len = PIECES;
	}
	if (ways[way].shape == 2) {
		connection->message = (struct msghdr){.msg_iov = connection->pieces, .msg_iovlen = PIECES};
		entry->addr = (unsigned long)&connection->message;
		entry->len = 1;
	}
	submit();
}

/* --- messages --------------------------------------------------------------------------------------------- */

static void put(struct connection *connection, char letter, size_t body, const char *form, ...)
{
	va_list list;
	int head;

	va_start(list, form);
	head = vsnprintf(connection->bytes, ROOM, form, list);
	va_end(list);
	memset(connection->bytes + head, letter, body);
	connection->length = head + body;
	connection->done = 0;
}

/* The length of the message that stands in `bytes`, 0 if its head is not all there. */
static size_t message_length(struct connection *connection)
{
	char *end = memmem(connection->bytes, connection->done, "\r\n\r\n", 4), *field;

	if (!end)
		return 0;
	field = memmem(connection->bytes, connection->done, "Content-Length: ", 16);
	return end + 4 - connection->bytes + (field && field < end ? atol(field + 16) : 0);
}

static void tell(struct connection *connection, const char *who)
{
	fprintf(log_file, "{\"who\": \"%s\", \"path\": \"%s\"}\n", who, connection->path);
	fflush(log_file);
}

/* --- connections ------------------------------------------------------------------------------------------ */

static socklen_t address(struct sockaddr_storage *to, const char *where)
{
	struct sockaddr_in *inet = (struct sockaddr_in *)to;
	struct sockaddr_un *local = (struct sockaddr_un *)to;

	memset(to, 0, sizeof(*to));
	if (strchr(where, '/')) {
		local->sun_family = AF_UNIX;
		strcpy(local->sun_path, where);
		return sizeof(*local);
	}
	inet->sin_family = AF_INET;
	inet->sin_port = htons(atoi(where));
	inet->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return sizeof(*inet);
}

static int connect_to(const char *where)
{
	struct sockaddr_storage to;
	socklen_t length = address(&to, where);
	int fd = socket(to.ss_family, SOCK_STREAM, 0), one = 1;

	if (connect(fd, (struct sockaddr *)&to, length))
		fail("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static int listen_at(const char *where)
{
	struct sockaddr_storage to;
	socklen_t length = address(&to, where);
	int fd = socket(to.ss_family, SOCK_STREAM, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&to, length) || listen(fd, 64))
		fail("listen");
	return fd;
}

static struct connection *new_connection(int fd)
{
	/* Touched, so that a send can be read when it begins. */
	struct connection *connection = malloc(sizeof(*connection));

	memset(connection, 0, sizeof(*connection));
	connection->fd = fd;
	connection->upstream = -1;
	return connection;
}

/* The listener is watched by the ring, and what came is accepted by a call: a Unix connection is then known from its
 * start. */
static void await_connection(struct connection *listener)
{
	struct io_uring_sqe *entry = begin_entry(listener->fd, listener);

	listener->state = ACCEPTING;
	entry->opcode = IORING_OP_POLL_ADD;
	entry->poll_events = 1; /* POLLIN */
	submit();
}

static void go(struct connection *connection, enum state state)
{
	int upwards = state == PASSING_ON || state == READING_UPSTREAM;
	int sending = state == PASSING_ON || state == ANSWERING || state == ASKING;
	size_t length = sending ? connection->length : ROOM;

	if (state != connection->state)
		connection->done = 0;
	connection->state = state;
	move(connection, sending, upwards ? connection->upstream : connection->fd,
	     connection->bytes + connection->done, length - connection->done);
}

static void ask_next(struct connection *connection)
{
	long body = number("request", 0);

	snprintf(connection->path, sizeof(connection->path), "/%s/%ld/%ld/%d/%d", text("name", "x"), body,
		 number("response", 0), connection->number, connection->asked++);
	put(connection, 'q', body, "POST %s HTTP/1.1\r\nHost: uring\r\nContent-Length: %ld\r\n\r\n",
	    connection->path, body);
	go(connection, ASKING);
}

static void serve_request(struct connection *connection)
{
	long body;

	connection->bytes[ROOM - 1] = 0;
	sscanf(connection->bytes, "POST %127s", connection->path);
	if (text("upstream", 0)) {
		if (connection->upstream < 0)
			connection->upstream = connect_to(text("upstream", 0));
		connection->length = connection->done;
		go(connection, PASSING_ON);
		return;
	}
	sscanf(connection->path, "/%*[^/]/%*d/%ld/", &body);
	put(connection, 'r', body, "HTTP/1.1 200 OK\r\nContent-Length: %ld\r\n\r\n", body);
	go(connection, ANSWERING);
}

/* An operation of the connection is over. Returns 0 if that was the last of a connection of `ask`. */
static int moved(struct connection *connection, long result)
{
	int sending = connection->state == PASSING_ON || connection->state == ANSWERING ||
		      connection->state == ASKING;
	size_t length;

	if (connection->state == ACCEPTING) {
		go(new_connection(accept(connection->fd, 0, 0)), READING_REQUEST);
		await_connection(connection);
		return 1;
	}
	if (result <= 0) {
		if (result < 0 || connection->state != READING_REQUEST) {
			errno = -result;
			fail("a connection ended early");
		}
		close(connection->fd);
		if (connection->upstream >= 0)
			close(connection->upstream);
		free(connection);
		return 1;
	}
	connection->done += result;
	length = sending ? connection->length : message_length(connection);
	if (!length || connection->done < length) {
		go(connection, connection->state);
		return 1;
	}
	switch (connection->state) {
	case READING_REQUEST:
		serve_request(connection);
		break;
	case PASSING_ON:
		go(connection, READING_UPSTREAM);
		break;
	case READING_UPSTREAM:
		connection->length = connection->done;
		go(connection, ANSWERING);
		break;
	case ANSWERING:
		tell(connection, text("upstream", 0) ? "proxy" : "server");
		go(connection, READING_REQUEST);
		break;
	case ASKING:
		go(connection, READING_ANSWER);
		break;
	default:
		tell(connection, "client");
		if (connection->asked < number("count", 1)) {
			ask_next(connection);
			break;
		}
		close(connection->fd);
		return 0;
	}
	return 1;
}

int main(int count, char **given)
{
	unsigned features;
	long left = 0;
	int asking;

	(void)count;
	arguments = given + 1;
	asking = !strcmp(given[1], "ask");
	log_file = fopen(text("log", "/dev/null"), "a");
	if (!log_file)
		fail("log");
	features = open_ring();
	if (!strcmp(given[1], "probe"))
		print_abilities(features);
	if (asking) {
		for (; left < number("connections", 1); left++) {
			struct connection *connection = new_connection(connect_to(text("address", "")));

			connection->number = left;
			ask_next(connection);
		}
	} else {
		await_connection(new_connection(listen_at(text("address", ""))));
	}
	while (!asking || left) {
		struct completion got = wait_for_one();

		/* A zero-copy send is told twice: what was taken, then that its memory is free again. */
		if (got.flags & IORING_CQE_F_MORE)
			got.connection->taken = got.result;
		else if (!moved(got.connection,
				got.flags & IORING_CQE_F_NOTIF ? got.connection->taken : got.result))
			left--;
	}
	return 0;
}
