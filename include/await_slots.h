/* The slots of an awaitable that is its own iterator, for a class of Cython: the result goes to whoever awaits without an exception
 * where that is possible (am_send, from CPython 3.10 on), and without a traceback where it is not. Cython has no name for am_send, and
 * a StopIteration that is raised in its `__next__` costs more than all else of a call. */
#ifndef SSLSOCK_AWAIT_SLOTS_H
#define SSLSOCK_AWAIT_SLOTS_H

#include <Python.h>

/* What is yielded (*over is 0) or the result (*over is 1), or NULL with an exception. */
typedef PyObject *(*await_step)(PyObject *self, PyObject *value, int *over);

static await_step await_slots_step;

static PyObject *await_slots_next(PyObject *self)
{
    int over = 0;
    PyObject *outcome = await_slots_step(self, Py_None, &over);

    if (outcome == NULL || !over)
        return outcome;
    if (outcome != Py_None)
        PyErr_SetObject(PyExc_StopIteration, outcome); /* only bytes come here: no tuple, no exception */
    Py_DECREF(outcome);
    return NULL; /* without an exception: the result is None */
}

#if PY_VERSION_HEX >= 0x030A0000
static PySendResult await_slots_send(PyObject *self, PyObject *value, PyObject **result)
{
    int over = 0;

    *result = await_slots_step(self, value, &over);
    return *result == NULL ? PYGEN_ERROR : over ? PYGEN_RETURN : PYGEN_NEXT;
}
#endif

/* type: has `__await__` and `__next__` by Cython. */
static void await_slots_set(PyObject *type, await_step step)
{
    PyTypeObject *made = (PyTypeObject *) type;

    await_slots_step = step;
    made->tp_iternext = await_slots_next;
#if PY_VERSION_HEX >= 0x030A0000
    made->tp_as_async->am_send = await_slots_send;
#endif
    PyType_Modified(made);
}

/* New: the iterator of an awaitable that is one of the interpreter's or of asyncio's; of others what `__await__` returns. */
static PyObject *await_slots_iterator(PyObject *awaitable)
{
    PyTypeObject *type = Py_TYPE(awaitable);

    if (type->tp_as_async != NULL && type->tp_as_async->am_await != NULL)
        return type->tp_as_async->am_await(awaitable);
    PyErr_Format(PyExc_TypeError, "object %.100s can't be used in 'await' expression", type->tp_name);
    return NULL;
}

/* New: what `iterator` yields (*over is 0) or returns (*over is 1) when `value` is sent to it; NULL with an exception. */
static PyObject *await_slots_resume(PyObject *iterator, PyObject *value, int *over)
{
    PyObject *result = NULL;
#if PY_VERSION_HEX >= 0x030A0000
    PySendResult outcome = PyIter_Send(iterator, value, &result);

    *over = outcome == PYGEN_RETURN;
    return outcome == PYGEN_ERROR ? NULL : result;
#else
    if (value == Py_None && Py_TYPE(iterator)->tp_iternext != NULL)
        result = Py_TYPE(iterator)->tp_iternext(iterator);
    else
        result = PyObject_CallMethod(iterator, "send", "O", value);
    *over = 0;
    if (result == NULL && _PyGen_FetchStopIterationValue(&result) == 0)
        *over = 1;
    return result;
#endif
}

#endif
