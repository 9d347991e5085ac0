/* Makes a child in each way there is; each child makes one request and is gone at once: `spawn HOST PORT`.
 *
 * Paths: /fork, /vfork, /posix_spawn (curl, by exec), /thread, /no-exec (this program), /exec (replaces it).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char url[256], **arguments;

static char *curl[] = {"curl", "-s", "-o", "/dev/null", url, 0};

static void name(const char *path)
{
	snprintf(url, sizeof(url), "http://%s:%s/%s", arguments[1], arguments[2], path);
}

static void *ask(void *path)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[2]))};
	int fd = socket(AF_INET, SOCK_STREAM, 0), length;
	char text[512];

	inet_pton(AF_INET, arguments[1], &to.sin_addr);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
		exit(1);
	length = snprintf(text, sizeof(text), "GET /%s HTTP/1.1\r\nConnection: close\r\n\r\n", (char *)path);
	if (write(fd, text, length) != length)
		exit(1);
	while (read(fd, text, sizeof(text)) > 0)
		;
	close(fd);
	return 0;
}

int main(int count, char **given)
{
	extern char **environ;
	pthread_t thread;
	pid_t pid;

	(void)count;
	arguments = given;
	name("fork");
	if (!fork()) {
		execvp(curl[0], curl);
		_exit(127);
	}
	wait(0);
	name("vfork");
	if (!vfork()) {
		execvp(curl[0], curl);
		_exit(127);
	}
	wait(0);
	name("posix_spawn");
	posix_spawnp(&pid, curl[0], 0, 0, curl, environ);
	wait(0);
	pthread_create(&thread, 0, ask, "thread");
	pthread_join(thread, 0);
	if (!fork()) {
		ask("no-exec");
		_exit(0);
	}
	wait(0);
	usleep(300000); /* a program that is gone at once leaves no time to look at it */
	name("exec");
	execvp(curl[0], curl);
	return 127;
}
