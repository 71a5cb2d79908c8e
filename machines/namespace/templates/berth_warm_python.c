// SPDX-License-Identifier: Apache-2.0
// The Python module `berth_warm`: what a warm Python interpreter needs from below.
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include "machines/namespace/templates/beside.h"
#include "machines/namespace/templates/rest.h"
#include "machines/namespace/templates/warm.h"

#include <sys/prctl.h>

#include <Python.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void before_fork(void* context) {
  (void)context;
  PyOS_BeforeFork();
}

static void after_fork(void* context, int child) {
  (void)context;
  if (child)
    PyOS_AfterFork_Child();
  else
    PyOS_AfterFork_Parent();
}

static void rehearse(void* context) {
  PyObject* result = PyObject_CallNoArgs(context);
  if (result == NULL)
    PyErr_Clear();
  Py_XDECREF(result);
}

/// How many libraries this process has ever loaded.
static int count_loads(struct dl_phdr_info* info, size_t size, void* count) {
  (void)size;
  *(unsigned long long*)count = info->dlpi_adds;
  return 1;
}

static unsigned long long loads_before;

static const char command_line[] = "/usr/bin/python3\0-u\0main.py";

static PyObject* serve(PyObject* self, PyObject* callable) {
  (void)self;
  struct berth_warm_hooks hooks = {.before_fork = before_fork,
                                   .after_fork = after_fork,
                                   .rehearse = rehearse,
                                   .context = callable,
                                   .command_line = command_line,
                                   .command_line_size = sizeof(command_line)};
  struct berth_job job = {NULL, 0};
  dl_iterate_phdr(count_loads, &loads_before);
  berth_serve(&hooks, &job);
  PyObject* bytes = PyBytes_FromStringAndSize(job.data, (Py_ssize_t)job.size);
  free(job.data);
  return bytes;
}

/// The innermost frame of the calling thread; nulled while a job runs, so that the job's own frame
/// is the outermost that anyone can see.
static struct _PyInterpreterFrame** current_frame(PyThreadState* thread) {
#if PY_VERSION_HEX < 0x030D0000
  return &thread->cframe->current_frame;
#else
  return &thread->current_frame;
#endif
}

static PyObject* evaluate(PyObject* self, PyObject* args) {
  (void)self;
  PyObject* code = NULL;
  PyObject* globals = NULL;
  if (!PyArg_ParseTuple(args, "O!O!", &PyCode_Type, &code, &PyDict_Type, &globals))
    return NULL;
  PyThreadState* thread = PyThreadState_Get();
  struct _PyInterpreterFrame* frame = *current_frame(thread);
  *current_frame(thread) = NULL;
  PyObject* result = PyEval_EvalCode(code, globals, globals);
  *current_frame(thread) = frame;
  return result;
}

static PyObject* leave(PyObject* self, PyObject* args) {
  (void)self;
  int code = 0;
  if (!PyArg_ParseTuple(args, "i", &code))
    return NULL;
  unsigned long long loads = 0;
  dl_iterate_phdr(count_loads, &loads);
  // What the template loaded has nothing to do at the end, and would write to many pages for it.
  if (loads == loads_before) {
    fflush(NULL);
    _exit(code);
  }
  exit(code);
}

/// fork_beside(): 0 in the new process, 1 in this one; raises OSError.
static PyObject* fork_beside(PyObject* self, PyObject* unused) {
  (void)self;
  (void)unused;
  PyOS_BeforeFork();
  int result = berth_fork_beside();
  if (result == 0)
    PyOS_AfterFork_Child();
  else
    PyOS_AfterFork_Parent();
  if (result < 0) {
    errno = -result;
    return PyErr_SetFromErrno(PyExc_OSError);
  }
  return PyLong_FromLong(result);
}

static PyObject* come_to_rest(PyObject* self, PyObject* unused) {
  (void)self;
  (void)unused;
  int error = berth_rest();
  if (error != 0)
    return PyUnicode_FromString(strerror(-error));
  Py_RETURN_NONE;
}

static PyObject* go_on(PyObject* self, PyObject* unused) {
  (void)self;
  (void)unused;
  berth_go_on();
  Py_RETURN_NONE;
}

/// dumpable(whether): whether other programs of this machine may look into this process.
static PyObject* dumpable(PyObject* self, PyObject* whether) {
  (void)self;
  prctl(PR_SET_DUMPABLE, PyObject_IsTrue(whether) == 1 ? 1 : 0, 0, 0, 0);
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"serve", serve, METH_O,
     "serve(rehearse): be a template; returns a job's bytes in each process that is to run one."},
    {"evaluate", evaluate, METH_VARARGS,
     "evaluate(code, globals): run code as the outermost frame."},
    {"leave", leave, METH_VARARGS, "leave(code): end the process as C does, not as Python does."},
    {"fork_beside", fork_beside, METH_NOARGS,
     "fork_beside(): fork a process that is our parent's child; 0 in it, 1 here."},
    {"rest", come_to_rest, METH_NOARGS, "rest(): leave the tree of files; None, or why not."},
    {"go_on", go_on, METH_NOARGS, "go_on(): go back to the tree of files, whatever it is now."},
    {"dumpable", dumpable, METH_O, "dumpable(whether): whether others may look into us."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {.m_base = PyModuleDef_HEAD_INIT,
                                    .m_name = "berth_warm",
                                    .m_doc = "What a warm Python interpreter needs from below.",
                                    .m_size = -1,
                                    .m_methods = methods};

PyMODINIT_FUNC PyInit_berth_warm(void) {
  return PyModule_Create(&module);
}
