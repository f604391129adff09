from window_bio cimport byte_queue


cdef struct input_buffer:
    byte_queue kept  # plaintext that nobody has read yet
    const char *lent  # this event's, behind it: still in the loop's scratch
    size_t lent_left
    size_t taken  # bytes that have been read or thrown away: where in the stream the first one stands


cdef size_t input_size(const input_buffer *input) noexcept nogil
cdef size_t input_line(const input_buffer *input) noexcept nogil
cdef Py_ssize_t input_find(const input_buffer *input, const char *wanted, size_t size, size_t start) noexcept nogil
cdef void input_copy(const input_buffer *input, char *data, size_t size) noexcept nogil
cdef void input_consume(input_buffer *input, size_t size) noexcept nogil
cdef bint input_keep(input_buffer *input) noexcept nogil
cdef void input_clear(input_buffer *input) noexcept nogil
