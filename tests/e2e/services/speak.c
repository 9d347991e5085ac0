/* Two processes that hold one conversation of fixed bytes, by whatever system calls they are told to use.
 *
 * speak KEY=VALUE...: the child connects, sends the file `request` and reads the answer; the parent reads the
 * request and sends the file `response`; `rounds` times on one connection. Each prints what it moved, as JSON.
 *
 *   family  inet, inet6, mapped (IPv4 client, IPv6 server), unix or abstract
 *   address port, or name of the Unix socket
 *   read    read, readv, recvfrom, recvmsg, recvmmsg, splice
 *   write   write, writev, sendto, sendmsg, sendmmsg, sendfile, splice
 *   piece   bytes of one call (0: all at once); iov: pieces of a vector
 *   peek, waitall, nonblock, empty: 1 to look before reading, wait for all, use poll, write nothing in between
 *   cold    1 to send from memory that was never touched
 *   sndbuf  bytes of the send buffer; pause: milliseconds before the client reads
 * sendfile and splice move what follows the head, the head goes by plain read and write.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define IOV_MOST 1024

static char **arguments;

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

struct content {
	int fd;
	char *bytes;
	size_t length, head;
};

static struct content load(const char *path)
{
	struct content content = {.fd = open(path, O_RDONLY)};
	struct stat stat;

	if (content.fd < 0 || fstat(content.fd, &stat))
		fail(path);
	content.length = stat.st_size;
	content.bytes = malloc(content.length);
	if (read(content.fd, content.bytes, content.length) != stat.st_size)
		fail(path);
	content.head = (char *)memmem(content.bytes, content.length, "\r\n\r\n", 4) + 4 - content.bytes;
	if (number("cold", 0))
		content.bytes = mmap(0, content.length, PROT_READ, MAP_PRIVATE, content.fd, 0);
	return content;
}

static int cut(struct iovec *pieces, char *bytes, size_t length)
{
	size_t count = number("iov", 3), each = length / count + 1, done = 0;
	int used = 0;

	while (done < length && used < IOV_MOST) {
		size_t step = each < length - done ? each : length - done;

		pieces[used++] = (struct iovec){bytes + done, step};
		done += step;
	}
	return used;
}

static ssize_t total(struct mmsghdr *messages, int count)
{
	ssize_t sum = 0;

	for (int i = 0; i < count; i++)
		sum += messages[i].msg_len;
	return count < 0 ? count : sum;
}

static int two_messages(struct mmsghdr *messages, struct iovec *pieces, int count)
{
	int first = count > 1 ? count - 1 : count;

	memset(messages, 0, 2 * sizeof(*messages));
	messages[0].msg_hdr = (struct msghdr){.msg_iov = pieces, .msg_iovlen = first};
	messages[1].msg_hdr = (struct msghdr){.msg_iov = pieces + first, .msg_iovlen = count - first};
	return count > first ? 2 : 1;
}

static ssize_t by_splice(int from, loff_t *offset, int to, size_t length)
{
	int ends[2];
	ssize_t in, out = 0;

	if (pipe(ends))
		fail("pipe");
	in = splice(from, offset, ends[1], 0, length > 65536 ? 65536 : length, SPLICE_F_MOVE);
	for (ssize_t left = in; left > 0; left -= out) {
		out = splice(ends[0], 0, to, 0, left, SPLICE_F_MOVE);
		if (out < 0)
			fail("splice");
	}
	close(ends[0]);
	close(ends[1]);
	return in;
}

static ssize_t send_some(int fd, struct content *content, size_t done, size_t length)
{
	const char *how = text("write", "write");
	struct iovec pieces[IOV_MOST];
	struct mmsghdr messages[2];
	struct msghdr message = {.msg_iov = pieces};
	char *bytes = content->bytes + done;
	off_t offset = done;
	loff_t position = done;

	if (!strcmp(how, "sendfile") || !strcmp(how, "splice")) {
		if (done < content->head)
			return write(fd, bytes, content->head - done < length ? content->head - done : length);
		return how[1] == 'p' ? by_splice(content->fd, &position, fd, length)
				     : sendfile(fd, content->fd, &offset, length);
	}
	if (!strcmp(how, "write"))
		return write(fd, bytes, length);
	if (!strcmp(how, "sendto"))
		return send(fd, bytes, length, MSG_NOSIGNAL);
	message.msg_iovlen = cut(pieces, bytes, length);
	if (!strcmp(how, "writev"))
		return writev(fd, pieces, message.msg_iovlen);
	if (!strcmp(how, "sendmsg"))
		return sendmsg(fd, &message, MSG_NOSIGNAL);
	return total(messages, sendmmsg(fd, messages, two_messages(messages, pieces, message.msg_iovlen), 0));
}

static ssize_t receive_some(int fd, char *bytes, size_t head_left, size_t length)
{
	const char *how = text("read", "read");
	int flags = number("waitall", 0) ? MSG_WAITALL : 0;
	struct iovec pieces[IOV_MOST];
	struct mmsghdr messages[2];
	struct msghdr message = {.msg_iov = pieces};
	ssize_t moved;

	if (!strcmp(how, "splice")) {
		static int null = -1;

		if (null < 0)
			null = open("/dev/null", O_WRONLY);
		return head_left ? read(fd, bytes, head_left) : by_splice(fd, 0, null, length);
	}
	if (!strcmp(how, "read"))
		return read(fd, bytes, length);
	if (!strcmp(how, "recvfrom"))
		return recv(fd, bytes, length, flags);
	message.msg_iovlen = cut(pieces, bytes, length);
	if (!strcmp(how, "readv"))
		return readv(fd, pieces, message.msg_iovlen);
	if (!strcmp(how, "recvmsg"))
		return recvmsg(fd, &message, flags);
	message.msg_iovlen = two_messages(messages, pieces, message.msg_iovlen);
	moved = total(messages, recvmmsg(fd, messages, message.msg_iovlen, MSG_WAITFORONE, 0));
	/* The first message's room may not be full, and yet the second has something. */
	if (moved > (ssize_t)messages[0].msg_len)
		memmove(bytes + messages[0].msg_len, messages[1].msg_hdr.msg_iov->iov_base,
			messages[1].msg_len);
	return moved;
}

static void wait_until(int fd, short event)
{
	struct pollfd one = {.fd = fd, .events = event};

	if (number("nonblock", 0) && poll(&one, 1, -1) < 0)
		fail("poll");
}

static size_t step(size_t left)
{
	size_t piece = number("piece", 0);

	return piece && piece < left ? piece : left;
}

static void send_all(int fd, struct content *content)
{
	for (size_t done = 0; done < content->length;) {
		ssize_t moved;

		if (number("empty", 0) && write(fd, "", 0))
			fail("empty write");
		moved = send_some(fd, content, done, step(content->length - done));
		if (moved < 0 && errno == EAGAIN)
			wait_until(fd, POLLOUT);
		else if (moved < 0)
			fail("send");
		else
			done += moved;
	}
}

static void receive_all(int fd, const struct content *content)
{
	char *bytes = malloc(content->length);

	for (size_t done = 0; done < content->length;) {
		char looked[4096];
		ssize_t moved;

		if (number("peek", 0)) {
			struct iovec piece = {looked, sizeof(looked)};
			struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};

			wait_until(fd, POLLIN);
			recv(fd, looked, sizeof(looked), MSG_PEEK);
			recvmsg(fd, &message, MSG_PEEK);
			recvmmsg(fd, &(struct mmsghdr){.msg_hdr = message}, 1, MSG_PEEK, 0);
		}
		moved = receive_some(fd, bytes + done, done < content->head ? content->head - done : 0,
				     step(content->length - done));
		if (moved < 0 && errno == EAGAIN)
			wait_until(fd, POLLIN);
		else if (moved <= 0)
			fail("receive");
		else
			done += moved;
	}
	if (strcmp(text("read", "read"), "splice") && memcmp(bytes, content->bytes, content->length))
		fail("other bytes came than were sent");
	free(bytes);
}

static socklen_t address(struct sockaddr_storage *to, int serving)
{
	const char *family = text("family", "inet"), *where = text("address", "0");
	struct sockaddr_in *inet = (struct sockaddr_in *)to;
	struct sockaddr_in6 *inet6 = (struct sockaddr_in6 *)to;
	struct sockaddr_un *local = (struct sockaddr_un *)to;

	memset(to, 0, sizeof(*to));
	if (!strcmp(family, "unix") || !strcmp(family, "abstract")) {
		int hidden = family[0] == 'a';

		local->sun_family = AF_UNIX;
		strcpy(local->sun_path + hidden, where);
		return offsetof(struct sockaddr_un, sun_path) + hidden + strlen(where);
	}
	if (!strcmp(family, "inet") || (!strcmp(family, "mapped") && !serving)) {
		inet->sin_family = AF_INET;
		inet->sin_port = htons(atoi(where));
		inet->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return sizeof(*inet);
	}
	inet6->sin6_family = AF_INET6;
	inet6->sin6_port = htons(atoi(where));
	inet6->sin6_addr = family[0] == 'm' ? in6addr_any : in6addr_loopback;
	return sizeof(*inet6);
}

static void prepare(int fd)
{
	int size = number("sndbuf", 0);

	if (size)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	if (number("nonblock", 0))
		fcntl(fd, F_SETFL, O_NONBLOCK);
}

int main(int count, char **given)
{
	struct content request, response;
	struct sockaddr_storage where;
	int listener, fd, one = 1, off = 0, status, rounds;
	socklen_t length;
	pid_t child;

	(void)count;
	arguments = given + 1;
	rounds = number("rounds", 1);
	request = load(text("request", ""));
	response = load(text("response", ""));
	length = address(&where, 1);
	if (!strcmp(text("family", ""), "unix"))
		unlink(text("address", ""));
	listener = socket(where.ss_family, SOCK_STREAM, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(listener, (struct sockaddr *)&where, length) || listen(listener, 8))
		fail("listen");
	child = fork();
	if (!child) {
		length = address(&where, 0);
		fd = socket(where.ss_family, SOCK_STREAM, 0);
		if (connect(fd, (struct sockaddr *)&where, length))
			fail("connect");
		prepare(fd);
		for (int i = 0; i < rounds; i++) {
			send_all(fd, &request);
			usleep(1000 * number("pause", 0));
			receive_all(fd, &response);
		}
		return 0;
	}
	fd = accept(listener, 0, 0);
	prepare(fd);
	for (int i = 0; i < rounds; i++) {
		receive_all(fd, &request);
		send_all(fd, &response);
	}
	close(fd);
	waitpid(child, &status, 0);
	printf("{\"rounds\": %d, \"request\": %zu, \"response\": %zu, \"status\": %d}\n", rounds, request.length,
	       response.length, status);
	return status != 0;
}
