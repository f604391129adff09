#include "source_table.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAYS = 8, FIRST_COUNTS = 64 };

typedef struct {
    source_address source;
    int64_t full_at; /* 0: nobody's */
} rate_entry;

typedef struct {
    rate_entry *entries; /* NULL until there is a rate */
    source_rate rate;
} rate_table;

typedef struct {
    source_address source;
    uint64_t connections, handshakes; /* connections 0: nobody's */
} count_entry;

struct source_table {
    pthread_mutex_t lock;
    uint64_t secret[2];
    size_t sets; /* of each rate_table; a power of two */
    rate_table connection_rates, handshake_rates;
    count_entry *counts; /* open addressing, linear; at most half full */
    size_t capacity, present;
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

source_table *source_table_new(size_t size, const unsigned char *secret)
{
    source_table *table = calloc(1, sizeof *table);

    if (!table)
        return NULL;
    table->capacity = FIRST_COUNTS;
    table->counts = calloc(table->capacity, sizeof *table->counts);
    if (!table->counts || pthread_mutex_init(&table->lock, NULL)) {
        free(table->counts);
        free(table);
        return NULL;
    }
    memcpy(table->secret, secret, sizeof table->secret);
    table->sets = 1;
    while (table->sets * WAYS < size)
        table->sets *= 2;
    table->rules.ipv4_bits = 32;
    table->rules.ipv6_bits = 64;
    return table;
}

void source_table_free(source_table *table)
{
    if (!table)
        return;
    pthread_mutex_destroy(&table->lock);
    free(table->connection_rates.entries);
    free(table->handshake_rates.entries);
    free(table->counts);
    free(table);
}

static void follow_rate(rate_table *rates, const source_rate *rate, int keep)
{
    if (keep && rates->rate.interval == rate->interval && rates->rate.tolerance == rate->tolerance)
        return;
    free(rates->entries);
    rates->entries = NULL;
    rates->rate = *rate;
}

void source_table_follow(source_table *table, const source_rules *rules)
{
    int keep;

    pthread_mutex_lock(&table->lock);
    keep = rules->ipv4_bits == table->rules.ipv4_bits && rules->ipv6_bits == table->rules.ipv6_bits;
    follow_rate(&table->connection_rates, &rules->connection_rate, keep);
    follow_rate(&table->handshake_rates, &rules->handshake_rate, keep);
    table->rules = *rules;
    pthread_mutex_unlock(&table->lock);
}

/* Under the lock, all of these. */

static rate_entry *rate_of(source_table *table, rate_table *rates, const source_address *source)
{
    rate_entry *set, *least;

    if (!rates->entries) {
        rates->entries = calloc(table->sets * WAYS, sizeof *rates->entries);
        if (!rates->entries)
            return NULL;
    }
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
    if (!entry)
        return 1; /* no memory: rather without a limit than without clients */
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

static count_entry *count_of(source_table *table, const source_address *source)
{
    size_t place = hash_of(table, source) & (table->capacity - 1);

    while (table->counts[place].connections && !same(&table->counts[place].source, source))
        place = (place + 1) & (table->capacity - 1);
    return table->counts + place;
}

static int grow(source_table *table)
{
    count_entry *before = table->counts;
    size_t capacity = table->capacity;
    count_entry *larger = calloc(capacity * 2, sizeof *larger);

    if (!larger)
        return 0;
    table->counts = larger;
    table->capacity = capacity * 2;
    for (size_t i = 0; i < capacity; i++) {
        if (before[i].connections)
            *count_of(table, &before[i].source) = before[i];
    }
    free(before);
    return 1;
}

/* Close the gap that an entry leaves, for a search ends at one (Knuth 6.4, algorithm R). */
static void drop(source_table *table, count_entry *entry)
{
    size_t mask = table->capacity - 1, gap = (size_t) (entry - table->counts);

    for (size_t place = (gap + 1) & mask; table->counts[place].connections; place = (place + 1) & mask) {
        size_t home = hash_of(table, &table->counts[place].source) & mask;

        if (((place - home) & mask) >= ((place - gap) & mask)) {
            table->counts[gap] = table->counts[place];
            gap = place;
        }
    }
    memset(table->counts + gap, 0, sizeof *table->counts);
    table->present--;
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

source_verdict source_table_enter(source_table *table, source_address *address, int exact, int shakes, int64_t now)
{
    const source_rules *rules = &table->rules;
    source_verdict verdict = SOURCE_ADMITTED;
    count_entry *count;

    pthread_mutex_lock(&table->lock);
    if (!exact)
        mask_address(table, address);
    count = count_of(table, address);
    if (rules->connections && count->connections >= rules->connections)
        verdict = SOURCE_CONNECTIONS;
    else if (shakes && rules->handshakes && count->handshakes >= rules->handshakes)
        verdict = SOURCE_HANDSHAKES;
    else if (!count->connections && (table->present + 1) * 2 > table->capacity && !grow(table))
        verdict = SOURCE_NO_MEMORY;
    else if (!take(table, &table->connection_rates, address, now))
        verdict = SOURCE_CONNECTION_RATE;
    else {
        count = count_of(table, address);
        if (!count->connections++) {
            count->source = *address;
            table->present++;
        }
        count->handshakes += shakes != 0;
    }
    pthread_mutex_unlock(&table->lock);
    return verdict;
}

source_verdict source_table_shake(source_table *table, const source_address *source, int64_t now)
{
    int taken;

    pthread_mutex_lock(&table->lock);
    taken = take(table, &table->handshake_rates, source, now);
    pthread_mutex_unlock(&table->lock);
    return taken ? SOURCE_ADMITTED : SOURCE_HANDSHAKE_RATE;
}

void source_table_settle(source_table *table, const source_address *source)
{
    count_entry *count;

    pthread_mutex_lock(&table->lock);
    count = count_of(table, source);
    if (count->handshakes)
        count->handshakes--;
    pthread_mutex_unlock(&table->lock);
}

void source_table_leave(source_table *table, const source_address *source, int shakes)
{
    count_entry *count;

    pthread_mutex_lock(&table->lock);
    count = count_of(table, source);
    if (count->connections) {
        if (shakes && count->handshakes)
            count->handshakes--;
        if (!--count->connections)
            drop(table, count);
    }
    pthread_mutex_unlock(&table->lock);
}

size_t source_table_present(source_table *table)
{
    size_t present;

    pthread_mutex_lock(&table->lock);
    present = table->present;
    pthread_mutex_unlock(&table->lock);
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
