// SPDX-License-Identifier: Apache-2.0
#include "tests/machines/namespace/templates/harness.hpp"
#include "tests/support/skip.hpp"

#include <catch2/catch.hpp>

#include <cerrno>
#include <unistd.h>

using namespace berth::test;

namespace {

const std::string lib = BERTH_BUILD_DIR "/lib/berth/";

template_process& python() {
  static template_process process(
      {"/usr/bin/python3", "-u", "-X", "utf8", lib + "python_template.py"}, {"PATH=/usr/bin:/bin"});
  return process;
}

/// Runs one program in a fresh interpreter of a fresh machine.
job_outcome python_run(const std::string& description, const std::string& input = "") {
  bare_machine machine;
  interpreter warm;
  auto reply = python().inject(machine, warm);
  INFO(reply.step);
  REQUIRE(reply.error == 0);
  REQUIRE(await_ready(warm));
  return run_job(machine, warm, description, input);
}

bool possible() {
  static const auto obstacle = machine_obstacle();
  if (!obstacle.empty())
    skip(obstacle);
  return obstacle.empty();
}

} // namespace

TEST_CASE("A warm Python job prints and exits with its own code") {
  if (!possible())
    return;
  auto hello = python_run(describe_job("print('hello')"));
  CHECK(hello.out == "hello\n");
  CHECK(hello.err == "");
  CHECK(hello.status == 0);
}

TEST_CASE("A Python job ends with the interpreter's own exit codes") {
  if (!possible())
    return;
  CHECK(python_run(describe_job("import sys; sys.exit(7)")).status == 7);
  CHECK(python_run(describe_job("raise SystemExit")).status == 0);
  CHECK(python_run(describe_job("import os; os._exit(9)")).status == 9);
  CHECK(python_run(describe_job("import os, signal; os.kill(os.getpid(), 9)")).status == -9);
  CHECK(python_run(describe_job("raise KeyboardInterrupt")).status == -2);
  auto message = python_run(describe_job("import sys; sys.exit('no way')"));
  CHECK(message.status == 1);
  CHECK(message.err == "no way\n");
}

TEST_CASE("A Python traceback shows the user's lines and no frame of ours") {
  if (!possible())
    return;
  auto failed = python_run(describe_job("def f():\n  return 1 / 0\nf()\n"));
  CHECK(failed.status == 1);
  CHECK(failed.out == "");
  CHECK(failed.err
        == "Traceback (most recent call last):\n  File \"/work/main.py\", line 3, in <module>\n"
           "    f()\n  File \"/work/main.py\", line 2, in f\n    return 1 / 0\n           ~~^~~\n"
           "ZeroDivisionError: division by zero\n");
  auto syntax = python_run(describe_job("x = (\n"));
  CHECK(syntax.status == 1);
  CHECK(syntax.err
        == "  File \"/work/main.py\", line 1\n    x = (\n        ^\n"
           "SyntaxError: '(' was never closed\n");
  CHECK(python_run(describe_job("import sys; print(sys._getframe().f_back)")).out == "None\n");
}

TEST_CASE("A Python job sees its own name, arguments, environment, directory and input") {
  if (!possible())
    return;
  auto seen = python_run(describe_job(R"(
import os, sys
print(__name__, __file__, sys.argv, sys.path[0], os.getcwd())
print(sorted(os.environ.items()), sys.modules['__main__'].__dict__ is globals())
print(sorted(name for name in globals() if not name.startswith('__')))
print([name for name in sys.modules if 'berth' in name or name.endswith('_job')])
print(sorted(os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')))
print(input(), sys.stdin.read(), sys.stdout.encoding)
)",
                                      {"one", "two"}, R"({"A":"b"})", "my.py", "/tmp"),
                         "first\nrest");
  CHECK(seen.err == "");
  CHECK(seen.out
        == "__main__ /tmp/my.py ['my.py', 'one', 'two'] /tmp /tmp\n[('A', 'b')] True\n"
           "['os', 'sys']\n[]\n['0', '1', '2'] 4\nfirst rest utf-8\n");
}

TEST_CASE("What a Python program leaves to its end is done") {
  if (!possible())
    return;
  auto ended = python_run(describe_job(R"(
import atexit, threading, time
class Last:
    def __del__(self): print('deleted')
kept = Last()
threading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()
atexit.register(print, 'atexit')
print('main')
)"));
  CHECK(ended.out == "main\nthread\natexit\ndeleted\n");
  CHECK(ended.status == 0);
  auto file = python_run(describe_job("import builtins, os\n"
                                      "builtins.f = open(os.dup(1), 'w'); f.write('late')\n"));
  CHECK(file.out == "late");
  auto children = python_run(describe_job(R"(
import multiprocessing, subprocess
def double(x): return 2 * x
with multiprocessing.Pool(2) as pool: print(pool.map(double, [1, 2]))
print(subprocess.check_output(['bash', '-c', 'echo $0 sub']))
)"));
  CHECK(children.err == "");
  CHECK(children.out == "[2, 4]\nb'bash sub\\n'\n");
}

TEST_CASE("A cold Python job looks like a warm one") {
  if (!possible())
    return;
  const std::vector<std::string> cold{"/usr/bin/python3",         "-I", "-u", "-X", "utf8",
                                      "/opt/berth/python_job.py", "3"};
  for (const char* code :
       {"import sys; print(sys.argv, __file__, sys.path[0], input())", "def f():\n  1/0\nf()",
        "import sys; sys.exit('x')", "x = (", "import traceback; traceback.print_stack()"}) {
    auto description = describe_job(code, {"a"});
    auto one = python_run(description, "in\n");
    auto other = run_cold(cold, description, "in\n");
    CHECK(one.out == other.out);
    CHECK(one.err == other.err);
    CHECK(one.status == other.status);
  }
}

TEST_CASE("A job in a warm interpreter is confined") {
  if (!possible())
    return;
  auto seen = python_run(describe_job(R"(
import os, socket
status = open('/proc/self/status').read()
for name in ('Uid', 'CapPrm', 'CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp'):
    print(status.split(name + ':')[1].split('\n')[0].split()[0])
print(open('/proc/self/oom_score_adj').read().strip(), os.getsid(0) == os.getpid())
for attempt in (lambda: socket.socket(40, 1), lambda: open('/etc/x', 'w'), lambda: os.setuid(0)):
    try: attempt(); print('done')
    except OSError as error: print(error.errno)
)"));
  CHECK(seen.err == "");
  const std::string none(16, '0');
  CHECK(seen.out == "1000\n" + none + "\n" + none + "\n" + none + "\n1\n2\n500 True\n97\n13\n22\n");
}

TEST_CASE("A warm interpreter forks others, which are children of the first process too") {
  if (!possible())
    return;
  bare_machine machine;
  interpreter first;
  REQUIRE(python().inject(machine, first).error == 0);
  REQUIRE(await_ready(first));
  auto second = fork_interpreter(first);
  auto third = fork_interpreter(second);
  CHECK(first.pid != second.pid);
  auto job = describe_job("import random, uuid, os\nprint(random.random(), uuid.uuid4())\n");
  auto a = run_job(machine, second, job);
  auto b = run_job(machine, third, job);
  auto c = run_job(machine, first, describe_job("import os; print(os.getppid())"));
  CHECK(a.status == 0);
  CHECK(b.status == 0);
  CHECK(a.out != b.out);
  CHECK(c.out == "1\n");
}

TEST_CASE("A warm interpreter that is not needed ends with its socket") {
  if (!possible())
    return;
  bare_machine machine;
  interpreter warm;
  REQUIRE(python().inject(machine, warm).error == 0);
  REQUIRE(await_ready(warm));
  warm.control.reset();
  CHECK(machine.wait_for(warm.pid) == 0);
}

TEST_CASE("Two machines' interpreters draw different random numbers") {
  if (!possible())
    return;
  auto job = describe_job("import random; print(random.getrandbits(256))");
  CHECK(python_run(job).out != python_run(job).out);
}

TEST_CASE("A template says which step of an inject failed") {
  if (!possible())
    return;
  interpreter warm;
  int pidfd = -1;
  {
    bare_machine machine;
    pidfd = dup(machine.pidfd());
  }
  owned_fd dead(pidfd);
  auto reply = python().inject_into(dead.get(), warm);
  CHECK(reply.error == -ESRCH);
  CHECK(std::string(reply.step) == "setns");
}
