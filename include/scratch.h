/* Memory for the length of a call, which its thread keeps for the next one. Not on the stack, for that may be small
 * (`threading.stack_size`), and not allocated, for it is wanted for each receive. Who is called meanwhile in the same thread, by a
 * callback, gets memory of its own. */
#ifndef SSLSOCK_SCRATCH_H
#define SSLSOCK_SCRATCH_H

#include <stddef.h>

/* At least `size` bytes, undefined; NULL without memory. */
char *scratch_take(size_t size);

/* `memory`: of `scratch_take`, by the same thread; NULL does nothing. */
void scratch_give(char *memory);

#endif
