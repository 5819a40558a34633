/* pool.h: texts that go together: each is copied, none is freed by itself. For one thread at a time; a zeroed one is empty. */
#ifndef MF_BASE_POOL_H
#define MF_BASE_POOL_H

struct pool { struct pool_block *blocks; };

char *pool_copy(struct pool *p, const char *text);      /* stays where it is until the next of: */
void pool_reset(struct pool *p);                        /* keeps room for the next ones */
void pool_finish(struct pool *p);

#endif
