#include <stdio.h>

#include "cache/db.h"

/* A message lies on a shelf. Each mailbox has one shelf that is seen in the tree; the others (with `since`) are limbo:
 * what vanished, or belonged to an earlier UIDVALIDITY, and waits to be matched or purged. So a mailbox of any size is
 * renumbered or removed by changing one row. told: the removal of what lies there has been published.
 *
 * message is what listings need and is read whole; summary is the rest. match: a hash of what makes two rows the same
 * message. uid is NULL while the server has not numbered it. Numbers and names (which begin with a date) come newest first when a
 * mailbox is read: descending, their indexes grow at the end, where it costs least. Those of older files ascend, which changes nothing
 * else. */
const struct schema_step schema_steps[] = {
	{ 1,
	  "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
	  "CREATE TABLE note (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
	  "CREATE TABLE mailbox (id INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER NOT NULL, name TEXT NOT NULL,"
	  " path TEXT NOT NULL UNIQUE, raw TEXT, delimiter INTEGER NOT NULL DEFAULT 0, utf8 INTEGER NOT NULL DEFAULT 0,"
	  " flags INTEGER NOT NULL DEFAULT 0, special_use INTEGER NOT NULL DEFAULT 0, mtime INTEGER NOT NULL DEFAULT 0,"
	  " shelf INTEGER NOT NULL DEFAULT 0, complete INTEGER NOT NULL DEFAULT 0, uidvalidity INTEGER NOT NULL DEFAULT 0,"
	  " uidnext INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0, unseen INTEGER NOT NULL DEFAULT 0,"
	  " modseq INTEGER NOT NULL DEFAULT 0, first_uid INTEGER NOT NULL DEFAULT 0,"
	  " server_uidvalidity INTEGER NOT NULL DEFAULT 0, server_uidnext INTEGER NOT NULL DEFAULT 0,"
	  " server_messages INTEGER NOT NULL DEFAULT 0, server_unseen INTEGER NOT NULL DEFAULT 0,"
	  " server_modseq INTEGER NOT NULL DEFAULT 0, sync INTEGER NOT NULL DEFAULT -1, UNIQUE (parent, name));"
	  "CREATE TABLE shelf (id INTEGER PRIMARY KEY AUTOINCREMENT, mailbox INTEGER NOT NULL, since INTEGER,"
	  " told INTEGER NOT NULL DEFAULT 0);"
	  "CREATE INDEX shelf_limbo ON shelf (mailbox) WHERE since IS NOT NULL;"
	  "CREATE TABLE message (id INTEGER PRIMARY KEY AUTOINCREMENT, shelf INTEGER NOT NULL, uid INTEGER,"
	  " size INTEGER NOT NULL, size_checked INTEGER NOT NULL DEFAULT 0, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,"
	  " flags INTEGER NOT NULL, keywords TEXT NOT NULL, modseq INTEGER NOT NULL, match INTEGER NOT NULL,"
	  " name TEXT NOT NULL);"
	  "CREATE UNIQUE INDEX message_uid ON message (shelf, uid DESC);"
	  "CREATE UNIQUE INDEX message_name ON message (shelf, name DESC);"
	  "CREATE TABLE summary (id INTEGER PRIMARY KEY, date INTEGER NOT NULL, message_id TEXT NOT NULL, email_id TEXT,"
	  " subject TEXT NOT NULL, sender TEXT NOT NULL, recipients TEXT NOT NULL);" },
	/* Writing. message.local: exists only here, and no operation is to change that. message.was: a scratch name hides this
	 * one, which a new file may take over. op: see journal.h; its uid is NULL while it is not known. */
	{ 2,
	  "ALTER TABLE message ADD COLUMN local INTEGER NOT NULL DEFAULT 0;"
	  "ALTER TABLE message ADD COLUMN was TEXT;"
	  "CREATE INDEX message_was ON message (shelf, was) WHERE was IS NOT NULL;"
	  "CREATE INDEX message_local ON message (id) WHERE local != 0;"
	  "CREATE TABLE op (id INTEGER PRIMARY KEY AUTOINCREMENT, kind INTEGER NOT NULL, state INTEGER NOT NULL DEFAULT 0,"
	  " message INTEGER NOT NULL DEFAULT 0, mailbox INTEGER NOT NULL, dest INTEGER NOT NULL DEFAULT 0,"
	  " uidvalidity INTEGER NOT NULL DEFAULT 0, uid INTEGER, flags INTEGER NOT NULL DEFAULT 0,"
	  " flags_remove INTEGER NOT NULL DEFAULT 0, keywords TEXT NOT NULL DEFAULT '', keywords_remove TEXT NOT NULL DEFAULT '',"
	  " name TEXT, raw TEXT, parent INTEGER NOT NULL DEFAULT 0, after INTEGER NOT NULL DEFAULT 0, due INTEGER NOT NULL DEFAULT 0,"
	  " since INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0, error TEXT);"
	  "CREATE INDEX op_message ON op (message) WHERE message != 0;"
	  "CREATE INDEX op_claim ON op (mailbox, uid);"
	  "CREATE INDEX op_dest ON op (dest) WHERE dest != 0;"
	  "CREATE INDEX op_after ON op (after) WHERE after != 0;"
	  "CREATE INDEX op_open ON op (state) WHERE state != 0;" },
	/* the numbers of a POP3 server's messages: uidls.h. They are read all at once: older files have an index of the keys, which nobody
	 * asked. */
	{ 3,
	  "CREATE TABLE uidl (uid INTEGER PRIMARY KEY, key TEXT NOT NULL, size INTEGER NOT NULL, digest TEXT NOT NULL);" },
	/* what the server says that it takes, and permits */
	{ 4,
	  "ALTER TABLE mailbox ADD COLUMN append_limit INTEGER NOT NULL DEFAULT 0;"
	  "ALTER TABLE mailbox ADD COLUMN rights INTEGER NOT NULL DEFAULT 0;" },
	/* by which a mailbox is known under any name */
	{ 5,
	  "ALTER TABLE mailbox ADD COLUMN object_id TEXT;" },
	/* nanoseconds, as the times of mailboxes */
	{ 6,
	  "UPDATE message SET ctime = ctime * 1000000000;" },
};
const size_t schema_step_count = sizeof schema_steps / sizeof *schema_steps;

static enum mf_err set_version(struct db *db, int version)
{
	char sql[64];
	snprintf(sql, sizeof sql, "PRAGMA user_version = %d", version); /* a PRAGMA takes no parameters */
	return db_exec(db, sql);
}

static enum mf_err run_steps(struct db *db, const struct schema_step *steps, size_t count, int64_t version)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < count && !e; i++)
		if (steps[i].version > version)
			e = db_exec(db, steps[i].sql);
	return e ? e : set_version(db, steps[count - 1].version);
}

enum mf_err schema_migrate(struct db *db, const struct schema_step *steps, size_t count)
{
	int64_t version;
	enum mf_err e = db_number(db, "PRAGMA user_version", &version);
	if (e)
		return e;
	if (version > steps[count - 1].version)
		return MF_NEWER;
	if (version == steps[count - 1].version)
		return MF_OK;
	e = db_exec(db, "BEGIN IMMEDIATE");
	if (e)
		return e;
	e = run_steps(db, steps, count, version);
	if (!e)
		e = db_exec(db, "COMMIT");
	if (e)
		(void)db_exec(db, "ROLLBACK"); /* SQLite may have done it already */
	return e;
}
