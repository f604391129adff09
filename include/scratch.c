#include "scratch.h"

#include <pthread.h>
#include <stdlib.h>

typedef struct {
    size_t size;
    _Alignas(max_align_t) char memory[];
} block;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t spare; /* of each thread, or NULL */
static int kept;            /* whether there is a key; without one nothing is kept */

static void make_key(void)
{
    kept = pthread_key_create(&spare, free) == 0;
}

char *scratch_take(size_t size)
{
    block *found = NULL;
    pthread_once(&once, make_key);
    if (kept && (found = pthread_getspecific(spare)) != NULL)
        pthread_setspecific(spare, NULL);
    if (found == NULL || found->size < size) {
        free(found);
        found = malloc(sizeof *found + size);
        if (found == NULL)
            return NULL;
        found->size = size;
    }
    return found->memory;
}

void scratch_give(char *memory)
{
    block *returned;
    if (memory == NULL)
        return;
    returned = (block *)(memory - offsetof(block, memory));
    if (!kept || pthread_getspecific(spare) != NULL || pthread_setspecific(spare, returned) != 0)
        free(returned);
}
