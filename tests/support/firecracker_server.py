#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Plays the API of Firecracker, for tests: no kernel boots behind it.

    firecracker_server.py --api-sock PATH [--id ID]

Written after Firecracker's published description of its API (1.17): every path and method of it,
the members each body must have and may have, their types, bounds and names, what is allowed before
the start and what after it, and the shapes of its answers: 204, 200 with JSON, 400 with
`fault_message`.
Beyond the description it knows that the id in a path is the body's, that a snapshot is of a paused
machine and loaded by a fresh process only, and that paths of drives and kernels must exist.
A snapshot is a pair of files that hold the configuration; Uffd needs somebody who listens, and gets
nothing.  Python's standard library is all that it needs.
"""
import argparse
import json
import os
import socket
import socketserver
import http.server
import stat

VERSION = "1.17.0"
PAYLOAD_MAX = 51200
UNSTARTED_ONLY = "The requested operation is not supported after starting the microVM."
STARTED_ONLY = "The requested operation is not supported before starting the microVM."


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
        self.listeners = []

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

    def listen(self):
        """The socket of the vsock device; nobody listens in a guest that is none."""
        if "vsock" in self.config:
            path = self.config["vsock"]["uds_path"]
            if os.path.exists(path):
                raise Refused(f"Cannot create the vsock's socket, the address is in use: {path}")
            made = socket.socket(socket.AF_UNIX)
            made.bind(path)
            made.listen()
            self.listeners.append(made)

    def act(self, body):
        action = body["action_type"]
        started = self.state != "Not started"
        if action == "InstanceStart":
            if started:
                raise Refused(UNSTARTED_ONLY)
            if "boot-source" not in self.config:
                raise Refused("Cannot start microvm without kernel configuration.")
            self.listen()
            self.state = "Running"
        elif not started:
            raise Refused(STARTED_ONLY)
        elif action == "FlushMetrics":
            if "metrics" not in self.config:
                raise Refused("Metrics are not configured.")
            with open(self.config["metrics"]["metrics_path"], "a", encoding="utf-8") as file:
                file.write('{"utc_timestamp_ms": 0}\n')

    def move(self, body):
        self.state = "Paused" if body["state"] == "Paused" else "Running"

    def save(self, body):
        if self.state == "Not started":
            raise Refused(STARTED_ONLY)
        if self.state != "Paused":
            raise Refused("Cannot create a snapshot while the microVM is running.")
        with open(body["snapshot_path"], "w", encoding="utf-8") as file:
            json.dump(self.config, file)
        with open(body["mem_file_path"], "wb") as file:
            file.truncate(self.config["machine-config"]["mem_size_mib"] << 20)

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
        if backend["backend_type"] == "Uffd":
            if not stat.S_ISSOCK(os.stat(backend["backend_path"]).st_mode):
                raise Refused("Nobody listens at the backend's path.")
            with socket.socket(socket.AF_UNIX) as handler:
                try:
                    handler.connect(backend["backend_path"])
                except OSError as why:
                    raise Refused(f"Nobody listens at the backend's path: {why}") from why
        try:
            with open(body["snapshot_path"], encoding="utf-8") as file:
                kept = json.load(file)
        except ValueError as why:
            raise Refused(f"The snapshot's file is damaged: {why}") from why
        if backend["backend_type"] == "File" and os.path.getsize(
                backend["backend_path"]) != kept["machine-config"]["mem_size_mib"] << 20:
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
        self.listen()
        self.fresh = False
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
                return self.answer(200, self.server.machine.read(self.path))
            bodiless = self.path in ("/balloon/hinting/start", "/balloon/hinting/stop")
            if not body and not bodiless:
                raise Refused(f"Empty {self.command} request.")
            try:
                value = json.loads(body) if body else {}
            except ValueError as why:
                raise Refused(f"An error occurred when deserializing the json body: {why}") from why
            self.server.machine.change(self.command, self.path, value)
            self.answer(204)
        except Refused as why:
            self.answer(400, {"fault_message": str(why)})
        except OSError as why:
            self.answer(400, {"fault_message": f"Input/output: {why}"})

    do_GET = do_PUT = do_PATCH = do_POST = do_DELETE = serve


class Server(socketserver.UnixStreamServer):
    """One connection after the other, as Firecracker's own is one thread."""

    def get_request(self):
        request, _ = super().get_request()
        return request, ("local", 0)


def main():
    reader = argparse.ArgumentParser()
    reader.add_argument("--api-sock", required=True)
    reader.add_argument("--id", default="anonymous-instance")
    said = reader.parse_args()
    with Server(said.api_sock, Handler) as server:
        server.machine = Machine(said.id)
        server.serve_forever()


if __name__ == "__main__":
    main()
