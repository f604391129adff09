/* Whether the process has rights that whoever has started it may not have (secure_getenv(3)). */
#ifndef SSLSOCK_RAISED_RIGHTS_H
#define SSLSOCK_RAISED_RIGHTS_H

#ifdef __APPLE__
#include <unistd.h>

static inline int has_raised_rights(void)
{
    return issetugid();
}
#else
#include <sys/auxv.h>

static inline int has_raised_rights(void)
{
    return getauxval(AT_SECURE) != 0;
}
#endif

#endif
