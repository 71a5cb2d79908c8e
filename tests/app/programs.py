# SPDX-License-Identifier: Apache-2.0
"""Runs every program of programs/*.txt bare on this host and in Berth, and compares what they wrote
and how they ended. A program begins with `#=# NAME {OPTIONS}`: args, stdin, env, the exit code that
is known ("exit", negative: a signal), and "any" for a stream whose text names paths or times."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from client import Client

HERE = pathlib.Path(__file__).parent / "programs"
BARE = {
    "python": ("main.py", "exec /usr/bin/python3 -u main.py \"$@\""),
    "javascript": ("main.js", "exec /usr/bin/node main.js \"$@\""),
    "bash": ("main.sh", "exec /bin/bash main.sh \"$@\""),
    "rust": ("main.rs", "/usr/bin/rustc --edition 2021 -o main main.rs && exec ./main \"$@\""),
    "go": ("main.go", "/usr/bin/go build -o main main.go && exec ./main \"$@\""),
}
# Of a run of this script: Go compiles its library once.
GO_CACHE = tempfile.TemporaryDirectory()


def programs(language):
    """(name, options, code) of each."""
    for part in (HERE / f"{language}.txt").read_text().split("#=# ")[1:]:
        head, _, code = part.partition("\n")
        name, _, options = head.partition(" ")
        options = json.loads(options or "{}")
        if "stdin_repeat" in options:
            text, times = options.pop("stdin_repeat")
            options["stdin"] = text * times
        yield name, options, code


def bare(language, options, code):
    """What the host's own tools make of it: exit code or negative signal, stdout, stderr."""
    name, command = BARE[language]
    with tempfile.TemporaryDirectory() as place:
        work = os.path.join(place, "work")
        os.mkdir(work)
        pathlib.Path(work, name).write_text(code)
        environment = {"PATH": "/usr/bin:/bin", "HOME": place, "LANG": "C.UTF-8",
                       "GOCACHE": GO_CACHE.name, "GO111MODULE": "off", **options.get("env", {})}
        # The shell says nothing of its own: it becomes the program.
        done = subprocess.run(["/bin/sh", "-c", command, "sh", *options.get("args", [])], cwd=work,
                              env=environment, input=options.get("stdin", "").encode(),
                              capture_output=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def cold(language, options, code):
    """The same program, so that no warm interpreter can serve it."""
    if language == "python":
        options = {**options, "env": {**options.get("env", {}), "PYTHONNOUSERSITE": ""}}
    if language == "javascript":
        code += "// not with worker_threads\n"
    return options, code


def in_berth(client, language, options, code):
    body = {"language": language, "code": code, "timeout_ms": 60_000,
            "args": options.get("args", []), "env": options.get("env", {}),
            "stdin": options.get("stdin", "").encode()}
    done = client.ask("run", **body)
    if done["state"] == "exited":
        ended = done["exit_code"]
    elif done["state"] == "signalled":
        ended = -done["signal"]
    else:
        ended = f"{done['state']}: {done.get('detail')}"
    return ended, done["stdout"], done["stderr"]


def plain(text, language):
    """Without what may differ: the program's own path, addresses, process ids."""
    text = re.sub(rb"(/[\w./-]*/|\b)main\.(py|js|sh|rs|go)\b", b"PROGRAM", text)
    text = re.sub(rb"0x[0-9a-f]{6,}", b"ADDRESS", text)
    text = re.sub(rb"\(node:\d+\)", b"(node)", text)
    if language == "javascript":  # frames of the loader, which is not ours
        text = re.sub(rb" *at [^\n]*node:internal[^\n]*\n", b"", text)
        text = re.sub(rb" *\.\.\. \d+ lines matching[^\n]*\n", b"", text)
    if language == "python":  # carets: none where only the file could be read
        text = re.sub(rb"\n *[\^~]+\n", b"\n", text)
    return text


def differences(client, language, options, code, is_cold):
    wanted = bare(language, options, code)
    given = cold(language, options, code) if is_cold else (options, code)
    got = in_berth(client, language, *given)
    if wanted[0] != options.get("exit", 0):
        yield f"known is exit {options.get('exit', 0)}, bare {wanted[0]!r}: {wanted[2][-300:]!r}"
    if wanted[0] != got[0]:
        yield f"exit: bare {wanted[0]!r}, Berth {got[0]!r} {got[2][-500:]!r}"
    for stream, number in (("stdout", 1), ("stderr", 2)):
        a, b = (plain(x[number], language) for x in (wanted, got))
        if options.get(stream) != "any" and a != b:
            yield f"{stream}: bare {a[:600]!r}, Berth {b[:600]!r}"


def compare(language, is_cold=False, only=""):
    """Fails where a program ends otherwise, or writes something else, than it does bare."""
    client, failed, count = Client(), 0, 0
    for name, options, code in programs(language):
        if only not in name:
            continue
        count += 1
        found = list(differences(client, language, options, code, is_cold))
        failed += bool(found)
        for line in found:
            print(f"{language} {name}: {line}")
    print(f"{count} programs, {failed} differ")
    assert count and not failed


if __name__ == "__main__":
    compare(sys.argv[1], "cold" in sys.argv, sys.argv[-1] if len(sys.argv) > 3 else "")
