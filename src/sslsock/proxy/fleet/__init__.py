"""Several proxies that resume each other's sessions, and share what ACME has obtained, by Redis.

    member      the thread that keeps the ticket keys of this one the same as those of others
    keys        which keys there are, and which of them seals when
    storage     the same Redis, as where ACME keeps what it has
"""
