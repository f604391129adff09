#include "source_table.h"

#include "shared_lock.h"
#include "shared_value.h"

#include <errno.h>
#include <string.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAYS = 8, FIRST_CHAINS = 64 };

typedef struct {
    source_address source;
    int64_t full_at; /* 0: nobody's */
} rate_entry;

typedef struct {
    rate_entry *entries;
    source_rate rate;
} rate_table;

/* What a source has in one worker. An entry never moves, and its one truth is `connections`, written last when it becomes somebody's
 * and first when it is nobody's any more: chains, and the list of those that are free, are made of that (`relink`). */
typedef struct {
    source_address source;
    uint32_t connections, handshakes; /* connections 0: nobody's */
    uint32_t worker;
    uint32_t next; /* in its chain, or in the list of those that are free; 0: the last */
} count_entry;

struct source_table {
    shared_lock lock;
    int among_processes, limited;
    size_t size; /* of all this memory */
    uint64_t secret[2];
    size_t sets; /* of each rate_table; a power of two */
    size_t rates_size; /* bytes */
    rate_table connection_rates, handshake_rates;
    count_entry *counts; /* the first is nobody's, ever */
    uint32_t *chains;
    uint32_t capacity, used, free; /* of `counts`: in all, those that were anybody's, and the first that is so no more */
    uint32_t chain_mask; /* as many chains are in use, and one */
    source_rules rules;
};

static inline uint64_t rotated(uint64_t word, int bits)
{
    return word << bits | word >> (64 - bits);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = rotated(v[1], 13) ^ v[0], v[0] = rotated(v[0], 32);
    v[2] += v[3], v[3] = rotated(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotated(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotated(v[1], 17) ^ v[2], v[2] = rotated(v[2], 32);
}

/* SipHash-1-3 (Aumasson, Bernstein 2012) of 16 bytes. */
static uint64_t hash_of(const source_table *table, const source_address *source)
{
    uint64_t words[3];
    uint64_t v[4] = {
        table->secret[0] ^ 0x736f6d6570736575, table->secret[1] ^ 0x646f72616e646f6d,
        table->secret[0] ^ 0x6c7967656e657261, table->secret[1] ^ 0x7465646279746573,
    };

    memcpy(words, source->bytes, sizeof source->bytes);
    words[2] = (uint64_t) sizeof source->bytes << 56;
    for (int i = 0; i < 3; i++) {
        v[3] ^= words[i];
        sip_round(v);
        v[0] ^= words[i];
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static inline int same(const source_address *one, const source_address *other)
{
    return memcmp(one->bytes, other->bytes, sizeof one->bytes) == 0;
}

/* The next of the parts that the memory is made of, each of whole pages. */
static size_t next_part(size_t *size, size_t wanted)
{
    size_t page = (size_t) sysconf(_SC_PAGESIZE), offset = *size;

    *size += (wanted + page - 1) / page * page;
    return offset;
}

source_table *source_table_new(size_t size, uint32_t capacity, int among_processes, const unsigned char *secret)
{
    source_table *table;
    size_t sets = 1, rates_size, total = 0, rates[2], counts, chains;
    uint32_t most_chains = FIRST_CHAINS;
    int failed;

    while (sets * WAYS < size)
        sets *= 2;
    while (most_chains < capacity)
        most_chains *= 2;
    rates_size = sets * WAYS * sizeof(rate_entry);
    next_part(&total, sizeof *table);
    rates[0] = next_part(&total, rates_size);
    rates[1] = next_part(&total, rates_size);
    counts = next_part(&total, ((size_t) capacity + 1) * sizeof(count_entry));
    chains = next_part(&total, (size_t) most_chains * sizeof(uint32_t));
    table = shared_memory_new(total, among_processes);
    if (!table)
        return NULL;
    failed = shared_lock_init(&table->lock, among_processes);
    if (failed) {
        shared_memory_free(table, total);
        errno = failed;
        return NULL;
    }
    memcpy(table->secret, secret, sizeof table->secret);
    table->among_processes = among_processes;
    table->size = total;
    table->sets = sets;
    table->rates_size = rates_size;
    table->connection_rates.entries = (rate_entry *) ((char *) table + rates[0]);
    table->handshake_rates.entries = (rate_entry *) ((char *) table + rates[1]);
    table->counts = (count_entry *) ((char *) table + counts);
    table->chains = (uint32_t *) ((char *) table + chains);
    table->capacity = capacity;
    table->chain_mask = FIRST_CHAINS - 1;
    table->rules.ipv4_bits = 32;
    table->rules.ipv6_bits = 64;
    return table;
}

void source_table_free(source_table *table)
{
    if (table)
        shared_memory_free(table, table->size);
}

static void relink(source_table *table);

static void lock(source_table *table)
{
    if (shared_lock_take(&table->lock))
        relink(table);
}

static void unlock(source_table *table)
{
    shared_lock_release(&table->lock);
}

static void follow_rate(source_table *table, rate_table *rates, const source_rate *rate, int keep)
{
    if (keep && rates->rate.interval == rate->interval && rates->rate.tolerance == rate->tolerance)
        return;
    shared_memory_forget(rates->entries, table->rates_size, table->among_processes);
    rates->rate = *rate;
}

void source_table_follow(source_table *table, const source_rules *rules)
{
    int keep;

    lock(table);
    keep = rules->ipv4_bits == table->rules.ipv4_bits && rules->ipv6_bits == table->rules.ipv6_bits;
    follow_rate(table, &table->connection_rates, &rules->connection_rate, keep);
    follow_rate(table, &table->handshake_rates, &rules->handshake_rate, keep);
    table->rules = *rules;
    SHARED_STORE(table->limited, rules->connections || rules->handshakes || rules->connection_rate.interval
                                     || rules->handshake_rate.interval);
    unlock(table);
}

int source_table_limited(source_table *table)
{
    return SHARED_LOAD(table->limited);
}

/* Under the lock, all of these. */

static rate_entry *rate_of(source_table *table, rate_table *rates, const source_address *source)
{
    rate_entry *set, *least;

    set = least = rates->entries + (hash_of(table, source) & (table->sets - 1)) * WAYS;
    for (rate_entry *entry = set; entry < set + WAYS; entry++) {
        if (same(&entry->source, source))
            return entry;
        if (entry->full_at < least->full_at)
            least = entry;
    }
    return least;
}

/* Whether one more is let in. Only then it is noted. */
static int take(source_table *table, rate_table *rates, const source_address *source, int64_t now)
{
    rate_entry *entry;
    int64_t owed;

    if (!rates->rate.interval)
        return 1;
    entry = rate_of(table, rates, source);
    owed = entry->full_at > now ? entry->full_at - now : 0;
    if (owed > rates->rate.tolerance) {
        if (same(&entry->source, source))
            return 0;
        owed = rates->rate.tolerance;
    }
    entry->source = *source;
    entry->full_at = now + owed + rates->rate.interval;
    return 1;
}

static uint32_t *chain_of(source_table *table, const source_address *source)
{
    return table->chains + (hash_of(table, source) & table->chain_mask);
}

static void put(source_table *table, uint32_t number)
{
    uint32_t *chain = chain_of(table, &table->counts[number].source);

    table->counts[number].next = *chain;
    *chain = number;
}

static void set_free(source_table *table, uint32_t number)
{
    table->counts[number].next = table->free;
    table->free = number;
}

/* Make chains and the list of those that are free anew. */
static void relink(source_table *table)
{
    memset(table->chains, 0, ((size_t) table->chain_mask + 1) * sizeof *table->chains);
    table->free = 0;
    for (uint32_t number = table->used; number > 0; number--) {
        if (table->counts[number].connections)
            put(table, number);
        else
            set_free(table, number);
    }
}

/* That of a worker, NULL: it has none. all: what the source has in all of them. */
static count_entry *count_of(source_table *table, const source_address *source, uint32_t worker, count_entry *all)
{
    count_entry *found = NULL;

    all->connections = all->handshakes = 0;
    for (uint32_t number = *chain_of(table, source); number; number = table->counts[number].next) {
        count_entry *entry = table->counts + number;

        if (!same(&entry->source, source))
            continue;
        all->connections += entry->connections;
        all->handshakes += entry->handshakes;
        if (entry->worker == worker)
            found = entry;
    }
    return found;
}

/* NULL: all are taken. */
static count_entry *new_count(source_table *table, const source_address *source, uint32_t worker)
{
    uint32_t number = table->free;
    count_entry *entry;

    if (number) {
        table->free = table->counts[number].next;
    } else if (table->used < table->capacity) {
        number = ++table->used;
        if (number > table->chain_mask && number < table->capacity) {
            table->chain_mask = table->chain_mask * 2 + 1;
            relink(table);
            table->free = 0; /* that is this one */
        }
    } else {
        return NULL;
    }
    entry = table->counts + number;
    entry->source = *source;
    entry->worker = worker;
    entry->handshakes = 0;
    put(table, number);
    return entry;
}

static void drop(source_table *table, count_entry *entry)
{
    uint32_t number = (uint32_t) (entry - table->counts), *link = chain_of(table, &entry->source);

    while (*link != number)
        link = &table->counts[*link].next;
    *link = entry->next;
    set_free(table, number);
}

static void mask_address(const source_table *table, source_address *address)
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    int bits = memcmp(address->bytes, mapped, sizeof mapped) ? table->rules.ipv6_bits : 96 + table->rules.ipv4_bits;

    for (int i = 0; i < 16; i++, bits -= 8) {
        if (bits < 8)
            address->bytes[i] &= bits > 0 ? (unsigned char) (0xff << (8 - bits)) : 0;
    }
}

source_verdict source_table_enter(source_table *table, uint32_t worker, source_address *address, int exact, int shakes, int64_t now)
{
    const source_rules *rules = &table->rules;
    source_verdict verdict = SOURCE_ADMITTED;
    count_entry *count, all;

    lock(table);
    if (!exact)
        mask_address(table, address);
    count = count_of(table, address, worker, &all);
    if (rules->connections && all.connections >= rules->connections)
        verdict = SOURCE_CONNECTIONS;
    else if (shakes && rules->handshakes && all.handshakes >= rules->handshakes)
        verdict = SOURCE_HANDSHAKES;
    else if (!count && !table->free && table->used == table->capacity)
        verdict = SOURCE_NO_MEMORY;
    else if (!take(table, &table->connection_rates, address, now))
        verdict = SOURCE_CONNECTION_RATE;
    else {
        if (!count)
            count = new_count(table, address, worker);
        SHARED_STORE(count->connections, count->connections + 1);
        count->handshakes += shakes != 0;
    }
    unlock(table);
    return verdict;
}

source_verdict source_table_shake(source_table *table, const source_address *source, int64_t now)
{
    int taken;

    lock(table);
    taken = take(table, &table->handshake_rates, source, now);
    unlock(table);
    return taken ? SOURCE_ADMITTED : SOURCE_HANDSHAKE_RATE;
}

void source_table_settle(source_table *table, uint32_t worker, const source_address *source)
{
    count_entry *count, all;

    lock(table);
    count = count_of(table, source, worker, &all);
    if (count && count->handshakes)
        count->handshakes--;
    unlock(table);
}

void source_table_leave(source_table *table, uint32_t worker, const source_address *source, int shakes)
{
    count_entry *count, all;

    lock(table);
    count = count_of(table, source, worker, &all);
    if (count) {
        if (shakes && count->handshakes)
            count->handshakes--;
        SHARED_STORE(count->connections, count->connections - 1);
        if (!count->connections)
            drop(table, count);
    }
    unlock(table);
}

void source_table_clear(source_table *table, uint32_t worker)
{
    lock(table);
    for (uint32_t number = 1; number <= table->used; number++) {
        if (table->counts[number].worker == worker)
            table->counts[number].connections = 0;
    }
    relink(table);
    unlock(table);
}

size_t source_table_present(source_table *table)
{
    size_t present = 0;

    lock(table);
    for (uint32_t number = 1; number <= table->used; number++) {
        uint32_t first = *chain_of(table, &table->counts[number].source);

        if (!table->counts[number].connections)
            continue;
        while (!same(&table->counts[first].source, &table->counts[number].source))
            first = table->counts[first].next;
        present += first == number;
    }
    unlock(table);
    return present;
}

int source_address_of(source_address *address, const struct sockaddr *peer)
{
    if (peer->sa_family == AF_INET6) {
        memcpy(address->bytes, &((const struct sockaddr_in6 *) peer)->sin6_addr, 16);
        return 1;
    }
    if (peer->sa_family != AF_INET)
        return 0;
    memset(address->bytes, 0, 10);
    memset(address->bytes + 10, 0xff, 2);
    memcpy(address->bytes + 12, &((const struct sockaddr_in *) peer)->sin_addr, 4);
    return 1;
}

void reset_connection(int fd)
{
    struct linger now = {1, 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

ptrdiff_t source_range(const source_address *starts, size_t count, const source_address *address)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (memcmp(starts[middle].bytes, address->bytes, sizeof address->bytes) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return (ptrdiff_t) low - 1;
}
