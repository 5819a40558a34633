/* test_journal_fixture.h: changes in transactions, each checked; operations as words; what is written as files. */
#ifndef MF_TEST_JOURNAL_FIXTURE_H
#define MF_TEST_JOURNAL_FIXTURE_H

#include <fcntl.h>

#include "unit/test_cache_fixture.h"
#include "unit/test_journal_check.h"

#include "cache/spool.h"

enum { SEEN = 1, ANSWERED = 2, FLAGGED = 4 };
#define VALIDITY 77

static const struct disposal expunge = { .expunge = true, .delay_ms = 5000 };

/* one change, as a transaction; what it returns */
#define CHANGE(f, call) ({ struct txn *t = begin(f); enum mf_err change_error = (call); \
		if (change_error) txn_rollback(t); else commit(t); check_index((f)->c, (f)->state); change_error; })
#define DO(f, call) assert_int_equal(CHANGE(f, call), MF_OK)

static inline uint64_t mailbox_with(struct fixture *f, const char *raw, unsigned messages)
{
	struct txn *t = begin(f);
	uint64_t id = 0;
	struct mailbox_said said = { .raw = raw, .delimiter = '/', .use = strcmp(raw, "INBOX") ? 0 : CACHE_USE_INBOX };
	assert_int_equal(txn_mailbox_said(t, &said, &id), MF_OK);
	assert_int_equal(txn_mailbox_synced(t, id, true, VALIDITY, messages + 1, 5, 1, false), MF_OK);
	for (unsigned i = 1; i <= messages; i++)
		put(t, id, i, (unsigned)id * 1000 + i);
	commit(t);
	return id;
}

static inline uint64_t by_uid(struct fixture *f, uint64_t mailbox, uint32_t uid)
{
	struct uid_id *uids;
	size_t count;
	uint64_t id = 0;
	assert_int_equal(cache_uids(f->c, mailbox, &uids, &count), MF_OK);
	for (size_t i = 0; i < count; i++)
		if (uids[i].uid == uid)
			id = uids[i].id;
	free(uids);
	return id;
}

static inline uint64_t by_name(struct fixture *f, uint64_t mailbox, const char *name)
{
	struct entry e;
	return cache_lookup(f->c, mailbox, name, &e) ? 0 : e.id;
}

static inline uint64_t in_mailbox(struct fixture *f, uint64_t message)
{
	struct entry e;
	return cache_entry(f->c, message, &e) ? 0 : e.mailbox;
}

static inline unsigned flags_of(struct fixture *f, uint64_t message)
{
	struct message m;
	assert_int_equal(cache_message(f->c, message, &m), MF_OK);
	unsigned flags = m.flags;
	message_finish(&m);
	return flags;
}

static inline char *keywords_text(struct fixture *f, uint64_t message)
{
	struct message m;
	assert_int_equal(cache_message(f->c, message, &m), MF_OK);
	char *keywords = mf_strdup(m.keywords);
	message_finish(&m);
	return keywords;
}

static inline void assert_keywords(struct fixture *f, uint64_t message, const char *wanted)
{
	char *keywords = keywords_text(f, message);
	assert_string_equal(keywords, wanted);
	free(keywords);
}

/* "append move", by id */
static inline bool add_word(void *context, const struct op *op)
{
	char *words = context;
	snprintf(words + strlen(words), 2000 - strlen(words), "%s%s", *words ? " " : "", op_kind_word(op->kind));
	return strlen(words) < 1900;
}

static inline void assert_ops(struct fixture *f, const char *wanted)
{
	char words[2000] = "";
	assert_int_equal(journal_list(f->c, 0, add_word, words), MF_OK);
	assert_string_equal(words, wanted);
}

struct pick { size_t skip; struct op *ret; bool found; };
static inline bool pick_op(void *context, const struct op *op)
{
	struct pick *p = context;
	if (p->skip--)
		return true;
	*p->ret = *op;
	p->ret->keywords = p->ret->keywords_remove = p->ret->name = p->ret->raw = p->ret->error = NULL;
	p->found = true;
	return false;
}

/* the n-th that waits, without its texts */
static inline struct op nth_op(struct fixture *f, size_t n)
{
	struct op op = { 0 };
	struct pick p = { n, &op, false };
	assert_int_equal(journal_list(f->c, 0, pick_op, &p), MF_OK);
	assert_true(p.found);
	return op;
}

static inline void send_all(struct fixture *f)
{
	struct op *ops;
	size_t count;
	assert_int_equal(journal_ready(f->c, INT64_MAX, true, 1000, &ops, &count), MF_OK);
	assert_int_equal(journal_mark_sent(f->c, ops, count), MF_OK);
	for (size_t i = 0; i < count; i++)
		op_finish(&ops[i]);
	free(ops);
}

static inline void cancel_all(struct fixture *f)
{
	while (journal_count(f->c)) {
		struct op last = nth_op(f, journal_count(f->c) - 1);
		DO(f, txn_cancel(t, last.id));
	}
}

static inline int file_of(const char *text)
{
	char name[] = "/tmp/mailfs-journal-XXXXXX";
	int fd = mkstemp(name);
	assert_true(fd >= 0);
	unlink(name);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	return fd;
}

static inline void prepare(struct fixture *f, uint64_t message, const char *text)
{
	int fd = file_of(text);
	uint64_t size;
	struct spool_note note = { "INBOX", "written.eml", 1700000000 };
	assert_int_equal(spool_prepare(f->c, message, fd, strlen(text), false, &note, &size), MF_OK);
	close(fd);
}

#define TEXT(n) "From: a@example.org\r\nSubject: written " n "\r\nMessage-ID: <" n "@example.org>\r\n\r\nText " n "\r\n"

static inline enum mf_err written_in(struct txn *t, uint64_t message, const char *text, bool upload, const struct disposal *how)
{
	struct mail_summary summary;
	mail_summary_parse(text, strlen(text), strlen(text), &summary);
	struct written what = { .size = strlen(text), .summary = &summary, .internal_date = 1700000000, .upload = upload };
	enum mf_err e = txn_written(t, message, &what, how);
	mail_summary_finish(&summary);
	return e;
}

static inline void write_message(struct fixture *f, uint64_t message, const char *text, bool upload, const struct disposal *how)
{
	prepare(f, message, text);
	DO(f, written_in(t, message, text, upload, how));
}

static inline uint64_t create(struct fixture *f, uint64_t mailbox, const char *name)
{
	uint64_t id = 0;
	DO(f, txn_create(t, mailbox, name, &id));
	return id;
}

static inline uint64_t create_written(struct fixture *f, uint64_t mailbox, const char *name, const char *text)
{
	uint64_t id = create(f, mailbox, name);
	write_message(f, id, text, !name_is_scratch(name), &expunge);
	return id;
}

static inline bool spool_is(struct fixture *f, uint64_t message, const char *text)
{
	int fd;
	uint64_t size;
	char got[1000] = "";
	if (spool_open(f->c, message, &fd, &size))
		return false;
	bool same = size == strlen(text) && pread(fd, got, size, 0) == (ssize_t)size && !strcmp(got, text);
	close(fd);
	return same;
}

#endif
