"""What is known of the sources of connections (source_table.h)."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from system cimport sockaddr


cdef extern from "source_table.h" nogil:
    ctypedef struct source_table:
        pass

    ctypedef struct source_address:
        unsigned char bytes[16]

    ctypedef struct source_rate:
        int64_t interval, tolerance

    ctypedef struct source_rules:
        uint64_t connections, handshakes
        source_rate connection_rate, handshake_rate
        int ipv4_bits, ipv6_bits

    ctypedef enum source_verdict:
        SOURCE_ADMITTED, SOURCE_DENIED, SOURCE_CONNECTIONS, SOURCE_HANDSHAKES, SOURCE_CONNECTION_RATE, SOURCE_HANDSHAKE_RATE
        SOURCE_NO_MEMORY, SOURCE_VERDICTS

    source_table *source_table_new(size_t size, uint32_t capacity, bint among_processes, const unsigned char *secret)
    void source_table_free(source_table *table)
    void source_table_follow(source_table *table, const source_rules *rules)
    bint source_table_limited(source_table *table)
    source_verdict source_table_enter(source_table *table, uint32_t worker, source_address *address, int exact, int shakes,
                                      int64_t now)
    source_verdict source_table_shake(source_table *table, const source_address *source, int64_t now)
    void source_table_settle(source_table *table, uint32_t worker, const source_address *source)
    void source_table_leave(source_table *table, uint32_t worker, const source_address *source, int shakes)
    void source_table_clear(source_table *table, uint32_t worker)
    size_t source_table_present(source_table *table)
    int source_address_of(source_address *address, const sockaddr *peer)
    void reset_connection(int fd)
    ptrdiff_t source_range(const source_address *starts, size_t count, const source_address *address)
