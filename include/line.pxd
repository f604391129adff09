"""A line of objects that needs no GIL (line.h)."""


cdef extern from "line.h" nogil:
    ctypedef struct place:
        bint taken

    ctypedef struct line:
        place *first
        place *last

    void line_join(line *line, place *place, void *who)
    void *line_next(line *line)
    void line_leave(line *line, place *place)
