/* A queue of bytes in one block of memory: appended at the end, consumed at the front.
 * Empty queues own no memory: an idle connection must not keep any. */
#ifndef SSLSOCK_BYTE_QUEUE_H
#define SSLSOCK_BYTE_QUEUE_H

#include <stdlib.h>
#include <string.h>

typedef struct {
    size_t head; /* first byte that is still wanted */
    size_t capacity;
    char bytes[];
} byte_block;

typedef struct {
    size_t size;       /* bytes wanted */
    byte_block *block; /* NULL while there are none */
} byte_queue;

static inline const char *byte_queue_front(const byte_queue *queue)
{
    return queue->block == NULL ? NULL : queue->block->bytes + queue->block->head;
}

static inline void byte_queue_clear(byte_queue *queue)
{
    free(queue->block);
    memset(queue, 0, sizeof *queue);
}

static inline void byte_queue_consume(byte_queue *queue, size_t count)
{
    queue->size -= count;
    if (queue->size == 0)
        byte_queue_clear(queue);
    else
        queue->block->head += count;
}

/* Room for `count` bytes behind the last one; NULL without memory. `byte_queue_grown` says how many were used. */
static inline char *byte_queue_reserve(byte_queue *queue, size_t count)
{
    byte_block *block = queue->block, *grown;
    size_t wanted = queue->size + count, head = block == NULL ? 0 : block->head, capacity;
    if (block == NULL || head + wanted > block->capacity) {
        if (block != NULL && head > 0 && wanted <= block->capacity && head >= queue->size) {
            memcpy(block->bytes, block->bytes + head, queue->size);
        } else {
            capacity = queue->size == 0 ? wanted : wanted + wanted / 2;
            /* large ones grow in place */
            grown = head == 0 ? realloc(block, sizeof *block + capacity) : malloc(sizeof *block + capacity);
            if (grown == NULL)
                return NULL;
            if (head > 0) {
                memcpy(grown->bytes, block->bytes + head, queue->size);
                free(block);
            }
            queue->block = block = grown;
            block->capacity = capacity;
        }
        block->head = 0;
    }
    return block->bytes + block->head + queue->size;
}

static inline void byte_queue_grown(byte_queue *queue, size_t count)
{
    queue->size += count;
}

/* 1, or 0 without memory (the queue is as it was). */
static inline int byte_queue_append(byte_queue *queue, const char *data, size_t count)
{
    char *room;
    if (count == 0)
        return 1;
    room = byte_queue_reserve(queue, count);
    if (room == NULL)
        return 0;
    memcpy(room, data, count);
    byte_queue_grown(queue, count);
    return 1;
}

/* Everything of `from` to `to`, which is empty. */
static inline void byte_queue_move(byte_queue *to, byte_queue *from)
{
    *to = *from;
    memset(from, 0, sizeof *from);
}

/* Everything of `from` behind what is in `to`: 1, or 0 without memory (both are as they were). An empty `to` costs no copy. */
static inline int byte_queue_join(byte_queue *to, byte_queue *from)
{
    if (to->size == 0) {
        byte_queue_clear(to);
        byte_queue_move(to, from);
        return 1;
    }
    if (!byte_queue_append(to, byte_queue_front(from), from->size))
        return 0;
    byte_queue_clear(from);
    return 1;
}

#endif
