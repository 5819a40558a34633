/* statements.h: every SQL statement that runs more than once: X(name, text). Values are bound, never put into the text. */
#ifndef MF_CACHE_STATEMENTS_H
#define MF_CACHE_STATEMENTS_H

#define MESSAGE_COLUMNS "m.id, m.shelf, m.uid, m.size, m.size_checked, m.mtime, m.ctime, m.flags, m.keywords, m.modseq, m.match, m.name"

#define STATEMENTS(X) \
	X(BEGIN, "BEGIN IMMEDIATE") \
	X(COMMIT, "COMMIT") \
	X(ROLLBACK, "ROLLBACK") \
	X(META_GET, "SELECT value FROM meta WHERE key = ?1") \
	X(META_SET, "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value") \
	X(NOTE_GET, "SELECT value FROM note WHERE key = ?1") \
	X(NOTE_SET, "INSERT INTO note (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value") \
	X(MAILBOX_ALL, "SELECT id, parent, name, path, raw, delimiter, utf8, flags, special_use, mtime, shelf, complete, " \
	  "uidvalidity, uidnext, total, unseen, modseq, first_uid, server_uidvalidity, server_uidnext, server_messages, " \
	  "server_unseen, server_modseq, sync FROM mailbox ORDER BY id") \
	X(MAILBOX_BY_PATH, "SELECT id FROM mailbox WHERE path = ?1") \
	X(MAILBOX_NAME_TAKEN, "SELECT 1 FROM mailbox WHERE parent = ?1 AND name = ?2") \
	X(MAILBOX_ADD, "INSERT INTO mailbox (parent, name, path) VALUES (?1, ?2, ?3)") \
	X(MAILBOX_STORE, "UPDATE mailbox SET raw = ?2, delimiter = ?3, utf8 = ?4, flags = ?5, special_use = ?6, mtime = ?7, " \
	  "shelf = ?8, complete = ?9, uidvalidity = ?10, uidnext = ?11, total = ?12, unseen = ?13, modseq = ?14, " \
	  "first_uid = ?15, server_uidvalidity = ?16, server_uidnext = ?17, server_messages = ?18, server_unseen = ?19, " \
	  "server_modseq = ?20, sync = ?21 WHERE id = ?1") \
	X(MAILBOX_REMOVE, "DELETE FROM mailbox WHERE id = ?1") \
	X(SHELF_ADD, "INSERT INTO shelf (mailbox, since, told) VALUES (?1, ?2, ?3)") \
	X(SHELF_RETIRE, "UPDATE shelf SET since = ?2, told = ?3 WHERE id = ?1") \
	X(SHELF_RETIRED, "SELECT id, mailbox, told FROM shelf WHERE since IS NOT NULL AND (since <= ?1 OR since > ?2) ORDER BY since") \
	X(SHELF_REMOVE, "DELETE FROM shelf WHERE id = ?1") \
	X(SHELF_OF_LIMBO, "SELECT mailbox, told FROM shelf WHERE id = ?1 AND since IS NOT NULL") \
	X(NAME_RESERVED, "SELECT 1 FROM shelf s JOIN message m ON m.shelf = s.id WHERE s.mailbox = ?1 AND s.since IS NOT NULL " \
	  "AND s.told = 0 AND m.name = ?2 LIMIT 1") \
	X(LIMBO_ALL, "SELECT m.match, m.id FROM shelf s CROSS JOIN message m ON m.shelf = s.id WHERE s.since IS NOT NULL") \
	X(MESSAGE_BY_ID, "SELECT " MESSAGE_COLUMNS " FROM message m WHERE m.id = ?1") \
	X(MESSAGE_BY_UID, "SELECT " MESSAGE_COLUMNS " FROM message m WHERE m.shelf = ?1 AND m.uid = ?2") \
	X(MESSAGE_ON_SHELF, "SELECT " MESSAGE_COLUMNS " FROM message m WHERE m.shelf = ?1") \
	X(MESSAGE_WHOLE, "SELECT " MESSAGE_COLUMNS ", s.date, s.message_id, s.email_id, s.subject, s.sender, s.recipients " \
	  "FROM message m JOIN summary s ON s.id = m.id WHERE m.id = ?1") \
	X(MESSAGE_SIMILAR, "SELECT m.size, m.mtime, s.message_id, s.email_id, s.subject, s.sender FROM message m " \
	  "JOIN summary s ON s.id = m.id WHERE m.id = ?1") \
	X(MESSAGE_EXISTS, "SELECT 1 FROM message WHERE id = ?1") \
	X(MESSAGE_UIDS, "SELECT uid, id FROM message WHERE shelf = ?1 AND uid IS NOT NULL ORDER BY uid") \
	X(MESSAGE_BELOW, "SELECT uid FROM message WHERE shelf = ?1 AND uid < ?2 ORDER BY uid LIMIT 1") \
	X(MESSAGE_COUNT, "SELECT coalesce(sum(total), 0) FROM mailbox") \
	X(MESSAGE_NAME_TAKEN, "SELECT 1 FROM message WHERE shelf = ?1 AND name = ?2") \
	X(MESSAGE_ADD, "INSERT INTO message (shelf, uid, size, mtime, ctime, flags, keywords, modseq, match, name) " \
	  "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)") \
	X(SUMMARY_ADD, "INSERT INTO summary (id, date, message_id, email_id, subject, sender, recipients) " \
	  "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)") \
	X(MESSAGE_FLAGS, "UPDATE message SET flags = ?2, keywords = ?3, modseq = ?4, ctime = ?5 WHERE id = ?1") \
	X(MESSAGE_SIZE, "UPDATE message SET size = ?2, size_checked = 1 WHERE id = ?1") \
	X(MESSAGE_SHELVE, "UPDATE OR IGNORE message SET shelf = ?2 WHERE id = ?1") \
	X(MESSAGE_PLACE, "UPDATE message SET shelf = ?2, uid = ?3, name = ?4, flags = ?5, keywords = ?6, modseq = ?7, ctime = ?8 WHERE id = ?1") \
	X(MESSAGE_REMOVE, "DELETE FROM message WHERE id = ?1") \
	X(SUMMARY_REMOVE, "DELETE FROM summary WHERE id = ?1") \
	X(PURGE_PICK, "SELECT id, match, name FROM message WHERE shelf = ?1 LIMIT ?2") \
	X(UIDL_ALL, "SELECT key, uid, size, digest FROM uidl ORDER BY uid") \
	X(UIDL_PUT, "INSERT OR REPLACE INTO uidl (uid, key, size, digest) VALUES (?1, ?2, ?3, ?4)") \
	X(UIDL_REMOVE, "DELETE FROM uidl WHERE uid = ?1") \
	X(UIDL_CLEAR, "DELETE FROM uidl") \
	X(KNOWN_OF_MAILBOX, "SELECT m.size, m.mtime, m.flags, m.keywords, s.message_id, s.subject, s.sender FROM shelf h " \
	  "CROSS JOIN message m ON m.shelf = h.id JOIN summary s ON s.id = m.id WHERE h.mailbox = ?1")

#endif
