/* Keeps a fork out of libssl's handshakes. OpenSSL's locks (of its random numbers, of what it has fetched) are not made anew in a
 * child, so one that another thread held at the fork would be held there for ever. A fork waits until nobody is between `enter` and
 * `leave`, some milliseconds, and whoever wants to enter waits for the fork.
 *
 * Who waits for something else in between, as a callback does that takes Python's GIL, leaves meanwhile: `pause` and `resume`. */
#ifndef SSLSOCK_FORK_GATE_H
#define SSLSOCK_FORK_GATE_H

#include <pthread.h>

void fork_gate_enter(void);
void fork_gate_leave(void);

/* What `pause` returns is for `resume`. Both may be called by a thread that has not entered. */
int fork_gate_pause(void);
void fork_gate_resume(int entered);

/* Have forks wait for `lock` as well, which is never destroyed, and which may be taken by who has entered. 0 if that is not possible. */
int fork_gate_guard(pthread_mutex_t *lock);

#endif
