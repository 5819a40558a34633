/* traffic.h: bytes on the wire, summed over connections while they are in use. Thread-safe. */
#ifndef MF_NET_TRAFFIC_H
#define MF_NET_TRAFFIC_H

#include <stdatomic.h>
#include <stdint.h>

struct traffic {
	_Atomic uint64_t received, sent;
};

#endif
