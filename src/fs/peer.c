#include "fs/peer.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

/* The first bytes of /proc/PID/NAME; "": it cannot be read */
static void read_proc(pid_t pid, const char *name, char *to, size_t size)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, name);
	MF_CLEANUP(mf_close) int fd = pid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t n = fd < 0 ? 0 : read(fd, to, size - 1);
	to[n > 0 ? n : 0] = 0;
}

pid_t peer_process(pid_t thread)
{
	char status[1024];
	read_proc(thread, "status", status, sizeof status);
	const char *line = strstr(status, "\nTgid:");
	return line ? (pid_t)strtol(line + 6, NULL, 10) : 0;
}

/* Samba names a process after its client: "smbd[192.0.2.1]". What the kernel serves is served by its own threads. */
bool peer_exports(pid_t process)
{
	static const char *const begins[] = { "smbd[", "ksmbd", "kworker/" };
	static const char *const names[] = { "nfsd", "smbd", "ganesha.nfsd", "unfsd" };
	char name[32];
	bool found = false;
	read_proc(process, "comm", name, sizeof name);
	name[strcspn(name, "\n")] = 0;
	for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
		found |= strncmp(name, begins[i], strlen(begins[i])) == 0;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		found |= strcmp(name, names[i]) == 0;
	return found;
}
