#include "mail/digest.h"

#include <pthread.h>
#include <stdlib.h>

#include <openssl/evp.h>

/* The algorithm is looked up once, and each thread keeps a context: both take longer than a short digest. */
static EVP_MD *sha256;
static pthread_key_t spare;

/* What fails here is memory, or an OpenSSL without SHA-256. */
static void must(int good)
{
	if (good != 1)
		abort();
}

static void free_context(void *context)
{
	EVP_MD_CTX_free(context);
}

static void set_up(void)
{
	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	must(pthread_key_create(&spare, free_context) == 0);
}

void digest_begin(struct digest *d)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, set_up);
	d->context = pthread_getspecific(spare);
	if (d->context)
		must(pthread_setspecific(spare, NULL) == 0);
	else
		d->context = EVP_MD_CTX_new();
	must(EVP_DigestInit_ex2(d->context, sha256, NULL));
}

void digest_add(struct digest *d, const void *data, size_t len)
{
	must(EVP_DigestUpdate(d->context, data, len));
}

void digest_end(struct digest *d, unsigned char ret[static DIGEST_BYTES])
{
	must(EVP_DigestFinal_ex(d->context, ret, NULL));
	EVP_MD_CTX_free(pthread_getspecific(spare)); /* of another that was under way */
	must(pthread_setspecific(spare, d->context) == 0);
}

void digest_end_base32(struct digest *d, char *ret, size_t len)
{
	static const char base32[] = "abcdefghijklmnopqrstuvwxyz234567";
	unsigned char bytes[DIGEST_BYTES];
	digest_end(d, bytes);
	for (size_t i = 0; i < len; i++) {
		size_t bit = i * 5;
		unsigned pair = (unsigned)bytes[bit / 8] << 8 | bytes[bit / 8 + 1];
		ret[i] = base32[pair >> (11 - bit % 8) & 31];
	}
	ret[len] = '\0';
}
