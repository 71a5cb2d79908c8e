// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/skip.hpp"

#include <cstdlib>

using namespace berth::test;

TEST_CASE("A Python program finds no way out of its machine") {
  NEEDS_SERVER();
  ::setenv("BERTH_TEST_SECRET", "of-the-host", 1);
  REQUIRE_SCRIPT(shared_server(), R"py(
probe = r"""
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
escaped = []

def denied(name, attempt):
    try:
        got = attempt()
    except (OSError, ValueError):
        return
    escaped.append((name, repr(got)[:100]))

def call(number, *arguments):
    ctypes.set_errno(0)
    got = libc.syscall(number, *arguments)
    if got < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return got

machine_has = {"/home": {"agent"}, "/var": {"tmp"}, "/run": {"lock", "shm"}}
for path in ("/root", "/home", "/var", "/run", "/sys", "/proc/1/root", "/proc/1/cwd"):
    try:
        found = set(os.listdir(path)) - machine_has.get(path, set())
    except OSError:
        continue
    if found:
        escaped.append((path, sorted(found)[:10]))
for path in ("/etc/shadow", "/etc/machine-id", "/proc/1/environ", "/proc/1/mem", "/proc/kcore",
             "/proc/sys/kernel/core_pattern", "/proc/kallsyms", "/dev/kmsg", "/dev/mem",
             "/dev/kvm", "/dev/fuse", "/sys/fs/cgroup/cgroup.procs", "/proc/keys"):
    denied("read " + path, lambda: open(path, "rb").read(64) or open("/nowhere"))
for path in ("/usr/bin/evil", "/etc/passwd", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger",
             "/usr/lib/evil"):
    denied("write " + path, lambda: open(path, "r+" if os.path.exists(path) else "w").write("x"))
denied("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
denied("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
denied("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
denied("netlink", lambda: socket.socket(16, socket.SOCK_RAW, 0))
for port in PORTS:
    denied(f"port {port}", lambda: socket.create_connection(("127.0.0.1", port), 2))
denied("internet", lambda: socket.create_connection(("192.0.2.1", 80), 2))
denied("server's socket", lambda: socket.socket(socket.AF_UNIX).connect(IPC))
denied("mount", lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, None))
denied("umount", lambda: call(166, b"/proc", 2))
for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000):
    denied(f"unshare {flag:#x}", lambda: call(272, flag))
denied("ptrace", lambda: call(101, 16, 1, None, None))
denied("keyctl", lambda: call(250, 0, -3, 1))
denied("add_key", lambda: call(248, b"user", b"k", b"v", 1, -3))
denied("bpf", lambda: call(321, 0, None, 0))
denied("perf_event_open", lambda: call(298, None, 0, -1, -1, 0))
denied("userfaultfd", lambda: call(323, 0))
denied("io_uring_setup", lambda: call(425, 8, ctypes.create_string_buffer(256)))
denied("open_by_handle_at", lambda: call(304, -100, ctypes.create_string_buffer(64), 0))
denied("kexec_load", lambda: call(246, 0, 0, None, 0))
denied("init_module", lambda: call(175, None, 0, b""))
denied("process_vm_readv", lambda: call(310, 1, None, 0, None, 0) or open("/nowhere"))
denied("chroot", lambda: os.chroot("/tmp"))
denied("setuid 0", lambda: os.setuid(0))
denied("mknod", lambda: os.mknod("/tmp/sda", 0o060666, os.makedev(8, 0)))
denied("sethostname", lambda: socket.sethostname("evil"))
denied("settime", lambda: __import__("time").clock_settime(0, 0))
if any("of-the-host" in value for value in os.environ.values()):
    escaped.append(("environment", dict(os.environ)))
links = {}
for fd in os.listdir("/proc/self/fd"):
    try:
        links[fd] = os.readlink("/proc/self/fd/" + fd)
    except OSError:
        pass  # the one that listed the directory
if set(links) - {"0", "1", "2"}:
    escaped.append(("open files", links))
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
    if int(status[name], 16):
        escaped.append((name, status[name]))
if status["Seccomp"].strip() != "2" or status["NoNewPrivs"].strip() != "1":
    escaped.append(("filters", status["Seccomp"] + status["NoNewPrivs"]))
if os.getuid() != 1000 or os.getgid() != 1000:
    escaped.append(("identity", os.getuid()))
if not any(name.isdigit() for name in os.listdir("/proc")):
    escaped.append(("no processes seen", os.listdir("/proc")))
print(escaped)
sys.exit(1 if escaped else 0)
"""
ports = [int(ROUTER_PORT), int(HTTP_PORT), 22]
probe = f"PORTS = {ports}\nIPC = {IPC[6:]!r}\n" + probe
answer = python(probe)
assert answer["exit_code"] == 0, (answer["stdout"].decode(), answer["stderr"].decode())
)py");
}

TEST_CASE("A Bash program finds no way out of its machine") {
  NEEDS_SERVER();
  ::setenv("BERTH_TEST_SECRET", "of-the-host", 1);
  REQUIRE_SCRIPT(shared_server(), R"py(
probe = r"""
escaped=0
denied() {
  if timeout 3 bash -c "$1" > /tmp/said 2>&1; then
    echo "not denied: $1: $(head -c 100 /tmp/said)"; escaped=1
  fi
}
denied 'ls /root | grep .'
denied 'cat /etc/shadow'
denied 'cat /proc/1/environ | grep -a .'
denied 'env | grep -q of-the-host'
denied 'ls /proc/1/root/'
denied 'exec 3<>/dev/tcp/127.0.0.1/ROUTER'
denied 'exec 3<>/dev/tcp/127.0.0.1/HTTP'
denied 'mount -t tmpfs none /tmp'
denied 'mount --bind /usr /work'
denied 'unshare -U true'
denied 'unshare -rm true'
denied 'unshare -n true'
denied 'nsenter -t 1 -m true'
denied 'chroot / true'
denied 'su -c true'
denied 'sudo -n true'
denied 'echo evil > /usr/bin/evil'
denied 'echo x > /proc/sys/kernel/core_pattern'
denied 'echo 1 > /proc/self/oom_score_adj && echo -1000 > /proc/self/oom_score_adj'
denied 'ulimit -n 9999999'
denied 'mknod /tmp/null c 1 3'
denied 'dmesg'
denied 'ls -d /sys/fs/cgroup/*'
denied 'hostname evil'
exit $escaped
""".replace("ROUTER", ROUTER_PORT).replace("HTTP", HTTP_PORT)
answer = run("bash", probe, timeout_ms=60_000)
assert answer["exit_code"] == 0, (answer["stdout"].decode(), answer["stderr"].decode())
)py");
}
