# SPDX-License-Identifier: Apache-2.0
"""A live Python interpreter: IPython's own engine, one cell after the other.

Used in two ways: imported by python_kernel_template.py (a warm kernel), and started cold as
`/usr/bin/python3 -I -u -X utf8 python_kernel.py 3`. Descriptor 0 is the control socket to the guest
(kernel_link.h beside this file has the messages); a job of an interpreter, on descriptor 3 when cold,
says where to start. What a cell runs is in this very process: nothing here is kept from it, and the
guest believes nothing that it says.
"""
import _signal
import base64
import fcntl
import io
import json
import linecache
import os
import re
import resource
import signal
import socket
import struct
import sys
import threading
import warnings

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    import berth_warm as native
except ImportError:
    native = None
try:
    import IPython
    from IPython.core import async_helpers, interactiveshell, ultratb
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.history import HistoryManager
    from IPython.core.inputtransformer2 import TransformerManager
    from IPython.core.prefilter import PrefilterManager
    from IPython.core.profiledir import ProfileDir
    from traitlets import Type, observe
    from traitlets.config import Config
    missing = ""
except ImportError as error:
    missing = f"IPython is not installed in this machine (package python3-ipython): {error}"
del sys.path[0]

# What the template runs before it is asked for anything. Nothing here may draw a random number.
rehearsal = ("x = [1]", "x.append(2)", "x", "print(len(x))", "def f(n):\n    return n + 1\nf(2)",
             "import os", "1 / 0", "if")

# Above what programs open, so that a loop over low descriptors does not hit it.
control_fd_min = 900
# What one message may be; the guest counts what is larger, without its bytes.
message_bytes_max = 3 << 20
text_bytes_max = 64 << 10


class Control:
    """The socket to the guest: frames of a length and a letter, descriptors beside them."""

    def __init__(self, fd):
        # The end of this process, not that of an object in it, is what ends the socket.
        self.held = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, fd)
        self.socket = socket.socket(fileno=fd)
        self.unread = b""
        # A thread of the user's may display something while a cell ends.
        self.lock = threading.Lock()

    def close(self):
        self.socket.close()
        os.close(self.held)

    def send(self, body):
        with self.lock:
            self.socket.sendall(struct.pack("<I", len(body)) + body)

    def receive(self):
        """One frame and its descriptors; None at the end."""
        fds = []
        while True:
            body = self.cut()
            if body is None:
                # Less than what the C library takes from the kernel anew each time, and gives back.
                data, more, _, _ = socket.recv_fds(self.socket, 1 << 16, 4)
                if not data:
                    return None, fds
                self.unread += data
                fds += more
            elif body[:1] != b"I":
                # An interrupt, which brings no descriptors, was for a cell that is over.
                return body, fds

    def cut(self):
        """The next frame that was read; None when it is not there whole."""
        if len(self.unread) < 4:
            return None
        end = 4 + struct.unpack_from("<I", self.unread)[0]
        if len(self.unread) < end:
            return None
        body, self.unread = self.unread[4:end], self.unread[end:]
        return body

    def interrupted(self, number):
        """Whether the guest has said that this cell, which begins, is to end. While one runs, the
        guest says nothing else."""
        try:
            self.unread += self.socket.recv(1 << 12, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        found = False
        while (body := self.cut()) is not None:
            found = found or body == struct.pack("<cI", b"I", number)
        return found


def text_of(value):
    return str(value).encode("utf-8", "replace")[:text_bytes_max]


def encoded(mime, value):
    """What a formatter made, as bytes of text."""
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value)
    if isinstance(value, str):
        text = value.strip() if mime.startswith("image/") and mime != "image/svg+xml" else value
        return text.encode("utf-8", "replace")
    return json.dumps(value, default=repr).encode("utf-8", "replace")


def show(data, main):
    """Sends one result: the same content in several forms."""
    parts = []
    for mime, value in data.items():
        try:
            parts.append((str(mime).encode("utf-8", "replace"), encoded(mime, value)))
        except (TypeError, ValueError):
            continue
    body = [struct.pack("<cBH", b"D", main, len(parts))]
    for mime, value in parts:
        body += [struct.pack("<I", len(mime)), mime, struct.pack("<I", len(value)), value]
    message = b"".join(body)
    if len(message) > message_bytes_max:
        message = struct.pack("<cBHQ", b"L", main, len(parts), len(message))
    if kernel.running and not kernel.foreign:
        kernel.control.send(message)


if not missing:

    class Hook(DisplayHook):
        """The value of a cell's last expression goes to the guest, not to standard output."""

        exec_result = None  # nobody observes it: see Shell

        def write_output_prompt(self):
            pass

        def write_format_data(self, format_dict, md_dict=None):
            show(format_dict, 1)

        def finish_displayhook(self):
            pass

    class Publisher(DisplayPublisher):
        """What is displayed goes to the guest."""

        def publish(self, data, metadata=None, source=None, *, transient=None, update=False, **_):
            show(data, 0)

        def clear_output(self, wait=False):
            pass

    class Profile(ProfileDir):
        """A profile whose directory is made when something is put there."""

        @observe("location")
        def _location_changed(self, change):
            pass

    class LazyDatabase:
        """IPython's small database, opened when a magic asks for it."""

        def __init__(self):
            self._opened = None

        def _open(self):
            if self._opened is None:
                from pickleshare import PickleShareDB
                try:
                    self._opened = PickleShareDB(
                        os.path.expanduser("~/.ipython/profile_default/db"))
                except OSError:
                    self._opened = {}
            return self._opened

        def __getattr__(self, name):
            return getattr(self._open(), name)

        def __getitem__(self, key):
            return self._open()[key]

        def __setitem__(self, key, value):
            self._open()[key] = value

        def __delitem__(self, key):
            del self._open()[key]

        def __contains__(self, key):
            return key in self._open()

        def __iter__(self):
            return iter(self._open())

    class Transformer(TransformerManager):
        """IPython's, which cuts a cell into tokens only where something of IPython's own may be."""

        own = re.compile(r"[%!?]|^\s*[,;/]", re.MULTILINE)

        def __init__(self):
            super().__init__()
            self.known = list(self.token_transformers)

        def do_token_transforms(self, lines):
            if self.token_transformers == self.known and not self.own.search("".join(lines)):
                return lines
            return super().do_token_transforms(lines)

    class Prefilter(PrefilterManager):
        """IPython's, which looks at an assignment for long to find that it has nothing to do."""

        assignment = re.compile(r"\s*\w+\s*(?:[-+*/%&|^@]|\*\*|//|<<|>>)?=(?!=)")

        def prefilter_lines(self, lines, continue_prompt=False):
            if self.assignment.match(lines):
                return lines.rstrip("\n")
            return super().prefilter_lines(lines, continue_prompt)

    class History(HistoryManager):
        """The cells so far."""

        _i = _ii = _iii = _i00 = ""  # nobody observes them: see Shell

    class Shell(interactiveshell.InteractiveShell):
        """IPython's shell, whose results and errors go to the guest."""

        displayhook_class = Type(Hook)
        display_pub_class = Type(Publisher)
        # Traits tell whoever observes them of each change, which here is nobody and takes as long as
        # the cell: what changes with every cell is plain.
        execution_count = 1
        last_execution_succeeded = True
        last_execution_result = None
        error = None
        leaving = False

        def init_ipython_dir(self, ipython_dir):
            self.ipython_dir = os.path.join("/home/agent", ".ipython")

        @observe("ipython_dir")
        def _ipython_dir_changed(self, change):
            pass

        def init_profile_dir(self, profile_dir):
            self.profile_dir = Profile(parent=self)
            self.profile_dir.location = os.path.join(self.ipython_dir, "profile_default")

        def init_history(self):
            self.history_manager = History(shell=self, parent=self)
            self.configurables.append(self.history_manager)

        def init_prefilter(self):
            self.prefilter_manager = Prefilter(shell=self, parent=self)
            self.configurables.append(self.prefilter_manager)
            self.prefilter = self.prefilter_manager.prefilter_lines

        def _showtraceback(self, etype, evalue, stb):
            text = self.InteractiveTB.stb2text(stb)
            if etype is SystemExit and evalue.code in (None, 0):
                self.error = None
                return
            self.error = (getattr(etype, "__name__", str(etype)), evalue, text)
            print(text, file=sys.stderr)

        def should_run_async(self, raw_cell, *, transformed_cell=None, **more):
            # To find out takes a compiler, whose work is then done again.
            if transformed_cell is not None and not re.search("await|async", transformed_cell):
                return False
            return super().should_run_async(raw_cell, transformed_cell=transformed_cell, **more)

        def ask_exit(self):
            self.leaving = True

        def enable_gui(self, gui=None):
            pass

        # There is no terminal to show a child through.
        system = interactiveshell.InteractiveShell.system_raw


def run_task(coroutine):
    """Runs a cell that awaits. An interrupt ends it: it does not go on in a later cell."""
    loop = async_helpers.get_asyncio_loop()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except KeyboardInterrupt:
        # One that the interrupt has ended itself would be waited for in vain.
        if task.cancel():
            try:
                loop.run_until_complete(task)
            except BaseException:
                pass
        raise


class Kernel:
    """The state of this process beside the user's own."""

    def __init__(self):
        self.control = None
        self.shell = None
        self.running = False
        self.cells = 0
        self.nowhere = -1
        self.reads_input = False
        # Whether this is a process that a cell forked, which has no say here.
        self.foreign = False

    def make_shell(self):
        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "NoColor"
        # Its database would be a directory where there may be none yet.
        opened = interactiveshell.PickleShareDB
        interactiveshell.PickleShareDB = lambda path: {}
        self.shell = Shell.instance(config=config)
        interactiveshell.PickleShareDB = opened
        self.shell.db = LazyDatabase()
        self.shell.loop_runner = run_task
        self.shell.input_transformer_manager = Transformer()

    def rehearse(self):
        """In the template: does what cells do, so that what Python imports late, adapts and caches on
        the way is there in every copy, on pages that all of them share. Leaves no trace of it."""
        shell = self.shell
        streams = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = open(os.devnull, "w")
        for _ in range(40):
            for code in rehearsal:
                shell.run_cell(code, store_history=True)
        sys.stdout.close()
        sys.stdout, sys.stderr = streams
        shell.reset()
        shell.error = shell.InteractiveTB.tb = None
        shell.last_execution_result = None
        shell.compile._filename_map.clear()
        linecache.clearcache()
        for name in ("last_type", "last_value", "last_traceback"):
            if hasattr(sys, name):
                delattr(sys, name)

    # --- streams -----------------------------------------------------------------------------

    def open_streams(self):
        for fd, name, mode, errors in ((0, "stdin", "r", "surrogateescape"),
                                       (1, "stdout", "w", "surrogateescape"),
                                       (2, "stderr", "w", "backslashreplace")):
            raw = io.FileIO(fd, mode, closefd=False)
            raw.name = f"<{name}>"
            buffer = io.BufferedReader(raw) if mode == "r" else raw
            stream = io.TextIOWrapper(buffer, "utf-8", errors, newline="\n" if mode == "w" else None,
                                      write_through=mode == "w")
            stream.mode = mode
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)

    def connect(self, fds, reads_input):
        if reads_input or self.reads_input:
            # What an earlier cell left unread, or its end of file, is not this one's.
            raw = io.FileIO(0, "r", closefd=False)
            raw.name = "<stdin>"
            sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.BufferedReader(raw), "utf-8",
                                                         "surrogateescape")
        self.reads_input = reads_input
        for stream in range(3):
            os.dup2(fds[stream], stream)
            os.close(fds[stream])

    def flush(self):
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass

    def disconnect(self):
        for stream in range(3):
            os.dup2(self.nowhere, stream)

    # --- cells -------------------------------------------------------------------------------

    def on_interrupt(self, number, frame):
        if self.running:
            raise KeyboardInterrupt

    def run(self, number, code):
        shell = self.shell
        shell.error = None
        _signal.signal(signal.SIGINT, self.on_interrupt)
        status = 0
        try:
            self.running = True
            # The signal may have come just before.
            if self.control.interrupted(number):
                raise KeyboardInterrupt
            result = shell.run_cell(code, store_history=True)
            self.running = False
            if shell.error is not None or not result.success:
                failure = result.error_in_exec or result.error_before_exec
                leaves = isinstance(failure, SystemExit) and failure.code in (None, 0)
                status = 0 if leaves else 1
        except KeyboardInterrupt as late:
            self.running = False
            status = 1
            shell.error = ("KeyboardInterrupt", late, "KeyboardInterrupt")
            os.write(2, b"KeyboardInterrupt\n")
        self.running = False
        if self.foreign:
            os._exit(status)
        if shell.leaving:
            raise SystemExit(0)
        self.cells += 1
        error = shell.error if status else None
        if status and error is None:
            error = ("Error", "", "")
        self.finish(number, status, error)

    def finish(self, number, status, error):
        self.flush()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        body = struct.pack("<cIiIQB", b"E", number, status, self.cells, peak, error is not None)
        for part in error or ():
            try:
                text = text_of(part)
            except Exception:
                text = b"(its text cannot be had)"
            body += struct.pack("<I", len(text)) + text
        # The end first: each pipe that is let go of wakes the guest.
        self.control.send(body)
        self.disconnect()

    # --- rest --------------------------------------------------------------------------------

    def freeze(self, checkpoint, fds):
        """Comes to rest; parks a copy of this process where one is wanted."""
        why = native.rest()
        if why is None and checkpoint:
            try:
                if native.fork_beside() == 0:
                    return self.park(fds[0])
            except OSError as error:
                native.go_on()
                why = f"no copy of it can be made: {error.strerror}"
        for fd in fds:
            os.close(fd)
        self.control.send(b"f" + (why or "").encode("utf-8", "replace"))

    def park(self, fd):
        """The life of a parked copy: forks another one for each thaw. Returns in those."""
        self.control.close()
        self.control = Control(fd_above(fd))
        native.dumpable(False)
        self.control.send(struct.pack("<cI", b"P", os.getpid()))
        while True:
            body, fds = self.control.receive()
            if body is None or body[:1] != b"T" or len(fds) != 1:
                os._exit(0)
            if native.fork_beside() == 0:
                break
            os.close(fds[0])
        self.control.close()
        self.control = Control(fd_above(fds[0]))
        self.foreign = False
        native.dumpable(True)
        # An interrupt is for this one and its children.
        os.setsid()
        self.become_other()
        self.control.send(struct.pack("<cI", b"R", os.getpid()))
        native.go_on()

    def become_other(self):
        """What no two copies may share: random numbers, and the descriptors of an event loop."""
        for name, module in (("random", sys.modules.get("random")),
                             ("numpy.random", sys.modules.get("numpy.random"))):
            if module is not None:
                try:
                    module.seed()
                except Exception:
                    pass
        if async_helpers._asyncio_event_loop is not None:
            import asyncio
            async_helpers._asyncio_event_loop = None
            asyncio.set_event_loop(None)

    def serve(self):
        while True:
            body, fds = self.control.receive()
            if body is None:
                return
            letter = body[:1]
            if letter == b"C":
                number, flags = struct.unpack_from("<IB", body, 1)
                code = body[6:]
                if flags & 2:
                    code = os.pread(fds[3], os.fstat(fds[3]).st_size, 0)
                    os.close(fds[3])
                self.connect(fds, bool(flags & 1))
                self.run(number, code.decode("utf-8", "replace"))
            elif letter == b"F":
                self.freeze(struct.unpack_from("<Q", body, 1)[0], fds)
            elif letter == b"T":
                native.go_on()
                self.control.send(b"t")


def fd_above(fd):
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, control_fd_min)
    os.close(fd)
    return high


kernel = Kernel()


def after_fork():
    kernel.foreign = True


def run(job):
    """Becomes the kernel. Ends when the guest hangs up or the user leaves."""
    kernel.nowhere = fd_above(os.open("/dev/null", os.O_RDWR))
    kernel.control = Control(fd_above(0))
    os.dup2(kernel.nowhere, 0)
    if missing or native is None:
        reason = missing or "a part of Berth is not installed in this machine: berth_warm"
        kernel.control.send(b"X" + reason.encode())
        return
    os.environ.clear()
    os.environ.update(job.get("env", {}))
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    os.chdir(job.get("cwd") or "/")
    if job.get("renewed"):
        kernel.become_other()
    kernel.open_streams()
    if kernel.shell is None:
        kernel.make_shell()
    kernel.shell.home_dir = job.get("env", {}).get("HOME", "/")
    kernel.shell.starting_dir = os.getcwd()
    sys.argv = [""]
    sys.path[:] = [""] + library_path
    for own in ("berth_warm", "python_kernel", "python_kernel_template"):
        sys.modules.pop(own, None)
    signal.signal(signal.SIGINT, kernel.on_interrupt)
    # IPython explains how to leave it; a cell that calls sys.exit() did not mean to.
    warnings.filterwarnings("ignore", message="To exit: use")
    os.register_at_fork(after_in_child=after_fork)
    kernel.control.send(struct.pack("<cI", b"R", os.getpid()))
    try:
        kernel.serve()
    except (BrokenPipeError, ConnectionError):
        pass
    raise SystemExit(0)


library_path = [entry for entry in sys.path
                if entry != os.path.dirname(os.path.abspath(__file__))
                and not entry.startswith("/usr/local/")]

if __name__ == "__main__":
    with open(int(sys.argv[1]), "rb") as description:
        description.seek(0)
        run(json.load(description))
