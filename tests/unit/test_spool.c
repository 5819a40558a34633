/* spool: bytes that exist nowhere else, whatever a crash leaves of them */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "unit/test_cache_fixture.h"
#include "unit/test_journal_check.h"

#include "cache/spool.h"

#define TEXT "From: a@example.org\r\nSubject: written\r\nMessage-ID: <w@example.org>\r\n\r\nText\r\n"
static const struct spool_note note = { "INBOX", "written.eml", 1700000000 };
static const struct disposal expunge = { .expunge = true };

/* In the place of libc's: whether the file that is watched goes to the disk */
static _Atomic ino_t watched;
static atomic_bool went_to_disk;

int fdatasync(int fd)
{
	struct stat st;
	if (watched && fstat(fd, &st) == 0 && st.st_ino == watched)
		went_to_disk = true;
	return (int)syscall(SYS_fdatasync, fd);
}

static int file_with(const void *bytes, size_t len)
{
	char name[] = "/tmp/mailfs-spool-XXXXXX";
	int fd = mkstemp(name);
	assert_true(fd >= 0);
	unlink(name);
	assert_int_equal(write(fd, bytes, len), (ssize_t)len);
	return fd;
}

static char *path(struct fixture *f, const char *name)
{
	static char text[400];
	snprintf(text, sizeof text, "%s/%s", f->state, name);
	return text;
}

static void put_file(struct fixture *f, const char *name, const void *bytes, size_t len)
{
	int fd = open(path(f, name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), (ssize_t)len);
	close(fd);
}

static char *get_file(struct fixture *f, const char *name, size_t *ret_len)
{
	int fd = open(path(f, name), O_RDONLY);
	char *bytes = mf_alloc(300000);
	*ret_len = 0;
	if (fd < 0) {
		free(bytes);
		return NULL;
	}
	ssize_t n = read(fd, bytes, 299999);
	close(fd);
	assert_true(n >= 0);
	*ret_len = (size_t)n;
	return bytes;
}

static bool file_is(struct fixture *f, const char *name, const char *text)
{
	size_t len;
	char *bytes = get_file(f, name, &len);
	bool same = bytes && len == strlen(text) && memcmp(bytes, text, len) == 0;
	free(bytes);
	return same;
}

static size_t files_in(struct fixture *f, const char *name)
{
	DIR *dir = opendir(path(f, name));
	size_t count = 0;
	assert_non_null(dir);
	for (const struct dirent *d; (d = readdir(dir));)
		count += d->d_name[0] != '.';
	closedir(dir);
	return count;
}

static void reopen(struct fixture *f)
{
	fixture_close(f);
	fixture_open(f);
	check_index(f->c, f->state);
}

static uint64_t inbox_of(struct fixture *f)
{
	struct txn *t = begin(f);
	uint64_t id = say(t, "INBOX", '/');
	assert_int_equal(txn_mailbox_synced(t, id, true, 7, 1, 1, 1, false), MF_OK);
	commit(t);
	return id;
}

static uint64_t created(struct fixture *f, uint64_t mailbox, const char *name)
{
	struct txn *t = begin(f);
	uint64_t id = 0;
	assert_int_equal(txn_create(t, mailbox, name, &id), MF_OK);
	commit(t);
	return id;
}

static void prepare(struct fixture *f, uint64_t message, const char *text)
{
	uint64_t size;
	int fd = file_with(text, strlen(text));
	assert_int_equal(spool_prepare(f->c, message, fd, strlen(text), true, &note, &size), MF_OK);
	close(fd);
}

static uint64_t written(struct fixture *f, uint64_t mailbox, const char *name, bool upload)
{
	uint64_t id = created(f, mailbox, name);
	prepare(f, id, TEXT);
	struct mail_summary summary;
	mail_summary_parse(TEXT, strlen(TEXT), strlen(TEXT), &summary);
	struct written what = { .size = strlen(TEXT), .summary = &summary, .internal_date = 1700000000, .upload = upload };
	struct txn *t = begin(f);
	assert_int_equal(txn_written(t, id, &what, &expunge), MF_OK);
	commit(t);
	mail_summary_finish(&summary);
	return id;
}

/* --- preparing --------------------------------------------------------------------------------------------------------------- */

/* every LF gets its CR, wherever the parts that are read end */
static void lines_end_with_crlf(void **state)
{
	struct fixture *f = *state;
	static const char *const ends[] = { "\n", "\r\n", "\r", "\n\n", "\r\n\n", "\r\r\n", "" };
	for (size_t e = 0; e < sizeof ends / sizeof *ends; e++) {
		for (size_t before = 32766; before <= 32770; before++) {
			size_t len = before, want = before;
			char *in = mf_alloc(before + 20), *wanted = mf_alloc(before + 20);
			memset(in, 'x', before);
			memset(wanted, 'x', before);
			char last = 'x';
			for (const char *p = ends[e]; *p; p++) {
				if (*p == '\n' && last != '\r')
					wanted[want++] = '\r';
				wanted[want++] = in[len++] = last = *p;
			}
			in[len++] = wanted[want++] = 'y';
			uint64_t size = 0, opened = 0;
			int fd = file_with(in, len), spooled = -1;
			assert_int_equal(spool_prepare(f->c, 5, fd, len, true, &note, &size), MF_OK);
			assert_int_equal(size, want);
			assert_int_equal(spool_commit(f->c, 5), MF_OK);
			assert_int_equal(spool_open(f->c, 5, &spooled, &opened), MF_OK);
			assert_int_equal(opened, want);
			char *got = mf_alloc(want);
			assert_int_equal(pread(spooled, got, want, 0), (ssize_t)want);
			assert_memory_equal(got, wanted, want);
			close(spooled);
			/* other files stay as they are */
			assert_int_equal(spool_prepare(f->c, 5, fd, len, false, &note, &size), MF_OK);
			assert_int_equal(size, len);
			close(fd);
			free(got);
			free(in);
			free(wanted);
		}
	}
	spool_remove(f->c, 5);
}

static void prepared_is_not_in_place(void **state)
{
	struct fixture *f = *state;
	uint64_t size;
	int fd;
	prepare(f, 5, TEXT);
	assert_false(spool_has(f->c, 5));
	assert_int_equal(spool_open(f->c, 5, &fd, &size), MF_NOT_FOUND);
	assert_int_equal(spool_commit(f->c, 5), MF_OK);
	assert_true(spool_has(f->c, 5));
	assert_int_equal(spool_sync(f->c, 5), MF_OK);
	/* the file that is read is shorter than was said */
	fd = file_with("abc", 3);
	assert_int_equal(spool_prepare(f->c, 6, fd, 4, true, &note, &size), MF_IO);
	close(fd);
	assert_int_equal(spool_commit(f->c, 6), MF_NOT_FOUND);
	assert_int_equal(spool_edit(f->c, 7, &fd), MF_OK);
	close(fd);
	assert_int_equal(spool_edit(f->c, 7, &fd), MF_EXISTS);
	spool_discard_edit(f->c, 7);
	spool_remove(f->c, 5);
	assert_int_equal(files_in(f, "spool"), 0);
}

/* --- after a crash -------------------------------------------------------------------------------------------------------------- */

static void what_is_wanted_stays(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = inbox_of(f), mail = written(f, inbox, "new.eml", true), scratch = written(f, inbox, ".scratch", false);
	uint64_t named = created(f, inbox, "only-a-name.eml");
	struct entry e;
	reopen(f);
	assert_true(spool_has(f->c, mail));
	assert_true(spool_has(f->c, scratch));
	assert_int_equal(cache_entry(f->c, named, &e), MF_NOT_FOUND);
	assert_int_equal(list_count(f, inbox), 2);
	assert_int_equal(journal_count(f->c), 1);
	assert_int_equal(rejected_count(f->c), 0);
}

static void leftovers(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = inbox_of(f), mail = written(f, inbox, "new.eml", true);
	char name[60];
	int fd;
	prepare(f, mail, TEXT);                       /* the call never returned */
	assert_int_equal(spool_edit(f->c, mail, &fd), MF_OK);
	assert_int_equal(write(fd, "half", 4), 4);    /* written into, never closed */
	close(fd);
	assert_int_equal(spool_edit(f->c, 1000, &fd), MF_OK);
	close(fd);                                    /* nothing is lost with an empty one */
	put_file(f, "spool/nonsense", "what?", 5);
	put_file(f, "spool/77", "no trailer", 10);
	prepare(f, 78, TEXT);
	assert_int_equal(spool_commit(f->c, 78), MF_OK); /* no row, no operation */
	assert_int_equal(mkdir(path(f, "spool/79"), 0700), 0);
	assert_int_equal(mkfifo(path(f, "spool/80"), 0600), 0);
	assert_int_equal(symlink("/etc/passwd", path(f, "spool/81")), 0);
	reopen(f);
	assert_true(spool_has(f->c, mail));
	assert_true(file_is(f, "rejected/written.eml", TEXT));
	assert_int_equal(rejected_count(f->c), 4);
	snprintf(name, sizeof name, "%s/spool", f->state);
	assert_int_equal(files_in(f, "spool"), 4); /* ours, and what is no file */
	reopen(f);
	assert_int_equal(rejected_count(f->c), 4);
	assert_int_equal(rmdir(path(f, "spool/79")), 0);
}

/* the machine ended while it was being written: any number of its bytes are there */
static void torn_anywhere(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = inbox_of(f), mail = written(f, inbox, "new.eml", true);
	char name[60];
	snprintf(name, sizeof name, "spool/%llu", (unsigned long long)mail);
	size_t len;
	char *bytes = get_file(f, name, &len);
	for (size_t cut = 0; cut < len; cut++) {
		fixture_close(f);
		put_file(f, name, bytes, cut);
		put_file(f, "spool/4711", bytes, cut); /* and one that nobody knows */
		fixture_open(f);
		int fd;
		uint64_t size;
		assert_int_equal(spool_open(f->c, mail, &fd, &size), MF_CORRUPT);
		assert_int_equal(spool_sync(f->c, mail), MF_CORRUPT);
		assert_int_equal(journal_count(f->c), 1);
		assert_int_equal(faccessat(AT_FDCWD, path(f, "spool/4711"), F_OK, 0), -1);
	}
	assert_int_equal(rejected_count(f->c), len - 1);
	/* whole, but another than the index thinks: what is in the file counts */
	fixture_close(f);
	put_file(f, name, bytes, len);
	fixture_open(f);
	uint64_t size;
	int fd = file_with("other", 5);
	assert_int_equal(spool_prepare(f->c, mail, fd, 5, true, &note, &size), MF_OK);
	close(fd);
	assert_int_equal(spool_commit(f->c, mail), MF_OK);
	reopen(f);
	struct entry e;
	assert_int_equal(cache_entry(f->c, mail, &e), MF_OK);
	assert_int_equal(e.size, 5);
	free(bytes);
}

/* a trailer that lies about lengths */
static void lying_trailers(void **state)
{
	struct fixture *f = *state;
	struct { uint64_t size; uint32_t note_len, unused; char magic[8]; } tail = { 0 };
	memcpy(tail.magic, "mfspool1", 8);
	static const uint64_t sizes[] = { 0, 1, UINT64_MAX, UINT64_MAX - 499, UINT64_MAX / 2, 100, 76 };
	static const uint32_t lengths[] = { 0, 1, 500, 8191, 8192, UINT32_MAX };
	char bytes[100] = "";
	unsigned number = 0;
	fixture_close(f);
	for (size_t s = 0; s < 7; s++) {
		for (size_t l = 0; l < 6; l++) {
			tail.size = sizes[s];
			tail.note_len = lengths[l];
			memcpy(bytes + sizeof bytes - sizeof tail, &tail, sizeof tail);
			char name[40];
			snprintf(name, sizeof name, "spool/%u", 100 + number++);
			put_file(f, name, bytes, sizeof bytes);
			/* exactly as long as it wraps around to */
			tail.size = (uint64_t)sizeof bytes - sizeof tail - tail.note_len;
			memcpy(bytes + sizeof bytes - sizeof tail, &tail, sizeof tail);
			snprintf(name, sizeof name, "spool/%u", 100 + number++);
			put_file(f, name, bytes, sizeof bytes);
		}
	}
	fixture_open(f);
	assert_int_equal(files_in(f, "spool"), 0);
	assert_int_equal(rejected_count(f->c), number);
}

static void lost_index(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = inbox_of(f);
	written(f, inbox, "one.eml", true);
	written(f, inbox, "two.eml", true);
	written(f, inbox, ".scratch", false);
	fixture_close(f);
	static const char *const files[] = { "mailfs.db", "mailfs.db-wal", "mailfs.db-shm" };
	for (size_t i = 0; i < 3; i++)
		(void)unlink(path(f, files[i]));
	fixture_open(f);
	assert_int_equal(files_in(f, "spool"), 0);
	assert_int_equal(rejected_count(f->c), 3);
	assert_true(file_is(f, "rejected/written.eml", TEXT));
	assert_true(file_is(f, "rejected/written.eml~3", TEXT));
	assert_int_equal(journal_count(f->c), 0);
}

/* between the file and the commit */
static void in_place_but_not_committed(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = inbox_of(f), id = created(f, inbox, "new.eml");
	prepare(f, id, TEXT);
	assert_int_equal(spool_commit(f->c, id), MF_OK);
	reopen(f); /* who has its bytes accepted sees it stored, even if he was not told that they were */
	assert_int_equal(list_count(f, inbox), 1);
	assert_int_equal(journal_count(f->c), 1);
	uint64_t scratch = created(f, inbox, ".new.eml.swp");
	prepare(f, scratch, TEXT);
	assert_int_equal(spool_commit(f->c, scratch), MF_OK);
	reopen(f); /* which is sent nowhere */
	assert_int_equal(journal_count(f->c), 1);
	assert_int_equal(list_count(f, inbox), 2);
	uint64_t at_server = add_message(f, inbox, 3, 3);
	prepare(f, at_server, TEXT);
	assert_int_equal(spool_commit(f->c, at_server), MF_OK);
	reopen(f); /* a message of the server's: whose new bytes nobody knew */
	assert_int_equal(list_count(f, inbox), 3);
	assert_true(file_is(f, "rejected/written.eml", TEXT));
}

/* ... and the file is torn: its bytes are kept for a person, and mailfs starts */
static void torn_and_not_committed(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = inbox_of(f), id = created(f, inbox, "new.eml");
	prepare(f, id, TEXT);
	assert_int_equal(spool_commit(f->c, id), MF_OK);
	MF_CLEANUP(mf_free) char *name = mf_format("spool/%ju", (uintmax_t)id);
	assert_int_equal(truncate(path(f, name), 20), 0);
	reopen(f);
	assert_int_equal(list_count(f, inbox), 0);
	assert_int_equal(journal_count(f->c), 0);
	assert_int_equal(rejected_count(f->c), 1);
}

/* What waits is told of as it is stored: by the newer bytes, however many they are */
static void newer_but_not_committed(void **state)
{
	static const char newer[] = "From: a@example.org\r\nSubject: rewritten\r\nMessage-ID: <n@example.org>\r\n\r\nText\r\n";
	struct fixture *f = *state;
	uint64_t id = written(f, inbox_of(f), "a.eml", true);
	struct message m;
	prepare(f, id, newer);
	assert_int_equal(spool_commit(f->c, id), MF_OK);
	reopen(f);
	assert_int_equal(cache_message(f->c, id, &m), MF_OK);
	assert_int_equal(m.entry.size, strlen(newer));
	assert_string_equal(m.subject, "rewritten");
	message_finish(&m);
	assert_int_equal(journal_count(f->c), 1);
}

/* An older version had made way for a newer one, which was in its place already or not, and that was not committed */
static void made_way_but_not_committed(void **state)
{
	static const char newer[] = "From: a@example.org\r\nSubject: written\r\nMessage-ID: <w@example.org>\r\n\r\nOther text\r\n";
	struct fixture *f = *state;
	uint64_t inbox = inbox_of(f);
	for (unsigned in_place = 0; in_place < 3; in_place++) {
		static const char *const names[] = { "one.eml", "two.eml", "three.eml" };
		uint64_t id = written(f, inbox, names[in_place], true);
		char from[60], to[60];
		int fd;
		uint64_t size;
		snprintf(from, sizeof from, "%s/spool/%llu", f->state, (unsigned long long)id);
		snprintf(to, sizeof to, "%s/spool/%llu", f->state, (unsigned long long)id + 1);
		assert_int_equal(rename(from, to), 0);
		if (in_place) {
			prepare(f, id, newer);
			assert_int_equal(spool_commit(f->c, id), MF_OK);
		}
		if (in_place == 1) { /* which was never closed; or the index was not on the disk */
			assert_int_equal(spool_edit(f->c, id, &fd), MF_OK);
			assert_int_equal(write(fd, newer, strlen(newer)), (ssize_t)strlen(newer));
			close(fd);
		}
		reopen(f);
		assert_int_equal(spool_open(f->c, id, &fd, &size), MF_OK);
		assert_int_equal(size, strlen(TEXT));
		close(fd);
		assert_int_equal(files_in(f, "spool"), 1 + in_place);
		assert_int_equal(rejected_count(f->c), in_place);
		assert_int_equal(list_count(f, inbox), 1 + in_place);
	}
	assert_true(file_is(f, "rejected/two.eml", newer));
	assert_true(file_is(f, "rejected/written.eml", newer));
}

/* --- rejected ---------------------------------------------------------------------------------------------------------------------- */

static void reject(struct fixture *f, const char *name, const char *text)
{
	prepare(f, 5, text);
	assert_int_equal(spool_commit(f->c, 5), MF_OK);
	assert_int_equal(spool_reject(f->c, 5, false, name, "for a reason"), MF_OK);
}

static void rejected_names(void **state)
{
	struct fixture *f = *state;
	static const char *const hostile[] = { "", ".", "..", ".hidden", "../up", "a/b", "/etc/passwd", NULL, ".reason.txt" };
	unsigned count = 0;
	for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
		reject(f, hostile[i], TEXT);
		assert_int_equal(rejected_count(f->c), ++count);
	}
	assert_true(file_is(f, "rejected/message.eml", TEXT));
	assert_true(file_is(f, "rejected/message.eml.reason.txt", "for a reason\n"));
	assert_true(file_is(f, "rejected/message.eml~9", TEXT));
	/* long ones, also where a character lies across the end, and what is no UTF-8 at all */
	char name[256], utf8[256] = "";
	memset(name, 'n', 255);
	name[255] = 0;
	reject(f, name, TEXT);
	reject(f, name, TEXT);
	for (size_t shift = 0; shift < 3; shift++) {
		memset(utf8, 'x', shift);
		for (size_t at = shift; at + 3 < 256; at += 3)
			memcpy(utf8 + at, "\xe2\x82\xac", 4);
		reject(f, utf8, TEXT);
	}
	memset(name, 0x80, 255);
	reject(f, name, TEXT);
	assert_int_equal(rejected_count(f->c), count + 6);
	DIR *dir = opendir(path(f, "rejected"));
	for (const struct dirent *d; (d = readdir(dir));) {
		size_t len = strlen(d->d_name);
		assert_true(len <= 255);
		if ((unsigned char)d->d_name[len - 1] >= 0xc0 || ((unsigned char)d->d_name[len - 1] & 0xe0) == 0xe0)
			fail_msg("a character is cut");
	}
	closedir(dir);
	/* one that is called like the reason of another is not overwritten by that */
	count = (unsigned)rejected_count(f->c);
	reject(f, "a.eml.reason.txt", "precious\r\n");
	reject(f, "a.eml", TEXT);
	assert_int_equal(rejected_count(f->c), count + 2);
	assert_true(file_is(f, "rejected/a.eml", "precious\r\n"));
	assert_true(file_is(f, "rejected/a.eml~2", TEXT));
}

static void rejected_edits(void **state)
{
	struct fixture *f = *state;
	int fd;
	assert_int_equal(spool_edit(f->c, 9, &fd), MF_OK);
	assert_int_equal(write(fd, "no mail", 7), 7);
	close(fd);
	assert_int_equal(spool_reject(f->c, 9, true, "edit.eml", "not a message"), MF_OK);
	assert_true(file_is(f, "rejected/edit.eml", "no mail"));
	assert_int_equal(files_in(f, "spool"), 0);
	assert_int_equal(spool_reject(f->c, 9, true, "edit.eml", "not a message"), MF_NOT_FOUND);
	assert_int_equal(rejected_count(f->c), 1);
}

/* no room for the bytes a second time */
static void rejected_on_a_full_disk(void **state)
{
	struct fixture *f = *state;
	int fd;
	struct rlimit old, none;
	assert_int_equal(spool_edit(f->c, 9, &fd), MF_OK);
	assert_int_equal(write(fd, "no mail", 7), 7);
	close(fd);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	signal(SIGXFSZ, SIG_IGN);
	none = old;
	none.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	enum mf_err e = spool_reject(f->c, 9, true, "edit.eml", "a full disk");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(e, MF_OK);
	assert_true(file_is(f, "rejected/edit.eml", "no mail"));
	assert_int_equal(files_in(f, "spool"), 0);
}

/* What gets another name before a second is over goes to the disk all the same. */
static void renamed_before_it_is_on_the_disk(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	uint64_t id = written(f, inbox_of(f), "a.eml", true), other = 0;
	MF_CLEANUP(mf_free) char *name = mf_format("spool/%ju", (uintmax_t)id);
	assert_int_equal(stat(path(f, name), &st), 0);
	struct txn *t = begin(f);
	assert_int_equal(txn_part(t, id, &other), MF_OK);
	commit(t);
	assert_int_not_equal(other, id);
	watched = st.st_ino;
	went_to_disk = false;
	reopen(f);
	watched = 0;
	assert_true(went_to_disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CACHE(lines_end_with_crlf), WITH_CACHE(prepared_is_not_in_place), WITH_CACHE(what_is_wanted_stays), WITH_CACHE(leftovers),
		WITH_CACHE(torn_anywhere), WITH_CACHE(lying_trailers), WITH_CACHE(lost_index), WITH_CACHE(in_place_but_not_committed), WITH_CACHE(torn_and_not_committed), WITH_CACHE(newer_but_not_committed), WITH_CACHE(made_way_but_not_committed),
		WITH_CACHE(rejected_names), WITH_CACHE(rejected_edits), WITH_CACHE(rejected_on_a_full_disk),
		WITH_CACHE(renamed_before_it_is_on_the_disk),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
