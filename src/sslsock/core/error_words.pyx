"""OpenSSL's errors in words."""

from openssl_err cimport ERR_lib_error_string, ERR_reason_error_string


cdef str error_words(unsigned long code):
    """An error code in OpenSSL's words."""
    cdef const char *reason = ERR_reason_error_string(code)
    cdef const char *library
    if reason != NULL:
        return reason.decode("utf-8", "replace")
    library = ERR_lib_error_string(code)
    return f"{library.decode('utf-8', 'replace')} error {code:#x}" if library != NULL else f"error {code:#x}"
