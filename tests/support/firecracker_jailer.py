#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Plays Firecracker's jailer, for tests, after its published documentation.

It takes the same words, makes the same directory, copies the program into it, sets the limits,
becomes the user, and the program, with an empty environment.  What it leaves out: the root is not
changed, for neither Python nor QEMU would be in there, and no devices are made.
"""
import argparse
import os
import re
import resource
import shutil
import sys
import time


def main():
    reader = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("--id", "--exec-file"):
        reader.add_argument(name, required=True)
    for name in ("--uid", "--gid"):
        reader.add_argument(name, required=True, type=int)
    reader.add_argument("--chroot-base-dir", default="/srv/jailer")
    reader.add_argument("--cgroup-version", default="1", choices=("1", "2"))
    reader.add_argument("--cgroup", action="append", default=[])
    reader.add_argument("--parent-cgroup")
    reader.add_argument("--netns")
    reader.add_argument("--resource-limit", action="append", default=[])
    reader.add_argument("--daemonize", action="store_true")
    reader.add_argument("--new-pid-ns", action="store_true")
    words = sys.argv[1:]
    extra = []
    if "--" in words:
        extra = words[words.index("--") + 1:]
        words = words[:words.index("--")]
    said = reader.parse_args(words)
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", said.id):
        sys.exit("Jailer error: Invalid instance ID")
    program = os.path.realpath(said.exec_file)
    name = os.path.basename(program)
    if "firecracker" not in name or not os.path.isfile(program):
        sys.exit(f"Jailer error: {program} is not the file of a Firecracker")
    if not os.path.isdir(said.chroot_base_dir):
        sys.exit("Jailer error: the base directory is not there")
    if said.cgroup or said.parent_cgroup or said.netns or said.daemonize or said.new_pid_ns:
        sys.exit("Jailer error: that is not played here")
    os.closerange(3, 4096)
    root = os.path.join(os.path.realpath(said.chroot_base_dir), name, said.id, "root")
    os.makedirs(root, exist_ok=True)
    shutil.copy(program, os.path.join(root, name))
    limits = {"no-file": (resource.RLIMIT_NOFILE, 2048)}
    for one in said.resource_limit:
        what, value = one.split("=")
        if what not in ("fsize", "no-file"):
            sys.exit(f"Jailer error: Invalid resource argument: {what}")
        which = resource.RLIMIT_FSIZE if what == "fsize" else resource.RLIMIT_NOFILE
        limits[what] = (which, int(value))
    for which, value in limits.values():
        resource.setrlimit(which, (value, value))
    os.chdir(root)
    for folder in (".", "dev", "dev/net", "run"):
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o700)
        os.chown(folder, said.uid, said.gid)
    os.setgroups([])
    os.setgid(said.gid)
    os.setuid(said.uid)
    now = str(time.monotonic_ns() // 1000)
    # Python would look for its program by the whole path, which is not this user's to go.
    run = f"exec(compile(open({name!r}).read(), {name!r}, 'exec'))"
    os.execve("/usr/bin/python3", ["python3", "-c", run, "--id", said.id, "--start-time-us", now,
                                   "--start-time-cpu-us", now, *extra], {})


if __name__ == "__main__":
    main()
