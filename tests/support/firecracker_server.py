#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Plays Firecracker, for tests, with QEMU behind its API.

    firecracker_server.py --api-sock PATH [--id ID]

Written after Firecracker's published description of its API (1.17): every path and method of it,
the members each body must have and may have, their types, bounds and names, what is allowed before
the start and what after it, and the shapes of its answers: 204, 200 with JSON, 400 with
`fault_message`.
Beyond the description it knows that the id in a path is the body's, that a snapshot is of a paused
machine and loaded by a fresh process only, and that paths of drives and kernels must exist.

What is started is a real guest: QEMU's microvm, emulated, with the kernel, the initial file system
and the disk it was told of.  What it changes, because QEMU is not Firecracker:
- the kernel's words: `reboot=k` and `pci=off` name what QEMU's machine has not, and an emulated
  processor's clock must be told; `berth.vsock_port` goes, since hosts lack the vsock that QEMU needs.
- the guest's port is a virtio-serial one, to which this program joins whoever asks the vsock's
  socket for that port (`CONNECT n`, `OK m`), hanging up as long as the guest has not opened it.
- a snapshot's file holds QEMU's devices beside the configuration; that of memory is as it would be.
  With Uffd the memory comes from whoever answers page faults, by page faults, and is then QEMU's.
- rate limiters, metrics and the balloon are checked and do nothing.
With BERTH_NO_GUEST in its environment nothing is booted.  Python's standard library and QEMU is all
that it needs.
"""
import argparse
import base64
import ctypes
import http.server
import json
import mmap
import os
import queue
import select
import signal
import socket
import socketserver
import stat
import subprocess
import threading
import time

VERSION = "1.17.0"
PAYLOAD_MAX = 51200
UNSTARTED_ONLY = "The requested operation is not supported after starting the microVM."
STARTED_ONLY = "The requested operation is not supported before starting the microVM."


GUESTS = not os.environ.get("BERTH_NO_GUEST")


class Refused(Exception):
    """Said to the client as `fault_message`."""


def whole(low=0, high=(1 << 63) - 1):
    return ("whole", low, high)


def one_of(*names):
    return ("one_of", names)


def list_of(what):
    return ("list", what)


# A form maps a member to (what it is, whether it must be there).
def must(what):
    return (what, True)


def may(what):
    return (what, False)


BUCKET = {"size": must(whole()), "refill_time": must(whole()), "one_time_burst": may(whole())}
LIMITER = {"bandwidth": may(BUCKET), "ops": may(BUCKET)}
VM_FORM = {"vcpu_count": must(whole(1, 32)), "mem_size_mib": must(whole(1)), "smt": may(bool),
           "track_dirty_pages": may(bool),
           "cpu_template": may(one_of("C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None")),
           "huge_pages": may(one_of("None", "Transparent", "2M"))}
ANY = "any"
TEXTS = list_of(str)
FORMS = {
    "/actions": {"action_type": must(one_of("FlushMetrics", "InstanceStart", "SendCtrlAltDel"))},
    "/balloon": {"amount_mib": must(whole()), "deflate_on_oom": must(bool),
                 "stats_polling_interval_s": may(whole(0, 65535)), "free_page_hinting": may(bool),
                 "free_page_reporting": may(bool)},
    "PATCH /balloon": {"amount_mib": must(whole())},
    "PATCH /balloon/statistics": {"stats_polling_interval_s": must(whole(0, 65535))},
    "PATCH /balloon/hinting/start": {"acknowledge_on_stop": may(bool)},
    "PATCH /balloon/hinting/stop": {},
    "/boot-source": {"kernel_image_path": must(str), "initrd_path": may(str),
                     "boot_args": may(str)},
    "/cpu-config": {name: may(list_of(ANY)) for name in
                    ("kvm_capabilities", "cpuid_modifiers", "msr_modifiers", "reg_modifiers",
                     "vcpu_features")},
    "/drives/": {"drive_id": must(str), "is_root_device": must(bool), "partuuid": may(str),
                 "cache_type": may(one_of("Unsafe", "Writeback")), "is_read_only": may(bool),
                 "path_on_host": may(str), "rate_limiter": may(LIMITER),
                 "io_engine": may(one_of("Sync", "Async")), "socket": may(str)},
    "PATCH /drives/": {"drive_id": must(str), "path_on_host": may(str),
                       "rate_limiter": may(LIMITER)},
    "/pmem/": {"id": must(str), "path_on_host": must(str), "root_device": may(bool),
               "read_only": may(bool), "rate_limiter": may(LIMITER)},
    "PATCH /pmem/": {"id": must(str), "rate_limiter": may(LIMITER)},
    "/logger": {"level": may(str), "log_path": may(str), "show_level": may(bool),
                "show_log_origin": may(bool), "module": may(str)},
    "/machine-config": VM_FORM,
    "PATCH /machine-config": {name: (what, False) for name, (what, _) in VM_FORM.items()},
    "/metrics": {"metrics_path": must(str)},
    "/mmds": ANY,
    "PATCH /mmds": ANY,
    "/mmds/config": {"network_interfaces": must(TEXTS), "version": may(one_of("V1", "V2")),
                     "ipv4_address": may(str), "imds_compat": may(bool)},
    "/entropy": {"rate_limiter": may(LIMITER)},
    "/serial": {"serial_out_path": may(str), "rate_limiter": may(BUCKET)},
    "/hotplug/memory": {"total_size_mib": may(whole()), "slot_size_mib": may(whole(128)),
                        "block_size_mib": may(whole(2))},
    "PATCH /hotplug/memory": {"requested_size_mib": may(whole())},
    "/network-interfaces/": {"iface_id": must(str), "host_dev_name": must(str),
                             "guest_mac": may(str), "mtu": may(whole(68, 65535)),
                             "rx_rate_limiter": may(LIMITER), "tx_rate_limiter": may(LIMITER)},
    "PATCH /network-interfaces/": {"iface_id": must(str), "rx_rate_limiter": may(LIMITER),
                                   "tx_rate_limiter": may(LIMITER)},
    "/snapshot/create": {"mem_file_path": must(str), "snapshot_path": must(str),
                         "snapshot_type": may(one_of("Full", "Diff"))},
    "/snapshot/load": {"snapshot_path": must(str), "mem_file_path": may(str),
                       "mem_backend": may({"backend_type": must(one_of("File", "Uffd")),
                                           "backend_path": must(str)}),
                       "resume_vm": may(bool), "track_dirty_pages": may(bool),
                       "enable_diff_snapshots": may(bool), "clock_realtime": may(bool),
                       "network_overrides": may(list_of({"iface_id": must(str),
                                                         "host_dev_name": must(str)})),
                       "vsock_override": may({"uds_path": must(str)})},
    "PATCH /vm": {"state": must(one_of("Paused", "Resumed"))},
    "/vsock": {"guest_cid": must(whole(3, (1 << 32) - 1)), "uds_path": must(str),
               "vsock_id": may(str)},
}
# Paths that end with an id, and the member that repeats it.
NAMED = {"/drives/": "drive_id", "/pmem/": "id", "/network-interfaces/": "iface_id"}
READ = ("/", "/balloon", "/balloon/statistics", "/balloon/hinting/status", "/machine-config",
        "/mmds", "/hotplug/memory", "/version", "/vm/config")
ANY_TIME = ("/mmds", "/logger", "/metrics", "/actions", "/snapshot/create")
CHANGED_BEFORE = ("PATCH /machine-config", "PATCH /mmds", "PATCH /vm")


def check(value, what, where):
    """Holds a value to its form."""
    if what == ANY:
        good = True
    elif isinstance(what, dict):
        good = isinstance(value, dict)
        if good:
            for name in value:
                if name not in what:
                    raise Refused(f"unknown field `{name}` in {where}")
            for name, (form, needed) in what.items():
                if needed and name not in value:
                    raise Refused(f"missing field `{name}` in {where}")
                if value.get(name) is not None:
                    check(value[name], form, f"{where}.{name}")
                elif needed:
                    raise Refused(f"null is no value of {where}.{name}")
    elif what in (bool, str):
        good = isinstance(value, what)
    elif what[0] == "whole":
        good = type(value) is int and what[1] <= value <= what[2]
    elif what[0] == "one_of":
        good = value in what[1]
    else:
        good = isinstance(value, list)
        for one in value if good else ():
            check(one, what[1], where)
    if not good:
        raise Refused(f"invalid value of {where}")


LIBC = ctypes.CDLL(None, use_errno=True)
WAIT_S = 60
PORT_BYTES_MAX = 1 << 20


def die_with_parent():
    LIBC.prctl(1, signal.SIGKILL)


def clock_khz():
    """How fast the processor's counter is, which the emulated one shows."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("0f3148c1e2204809d0c3"))
    place = ctypes.addressof(ctypes.c_char.from_buffer(code))
    count = ctypes.CFUNCTYPE(ctypes.c_uint64)(place)
    began, first = time.monotonic_ns(), count()
    time.sleep(0.05)
    ended, last = time.monotonic_ns(), count()
    return (last - first) * 1_000_000 // (ended - began)


def adapted(words):
    """The kernel's words, for QEMU; and the vsock port that they name."""
    port, kept = 0, []
    for word in words.split():
        if word.startswith("berth.vsock_port="):
            port = int(word.split("=")[1])
        elif word == "reboot=k":
            kept.append("reboot=t")
        elif word != "pci=off":
            kept.append(word)
    kept += ["tsc=reliable", "no_timer_check", f"tsc_early_khz={clock_khz()}"]
    return " ".join(kept), port


def copy_memory(read, begin, end, to):
    """Copies what is not zero."""
    piece = 1 << 20
    nothing = bytes(piece)
    for at in range(begin, end, piece):
        data = read(at, min(piece, end - at))
        if data != nothing[:len(data)]:
            os.pwrite(to, data, at)


def copy_file(source, size, to):
    """Copies the parts of a file that are there."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(source, end, os.SEEK_DATA)
        except OSError:
            return
        end = min(os.lseek(source, begin, os.SEEK_HOLE), size)
        copy_memory(lambda at, count: os.pread(source, count, at), begin, end, to)


class Memory:
    """What a snapshot's memory is read from by page faults, as Firecracker's is."""

    def __init__(self, size, handler_path):
        self.map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        # By this process alone, which is what one without privileges may ask for.
        self.faults = LIBC.syscall(323, os.O_CLOEXEC | os.O_NONBLOCK | 1)
        if self.faults < 0:
            raise Refused(f"userfaultfd: {os.strerror(ctypes.get_errno())}")
        api = (ctypes.c_uint64 * 3)(0xAA, 0, 0)
        register = (ctypes.c_uint64 * 4)(address, size, 1, 0)
        for name, request, what in (("api", 0xC018AA3F, api), ("register", 0xC020AA00, register)):
            if LIBC.ioctl(self.faults, ctypes.c_ulong(request), what) != 0:
                raise Refused(f"userfaultfd, {name}: {os.strerror(ctypes.get_errno())}")
        self.handler = socket.socket(socket.AF_UNIX)
        try:
            self.handler.connect(handler_path)
        except OSError as why:
            raise Refused(f"Nobody listens at the backend's path: {why}") from why
        text = json.dumps([{"base_host_virt_addr": address, "size": size, "offset": 0,
                            "page_size": 4096}])
        socket.send_fds(self.handler, [text.encode()], [self.faults])

    def read(self, at, count):
        return self.map[at:at + count]


class Bridge(threading.Thread):
    """Joins who connects to the vsock's socket and asks for the port with the guest's own port."""

    def __init__(self, path, number, port, is_open):
        super().__init__(daemon=True)
        if os.path.exists(path):
            raise Refused(f"Cannot create the vsock's socket, the address is in use: {path}")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.number, self.port, self.is_open = number, port, is_open
        self.asking = {}  # who connected: what it has said so far
        self.peer = None
        self.to_host = b""
        self.to_guest = b""
        self.calls = queue.Queue()
        self.woken, self.wake = os.pipe()
        for one in (self.listener, port):
            one.setblocking(False)

    def call(self, what):
        """Has something done in the thread."""
        done = threading.Event()
        self.calls.put((what, done))
        os.write(self.wake, b"x")
        done.wait(WAIT_S)

    def rest(self):
        """Of a guest that stands still: passes on all that it said."""
        def drain():
            while self.hear_guest():
                pass
            self.tell_host()
        self.call(drain)

    def reset(self):
        """A snapshot ends every conversation."""
        self.call(self.hang_up)

    def hang_up(self):
        if self.peer:
            self.peer.close()
        self.peer, self.to_guest, self.to_host = None, b"", b""

    def run(self):
        while True:
            readers = [self.listener, self.woken, *self.asking]
            writers = []
            if len(self.to_host) < PORT_BYTES_MAX:
                readers.append(self.port)
            if self.peer and len(self.to_guest) < PORT_BYTES_MAX:
                readers.append(self.peer)
            if self.peer and self.to_host:
                writers.append(self.peer)
            if self.to_guest:
                writers.append(self.port)
            can_read, _, _ = select.select(readers, writers, [])
            if self.woken in can_read:
                os.read(self.woken, 1)
                what, done = self.calls.get()
                what()
                done.set()
                continue
            if self.listener in can_read:
                came, _ = self.listener.accept()
                came.setblocking(False)
                self.asking[came] = b""
            if self.port in can_read:
                self.hear_guest()
            if self.peer and self.peer in can_read:
                self.hear_host()
            for one in [one for one in can_read if one in self.asking]:
                self.hear_call(one)
            self.tell_guest()
            self.tell_host()

    def hear_call(self, one):
        try:
            byte = one.recv(1)
        except BlockingIOError:
            return
        except OSError:
            byte = b""
        self.asking[one] += byte
        said = self.asking[one]
        if byte and not said.endswith(b"\n") and len(said) < 32:
            return
        del self.asking[one]
        words = said.split()
        if (len(words) != 2 or words[0].upper() != b"CONNECT" or words[1] != b"%d" % self.number
                or not self.is_open.is_set()):
            one.close()
            return
        # A guest's port takes the newest.
        if self.peer:
            self.peer.close()
        one.sendall(b"OK 1073741824\n")
        self.peer, self.to_guest = one, b""

    def hear_guest(self):
        try:
            data = self.port.recv(1 << 16)
        except BlockingIOError:
            return False
        self.to_host += data
        return bool(data)

    def hear_host(self):
        try:
            data = self.peer.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.to_guest += data
        else:
            self.peer.close()
            self.peer = None

    def tell_guest(self):
        try:
            if self.to_guest:
                self.to_guest = self.to_guest[self.port.send(self.to_guest):]
        except OSError:
            pass

    def tell_host(self):
        try:
            if self.peer and self.to_host:
                self.to_host = self.to_host[self.peer.send(self.to_host):]
        except OSError:
            pass


class Guest:
    """A QEMU, its monitor and its port."""

    def __init__(self, config, incoming=None):
        self.size = config["machine-config"]["mem_size_mib"] << 20
        # Where files are in memory, if there is such a place.
        self.place = "saved/" if os.path.isdir("saved") else "./"
        self.memory_path = f"{self.place}.memory-{os.getpid()}"
        self.memory = os.open(self.memory_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.ftruncate(self.memory, self.size)
        self.is_open = threading.Event()
        self.answers = queue.Queue()
        boot = config.get("boot-source", {})
        monitor, its_monitor = socket.socketpair()
        self.port, its_port = socket.socketpair()
        arguments = self.arguments(config, its_monitor.fileno(), its_port.fileno())
        if incoming is None:
            words, self.vsock_port = adapted(boot.get("boot_args", ""))
            arguments += ["-kernel", boot["kernel_image_path"], "-append", words]
            if boot.get("initrd_path"):
                arguments += ["-initrd", boot["initrd_path"]]
        else:
            incoming["fill"](self.memory)
            self.vsock_port = incoming["vsock_port"]
            if incoming["open"]:
                self.is_open.set()
            arguments += ["-incoming", "defer", "-S"]
        self.process = subprocess.Popen(arguments, preexec_fn=die_with_parent,
                                        stdin=subprocess.DEVNULL,
                                        pass_fds=(its_monitor.fileno(), its_port.fileno()))
        its_monitor.close()
        its_port.close()
        self.monitor = monitor.makefile("rw", encoding="utf-8")
        threading.Thread(target=self.listen, daemon=True).start()
        self.ask("qmp_capabilities")
        os.unlink(self.memory_path)
        if incoming is not None:
            self.take(incoming["devices"])

    def arguments(self, config, monitor, port):
        size = f"{self.size >> 20}M"
        all_of = ["/usr/bin/qemu-system-x86_64", "-accel", "tcg,thread=single,tb-size=64", "-cpu",
                  "max", "-machine", "microvm,pit=on,pic=on,rtc=on,isa-serial=on,acpi=on,"
                  "memory-backend=ram,suppress-vmdesc=on", "-m", size, "-object",
                  f"memory-backend-file,id=ram,size={size},mem-path={self.memory_path},share=on",
                  "-global", "migration.send-configuration=off", "-nodefaults", "-no-user-config",
                  "-display", "none", "-no-reboot", "-chardev", f"socket,id=monitor,fd={monitor}",
                  "-mon", "chardev=monitor,mode=control", "-chardev",
                  "stdio,id=console,signal=off", "-serial", "chardev:console"]
        for name, drive in sorted(config["drives"].items()):
            only = "on" if drive.get("is_read_only") else "off"
            all_of += ["-blockdev", f"driver=file,node-name={name},filename={drive['path_on_host']},"
                       f"read-only={only},locking=off", "-device", f"virtio-blk-device,drive={name}"]
        if "entropy" in config:
            all_of += ["-device", "virtio-rng-device"]
        return all_of + ["-device", "virtio-serial-device", "-chardev", f"socket,id=port,fd={port}",
                         "-device", "virtserialport,chardev=port,name=berth,id=berth"]

    def listen(self):
        """Whoever is gone behind the API takes it along, as a guest's end is Firecracker's."""
        for line in self.monitor:
            said = json.loads(line)
            event = said.get("event")
            if event == "VSERPORT_CHANGE" and said["data"]["id"] == "berth":
                (self.is_open.set if said["data"]["open"] else self.is_open.clear)()
            elif event in ("SHUTDOWN", "GUEST_PANICKED"):
                break
            elif "return" in said or "error" in said:
                self.answers.put(said)
        os._exit(0)

    def ask(self, name, **arguments):
        self.monitor.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.monitor.flush()
        said = self.answers.get(timeout=WAIT_S)
        if "error" in said:
            raise Refused(f"{name}: {said['error']['desc']}")
        return said["return"]

    def devices(self):
        path = f"{self.place}.devices-{os.getpid()}"
        self.ask("xen-save-devices-state", filename=path, live=False)
        with open(path, "rb") as file:
            data = file.read()
        os.unlink(path)
        return data

    def take(self, devices):
        path = f"{self.place}.devices-{os.getpid()}"
        with open(path, "wb") as file:
            file.write(devices)
        self.ask("migrate-incoming", uri=f"exec:cat {path}")
        until = time.monotonic() + WAIT_S
        while self.ask("query-status")["status"] == "inmigrate" and time.monotonic() < until:
            time.sleep(0.002)
        os.unlink(path)


def must_exist(path):
    if not os.path.exists(path):
        raise Refused(f"No such file or directory: {path}")


class Machine:
    def __init__(self, name):
        self.name = name
        self.state = "Not started"
        self.config = {"machine-config": {"vcpu_count": 1, "mem_size_mib": 128, "smt": False,
                                          "track_dirty_pages": False, "huge_pages": "None"},
                       "drives": {}, "network-interfaces": {}, "pmem": {}}
        self.fresh = True
        self.lock = threading.Lock()
        self.guest = None
        self.bridge = None

    def read(self, path):
        if path == "/":
            return {"id": self.name, "state": self.state, "vmm_version": VERSION,
                    "app_name": "Firecracker"}
        if path == "/version":
            return {"firecracker_version": VERSION}
        if path == "/vm/config":
            return {name: list(value.values()) if name in ("drives", "network-interfaces", "pmem")
                    else value for name, value in self.config.items()}
        found = self.config.get(path[1:])
        if found is None:
            raise Refused(f"{path} is not configured")
        return found

    def change(self, method, path, body):
        form, name = path, None
        for prefix in NAMED:
            if path.startswith(prefix) and "/" not in path[len(prefix):] and path != prefix:
                form, name = prefix, path[len(prefix):]
        key = form if method == "PUT" else f"{method} {form}"
        if key not in FORMS:
            raise Refused(f"Invalid request method and/or path: {method} {path}.")
        check(body, FORMS[key], path)
        if name is not None and body[NAMED[form]] != name:
            raise Refused("The id from the path does not match the id from the body!")
        started = self.state != "Not started"
        if method == "PUT" and started and form not in ANY_TIME:
            raise Refused(UNSTARTED_ONLY)
        if method == "PATCH" and not started and (key not in CHANGED_BEFORE or key == "PATCH /vm"):
            raise Refused(STARTED_ONLY)
        if key == "PATCH /machine-config" and started:
            raise Refused(UNSTARTED_ONLY)
        special = {"/actions": self.act, "PATCH /vm": self.move, "/snapshot/create": self.save,
                   "/snapshot/load": self.load}.get(key)
        if special:
            return special(body)
        return self.configure(method, form, name, body)

    def configure(self, method, form, name, body):
        kind = form.strip("/")
        if kind in ("metrics", "logger"):
            path = body.get("metrics_path", body.get("log_path"))
            if kind == "metrics" and "metrics" in self.config:
                raise Refused("Reinitialization of metrics not allowed.")
            if path is not None and kind == "metrics":
                must_exist(path)
        else:
            self.fresh = False
        for member in ("kernel_image_path", "initrd_path", "path_on_host"):
            if body.get(member) is not None:
                must_exist(body[member])
        if form == "/drives/" and method == "PUT":
            if ("path_on_host" in body) == ("socket" in body):
                raise Refused("A drive has either path_on_host or socket.")
            if body["is_root_device"] and any(
                    other["is_root_device"] for id, other in self.config["drives"].items()
                    if id != name):
                raise Refused("A root block device already exists!")
        if kind == "machine-config":
            count = body.get("vcpu_count", 1)
            if body.get("smt") and count != 1 and count % 2:
                raise Refused("With SMT the vCPU count is 1 or even.")
        if name is not None:
            if method == "PATCH" and name not in self.config[kind]:
                raise Refused(f"No device {name}.")
            self.config[kind][name] = {**self.config[kind].get(name, {}), **body}
        elif method == "PATCH":
            if kind not in self.config:
                raise Refused(f"{form} is not configured")
            self.config[kind] = {**self.config[kind], **body}
        else:
            self.config[kind] = body

    def join(self):
        """The socket of the vsock device."""
        if "vsock" in self.config:
            port = self.guest.port if self.guest else socket.socketpair()[0]
            number = self.guest.vsock_port if self.guest else 0
            is_open = self.guest.is_open if self.guest else threading.Event()
            self.bridge = Bridge(self.config["vsock"]["uds_path"], number, port, is_open)
            self.bridge.start()

    def act(self, body):
        action = body["action_type"]
        started = self.state != "Not started"
        if action == "InstanceStart":
            if started:
                raise Refused(UNSTARTED_ONLY)
            if "boot-source" not in self.config:
                raise Refused("Cannot start microvm without kernel configuration.")
            if GUESTS:
                self.guest = Guest(self.config)
            self.join()
            self.state = "Running"
        elif not started:
            raise Refused(STARTED_ONLY)
        elif action == "FlushMetrics":
            if "metrics" not in self.config:
                raise Refused("Metrics are not configured.")
            with open(self.config["metrics"]["metrics_path"], "a", encoding="utf-8") as file:
                file.write('{"utc_timestamp_ms": 0}\n')

    def move(self, body):
        pauses = body["state"] == "Paused"
        if self.guest:
            self.guest.ask("stop" if pauses else "cont")
            if pauses and self.bridge:
                self.bridge.rest()
        self.state = "Paused" if pauses else "Running"

    def save(self, body):
        if self.state == "Not started":
            raise Refused(STARTED_ONLY)
        if self.state != "Paused":
            raise Refused("Cannot create a snapshot while the microVM is running.")
        size = self.config["machine-config"]["mem_size_mib"] << 20
        kept = {"config": self.config}
        if self.bridge:
            self.bridge.reset()
        if self.guest:
            kept["devices"] = base64.b64encode(self.guest.devices()).decode()
            kept["vsock_port"] = self.guest.vsock_port
            kept["open"] = self.guest.is_open.is_set()
        with open(body["snapshot_path"], "w", encoding="utf-8") as file:
            json.dump(kept, file)
        with open(body["mem_file_path"], "wb") as file:
            file.truncate(size)
            if self.guest:
                copy_file(self.guest.memory, size, file.fileno())

    def load(self, body):
        if not self.fresh:
            raise Refused("Loading a microVM snapshot not allowed after configuring boot-specific "
                          "resources.")
        if ("mem_file_path" in body) == ("mem_backend" in body):
            raise Refused("Exactly one of `mem_backend` and `mem_file_path` must be given.")
        backend = body.get("mem_backend", {"backend_type": "File",
                                           "backend_path": body.get("mem_file_path")})
        must_exist(body["snapshot_path"])
        must_exist(backend["backend_path"])
        by_faults = backend["backend_type"] == "Uffd"
        if by_faults and not stat.S_ISSOCK(os.stat(backend["backend_path"]).st_mode):
            raise Refused("Nobody listens at the backend's path.")
        try:
            with open(body["snapshot_path"], encoding="utf-8") as file:
                saved = json.load(file)
            kept = saved["config"]
            size = kept["machine-config"]["mem_size_mib"] << 20
        except (ValueError, KeyError, TypeError) as why:
            raise Refused(f"The snapshot's file is damaged: {why}") from why
        if not by_faults and os.path.getsize(backend["backend_path"]) != size:
            raise Refused("The file of memory has another size than the snapshot.")
        for device in kept["drives"].values():
            must_exist(device["path_on_host"])
        metrics = self.config.get("metrics")
        self.config = {name: value for name, value in kept.items()
                       if name not in ("boot-source", "metrics")}
        if metrics:
            self.config["metrics"] = metrics
        if "vsock_override" in body:
            if "vsock" not in self.config:
                raise Refused("There is no vsock to override.")
            self.config["vsock"]["uds_path"] = body["vsock_override"]["uds_path"]
        self.fresh = False
        if by_faults:
            memory = Memory(size, backend["backend_path"])
        if "devices" in saved and GUESTS:
            def fill(to):
                if by_faults:
                    return copy_memory(memory.read, 0, size, to)
                with open(backend["backend_path"], "rb") as file:
                    copy_file(file.fileno(), size, to)
            self.guest = Guest(self.config, {
                "fill": fill, "vsock_port": saved["vsock_port"], "open": saved["open"],
                "devices": base64.b64decode(saved["devices"])})
        self.join()
        if body.get("resume_vm") and self.guest:
            self.guest.ask("cont")
        self.state = "Running" if body.get("resume_vm") else "Paused"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def address_string(self):
        return ""

    def answer(self, status, value=None):
        text = f"HTTP/1.1 {status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
        body = b"" if value is None else json.dumps(value).encode()
        if body:
            text += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.wfile.write(text.encode() + b"\r\n" + body)

    def serve(self):
        try:
            length = int(self.headers.get("Content-Length", 0))
            if length > PAYLOAD_MAX:
                self.close_connection = True
                raise Refused("The body is larger than the server takes.")
            body = self.rfile.read(length)
            if self.command == "GET":
                if body:
                    raise Refused("GET request cannot have a body.")
                if self.path not in READ:
                    raise Refused(f"Invalid request method and/or path: GET {self.path}.")
                with self.server.machine.lock:
                    return self.answer(200, self.server.machine.read(self.path))
            bodiless = self.path in ("/balloon/hinting/start", "/balloon/hinting/stop")
            if not body and not bodiless:
                raise Refused(f"Empty {self.command} request.")
            try:
                value = json.loads(body) if body else {}
            except ValueError as why:
                raise Refused(f"An error occurred when deserializing the json body: {why}") from why
            with self.server.machine.lock:
                self.server.machine.change(self.command, self.path, value)
            self.answer(204)
        except Refused as why:
            self.answer(400, {"fault_message": str(why)})
        except OSError as why:
            self.answer(400, {"fault_message": f"Input/output: {why}"})

    do_GET = do_PUT = do_PATCH = do_POST = do_DELETE = serve


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Several connections, one request after the other, as Firecracker's own is one thread."""
    daemon_threads = True

    def get_request(self):
        request, _ = super().get_request()
        return request, ("local", 0)


def main():
    reader = argparse.ArgumentParser()
    reader.add_argument("--api-sock", required=True)
    reader.add_argument("--id", default="anonymous-instance")
    for name in ("--start-time-us", "--start-time-cpu-us", "--parent-cpu-time-us"):
        reader.add_argument(name, type=int)
    said = reader.parse_args()
    with Server(said.api_sock, Handler) as server:
        server.machine = Machine(said.id)
        server.serve_forever()


if __name__ == "__main__":
    main()
