/* statements.h: every SQL statement that runs more than once: X(name, text). Values are bound, never put into the text. */
#ifndef MF_CACHE_STATEMENTS_H
#define MF_CACHE_STATEMENTS_H

#define MESSAGE_COLUMNS "m.id, m.shelf, m.uid, m.size, m.size_checked, m.mtime, m.ctime, m.flags, m.keywords, m.modseq, m.match, m.name, m.local, m.was IS NOT NULL"

#define OP_COLUMNS "o.id, o.kind, o.state, o.message, o.mailbox, o.dest, o.uidvalidity, o.uid, o.flags, o.flags_remove, " \
	"o.keywords, o.keywords_remove, o.name, o.raw, o.parent, o.after, o.due, o.since, o.tries, o.error"
/* An index of some rows is used only where the statement itself says that it asks for no others: "message != 0" and its
 * like. The kinds are those of journal.h. */
#define OP_IS_CLAIM "o.kind IN (4, 5, 11)"
#define OP_IS_OF_MAILBOX "o.kind BETWEEN 6 AND 10"

#define EIGHT(row) row ", " row ", " row ", " row ", " row ", " row ", " row ", " row
#define SIXTEEN(row) EIGHT(row) ", " EIGHT(row)

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
	  "server_unseen, server_modseq, sync, append_limit, rights, object_id FROM mailbox ORDER BY id") \
	X(MAILBOX_BY_PATH, "SELECT id FROM mailbox WHERE path = ?1") \
	X(MAILBOX_NAME_TAKEN, "SELECT 1 FROM mailbox WHERE parent = ?1 AND name = ?2") \
	X(MAILBOX_ADD, "INSERT INTO mailbox (id, parent, name, path) VALUES (?4, ?1, ?2, ?3)") \
	X(MAILBOX_NAME, "UPDATE mailbox SET parent = ?2, name = ?3, path = ?4 WHERE id = ?1") \
	X(MAILBOX_STORE, "UPDATE mailbox SET raw = ?2, delimiter = ?3, utf8 = ?4, flags = ?5, special_use = ?6, mtime = ?7, " \
	  "shelf = ?8, complete = ?9, uidvalidity = ?10, uidnext = ?11, total = ?12, unseen = ?13, modseq = ?14, " \
	  "first_uid = ?15, server_uidvalidity = ?16, server_uidnext = ?17, server_messages = ?18, server_unseen = ?19, " \
	  "server_modseq = ?20, sync = ?21, append_limit = ?22, rights = ?23, object_id = ?24 WHERE id = ?1") \
	X(MAILBOX_SET_PATH, "UPDATE mailbox SET path = ?2 WHERE id = ?1") \
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
	X(MESSAGE_NAME_TAKEN, "SELECT 1 FROM message WHERE shelf = ?1 AND name = ?2") \
	X(MESSAGE_ADD, "INSERT INTO message (shelf, uid, size, mtime, ctime, flags, keywords, modseq, match, name) " \
	  "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)") \
	/* PUTS_MAX rows: to begin a statement costs more than a row */ \
	X(MESSAGES_ADD_IF_FREE, "INSERT OR IGNORE INTO message (id, shelf, uid, size, mtime, ctime, flags, keywords, modseq, match, name) " \
	  "VALUES " SIXTEEN("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")) \
	X(MESSAGE_LAST_ID, "SELECT seq FROM sqlite_sequence WHERE name = 'message'") \
	X(SUMMARY_ADD, "INSERT INTO summary (id, date, message_id, email_id, subject, sender, recipients) " \
	  "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)") \
	X(SUMMARIES_ADD, "INSERT INTO summary (id, date, message_id, email_id, subject, sender, recipients) VALUES " SIXTEEN("(?, ?, ?, ?, ?, ?, ?)")) \
	X(MESSAGE_FLAGS, "UPDATE message SET flags = ?2, keywords = ?3, modseq = ?4, ctime = ?5 WHERE id = ?1") \
	X(MESSAGE_SIZE, "UPDATE message SET size = ?2, size_checked = ?3 WHERE id = ?1") \
	X(SUMMARY_MESSAGE_ID, "SELECT message_id FROM summary WHERE id = ?1") \
	X(MESSAGE_SHELVE, "UPDATE OR IGNORE message SET shelf = ?2 WHERE id = ?1") \
	X(MESSAGE_PLACE, "UPDATE message SET shelf = ?2, uid = ?3, name = ?4, flags = ?5, keywords = ?6, modseq = ?7, ctime = ?8 WHERE id = ?1") \
	X(MESSAGE_NUMBER, "UPDATE message SET uid = ?2, flags = ?3, keywords = ?4, modseq = ?5, ctime = ?6 WHERE id = ?1") \
	X(MESSAGE_REMOVE, "DELETE FROM message WHERE id = ?1") \
	X(SUMMARY_REMOVE, "DELETE FROM summary WHERE id = ?1") \
	X(MESSAGE_LOCALS, "SELECT id FROM message WHERE local != 0") \
	X(MESSAGE_SET_LOCAL, "UPDATE message SET local = ?2 WHERE id = ?1") \
	X(MESSAGE_SET_WAS, "UPDATE message SET was = ?2 WHERE id = ?1 AND was IS NOT ?2") \
	X(MESSAGE_WAS, "SELECT was FROM message WHERE id = ?1") \
	X(MESSAGE_BY_WAS, "SELECT " MESSAGE_COLUMNS " FROM message m WHERE m.shelf = ?1 AND m.was = ?2") \
	X(MESSAGE_BY_MESSAGE_ID, "SELECT m.id FROM message m WHERE m.shelf = ?1 AND m.mtime >= ?2 AND (m.uid IS NOT NULL OR NOT ?4) AND " \
	  "EXISTS (SELECT 1 FROM summary s WHERE s.id = m.id AND s.message_id = ?3) LIMIT 1") \
	X(MESSAGE_BY_NAME, "SELECT " MESSAGE_COLUMNS " FROM message m WHERE m.shelf = ?1 AND m.name = ?2") \
	X(MESSAGE_CONTENT, "UPDATE message SET size = ?2, size_checked = 1, mtime = ?3, ctime = ?4, match = ?5 WHERE id = ?1") \
	X(MESSAGE_DATE, "UPDATE message SET mtime = ?2, ctime = ?3 WHERE id = ?1") \
	X(MESSAGE_COPY, "INSERT INTO message (shelf, uid, size, size_checked, mtime, ctime, flags, keywords, modseq, match, name) " \
	  "SELECT ?2, NULL, size, size_checked, mtime, ctime, flags, keywords, 0, match, ?3 FROM message WHERE id = ?1") \
	X(MESSAGE_COPY_AS, "INSERT INTO message (id, shelf, uid, size, size_checked, mtime, ctime, flags, keywords, modseq, match, name) " \
	  "SELECT ?4, ?2, NULL, size, size_checked, mtime, ctime, flags, keywords, 0, match, ?3 FROM message WHERE id = ?1") \
	X(MESSAGE_RENUMBER, "UPDATE message SET id = ?2 WHERE id = ?1") \
	X(SUMMARY_RENUMBER, "UPDATE summary SET id = ?2 WHERE id = ?1") \
	X(MESSAGE_HELD, "UPDATE message SET shelf = ?2, uid = NULL, name = ?1 || '/' || name WHERE id = ?1") \
	X(MESSAGE_ANY, "SELECT 1 FROM message WHERE shelf = ?1 LIMIT 1") \
	X(MESSAGE_UNNUMBERED_MOVE, "UPDATE message SET shelf = ?2 WHERE shelf = ?1 AND uid IS NULL") \
	X(MESSAGE_UNNUMBERED, "SELECT " MESSAGE_COLUMNS " FROM message m WHERE m.shelf = ?1 AND m.uid IS NULL") \
	X(MESSAGE_ANY_UNNUMBERED, "SELECT 1 FROM message WHERE shelf = ?1 AND uid IS NULL LIMIT 1") \
	X(SUMMARY_COPY, "INSERT INTO summary (id, date, message_id, email_id, subject, sender, recipients) " \
	  "SELECT ?2, date, message_id, email_id, subject, sender, recipients FROM summary WHERE id = ?1") \
	X(OP_ADD, "INSERT INTO op (kind, state, message, mailbox, dest, uidvalidity, uid, flags, flags_remove, keywords, " \
	  "keywords_remove, name, raw, parent, after, due, since) " \
	  "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)") \
	X(OP_STORE, "UPDATE op SET kind = ?2, state = ?3, message = ?4, raw = CASE mailbox WHEN ?5 THEN raw END, mailbox = ?5, dest = ?6, uidvalidity = ?7, uid = ?8, flags = ?9, " \
	  "flags_remove = ?10, keywords = ?11, keywords_remove = ?12, after = ?13, due = ?14, tries = ?15, parent = ?16, error = ?17 WHERE id = ?1") \
	X(OP_MARK, "UPDATE op SET state = 1, tries = tries + 1, error = NULL, raw = coalesce(?2, raw) WHERE id = ?1") \
	X(OP_SET_RAW, "UPDATE op AS o SET raw = ?2 WHERE o.mailbox = ?1 AND (o.raw IS NULL OR NOT (" OP_IS_OF_MAILBOX "))") \
	X(OP_MOVE_RAW, "UPDATE op SET raw = ?2 || substr(raw, length(?1) + 1) WHERE substr(raw, 1, length(?1)) = ?1") \
	X(OP_FORGET_NUMBERS, "UPDATE op SET uidvalidity = 0 WHERE mailbox = ?1 AND uid IS NOT NULL") \
	X(OP_REMOVE, "DELETE FROM op WHERE id = ?1") \
	X(OP_BY_ID, "SELECT " OP_COLUMNS " FROM op o WHERE o.id = ?1") \
	X(OP_STATE, "SELECT state FROM op WHERE id = ?1") \
	X(OP_OF_MESSAGE, "SELECT " OP_COLUMNS " FROM op o WHERE o.message = ?1 AND o.message != 0 ORDER BY o.id") \
	X(OP_SOURCE, "SELECT o.state, o.uid, b.id FROM op o LEFT JOIN mailbox b ON b.id = o.mailbox AND b.uidvalidity = o.uidvalidity " \
	  "WHERE o.message = ?1 AND o.message != 0 AND o.kind IN (3, 4) ORDER BY o.id LIMIT 1") \
	X(OP_AFTER, "SELECT " OP_COLUMNS " FROM op o WHERE o.after = ?1 AND o.after != 0 ORDER BY o.id DESC") \
	X(OP_OF_MAILBOX, "SELECT " OP_COLUMNS " FROM op o WHERE o.mailbox = ?1 AND " OP_IS_OF_MAILBOX " ORDER BY o.id") \
	X(OP_CLAIM, "SELECT " OP_COLUMNS " FROM op o WHERE o.mailbox = ?1 AND o.uid = ?2 AND o.uidvalidity = ?3 AND " OP_IS_CLAIM " LIMIT 1") \
	X(OP_CLAIMS, "SELECT o.uid, o.message FROM op o WHERE o.mailbox = ?1 AND o.uid IS NOT NULL AND o.uidvalidity = ?2 AND " OP_IS_CLAIM) \
	X(OP_NUMBERED_OTHERWISE, "SELECT " OP_COLUMNS " FROM op o JOIN message m ON m.id = o.message WHERE o.mailbox = ?1 " \
	  "AND o.uid IS NOT NULL AND o.uidvalidity != ?2 AND o.state != 4 AND m.match IN (?3, ?4)") \
	X(OP_AWAITED, "SELECT " OP_COLUMNS " FROM op o WHERE o.state != 0 AND o.state IN (1, 2) AND ((o.kind = 2 AND o.mailbox = ?1) OR " \
	  "(o.kind IN (3, 4) AND o.dest = ?1)) ORDER BY o.state DESC, o.kind, o.id LIMIT ?2") \
	/* the last first: those with the server's word that they are done, then as they were sent, many as one command */ \
	X(OP_AWAITED_HASHES, "SELECT m.match, o.id FROM op o CROSS JOIN message m ON m.id = o.message WHERE o.state != 0 AND o.state IN (1, 2) " \
	  "AND ((o.kind = 2 AND o.mailbox = ?1) OR (o.kind IN (3, 4) AND o.dest = ?1)) " \
	  "ORDER BY o.state, o.kind DESC, min(o.id) OVER (PARTITION BY o.state, o.kind, o.mailbox) DESC, o.uid DESC, o.id DESC") \
	X(OP_ANY_NUMBERED_OTHERWISE, "SELECT 1 FROM op WHERE mailbox = ?1 AND uid IS NOT NULL AND uidvalidity != ?2 AND state != 4 LIMIT 1") \
	X(OP_DOUBTFUL, "SELECT " OP_COLUMNS " FROM op o WHERE o.state != 0 AND o.state = 1 ORDER BY o.id") \
	X(OP_ASTRAY, "SELECT " OP_COLUMNS " FROM op o WHERE o.state != 0 AND o.state = 4 AND (o.due < ?1 OR o.due > ?2) ORDER BY o.id") \
	X(OP_ASTRAY_HASHES, "SELECT m.match, o.id FROM op o CROSS JOIN message m ON m.id = o.message WHERE o.state != 0 AND o.state = 4 AND o.kind IN (4, 5)") \
	X(OP_ANY_ASTRAY, "SELECT 1 FROM op o WHERE o.state != 0 AND o.state = 4 LIMIT 1") \
	X(OP_ANY_RENAME_SENT, "SELECT 1 FROM op o WHERE o.state != 0 AND o.state = 1 AND o.kind = 8 LIMIT 1") \
	X(OP_NUMBER, "UPDATE op SET uid = ?3, uidvalidity = ?4 WHERE message = ?1 AND message != 0 AND mailbox = ?2 AND uid IS NULL AND kind != 2") \
	X(OP_COPIES_FROM, "UPDATE op SET mailbox = ?4, raw = NULL, uid = ?5, uidvalidity = ?6 WHERE mailbox = ?1 AND uid = ?2 AND uidvalidity = ?3 AND kind = 3 AND state != 1") \
	X(OP_APPENDS, "SELECT " OP_COLUMNS " FROM op o WHERE o.kind = 2 ORDER BY o.id") \
	X(OP_LIST, "SELECT " OP_COLUMNS " FROM op o WHERE o.id > ?1 ORDER BY o.id LIMIT ?2") \
	X(OP_READY, "SELECT " OP_COLUMNS " FROM op o WHERE o.state = 0 AND (o.due <= ?1 OR (?2 AND (o.kind != 5 OR o.tries > 0)) " \
	  "OR (o.kind = 5 AND o.tries > 0 AND EXISTS (SELECT 1 FROM op q WHERE q.mailbox = o.mailbox AND q.kind = 5 AND q.state = 0 AND q.due <= ?1))) " \
	  "AND (o.uid IS NOT NULL OR o.kind = 2 OR " OP_IS_OF_MAILBOX ") " \
	  "AND (o.message = 0 OR NOT EXISTS (SELECT 1 FROM op p WHERE p.message = o.message AND p.message != 0 AND p.id < o.id)) " \
	  "AND (o.after = 0 OR NOT EXISTS (SELECT 1 FROM op p WHERE p.id = o.after)) " \
	  /* what is to go into a mailbox that is not there yet would keep out what can go */ \
	  "AND NOT EXISTS (SELECT 1 FROM mailbox b WHERE b.id = CASE o.kind WHEN 2 THEN o.mailbox ELSE o.dest END AND b.raw IS NULL) " \
	  /* what is copied stays until it is */ \
	  "AND NOT (" OP_IS_CLAIM " AND EXISTS (SELECT 1 FROM op p WHERE p.mailbox = o.mailbox AND p.uid = o.uid AND p.kind = 3 " \
	  "AND p.state IN (0, 1) AND p.id < o.id)) ORDER BY o.id LIMIT ?3") \
	/* the removal of what another has taken the place of, which nothing else of that message comes before */ \
	X(OP_REPLACED, "SELECT " OP_COLUMNS " FROM op o JOIN op a ON a.id = o.after AND a.mailbox = o.mailbox JOIN mailbox b ON b.id = o.mailbox " \
	  "AND b.uidvalidity = o.uidvalidity WHERE o.after = ?1 AND o.after != 0 AND o.kind = 5 AND o.state = 0 AND o.uid IS NOT NULL AND o.due <= ?2 " \
	  "AND (o.message = 0 OR NOT EXISTS (SELECT 1 FROM op p WHERE p.message = o.message AND p.message != 0 AND p.id < o.id)) " \
	  "AND NOT EXISTS (SELECT 1 FROM op p WHERE p.mailbox = o.mailbox AND p.uid = o.uid AND p.kind = 3 AND p.state IN (0, 1) AND p.id < o.id) LIMIT 1") \
	X(KEPT, "SELECT count(*), coalesce(sum(m.size), 0) FROM mailbox b JOIN message m ON m.shelf = b.shelf WHERE m.uid IS NULL " \
	  "AND m.local = 0 AND NOT EXISTS (SELECT 1 FROM op o WHERE o.message = m.id)") \
	X(OP_NEXT_DUE, "SELECT min(due) FROM op WHERE state = 0 AND due > ?1") \
	X(OP_TOTALS, "SELECT state, count(*) FROM op GROUP BY state") \
	X(OP_USES, "SELECT 1 FROM op o WHERE ((o.mailbox = ?1 OR (o.dest = ?1 AND o.dest != 0)) AND NOT (" OP_IS_OF_MAILBOX ")) OR (o.parent = ?1 AND o.kind = 7) LIMIT 1") \
	X(OP_TOUCHES, "SELECT 1 FROM op o WHERE o.mailbox = ?1 AND NOT (" OP_IS_OF_MAILBOX ") UNION ALL SELECT 1 FROM op WHERE dest = ?1 AND dest != 0 LIMIT 1") \
	X(OP_OTHER_MAILBOX, "UPDATE op SET mailbox = CASE mailbox WHEN ?1 THEN ?2 ELSE mailbox END, dest = CASE dest WHEN ?1 THEN ?2 ELSE dest END " \
	  "WHERE mailbox = ?1 OR (dest = ?1 AND dest != 0)") \
	X(OP_LANDS, "SELECT 1 FROM op o WHERE (o.kind = 2 AND o.mailbox = ?1) OR (o.kind IN (3, 4) AND o.dest = ?1 AND o.dest != 0) LIMIT 1") \
	/* whether it is given up without a person, and not only in a while: messages may be on their way out to a mailbox that is not there yet */ \
	X(OP_OF_NAME, "SELECT o.state = 0 AND (o.kind = 8 OR EXISTS (SELECT 1 FROM op p JOIN mailbox d ON d.id = p.dest WHERE p.kind IN (3, 4) " \
	  "AND d.raw IS NULL)) FROM op o LEFT JOIN mailbox b ON b.id = o.mailbox WHERE o.id != ?1 AND " \
	  "((o.kind = 8 AND b.path = ?2 AND b.id != ?3) OR (o.kind = 7 AND o.raw = ?2)) ORDER BY o.kind, o.state DESC LIMIT 1") \
	X(OP_REMOVAL, "SELECT " OP_COLUMNS " FROM op o WHERE o.kind = 7 AND o.raw = ?1 AND o.state IN (0, 3) LIMIT 1") \
	X(OP_DELETES_RAW, "SELECT 1 FROM op WHERE kind = 7 AND raw = ?1 AND state != 3 LIMIT 1") \
	X(PURGE_PICK, "SELECT id, match, name FROM message WHERE shelf = ?1 LIMIT ?2") \
	X(UIDL_ALL, "SELECT key, uid, size, digest FROM uidl ORDER BY uid") \
	X(UIDL_PUT, "INSERT OR REPLACE INTO uidl (uid, key, size, digest) VALUES (?1, ?2, ?3, ?4)") \
	/* what is known under this number and key is written over where it is */ \
	X(UIDLS_PUT, "INSERT OR REPLACE INTO uidl (uid, key, size, digest) VALUES " SIXTEEN("(?, ?, ?, ?)") \
	  " ON CONFLICT (uid) DO UPDATE SET size = excluded.size, digest = excluded.digest WHERE key = excluded.key") \
	X(UIDL_REMOVE, "DELETE FROM uidl WHERE uid = ?1") \
	X(UIDL_CLEAR, "DELETE FROM uidl") \
	X(KNOWN_OF_MAILBOX, "SELECT m.size, m.mtime, m.flags, m.keywords, s.message_id, s.subject, s.sender FROM shelf h " \
	  "CROSS JOIN message m ON m.shelf = h.id JOIN summary s ON s.id = m.id WHERE h.mailbox = ?1")

#endif
