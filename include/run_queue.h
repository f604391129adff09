/* A run queue: objects in the order in which they came, linked through a node in each (an intrusive list). It allocates nothing,
 * needs no GIL and holds no references: an object must be removed before it is freed. */
#ifndef SSLSOCK_RUN_QUEUE_H
#define SSLSOCK_RUN_QUEUE_H

#include <stddef.h>

typedef struct run_node {
    struct run_node *next;
    void *owner;
    int queued;
} run_node;

typedef struct {
    run_node *first, *last;
} run_queue;

/* No effect on one that is queued already. */
static inline void run_queue_add(run_queue *queue, run_node *node, void *owner)
{
    if (node->queued)
        return;
    node->queued = 1;
    node->owner = owner;
    node->next = NULL;
    if (queue->first == NULL)
        queue->first = node;
    else
        queue->last->next = node;
    queue->last = node;
}

/* Takes the first one out and returns its owner; the queue is not empty. */
static inline void *run_queue_next(run_queue *queue)
{
    run_node *first = queue->first;
    queue->first = first->next;
    first->queued = 0;
    return first->owner;
}

static inline void run_queue_remove(run_queue *queue, run_node *node)
{
    run_node *before = NULL, *it = queue->first;
    if (!node->queued)
        return;
    node->queued = 0;
    while (it != node) {
        before = it;
        it = it->next;
    }
    if (before == NULL)
        queue->first = node->next;
    else
        before->next = node->next;
    if (queue->last == node)
        queue->last = before;
}

#endif
