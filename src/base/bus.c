#include "base/bus.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/queue.h>

#include "base/mem.h"

struct item {
	STAILQ_ENTRY(item) link;
	struct change change;
	char *name, *old_name;
};
STAILQ_HEAD(items, item);

struct bus_subscription {
	TAILQ_ENTRY(bus_subscription) link;
	bus_handler *handler;
	void *context;
};

struct bus {
	pthread_t thread;
	pthread_mutex_t lock;        /* guards everything below */
	pthread_cond_t wake, settled;
	struct items queue;
	TAILQ_HEAD(, bus_subscription) subscriptions;
	struct bus_subscription *running; /* whose handler is being called */
	uint64_t published, delivered;
	bool stopping;
};

static void item_destroy(struct item *item)
{
	free(item->name);
	free(item->old_name);
	free(item);
}

/* Subscriptions may go while a handler runs, but only another one than the running, which its remover waits for: the
 * place in the list stays good. */
static void deliver(struct bus *bus, const struct change *change)
{
	struct bus_subscription *s;
	TAILQ_FOREACH(s, &bus->subscriptions, link) {
		bus->running = s;
		pthread_mutex_unlock(&bus->lock);
		s->handler(s->context, change);
		pthread_mutex_lock(&bus->lock);
		bus->running = NULL;
		pthread_cond_broadcast(&bus->settled);
	}
}

static void *delivery(void *context)
{
	struct bus *bus = context;
	pthread_mutex_lock(&bus->lock);
	while (true) {
		struct item *item = STAILQ_FIRST(&bus->queue);
		if (!item && bus->stopping)
			break;
		if (!item) {
			pthread_cond_wait(&bus->wake, &bus->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&bus->queue, link);
		deliver(bus, &item->change);
		item_destroy(item);
		bus->delivered++;
		pthread_cond_broadcast(&bus->settled);
	}
	pthread_mutex_unlock(&bus->lock);
	return NULL;
}

struct bus *bus_create(void)
{
	struct bus *bus = MF_NEW(struct bus);
	pthread_mutex_init(&bus->lock, NULL);
	pthread_cond_init(&bus->wake, NULL);
	pthread_cond_init(&bus->settled, NULL);
	STAILQ_INIT(&bus->queue);
	TAILQ_INIT(&bus->subscriptions);
	if (pthread_create(&bus->thread, NULL, delivery, bus) != 0)
		abort();
	return bus;
}

void bus_destroy(struct bus *bus)
{
	if (!bus)
		return;
	pthread_mutex_lock(&bus->lock);
	bus->stopping = true;
	pthread_cond_signal(&bus->wake);
	pthread_mutex_unlock(&bus->lock);
	pthread_join(bus->thread, NULL);
	struct bus_subscription *s;
	while ((s = TAILQ_FIRST(&bus->subscriptions))) {
		TAILQ_REMOVE(&bus->subscriptions, s, link);
		free(s);
	}
	pthread_cond_destroy(&bus->wake);
	pthread_cond_destroy(&bus->settled);
	pthread_mutex_destroy(&bus->lock);
	free(bus);
}

static struct item *item_create(const struct change *change)
{
	struct item *item = MF_NEW(struct item);
	item->change = *change;
	item->name = change->name ? mf_strdup(change->name) : NULL;
	item->old_name = change->old_name ? mf_strdup(change->old_name) : NULL;
	item->change.name = item->name;
	item->change.old_name = item->old_name;
	return item;
}

void bus_publish_all(struct bus *bus, const struct change *changes, size_t count)
{
	if (!bus || !count)
		return;
	struct items items = STAILQ_HEAD_INITIALIZER(items);
	for (size_t i = 0; i < count; i++) {
		struct item *item = item_create(&changes[i]);
		STAILQ_INSERT_TAIL(&items, item, link);
	}
	pthread_mutex_lock(&bus->lock);
	STAILQ_CONCAT(&bus->queue, &items);
	bus->published += count;
	pthread_cond_signal(&bus->wake);
	pthread_mutex_unlock(&bus->lock);
}

void bus_publish(struct bus *bus, const struct change *change)
{
	bus_publish_all(bus, change, 1);
}

static struct bus_subscription *subscription_create(bus_handler *handler, void *context)
{
	struct bus_subscription *s = MF_NEW(struct bus_subscription);
	s->handler = handler;
	s->context = context;
	return s;
}

struct bus_subscription *bus_subscribe(struct bus *bus, bus_handler *handler, void *context)
{
	struct bus_subscription *s = subscription_create(handler, context);
	pthread_mutex_lock(&bus->lock);
	TAILQ_INSERT_TAIL(&bus->subscriptions, s, link);
	pthread_mutex_unlock(&bus->lock);
	return s;
}

struct bus_subscription *bus_subscribe_first(struct bus *bus, bus_handler *handler, void *context)
{
	struct bus_subscription *s = subscription_create(handler, context);
	pthread_mutex_lock(&bus->lock);
	TAILQ_INSERT_HEAD(&bus->subscriptions, s, link);
	pthread_mutex_unlock(&bus->lock);
	return s;
}

void bus_unsubscribe(struct bus *bus, struct bus_subscription *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&bus->lock);
	while (bus->running == s)
		pthread_cond_wait(&bus->settled, &bus->lock);
	TAILQ_REMOVE(&bus->subscriptions, s, link);
	pthread_mutex_unlock(&bus->lock);
	free(s);
}

void bus_flush(struct bus *bus)
{
	if (!bus)
		return;
	pthread_mutex_lock(&bus->lock);
	uint64_t target = bus->published;
	while (bus->delivered < target)
		pthread_cond_wait(&bus->settled, &bus->lock);
	pthread_mutex_unlock(&bus->lock);
}
