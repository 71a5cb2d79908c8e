# SPDX-License-Identifier: Apache-2.0
"""Runs one Python job so that it looks, in every way a program can tell, like `python3 -u main.py`.

Used in two ways: imported by python_template.py (a warm interpreter), and started cold as
`/usr/bin/python3 -I -u -X utf8 python_job.py FD`, with the job's description in the file FD.
A job is a JSON object: code, args, env, cwd, name (of the source file, which need not exist).
"""
import atexit
import gc
import io
import json
import linecache
import os
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    import berth_warm as native
except ImportError:
    native = None
del sys.path[0]

# Names the module that runs us goes by; a job must not find them.
own_modules = ("berth_warm", "python_job")


def open_stream(fd, name, mode, errors):
    """A standard stream as the interpreter makes it under -u: unbuffered if it is written to."""
    try:
        raw = io.FileIO(fd, mode, closefd=False)
    except OSError:
        return None
    raw.name = name
    buffer = io.BufferedReader(raw) if mode == "r" else raw
    stream = io.TextIOWrapper(buffer, "utf-8", errors, newline="\n", line_buffering=raw.isatty(),
                              write_through=mode == "w")
    stream.mode = mode
    return stream


def open_streams():
    sys.stdin = sys.__stdin__ = open_stream(0, "<stdin>", "r", "surrogateescape")
    sys.stdout = sys.__stdout__ = open_stream(1, "<stdout>", "w", "surrogateescape")
    sys.stderr = sys.__stderr__ = open_stream(2, "<stderr>", "w", "backslashreplace")


def replace_environment(env):
    os.environ.clear()
    os.environ.update(env)
    if "TZ" in env:
        import time
        time.tzset()


def search_path(directory, env):
    """Sets sys.path as a start with this environment would: the script's directory, PYTHONPATH,
    the library, the user's own packages."""
    path = [directory]
    if "PYTHONPATH" in env:
        path += [os.path.abspath(entry) for entry in env["PYTHONPATH"].split(os.pathsep)]
    sys.path[:] = path + library_path
    site = sys.modules.get("site")
    home = env.get("HOME")
    # Not os.path.isdir: what it raises and catches costs more than all the rest here.
    if site is not None and home and os.access(os.path.join(home, ".local/lib"), os.X_OK):
        site.USER_BASE = site.USER_SITE = None
        user_site = site.getusersitepackages()
        if os.path.isdir(user_site):
            site.addsitedir(user_site)


def main_module(path):
    """A fresh __main__, with the attributes a script's has."""
    main = ModuleType("__main__")
    main.__dict__.update(__loader__=SourceFileLoader("__main__", path), __annotations__={},
                         __builtins__=sys.modules["builtins"], __file__=path, __cached__=None)
    sys.modules["__main__"] = main
    return main


def prime_source(path, code):
    """Makes the source known to tracebacks, warnings and inspect; no file needs to be there."""
    lines = code.splitlines(True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    linecache.cache[path] = (len(code), None, lines, path)


def place_source(path, code):
    """Puts the source where it says it is, if it may be looked for there: by the program itself, or
    by interpreters that it starts. A file of the user's that has this name stays what it is."""
    if not any(word in code for word in ("__file__", "argv", "multiprocessing", "futures")):
        return
    try:
        with open(path, "x", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(code)
            placed.append((path, os.getpid(), os.fstat(file.fileno()).st_ino))
    except OSError:
        pass


def take_source_away():
    for path, process, inode in placed:
        try:
            if process == os.getpid() and os.stat(path).st_ino == inode:
                os.unlink(path)
        except OSError:
            pass


def display(kind, error, trace):
    """What sys.excepthook does, but with source lines from memory as well as from files."""
    import traceback
    stderr = sys.stderr
    if stderr is None:
        return
    text = "".join(traceback.TracebackException(kind, error, trace, compact=True).format())
    stderr.write(text)
    stderr.flush()


def display_in_thread(args):
    """What threading.excepthook does, with the same addition."""
    if args.exc_type is SystemExit or sys is None or sys.stderr is None:
        return
    name = args.thread.name if args.thread is not None else args.thread
    sys.stderr.write(f"Exception in thread {name}:\n")
    display(args.exc_type, args.exc_value, args.exc_traceback)


def report(error, trace):
    """Hands an uncaught exception to sys.excepthook, with the interpreter's own way of failing."""
    error = error.with_traceback(trace)
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except Exception:
        pass
    hook = getattr(sys, "excepthook", None)
    if hook is None:
        sys.stderr.write("sys.excepthook is missing\n")
        hook = display
    elif hook is sys.__excepthook__:
        hook = display
    try:
        hook(type(error), error, trace)
    except SystemExit as request:
        return exit_code(request)
    except BaseException as second:
        sys.stderr.write("Error in sys.excepthook:\n")
        display(type(second), second, second.__traceback__.tb_next)
        sys.stderr.write("\nOriginal exception was:\n")
        display(type(error), error, trace)
    return 1


def exit_code(request):
    """The status SystemExit asks for; anything but a number or None is a message."""
    code = request.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(1 << 63) <= code < 1 << 63 else 0xFF
    try:
        sys.stdout.flush()
    except Exception:
        pass
    print(code, file=sys.stderr)
    return 1


def join_threads():
    threading = sys.modules.get("threading")
    if threading is not None:
        try:
            threading._shutdown()
        except BaseException as error:
            sys.stderr.write(f"Exception ignored in: {threading!r}\n")
            display(type(error), error, error.__traceback__.tb_next)


def flush_streams():
    """Returns 0, or 120 as Python does when what was printed could not be written."""
    status = 0
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except Exception:
            if stream is sys.stdout:
                status = 120
    return status


def clear_main():
    """Ends the script's variables in the order the interpreter does."""
    variables = main_variables
    for private in (True, False):
        for name in list(variables):
            if name == "__builtins__":
                continue
            if not private or (name[:1] == "_" and name[1:2] != "_"):
                variables[name] = None


def leave(code):
    """Ends the process with Python's own order of things. A full finalisation dismantles every
    module and copies every page of them; it is left out when nothing the job made is still there
    that could tell: no open file, no destructor, no suspended generator."""
    join_threads()
    atexit._run_exitfuncs()
    take_source_away()
    code = flush_streams() or code
    if native is not None:
        clear_main()
        sys.last_type = sys.last_value = sys.last_traceback = None
        gc.collect()
        if not any_end_matters(gc.get_objects()):
            native.leave(flush_streams() or code)
    raise SystemExit(code)


def any_end_matters(things):
    """Whether the end of any of these, apart from the standard streams, could be noticed."""
    kinds = {kind for kind in set(map(type, things))
             if any("__del__" in base.__dict__ for base in kind.__mro__)}
    if not kinds:
        return False
    streams = (sys.stdin, sys.stdout, sys.stderr)
    buffers = [getattr(stream, "buffer", None) for stream in streams]
    known = {id(part) for part in (*streams, *buffers, getattr(buffers[0], "raw", None))}
    return any(type(thing) in kinds and id(thing) not in known for thing in things)


def set_up(job):
    """Makes this process look like one that was started for the job. Returns the source's path."""
    global main_variables
    env, cwd = job.get("env", {}), job.get("cwd", "/")
    open_streams()
    replace_environment(env)
    try:
        os.chdir(cwd)
    except OSError as error:
        sys.stderr.write(f"cannot enter {cwd}: {error.strerror}\n")
        raise SystemExit(126) from None
    name = job.get("name") or "main.py"
    path = os.path.join(os.getcwd(), name)
    sys.argv = [name, *job.get("args", ())]
    sys.orig_argv = ["/usr/bin/python3", "-u", *sys.argv]
    search_path(os.path.dirname(path), env)
    main_variables = main_module(path).__dict__
    prime_source(path, job["code"])
    place_source(path, job["code"])
    threading = sys.modules.get("threading")
    if threading is not None:
        threading.excepthook = threading.__excepthook__ = display_in_thread
    return path


def run(job):
    """Runs the job and ends the process. Ends by SystemExit when the interpreter has to do it."""
    path = set_up(job)
    if job.get("renewed") and "random" in sys.modules:
        # The machine is a copy, and so is this interpreter, which has a twin in another one.
        sys.modules["random"].seed()
    for own in own_modules:
        sys.modules.pop(own, None)
    status = 0
    try:
        code = job["code"].encode("utf-8", "surrogateescape")
        body = compile(code, path, "exec", dont_inherit=True)
        if native is not None:
            native.evaluate(body, main_variables)
        else:
            exec(body, main_variables)
    except SystemExit as request:
        status = exit_code(request)
    except KeyboardInterrupt as error:
        report(error, error.__traceback__.tb_next)
        interrupted()
    except BaseException as error:
        status = report(error, error.__traceback__.tb_next)
    leave(status)


def interrupted():
    """Ends as a process that was interrupted and did not mind: by the signal."""
    import signal
    join_threads()
    atexit._run_exitfuncs()
    take_source_away()
    flush_streams()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def rehearse():
    """Does what a job does, to nowhere, so that the pages it writes to are this process's own."""
    kept = dict(os.environ), list(sys.path), sys.argv, sys.orig_argv, sys.modules["__main__"]
    job = json.loads(b'{"code": "import sys\\nfor i in range(2):\\n  print(f\\"{i:03d}\\")\\n",'
                     b'"args": [], "env": {"PATH": "/usr/bin:/bin", "HOME": "/home/agent"}}')
    path = set_up(job)
    code = job["code"].encode("utf-8", "surrogateescape")
    native.evaluate(compile(code, path, "exec", dont_inherit=True), main_variables)
    atexit._run_exitfuncs()
    take_source_away()
    flush_streams()
    clear_main()
    gc.collect()
    any_end_matters(gc.get_objects())
    linecache.cache.clear()
    replace_environment(kept[0])
    sys.path[:], sys.argv, sys.orig_argv, sys.modules["__main__"] = kept[1:]


library_path = [entry for entry in sys.path
                if entry != os.path.dirname(os.path.abspath(__file__))
                and not entry.startswith("/usr/local/")]
main_variables = {}
# The source file that was made for this job, with the process that made it.
placed = []

if __name__ == "__main__":
    with open(int(sys.argv[1]), "rb") as description:
        description.seek(0)
        run(json.load(description))
