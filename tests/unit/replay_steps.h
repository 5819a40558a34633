/* replay_steps.h: a scenario of changes of every kind, to what replay_world.h has. */
#ifndef MF_TESTS_REPLAY_STEPS_H
#define MF_TESTS_REPLAY_STEPS_H

#include "unit/replay_world.h"

static inline void step_append(struct world *w)
{
	create_number(w, "INBOX", "appended.eml", 50);
}

static inline void step_overwrite(struct world *w)
{
	struct disposal how = to_trash(w);
	write_number(w, numbered(w, "INBOX", 2), 51, &how);
}

static inline void step_move(struct world *w)
{
	move_number(w, "INBOX", 3, "Work", "moved.eml");
	DO(w, txn_change_flags(t, numbered(w, "Work", 3), FLAG_FLAGGED, 0, "$Moved", NULL));
}

static inline void step_remove(struct world *w)
{
	struct disposal how = to_trash(w);
	DO(w, txn_remove(t, numbered(w, "INBOX", 4), &how));
	DO(w, txn_remove(t, numbered(w, "Work", 11), &expunge));
}

static inline void step_copy(struct world *w)
{
	uint64_t made = 0;
	DO(w, txn_create(t, box(w, "Work"), "copy.eml", &made));
	DO(w, txn_copied(t, made, numbered(w, "INBOX", 5), 0));
	move_number(w, "INBOX", 5, "Old/In", "and-moved.eml");
}

static inline void step_mkdir(struct world *w)
{
	uint64_t made = 0;
	DO(w, txn_mailbox_create(t, 0, "New", &made));
	DO(w, txn_mailbox_create(t, made, "Inside", &made));
	create_number(w, "New/Inside", "first.eml", 52);
	move_number(w, "INBOX", 6, "New", "six.eml");
}

static inline void step_rename(struct world *w)
{
	DO(w, txn_mailbox_rename(t, box(w, "Old"), 0, "Older"));
	create_number(w, "Older", "into-renamed.eml", 53);
}

static inline void step_flags(struct world *w)
{
	DO(w, txn_change_flags(t, numbered(w, "INBOX", 1), FLAG_SEEN, 0, "$Work", NULL));
	DO(w, txn_set_flags(t, numbered(w, "Work", 12), FLAG_ANSWERED, ""));
}

static inline void step_rmdir(struct world *w)
{
	struct disposal how = to_trash(w);
	DO(w, txn_remove(t, numbered(w, "Gone", 31), &how));
	DO(w, txn_mailbox_delete(t, box(w, "Gone")));
}

typedef void step_function(struct world *w);
static step_function *const steps[] = { step_append, step_overwrite, step_move, step_remove, step_copy, step_mkdir, step_rename, step_flags, step_rmdir };
#define STEPS (sizeof steps / sizeof *steps)

static inline void all_steps(struct world *w)
{
	for (size_t i = 0; i < STEPS; i++)
		steps[i](w);
}

/* --- one thing changed several times, and what is not seen from the first ----------------------------------------------------------- */

static inline void step_again(struct world *w)
{
	DO(w, txn_change_flags(t, numbered(w, "Work", 13), FLAG_SEEN, 0, "$One", NULL));
	copy_number(w, "Work", 13, "Old", "copy-of-flagged.eml");
	move_number(w, "Work", 13, "INBOX", "on-its-way.eml");
	DO(w, txn_change_flags(t, numbered(w, "INBOX", 13), FLAG_FLAGGED, FLAG_SEEN, "$Two", "$One"));
	move_number(w, "INBOX", 13, "Gone", "there.eml");
}

static inline void step_brief(struct world *w)
{
	struct disposal how = to_trash(w);
	create_number(w, "Work", "brief.eml", 54);
	DO(w, txn_remove(t, numbered(w, "Work", 54), &how));
	create_number(w, "Work", "briefer.eml", 55);
	DO(w, txn_remove(t, numbered(w, "Work", 55), &expunge));
	create_number(w, "Work", "rewritten.eml", 56);
	write_number(w, numbered(w, "Work", 56), 57, &how);
}

static inline void step_over(struct world *w)
{
	create_number(w, "Work", "target.eml", 58);
	move_number(w, "INBOX", 1, "Work", "target.eml");
	move_number(w, "INBOX", 2, "Work", "moved-and-written.eml");
	struct disposal how = to_trash(w);
	write_number(w, numbered(w, "Work", 2), 59, &how);
}

static inline void step_mailboxes(struct world *w)
{
	uint64_t made = 0;
	DO(w, txn_mailbox_subscribe(t, box(w, "Work"), true));
	DO(w, txn_mailbox_subscribe(t, box(w, "INBOX"), false));
	DO(w, txn_mailbox_create(t, 0, "Soon", &made));
	move_number(w, "INBOX", 3, "Soon", "three.eml");
	DO(w, txn_mailbox_rename(t, made, box(w, "Old"), "Later"));
	DO(w, txn_mailbox_rename(t, box(w, "Old"), 0, "Aged"));
	DO(w, txn_mailbox_create(t, 0, "Never", &made));
	DO(w, txn_mailbox_delete(t, made));
}

static inline void more_steps(struct world *w)
{
	step_again(w);
	step_brief(w);
	step_over(w);
	step_mailboxes(w);
}

#endif
