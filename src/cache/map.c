#include "cache/map.h"

#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "base/mem.h"

#define SMALLEST 16

static uint32_t bucket_of(const struct map *m, uint64_t key)
{
	return (uint32_t)((key * 0x9e3779b97f4a7c15U) >> 32) & (m->buckets - 1);
}

void map_finish(struct map *m)
{
	free(m->entries);
	free(m->heads);
	*m = (struct map){ 0 };
}

static void grow(struct map *m)
{
	uint32_t buckets = m->buckets ? m->buckets * 2 : SMALLEST;
	m->entries = mf_realloc_array(m->entries, (size_t)buckets + 1, sizeof *m->entries);
	free(m->heads);
	m->heads = mf_alloc_array(buckets, sizeof *m->heads);
	m->buckets = buckets;
	/* full: every entry is in use */
	for (uint32_t i = 1; i <= m->used; i++) {
		uint32_t *head = &m->heads[bucket_of(m, m->entries[i].key)];
		m->entries[i].next = *head;
		*head = i;
	}
}

void map_add(struct map *m, uint64_t key, uint64_t value)
{
	if (!m->spare && m->used == m->buckets)
		grow(m);
	uint32_t at = m->spare;
	if (at)
		m->spare = m->entries[at].next;
	else
		at = ++m->used;
	uint32_t *head = &m->heads[bucket_of(m, key)];
	m->entries[at] = (struct map_entry){ .key = key, .value = value, .next = *head };
	*head = at;
	m->count++;
}

bool map_remove(struct map *m, uint64_t key, uint64_t value)
{
	if (!m->count)
		return false;
	uint32_t *link = &m->heads[bucket_of(m, key)];
	while (*link && (m->entries[*link].key != key || m->entries[*link].value != value))
		link = &m->entries[*link].next;
	if (!*link)
		return false;
	uint32_t at = *link;
	*link = m->entries[at].next;
	m->entries[at].value = 0;
	m->entries[at].next = m->spare;
	m->spare = at;
	m->count--;
	return true;
}

static uint32_t seek(const struct map *m, uint32_t at, uint64_t key)
{
	while (at && m->entries[at].key != key)
		at = m->entries[at].next;
	return at;
}

uint32_t map_first(const struct map *m, uint64_t key)
{
	return m->count ? seek(m, m->heads[bucket_of(m, key)], key) : 0;
}

uint32_t map_next(const struct map *m, uint32_t at)
{
	return seek(m, m->entries[at].next, m->entries[at].key);
}

uint64_t map_get(const struct map *m, uint64_t key)
{
	uint32_t at = map_first(m, key);
	return at ? m->entries[at].value : 0;
}

/* --- SipHash (Aumasson, Bernstein), one round for each word, three at the end ---------------------------------------- */

static inline uint64_t rotate(uint64_t x, int bits)
{
	return x << bits | x >> (64 - bits);
}

static inline void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] = rotate(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] = rotate(v[2], 32);
}

static uint64_t siphash(const unsigned char *data, size_t len, const uint64_t key[2])
{
	uint64_t v[4] = { key[0] ^ 0x736f6d6570736575U, key[1] ^ 0x646f72616e646f6dU,
		          key[0] ^ 0x6c7967656e657261U, key[1] ^ 0x7465646279746573U };
	size_t left = len;
	for (; left >= 8; left -= 8, data += 8) {
		uint64_t word;
		memcpy(&word, data, 8);
		v[3] ^= word;
		sip_round(v);
		v[0] ^= word;
	}
	uint64_t last = (uint64_t)len << 56;
	for (size_t i = 0; i < left; i++)
		last |= (uint64_t)data[i] << (8 * i);
	v[3] ^= last;
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static uint64_t process_key[2];

static void make_process_key(void)
{
	/* without entropy the names only lose their protection against made-up collisions */
	(void)!getrandom(process_key, sizeof process_key, 0);
}

uint64_t hash_bytes(const void *data, size_t len)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, make_process_key);
	return siphash(data, len, process_key);
}

uint64_t hash_stable(const void *data, size_t len)
{
	static const uint64_t key[2] = { 0x6d61696c66730001U, 0x6d61746368000001U };
	return siphash(data, len, key);
}
