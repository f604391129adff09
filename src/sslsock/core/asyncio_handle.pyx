"""Handles: the calls that an asyncio loop has planned.

They take the place of asyncio's `Handle` and `TimerHandle` and say that they are these (`__class__`). What is asked for rarely
(their text, how they compare) is asyncio's own code.
"""

from asyncio.events import Handle as AsyncioHandle, TimerHandle as AsyncioTimerHandle
from asyncio.format_helpers import _format_callback_source

cimport cython
from cpython.object cimport PyObject

from shared_value cimport load_int, shared_exchange_int
from sslsock.core.schedule cimport Timed

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    object PyObject_Vectorcall(object callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)

cdef extern from *:
    """
    #define SSLSOCK_TUPLE_ITEMS(tuple) (((PyTupleObject *) (tuple))->ob_item)
    """
    PyObject **SSLSOCK_TUPLE_ITEMS(object)


@cython.no_gc_clear  # what ends a cycle with a loop may still cancel its calls
cdef class Handle(Timed):
    """A planned call: `callback(*args)` in `context`."""

    @property
    def __class__(self):
        return AsyncioHandle

    @property
    def _callback(self):
        with cython.critical_section(self):
            callback = self.callback
        return callback

    @property
    def _args(self):
        with cython.critical_section(self):
            arguments = self.arguments
        return arguments

    @property
    def _cancelled(self):
        return bool(load_int(self.is_cancelled))

    @property
    def _source_traceback(self):
        return None

    @property
    def _repr(self):
        with cython.critical_section(self):
            text = self.text
        return text

    def _repr_info(self):
        return AsyncioHandle._repr_info(self)

    def __repr__(self):
        return AsyncioHandle.__repr__(self)

    def get_context(self):
        """The context that it runs in: contextvars.Context."""
        return self._context

    def cancel(self):
        """Take the call back; no effect once it has run."""
        if shared_exchange_int(&self.is_cancelled, False, True):  # by one thread, whichever, beside `run`
            text = repr(self) if self._loop.get_debug() else None
            with cython.critical_section(self):
                self.text = text
                self.callback = self.arguments = None

    def cancelled(self):
        """Whether it was cancelled: bool."""
        return bool(load_int(self.is_cancelled))

    def _run(self):
        self.run()

    cdef int run(self) except -1:
        """What it raises goes to the loop's exception handler; KeyboardInterrupt and SystemExit come out of here."""
        cdef object callback = None, context = self._context
        cdef tuple args = None
        with cython.critical_section(self):
            callback, args = self.callback, self.arguments
        if args is None or load_int(self.is_cancelled):  # perhaps by another thread and just now
            return 0
        try:
            PyContext_Enter(context)
            try:
                PyObject_Vectorcall(callback, SSLSOCK_TUPLE_ITEMS(args), len(args), NULL)
            finally:
                PyContext_Exit(context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._loop.call_exception_handler({
                "message": f"Exception in callback {_format_callback_source(callback, args)}",
                "exception": exc,
                "handle": self,
            })
        return 0


@cython.final
@cython.no_gc_clear
cdef class TimerHandle(Handle):
    """A call planned for a time."""

    @property
    def __class__(self):
        return AsyncioTimerHandle

    @property
    def _scheduled(self):
        return self.index >= 0

    def _repr_info(self):
        return AsyncioTimerHandle._repr_info(self)

    def when(self):
        """When it is due, in seconds of the loop's clock: float."""
        return self._when

    def cancel(self):
        """Take the call back; no effect once it has run."""
        if not load_int(self.is_cancelled):
            self._loop._timer_handle_cancelled(self)
            Handle.cancel(self)

    def __hash__(self):
        return hash(self._when)

    def __eq__(self, other):
        return AsyncioTimerHandle.__eq__(self, other)

    def __lt__(self, other):
        return AsyncioTimerHandle.__lt__(self, other)

    def __le__(self, other):
        return AsyncioTimerHandle.__le__(self, other)

    def __gt__(self, other):
        return AsyncioTimerHandle.__gt__(self, other)

    def __ge__(self, other):
        return AsyncioTimerHandle.__ge__(self, other)
