#include "base/pool.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define BLOCK_BYTES 65536

struct pool_block {
	struct pool_block *next;
	size_t used, size;
	char data[];
};

/* for at least len bytes, before the others */
static void add_block(struct pool *p, size_t len)
{
	size_t size = len > BLOCK_BYTES ? len : BLOCK_BYTES;
	struct pool_block *b = mf_realloc_array(NULL, sizeof *b + size, 1);
	*b = (struct pool_block){ .next = p->blocks, .size = size };
	p->blocks = b;
}

char *pool_copy(struct pool *p, const char *text)
{
	size_t len = strlen(text) + 1;
	if (!p->blocks || len > p->blocks->size - p->blocks->used)
		add_block(p, len);
	char *copy = p->blocks->data + p->blocks->used;
	p->blocks->used += len;
	return memcpy(copy, text, len);
}

static void free_from(struct pool_block *b)
{
	for (struct pool_block *next; b; b = next) {
		next = b->next;
		free(b);
	}
}

void pool_reset(struct pool *p)
{
	if (!p->blocks)
		return;
	free_from(p->blocks->next);
	p->blocks->next = NULL;
	p->blocks->used = 0;
}

void pool_finish(struct pool *p)
{
	free_from(p->blocks);
	p->blocks = NULL;
}
