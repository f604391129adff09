/* The attributes of an instance of a Python class, and whom a weak reference of it means. */
#ifndef SSLSOCK_INSTANCE_STATE_H
#define SSLSOCK_INSTANCE_STATE_H

#include <Python.h>

/* New: the dict of `instance`, whose class has one. */
static inline PyObject *attributes(PyObject *instance)
{
    return PyObject_GenericGetDict(instance, NULL);
}

/* New: what `reference`, a weakref.ref, means; None where it is gone. */
static inline PyObject *referent(PyObject *reference)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *found;

    if (PyWeakref_GetRef(reference, &found) < 0)
        return NULL;
    return found != NULL ? found : Py_NewRef(Py_None);
#else
    PyObject *found = PyWeakref_GetObject(reference);

    Py_XINCREF(found);
    return found;
#endif
}

#endif
