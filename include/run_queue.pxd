"""A queue of objects that needs no GIL (run_queue.h)."""


cdef extern from "run_queue.h" nogil:
    ctypedef struct run_node:
        bint queued

    ctypedef struct run_queue:
        run_node *first
        run_node *last

    void run_queue_add(run_queue *queue, run_node *node, void *owner)
    void *run_queue_next(run_queue *queue)
    void run_queue_remove(run_queue *queue, run_node *node)
