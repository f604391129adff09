/* Attributes that can be set and cannot be deleted. Of Cython's properties each would need a deleter of its own; without, `del` raises
 * NotImplementedError. */
#ifndef SSLSOCK_KEPT_ATTRIBUTES_H
#define SSLSOCK_KEPT_ATTRIBUTES_H

#include <Python.h>

static int set_and_never_delete(PyObject *self, PyObject *value, void *closure)
{
    if (value == NULL) {
        PyErr_Format(PyExc_AttributeError, "attributes of '%.100s' objects cannot be deleted", Py_TYPE(self)->tp_name);
        return -1;
    }
    return ((setter)closure)(self, value, NULL);
}

/* A setter of Cython's takes no closure. */
static void keep_attributes(PyTypeObject *type)
{
    PyGetSetDef *property;
    for (property = type->tp_getset; property != NULL && property->name != NULL; property++)
        if (property->set != NULL && property->set != set_and_never_delete) {
            property->closure = (void *)property->set;
            property->set = set_and_never_delete;
        }
}

#endif
