"""Plaintext that has come and that nobody has read: what is new still lies in the loop's scratch, where a consumer that reads
at once takes it from; only what it leaves is copied (`input_keep`), before somebody else needs the scratch."""

from libc.string cimport memchr, memcmp, memcpy

from system cimport memmem
from window_bio cimport byte_queue_append, byte_queue_clear, byte_queue_consume, byte_queue_front

cdef size_t input_size(const input_buffer *input) noexcept nogil:
    return input.kept.size + input.lent_left


cdef size_t input_line(const input_buffer *input) noexcept nogil:
    """Bytes up to and with the first newline, 0 without one."""
    cdef const char *start
    cdef const char *found
    if input.kept.size:
        start = byte_queue_front(&input.kept)
        found = <const char *> memchr(start, 10, input.kept.size)
        if found != NULL:
            return found - start + 1
    if input.lent_left:
        found = <const char *> memchr(input.lent, 10, input.lent_left)
        if found != NULL:
            return input.kept.size + (found - input.lent) + 1
    return 0


cdef Py_ssize_t input_find(const input_buffer *input, const char *wanted, size_t size, size_t start) noexcept nogil:
    """Where the `size` bytes, one at least, begin that are `wanted`, from `start` on; -1 where they are not."""
    cdef const char *front
    cdef const char *found
    cdef size_t kept = input.kept.size, here
    if start < kept:
        front = byte_queue_front(&input.kept)
        found = <const char *> memmem(front + start, kept - start, wanted, size)
        if found != NULL:
            return found - front
        if input.lent_left:  # from one part to the other
            for here in range(max(start, kept - min(kept, size - 1)), kept):
                if size - (kept - here) <= input.lent_left and memcmp(front + here, wanted, kept - here) == 0 \
                        and memcmp(input.lent, wanted + (kept - here), size - (kept - here)) == 0:
                    return here
        start = kept
    if start - kept < input.lent_left:
        found = <const char *> memmem(input.lent + (start - kept), input.lent_left - (start - kept), wanted, size)
        if found != NULL:
            return kept + (found - input.lent)
    return -1


cdef void input_copy(const input_buffer *input, char *data, size_t size) noexcept nogil:
    """The first `size` bytes, which there are, to `data`."""
    cdef size_t first = min(size, input.kept.size)
    if first:
        memcpy(data, byte_queue_front(&input.kept), first)
    if size > first:
        memcpy(data + first, input.lent, size - first)


cdef void input_consume(input_buffer *input, size_t size) noexcept nogil:
    cdef size_t first = min(size, input.kept.size)
    input.taken += size
    if first:
        byte_queue_consume(&input.kept, first)
    input.lent += size - first
    input.lent_left -= size - first


cdef bint input_keep(input_buffer *input) noexcept nogil:
    """Copy what is lent. False without memory: it is lost."""
    cdef size_t size = input.lent_left
    input.lent_left = 0
    return size == 0 or byte_queue_append(&input.kept, input.lent, size)


cdef void input_clear(input_buffer *input) noexcept nogil:
    input.taken += input_size(input)
    input.lent_left = 0
    byte_queue_clear(&input.kept)
