/* A server that answers one request out of memory of which a part comes late, and a client that reads the answer;
 * then both stay and say nothing: `slow_memory PORT LOG`. A page in the middle of the answer comes (userfaultfd(2))
 * after DELAY_MS, when the call that sends has long begun. LOG gets a JSON line when the answer is sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 25
#define LATE 12
#define DELAY_MS 1500
#define REQUEST "GET /slow HTTP/1.1\r\nHost: slow\r\n\r\n"

static void check(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static void *bring_late_page(void *given)
{
	static char page[PAGE] __attribute__((aligned(PAGE)));
	int faults = *(int *)given;
	struct uffd_msg fault;
	struct uffdio_copy copy = {.src = (unsigned long)page, .len = PAGE};

	check(read(faults, &fault, sizeof(fault)) == sizeof(fault), "read of a fault");
	usleep(1000 * DELAY_MS);
	memset(page, 'r', PAGE);
	copy.dst = fault.arg.pagefault.address & ~(PAGE - 1UL);
	check(!ioctl(faults, UFFDIO_COPY, &copy), "UFFDIO_COPY");
	return 0;
}

static char *slow_memory(int faults)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register late = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	char *memory = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(memory != MAP_FAILED, "mmap");
	for (int i = 0; i < PAGES; i++)
		if (i != LATE)
			memset(memory + i * PAGE, 'r', PAGE);
	check(!ioctl(faults, UFFDIO_API, &api), "UFFDIO_API");
	late.range.start = (unsigned long)memory + LATE * PAGE;
	late.range.len = PAGE;
	check(!ioctl(faults, UFFDIO_REGISTER, &late), "UFFDIO_REGISTER");
	return memory;
}

int main(int count, char **given)
{
	struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, size = 1 << 20, fd, faults, status;
	char *memory, heard[PAGE];
	pthread_t thread;
	FILE *log;

	check(count == 3, "usage: slow_memory PORT LOG");
	where.sin_port = htons(atoi(given[1]));
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	check(!bind(listener, (struct sockaddr *)&where, sizeof(where)) && !listen(listener, 8), "listen");
	if (!fork()) {
		size_t left = PAGES * PAGE;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fd = socket(AF_INET, SOCK_STREAM, 0);
		check(!connect(fd, (struct sockaddr *)&where, sizeof(where)), "connect");
		check(write(fd, REQUEST, strlen(REQUEST)) == (ssize_t)strlen(REQUEST), "write");
		while (left) {
			ssize_t got = read(fd, heard, left < sizeof(heard) ? left : sizeof(heard));

			check(got > 0, "read");
			left -= got;
		}
		pause();
	}
	fd = accept(listener, 0, 0);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	check(read(fd, heard, sizeof(heard)) == (ssize_t)strlen(REQUEST), "read");
	faults = syscall(SYS_userfaultfd, O_CLOEXEC);
	check(faults >= 0, "userfaultfd");
	memory = slow_memory(faults);
	status = snprintf(memory, PAGE,
			  "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Pad: ", PAGES * PAGE - 100);
	memset(memory + status, 'x', 96 - status);
	memcpy(memory + 96, "\r\n\r\n", 4);
	pthread_create(&thread, 0, bring_late_page, &faults);
	check(write(fd, memory, PAGES * PAGE) == PAGES * PAGE, "write of it all");
	pthread_join(thread, 0);
	log = fopen(given[2], "a");
	fprintf(log, "{\"path\": \"/slow\", \"sent\": %d}\n", PAGES * PAGE - 100);
	fclose(log);
	wait(&status);
	return 1;
}
