#include "base/secret.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

/* in front of the memory that is given out; as large as keeps that aligned */
struct secret_head {
	_Alignas(max_align_t) size_t mapped;
};

void *secret_alloc(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t mapped = (size + sizeof(struct secret_head) + page - 1) / page * page;
	struct secret_head *head = MAP_FAILED;
	if (mapped > size)
		head = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (head == MAP_FAILED) {
		static const char text[] = "mailfs: out of memory\n";
		(void)!write(STDERR_FILENO, text, sizeof text - 1);
		abort();
	}
	(void)madvise(head, mapped, MADV_DONTDUMP);
	(void)mlock(head, mapped); /* beyond RLIMIT_MEMLOCK it can be swapped, and no more */
	head->mapped = mapped;
	return head + 1;
}

char *secret_dup_n(const char *s, size_t len)
{
	char *copy = secret_alloc(len + 1);
	memcpy(copy, s, len);
	return copy;
}

char *secret_dup(const char *s)
{
	return secret_dup_n(s, strlen(s));
}

void secret_free(void *p)
{
	if (!p)
		return;
	struct secret_head *head = (struct secret_head *)p - 1;
	size_t mapped = head->mapped;
	explicit_bzero(head, mapped);
	munmap(head, mapped);
}
