"""A call that is awaited, in C, as a coroutine would be: try; wait while there is nothing; try again.

NEW –awaited→ WAITING –an attempt has a result, or raises→ OVER. What can be had at once makes no future and takes no turn of the loop. It
has a coroutine's methods, so that tasks can be made of it.
"""

import warnings

cimport cython

from await_slots cimport await_slots_iterator, await_slots_resume, await_slots_set


@cython.freelist(64)
@cython.no_gc_clear  # what ends in a cycle still lets go of what it waits for
cdef class AwaitedCall:
    """What `await` takes. A derived class has `attempt`, and no attributes."""

    def __dealloc__(self):
        if self.phase == CALL_NEW:
            tell_of_neglect(self.name())
        elif self.phase == CALL_WAITING:
            self.end()

    # Of the derived class

    cdef object attempt(self):
        """The result; or None after `wait_for` or `delegate`."""
        raise NotImplementedError

    cdef void waited(self) noexcept:
        """Whatever `wait_for` was given, it is not waited for now: it is done, or an exception has come, or nobody awaits any more."""

    cdef str name(self):
        return type(self).__name__

    # For the derived class

    cdef int wait_for(self, object awaitable) except -1:
        """There is to be another attempt when it is done."""
        self.inner = await_slots_iterator(awaitable)
        return 0

    cdef int delegate(self, object coroutine) except -1:
        """Its result is ours."""
        self.inner = coroutine
        self.delegated = True
        return 0

    cdef void end(self) noexcept:
        inner, self.inner = self.inner, None
        self.phase = CALL_OVER
        if inner is not None and not self.delegated:
            self.waited()

    # As a coroutine has them

    def __await__(self):
        return self

    def __iter__(self):  # for generators that are coroutines (types.coroutine)
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Go on until there is something to wait for. StopIteration has the result."""
        cdef int over = 0
        outcome = advance(self, value, &over)
        if over:
            raise StopIteration(outcome)
        return outcome

    def throw(self, *args):
        """Go on with an exception, given as generators take it, in the place of what was waited for."""
        cdef object inner = self.inner
        if self.phase == CALL_OVER:
            raise RuntimeError("cannot reuse already awaited coroutine")
        try:
            return (just_begun() if inner is None else inner).throw(*args)
        except BaseException:
            self.end()
            raise

    def close(self):
        """Nobody awaits it any more."""
        cdef object inner = self.inner
        if inner is not None:
            inner.close()
        self.end()

    @property
    def __name__(self):
        return self.name().rpartition(".")[2]

    @property
    def __qualname__(self):
        return self.name()

    def __repr__(self):
        return f"<coroutine object {self.name()} at {id(self):#x}>"


def just_begun():
    """A generator that throws whatever it is given."""
    yield


cdef object advance(object self, object value, int *over):
    cdef AwaitedCall call = <AwaitedCall> self
    cdef object inner = call.inner, outcome = None
    cdef int inner_is_over = 0
    if call.phase != CALL_WAITING:
        if call.phase == CALL_OVER:
            raise RuntimeError("cannot reuse already awaited coroutine")
        if value is not None:
            raise TypeError("can't send non-None value to a just-started coroutine")
        call.phase = CALL_WAITING
    try:
        while True:
            if inner is not None:
                outcome = await_slots_resume(inner, value, &inner_is_over)
                if not inner_is_over:
                    return outcome
                call.inner = None
                if call.delegated:
                    break
                call.waited()
            outcome = call.attempt()
            call.tried = True
            inner = call.inner
            if inner is None:
                break
            value = None
    except BaseException:
        call.end()
        raise
    call.phase = CALL_OVER
    over[0] = 1
    return outcome


cdef int give_slots(object kind) except -1:
    """kind: AwaitedCall or a class derived from it, each of which needs this."""
    await_slots_set(kind, advance)
    return 0


cdef void tell_of_neglect(str name) noexcept:
    warnings.warn(f"coroutine '{name}' was never awaited", RuntimeWarning)
