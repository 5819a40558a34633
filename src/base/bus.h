/* bus.h: says that something changed, after it is true in the cache. Carries identities, no content.
 *
 * bus_publish() only enqueues and never blocks; one delivery thread calls every subscriber in the order of
 * publishing, with no lock held. A subscriber may call anything but bus_subscribe and bus_unsubscribe.
 * bus_unsubscribe() returns only when the subscriber is not running and will not be called again. */
#ifndef MF_BASE_BUS_H
#define MF_BASE_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum change_kind {
	CHANGE_MAILBOX_ADDED,    /* .mailbox, .parent, .name */
	CHANGE_MAILBOX_REMOVED,  /* .mailbox, .parent, .name */
	CHANGE_MAILBOX_RENAMED,  /* .mailbox, .parent and .name: the new ones; .old_parent and .old_name */
	CHANGE_MAILBOX_LIST,     /* the mailbox's list of names changed: once per transaction and mailbox, before its names */
	CHANGE_MAILBOX_RIGHTS,   /* what may be done there, which its mode shows */
	CHANGE_MESSAGE_ADDED,    /* .mailbox, .message, .name, .uid, .is_new */
	CHANGE_MESSAGE_REMOVED,  /* .mailbox, .message, .name, .uid */
	CHANGE_MESSAGE_MOVED,    /* .mailbox and .name: the new ones; .old_mailbox and .old_name */
	CHANGE_MESSAGE_FLAGS,    /* .mailbox, .message, .name, .uid */
	CHANGE_MESSAGE_SIZE,     /* .mailbox, .message: the size was wrong, and with it what the kernel holds */
	CHANGE_LINK,             /* the account's connection state */
};

struct change {
	enum change_kind kind;
	unsigned account;        /* index given to cache_open */
	uint64_t mailbox, message, parent, old_mailbox, old_parent;
	uint32_t uid;
	int is_new;              /* arrived at the server after the mailbox's first synchronisation */
	bool asked;              /* the kernel has had the name taken away (.old_name, or .name), or one of the list, and knows that it is */
	const char *name, *old_name; /* valid during the call; the bus copies on publish */
};

struct bus;
struct bus_subscription;
typedef void bus_handler(void *context, const struct change *change);

struct bus *bus_create(void);       /* starts the delivery thread */
void bus_destroy(struct bus *bus);  /* delivers what is queued first; NULL is fine */
void bus_publish(struct bus *bus, const struct change *change); /* NULL bus: does nothing */
/* The same for several in a row; the delivery thread is woken once. */
void bus_publish_all(struct bus *bus, const struct change *changes, size_t count);
struct bus_subscription *bus_subscribe(struct bus *bus, bus_handler *handler, void *context);
/* Called before all that have subscribed so far: for who must know before a person can hear of it. */
struct bus_subscription *bus_subscribe_first(struct bus *bus, bus_handler *handler, void *context);
void bus_unsubscribe(struct bus *bus, struct bus_subscription *subscription);
void bus_flush(struct bus *bus);    /* returns when everything published before has been delivered; not from a handler */

#endif
