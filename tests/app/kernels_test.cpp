// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/skip.hpp"

#include <filesystem>

using namespace berth::test;

namespace {

/// Why there can be no live Python here; empty when there can.
std::string no_python_reason() {
  if (std::string reason = no_server_reason(); !reason.empty())
    return reason;
  if (!std::filesystem::exists("/usr/lib/python3/dist-packages/IPython"))
    return "python3-ipython is not installed";
  return {};
}

#define NEEDS_PYTHON()                                                                             \
  do {                                                                                             \
    if (std::string reason = no_python_reason(); !reason.empty())                                  \
      return skip(reason);                                                                         \
  } while (false)

} // namespace

TEST_CASE("A session's live Python keeps what its cells make") {
  NEEDS_PYTHON();
  REQUIRE_SCRIPT(shared_server(), R"py(
def agent_cell(code):
    return python(code, agent_id="keeper", kernel=True)

first = agent_cell("import math\nx = 6\ndef f(): return x * 7\nprint('one')")
assert (first["state"], first["exit_code"], first["stdout"]) == ("exited", 0, b"one\n"), first
assert first["context"] == "python" and first["cell"]["execution_count"] == 1, first
second = agent_cell("f()")
assert second["cell"]["results"] == [{"data": {"text/plain": "42"}, "is_main_result": True}], second
assert second["stdout"] == b"" and second["path"] == "warm" and second["machine"] == first["machine"]
raised = agent_cell("1 / 0")
assert (raised["state"], raised["exit_code"]) == ("exited", 1), raised
assert raised["cell"]["error"]["name"] == "ZeroDivisionError", raised
assert b"ZeroDivisionError" in raised["stderr"] and raised["cell"]["kernel_alive"], raised
# A plain job of the same session sees the files and not the variables.
agent_cell("open('/work/made', 'w').write('by a cell')")
plain = run("python", "print(open('/work/made').read()); print('x' in globals())", agent_id="keeper")
assert plain["stdout"] == b"by a cell\nFalse\n" and "cell" not in plain or plain["cell"] is None, plain
entry = ask("history", job=second["job"])["entries"][0]["result"]
assert value(entry) == "42", entry
ask("close_session", session=first["session"])
)py");
}

TEST_CASE("Contexts of a session are apart, and are listed, restarted and closed by name") {
  NEEDS_PYTHON();
  REQUIRE_SCRIPT(shared_server(), R"py(
session = ask("open_session", name="contexts")["session"]
made = ask("open_context", session=session, context="a", language="py", cwd="/tmp")
assert (made["context"], made["language"], made["state"]) == ("a", "python", "idle"), made
assert made["session"] == session, made
unnamed = ask("open_context", session=session, language="python")["context"]
def in_context(context, code):
    return python(code, session=session, context=context)
in_context("a", "x = 1")
assert in_context("b", "x")["cell"]["error"]["name"] == "NameError"
assert in_context("a", "import os; print(os.getcwd(), x)")["stdout"] == b"/tmp 1\n"
names = [c["context"] for c in ask("contexts", session=session)["contexts"]]
assert names == ["a", unnamed, "b"], names
assert refused("open_context", session=session, context="a", language="python") == "already_exists"
wrong = run("bash", "true", session=session, context="a")
assert wrong["state"] == "blocked" and "interpreter of python" in wrong["detail"], wrong
# A failed cell is followed by a snapshot, for which the machine rests.
for _ in range(3):
    busy = ask("submit", language="python", code="print('up')\nwhile True: pass", session=session,
               context="a")["job"]
    output_until(busy, b"up")
    again = ask("restart_context", session=session, context="a")
    assert end_of(busy)[0]["state"] == "cancelled"
assert again["execution_count"] == 0 and again["state"] == "idle", again
assert in_context("a", "x")["cell"]["error"]["name"] == "NameError"
assert ask("close_context", session=session, context="b")["context"] == "b"
assert refused("interrupt", session=session, context="b") == "not_found"
assert refused("close_context", session=session, context="b") == "not_found"
assert len(ask("contexts", session=session)["contexts"]) == 2
ask("close_session", session=session)
)py");
}

TEST_CASE("An interrupt, a cancel and a time limit end a cell and keep its variables") {
  NEEDS_PYTHON();
  REQUIRE_SCRIPT(shared_server(), R"py(
session = ask("open_session", name="stops")["session"]
cell(session, "x = 5")
loop = "print('up')\nwhile True: pass"
def started():
    job = ask("submit", language="python", code=loop, session=session, kernel=True)["job"]
    output_until(job, b"up")
    return job
job = started()
busy = ask("contexts", session=session)["contexts"][0]
assert busy["state"] == "busy", busy
assert ask("interrupt", session=session, context="python")["was_busy"]
ended, out, err = end_of(job)
assert (ended["state"], ended["exit_code"]) == ("exited", 1), ended
assert ended["cell"]["error"]["name"] == "KeyboardInterrupt" and b"KeyboardInterrupt" in err, ended
assert not ask("interrupt", session=session, context="python")["was_busy"]
job = started()
ask("cancel", job=job)
ended, _, _ = end_of(job)
assert ended["state"] == "cancelled" and ended["cell"]["kernel_alive"], ended
late = cell(session, loop, timeout_ms=300)
assert late["state"] == "timed_out" and late["stdout"] == b"up\n", late
assert late["cell"]["kernel_alive"] and "exit_code" not in late or late["exit_code"] is None, late
assert value(cell(session, "x")) == "5"
deaf = cell(session, "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "while True: pass", timeout_ms=300)
assert deaf["state"] == "timed_out" and not deaf["cell"]["kernel_alive"], deaf
fresh = cell(session, "x")
assert fresh["cell"]["error"]["name"] == "NameError" and "new interpreter" in fresh["detail"], fresh
ask("close_session", session=session)
)py");
}

TEST_CASE("A live interpreter that dies is told by the operating system's word, and replaced") {
  NEEDS_PYTHON();
  REQUIRE_SCRIPT(shared_server(), R"py(
session = ask("open_session", name="deaths", memory_mib=128)["session"]
for code, state, exit_code, signal in (
        ("import os; os._exit(7)", "exited", 7, None),
        ("import os; os.kill(os.getpid(), 9)", "signalled", None, 9),
        ("import ctypes; ctypes.string_at(0)", "signalled", None, 11)):
    died = cell(session, "print('last', flush=True); " + code)
    assert (died["state"], died.get("exit_code"), died.get("signal")) == (state, exit_code, signal)
    assert died["stdout"] == b"last\n" and not died["cell"]["kernel_alive"], died
    until(lambda: ask("contexts", session=session)["contexts"][0]["state"] == "dead", "dead")
    after = cell(session, "1 + 1")
    assert value(after) == "2", after
    assert "new interpreter" in after["detail"], after
ask("close_session", session=session)
)py");
}

TEST_CASE("A cell that needs too much memory ends as out of memory") {
  NEEDS_PYTHON();
  if (!shared_server().has_cgroups())
    return skip("the host gives no memory cgroup");
  REQUIRE_SCRIPT(shared_server(), R"py(
session = ask("open_session", name="memory", memory_mib=128)["session"]
died = cell(session, "x = []\nwhile True: x.append(bytearray(1 << 20))")
assert died["state"] == "out_of_memory" and not died["cell"]["kernel_alive"], died
assert cell(session, "1")["exit_code"] == 0
ask("close_session", session=session)
)py");
}

TEST_CASE("A cell shows what it displays in all its forms, and reads its input") {
  NEEDS_PYTHON();
  REQUIRE_SCRIPT(shared_server(), R"py(
session = ask("open_session", name="shows")["session"]
shown = cell(session, "from IPython.display import HTML, display\ndisplay(HTML('<b>1</b>'))\n'x'")
shown = shown["cell"]["results"]
assert shown[0]["data"]["text/html"] == "<b>1</b>" and not shown[0]["is_main_result"], shown
assert shown[1] == {"data": {"text/plain": "'x'"}, "is_main_result": True}, shown
job = ask("submit", language="python", code="n = input('n? ')\nprint(int(n) * 2)", session=session,
          kernel=True, stdin_open=True)["job"]
output_until(job, b"n? ")
ask("write_stdin", job=job, data=b"21\n")
ended, out, err = end_of(job)
assert out == b"n? 42\n" and ended["exit_code"] == 0, (ended, out, err)
given = cell(session, "import sys; sys.stdin.read()", stdin=b"given")
assert value(given) == "'given'", given
ask("close_session", session=session)
)py");
}

TEST_CASE("A cell's figures of matplotlib arrive as images without being asked for") {
  NEEDS_PYTHON();
  if (!std::filesystem::exists("/usr/lib/python3/dist-packages/matplotlib"))
    return skip("python3-matplotlib is not installed");
  REQUIRE_SCRIPT(shared_server(), R"py(
session = ask("open_session", name="figures")["session"]
drawn = cell(session, "import matplotlib.pyplot as plt\n_ = plt.plot([1, 3, 2])")
assert drawn["exit_code"] == 0 and drawn["stderr"] == b"", drawn
assert drawn["cell"]["results"][0]["data"]["image/png"].startswith("iVBORw0KGgo"), drawn
ask("close_session", session=session)
)py");
}

TEST_CASE("Two hundred cells that are sent at once run in order") {
  NEEDS_PYTHON();
  REQUIRE_SCRIPT(shared_server(), R"py(
session = ask("open_session", name="orderly")["session"]
cell(session, "seen = []")
client = Client()
sent = {client.send("run", language="python", code=f"seen.append({i}); {i}", session=session,
                    kernel=True): i for i in range(200)}
while sent:
    id, answer = client.receive()
    assert not isinstance(answer, Refused), answer
    assert value(answer) == str(sent.pop(id)), answer
last = cell(session, "seen == list(range(200))")
assert value(last) == "True", last
ask("close_session", session=session)
)py");
}

TEST_CASE("A live interpreter is refused by the member at fault where none can be") {
  NEEDS_SERVER();
  REQUIRE_SCRIPT(shared_server(), R"py(
def why(**body):
    try:
        ask("run", **body)
    except Refused as error:
        return error.name, error.detail.split(":")[0]
assert why(language="python", code="1", kernel=True) == ("malformed", "kernel")
assert why(language="python", code="1", context="x") == ("malformed", "context")
assert why(language="python", code="1", agent_id="a", one_shot=True, kernel=True)[0] == "malformed"
assert why(language="rust", code="fn main() {}", agent_id="a", kernel=True) == ("unsupported", "kernel")
assert why(language="go", code="package main", agent_id="a", context="c") == ("unsupported", "context")
assert why(language="python", code="1", agent_id="a", kernel=True, args=["x"]) == ("malformed", "args")
assert why(language="python", code="1", agent_id="a", kernel=True, env={"A": "b"}) == ("malformed", "env")
assert refused("open_context", session="nowhere", language="python") == "not_found"
assert refused("open_context", session="nowhere", language="cobol") == "unsupported"
assert refused("contexts", session="nowhere") == "not_found"
)py");
}
