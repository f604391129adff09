cdef object library_error(str text=*)
cdef object connection_error(int ssl_error, unsigned long code, long verify_result, str server_hostname, str text=*)

cdef object want_read_error()
cdef object want_write_error()
cdef object zero_return_error()
cdef object eof_error()
cdef object io_error()
