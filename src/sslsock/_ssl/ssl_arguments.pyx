"""Arguments as CPython's `_ssl` takes them: what is accepted, and the words of what is not."""

import os


cdef bytes path_bytes(path, str complaint):
    """What PyUnicode_FSConverter makes of it. complaint: of a TypeError, "" for Python's own words."""
    try:
        encoded = os.fsencode(path)
    except TypeError:
        if complaint:
            raise TypeError(complaint) from None
        raise
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded


cdef bytes c_string(text, str place):
    """What PyArg_Parse("s") makes of it."""
    if not isinstance(text, str):
        raise TypeError(f"{place} must be str, not {'None' if text is None else type(text).__name__}")
    encoded = text.encode("utf-8")
    if b"\0" in encoded:
        raise ValueError("embedded null character")
    return encoded


cdef object checked_callable(handler, str complaint):
    if handler is not None and not callable(handler):
        raise TypeError(complaint)
    return handler
