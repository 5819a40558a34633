/* sync/pop3/maildrop: numbers for messages, against a model: random maildrops that change, are renamed, hold twins */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "sync/pop3/client.h"
#include "sync/pop3/maildrop.h"

#define MAILS 40

struct mail { char uidl[16]; unsigned content, uid; };  /* uid: what it was called in the last round; 0: new */

static char keys[2 * MAILS][KEY_MAX];
static struct uidl rows[2 * MAILS];
static struct uidls known = { .rows = rows };

static void fill(struct maildrop *d, const struct mail *mails, size_t count)
{
	maildrop_init(d);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(maildrop_add(d, (uint32_t)i + 1, *mails[i].uidl ? mails[i].uidl : NULL), MF_OK);
		d->items[i].size = 100 + mails[i].content;
		d->items[i].has_size = true;
	}
}

/* what the client does with the header blocks */
static void digest(struct maildrop *d, const struct mail *mails)
{
	for (size_t i = 0; i < d->count; i++)
		snprintf(d->items[i].digest, sizeof d->items[i].digest, "%032u", mails[i].content);
}

static uint32_t run(struct maildrop *d, const struct mail *mails, uint32_t uidnext)
{
	size_t *gone, gone_count;
	if (maildrop_find_ambiguous(d)) {
		digest(d, mails);
		assert_int_equal(maildrop_settle_ambiguous(d), MF_OK);
	}
	size_t before = known.count;
	maildrop_match(d, &known, &gone, &gone_count);
	if (maildrop_doubt(d, &known)) {
		digest(d, mails);
		maildrop_settle_doubtful(d, &known, gone, &gone_count);
	}
	assert_true(gone_count <= before);
	digest(d, mails);
	maildrop_match_renamed(d, &known, gone, &gone_count);
	for (size_t i = 1; i < gone_count; i++)
		assert_true(gone[i] > gone[i - 1]);
	assert_true(maildrop_number(d, &uidnext));
	free(gone);
	known.count = d->count;
	for (size_t i = 0; i < d->count; i++) {
		const struct drop_item *item = &d->items[d->by_uid[i]];
		assert_true(i == 0 || item->uid > rows[i - 1].uid);
		snprintf(keys[i], sizeof keys[i], "%s", maildrop_key(d, item));
		rows[i] = (struct uidl){ .key = keys[i], .uid = item->uid, .size = item->size };
		memcpy(rows[i].digest, item->digest, sizeof rows[i].digest);
		assert_ptr_equal(maildrop_at_uid(d, item->uid), item);
	}
	assert_null(maildrop_at_uid(d, uidnext));
	assert_null(maildrop_at_uid(d, 0));
	return uidnext;
}

static unsigned content_of[4096]; /* by uid */

/* A number is one message's for ever. Every message keeps its number as long as it is there; where several are the same, as many do as there were. */
static void check(const struct maildrop *d, struct mail *mails, uint32_t before)
{
	for (size_t i = 0; i < d->count; i++) {
		uint32_t uid = d->items[i].uid;
		assert_in_range(uid, 1, sizeof content_of / sizeof *content_of - 1);
		assert_true(uid >= before || content_of[uid] == mails[i].content);
		content_of[uid] = mails[i].content;
		unsigned same_before = 0, same_now = 0;
		for (size_t k = 0; k < d->count; k++) {
			if (mails[k].content != mails[i].content)
				continue;
			same_before += mails[k].uid != 0;
			same_now += d->items[k].uid < before;
		}
		assert_true(same_now >= same_before);
	}
	for (size_t i = 0; i < d->count; i++)
		mails[i].uid = d->items[i].uid;
}

static void random_maildrops(void **state)
{
	(void)state;
	for (unsigned start = 1; start <= 300; start++) {
		unsigned seed = start, content = 0, serial = 0;
		struct mail mails[MAILS];
		size_t count = 0;
		uint32_t uidnext = 1;
		bool places = start % 6 == 0; /* a server that calls its messages by their places: mail comes and goes, but not both at once */
		known.count = 0;
		for (int round = 0; round < 12; round++) {
			size_t were = count;
			for (size_t i = 0; i < count;) {
				if (rand_r(&seed) % 6)
					i++;
				else
					memmove(&mails[i], &mails[i + 1], (--count - i) * sizeof *mails);
			}
			if (rand_r(&seed) % 5 == 0) /* all are called otherwise */
				for (size_t i = 0; i < count; i++)
					snprintf(mails[i].uidl, sizeof mails[i].uidl, "r%u", ++serial);
			for (unsigned n = (unsigned)rand_r(&seed) % 6; n && count < MAILS && !(places && count < were); n--) {
				struct mail *m = &mails[count++];
				*m = (struct mail){ .content = rand_r(&seed) % 4 ? ++content : content };
				unsigned kind = (unsigned)rand_r(&seed) % 8;
				if (kind == 0 && count > 1) /* as another one that is there */
					memcpy(m->uidl, m[-1].uidl, sizeof m->uidl);
				else if (kind != 1)
					snprintf(m->uidl, sizeof m->uidl, "u%u", ++serial);
			}
			for (size_t i = 0; i < count && places; i++)
				snprintf(mails[i].uidl, sizeof mails[i].uidl, "%zu", i + 1);
			struct maildrop d;
			fill(&d, mails, count);
			uint32_t before = uidnext;
			uidnext = run(&d, mails, uidnext);
			check(&d, mails, before);
			maildrop_finish(&d);
		}
	}
}

static void by_number(void **state)
{
	(void)state;
	struct maildrop d;
	maildrop_init(&d);
	assert_null(maildrop_at_number(&d, 1));
	for (uint32_t n = 2; n < 100; n += 3)
		assert_int_equal(maildrop_add(&d, n, "x"), MF_OK);
	for (uint32_t n = 0; n < 110; n++) {
		const struct drop_item *item = maildrop_at_number(&d, n);
		assert_int_equal(item != NULL, n >= 2 && n < 100 && n % 3 == 2);
		assert_true(!item || item->number == n);
	}
	maildrop_finish(&d);
}

static void numbers_end(void **state)
{
	(void)state;
	struct maildrop d;
	uint32_t uidnext = UINT32_MAX - 1;
	maildrop_init(&d);
	assert_int_equal(maildrop_add(&d, 1, "a"), MF_OK);
	assert_int_equal(maildrop_add(&d, 2, "b"), MF_OK);
	assert_false(maildrop_number(&d, &uidnext));
	assert_int_equal(d.items[0].uid, 0);
	maildrop_finish(&d);
}

/* A server that may have stopped reading because nobody read what it said */
static void fewer_commands_after_a_silence(void **state)
{
	(void)state;
	struct pop3 s = { .caps = { .known = true } };
	s.options.memory = pop3_memory_create();
	assert_int_equal(pop3_window(&s), 1);
	s.caps.caps = POP3_PIPELINING;
	assert_int_equal(pop3_window(&s), WINDOW);
	assert_int_equal(pop3_fail_transport(&s, MF_OFFLINE), MF_OFFLINE);
	assert_int_equal(pop3_window(&s), WINDOW);
	assert_int_equal(pop3_fail_transport(&s, MF_TIMEOUT), MF_TIMEOUT);
	assert_int_equal(pop3_window(&s), WINDOW_NARROW);
	pop3_memory_destroy(s.options.memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(random_maildrops), cmocka_unit_test(by_number), cmocka_unit_test(numbers_end),
		cmocka_unit_test(fewer_commands_after_a_silence) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
