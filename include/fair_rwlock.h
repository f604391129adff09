/* A lock for readers and writers where many readers that come without a pause do not keep a writer out. No thread may take it for reading
 * twice. (pthread_rwlockattr_setkind_np(3); musl has no such kind.) */
#ifndef SSLSOCK_FAIR_RWLOCK_H
#define SSLSOCK_FAIR_RWLOCK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>

static inline void fair_rwlock_init(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t kind;
    pthread_rwlockattr_init(&kind);
#ifdef __GLIBC__
    pthread_rwlockattr_setkind_np(&kind, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    pthread_rwlock_init(lock, &kind);
    pthread_rwlockattr_destroy(&kind);
}

#endif
