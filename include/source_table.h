/* What is known of the sources of connections, shared by all threads of a proxy, or by all its processes: how many connections and
 * handshakes each has now, and how fast it makes them. Each call takes the table's lock for a few hundred instructions.
 *
 * A source is a network: the first bits of an address of 16 bytes (IPv4 as in RFC 4291, 2.5.5.2).
 *
 * Counts are exact. There is an entry for each source and worker process that has a connection of it, so there are never more of them
 * than connections. What a process had that was killed is given back by `source_table_clear`, wherever it was killed.
 *
 * Rates are held in a table of a fixed size, by GCRA (ITU-T I.371, annex A; the same as a token bucket): an entry is the source and
 * the time at which its bucket is full again, which is what it *owes*. Places are found by a keyed hash, so nobody can choose whom to
 * share them with: a source may stand in each of the 8 entries of its set. When it is in none of them it takes the one that owes
 * least. An entry that owes nothing says nothing, and is lost without a loss. When all owe, the newcomer takes over what the entry
 * owed (as in Space-Saving: Metwally, Agrawal, El Abbadi 2005), but no more than leaves it one connection. So
 *  - whoever floods stays in the table, for who owes most goes last;
 *  - who has been put out and comes back gets one connection, not a full bucket; to be put out again it takes another source that
 *    is new and is let in, which would have had that connection anyway;
 *  - nobody is kept out by others: the first connection of a source that is not in the table is always let in. */
#ifndef SSLSOCK_SOURCE_TABLE_H
#define SSLSOCK_SOURCE_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct sockaddr;

typedef struct source_table source_table;

typedef struct {
    unsigned char bytes[16];
} source_address;

/* interval: nanoseconds a connection costs, 0 for no limit. tolerance: how much may be owed by one that is let in. */
typedef struct {
    int64_t interval, tolerance;
} source_rate;

typedef struct {
    uint64_t connections, handshakes; /* at once, 0 for no limit */
    source_rate connection_rate, handshake_rate;
    int ipv4_bits, ipv6_bits;
} source_rules;

typedef enum {
    SOURCE_ADMITTED,
    SOURCE_DENIED, /* by a list; never by the table */
    SOURCE_CONNECTIONS,
    SOURCE_HANDSHAKES,
    SOURCE_CONNECTION_RATE,
    SOURCE_HANDSHAKE_RATE,
    SOURCE_NO_MEMORY,
    SOURCE_VERDICTS /* how many these are */
} source_verdict;

/* size: sources whose rates are known; capacity: of pairs of a source and a worker: memory for either is taken when it is used.
 * among_processes: those that are forked from now on. secret: 16 bytes that nobody can guess. NULL: see errno. */
source_table *source_table_new(size_t size, uint32_t capacity, int among_processes, const unsigned char *secret);
void source_table_free(source_table *table);

/* Counts stay; what is known of rates is forgotten where another rate or another network is meant. */
void source_table_follow(source_table *table, const source_rules *rules);

/* Whether anything is limited. */
int source_table_limited(source_table *table);

/* worker: the process; 0 where there is one.
 *
 * A connection from `address`, which becomes its source; exact: it is one already. shakes: it begins with a handshake. now:
 * nanoseconds, monotonic. */
source_verdict source_table_enter(source_table *table, uint32_t worker, source_address *address, int exact, int shakes, int64_t now);

/* A handshake of a source that has entered is about to be made. */
source_verdict source_table_shake(source_table *table, const source_address *source, int64_t now);

/* The handshake of a connection is done; the connection has ended (shakes: before its handshake was). */
void source_table_settle(source_table *table, uint32_t worker, const source_address *source);
void source_table_leave(source_table *table, uint32_t worker, const source_address *source, int shakes);

/* A worker has ended: nothing is its any more. */
void source_table_clear(source_table *table, uint32_t worker);

/* Sources that have a connection. */
size_t source_table_present(source_table *table);

/* Of a peer: 1, or 0 where it has no such address. */
int source_address_of(source_address *address, const struct sockaddr *peer);

/* Reset a connection that nobody has seen: no state of it stays in the kernel. */
void reset_connection(int fd);

/* starts: `count` addresses in ascending order. The last one that is not above `address`, -1: none. */
ptrdiff_t source_range(const source_address *starts, size_t count, const source_address *address);

#endif
