/* Numbers that one thread writes and others look at without a lock: whoever sees the new value sees what was written before it. On
 * x86-64 both cost what plain accesses do. */
#ifndef SSLSOCK_SHARED_VALUE_H
#define SSLSOCK_SHARED_VALUE_H

#define SHARED_LOAD(place) __atomic_load_n(&(place), __ATOMIC_ACQUIRE)
#define SHARED_STORE(place, value) __atomic_store_n(&(place), (value), __ATOMIC_RELEASE)

/* Whether `place` was `before`, and is `after` now. */
static inline int shared_exchange_int(int *place, int before, int after)
{
    return __atomic_compare_exchange_n(place, &before, after, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

#endif
