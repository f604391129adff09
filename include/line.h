/* A line: a queue of objects in the order in which they came, linked through a place in each (an intrusive list). It allocates
 * nothing, needs no GIL and holds no references: an object must leave it before it is freed. */
#ifndef SSLSOCK_LINE_H
#define SSLSOCK_LINE_H

#include <stddef.h>

typedef struct place {
    struct place *behind;
    void *who;
    int taken; /* it stands in the line */
} place;

typedef struct {
    place *first, *last;
} line;

/* No effect on one that stands in it already. */
static inline void line_join(line *line, place *place, void *who)
{
    if (place->taken)
        return;
    place->taken = 1;
    place->who = who;
    place->behind = NULL;
    if (line->first == NULL)
        line->first = place;
    else
        line->last->behind = place;
    line->last = place;
}

/* Takes the first one out; the line is not empty. */
static inline void *line_next(line *line)
{
    place *first = line->first;
    line->first = first->behind;
    first->taken = 0;
    return first->who;
}

static inline void line_leave(line *line, place *place)
{
    struct place *before = NULL, *it = line->first;
    if (!place->taken)
        return;
    place->taken = 0;
    while (it != place) {
        before = it;
        it = it->behind;
    }
    if (before == NULL)
        line->first = place->behind;
    else
        before->behind = place->behind;
    if (line->last == place)
        line->last = before;
}

#endif
