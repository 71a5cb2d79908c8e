// SPDX-License-Identifier: Apache-2.0
#include "tests/guest/machine.hpp"
#include "tests/support/skip.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <filesystem>
#include <set>
#include <unistd.h>
#include <vector>

using namespace berth;
using namespace berth::test;

namespace {

bytes as_bytes(std::string_view text) {
  return {text.begin(), text.end()};
}

/// Why the tests cannot have live interpreters of a language here; said once.
bool lacks(const std::string& language) {
  static const std::string no_machine = no_machine_reason();
  std::string reason = no_machine;
  if (reason.empty() && language == "python"
      && !std::filesystem::exists("/usr/lib/python3/dist-packages/IPython"))
    reason = "python3-ipython is not installed";
  if (reason.empty() && language == "javascript" && !std::filesystem::exists("/usr/bin/node"))
    reason = "node is not installed";
  if (!reason.empty())
    skip(reason);
  return !reason.empty();
}

/// A machine with a live Python named "a".
struct python_machine : machine {
  python_machine() {
    expect<guest::hello>();
    std::string error = open("a", "python");
    INFO(error);
    REQUIRE(error.empty());
  }
};

} // namespace

TEST_CASE("variables, imports, functions and the directory stay from cell to cell", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  CHECK(box.run("a", "x = 20\nimport math\ndef twice(n): return 2 * n").exit_code() == 0);
  auto result = box.run("a", "print(twice(x) + math.floor(2.5)); x + 1");
  CHECK(result.out == "42\n");
  CHECK(result.err.empty());
  CHECK(result.value() == "21");
  CHECK(result.ended->report.execution_count == 2);
  CHECK(result.alive());
  CHECK(box.run("a", "import os; os.mkdir('d'); os.chdir('d')").exit_code() == 0);
  CHECK(box.run("a", "print(os.getcwd())").out == "/mnt/d\n");
}

TEST_CASE("two interpreters see nothing of each other and run side by side", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  REQUIRE(box.open("b", "python") == "");
  CHECK(box.run("a", "x = 1").exit_code() == 0);
  auto result = box.run("b", "x");
  CHECK(result.exit_code() == 1);
  CHECK(result.error() == "NameError");
  auto waits = box.cell("a", "print('up'); import time; time.sleep(1000)");
  box.send(waits);
  CHECK(box.output_until(waits.job, "up\n") == "up\n");
  CHECK(box.run("b", "2 + 2").value() == "4");
  box.send(guest::interrupt_kernel{"a"});
  CHECK(box.gather_cell(waits.job).error() == "KeyboardInterrupt");
  CHECK(box.run("a", "x").value() == "1");
}

TEST_CASE("a cell that raises tells the exception, and its interpreter lives on", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  auto result = box.run("a", "def f():\n    raise ValueError('no \\u00e4')\nf()");
  CHECK(result.exit_code() == 1);
  REQUIRE(result.ended->report.error);
  CHECK(result.ended->report.error->name == "ValueError");
  CHECK(result.ended->report.error->value == "no ä");
  CHECK(result.ended->report.error->traceback.find("raise ValueError") != std::string::npos);
  CHECK(result.ended->report.error->traceback.find('\x1b') == std::string::npos);
  CHECK(result.err.find("ValueError: no ä") != std::string::npos);
  CHECK(box.run("a", "if").error() == "SyntaxError");
  CHECK(box.run("a", "import sys; sys.exit(3)").error() == "SystemExit");
  CHECK(box.run("a", "sys.exit()").exit_code() == 0);
  CHECK(box.run("a", "1").value() == "1");
}

TEST_CASE("what a cell displays arrives in all its forms, in order", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  auto result = box.run("a", R"py(
from IPython.display import display, HTML, JSON, SVG, Markdown, Latex, Image
display(HTML("<b>x</b>"), Markdown("*m*"), Latex("$x$"), JSON({"k": [1, None]}))
display(SVG("<svg xmlns='http://www.w3.org/2000/svg'></svg>"))
display(Image(b"\x89PNG\r\n\x1a\n", format="png"))
class Both:
    def _repr_html_(self): return "<i>both</i>"
    def __repr__(self): return "both"
Both()
)py");
  REQUIRE(result.exit_code() == 0);
  const auto& shown = result.ended->report.results;
  REQUIRE(shown.size() == 7);
  CHECK(shown[0].data.at("text/html") == "<b>x</b>");
  CHECK(shown[1].data.at("text/markdown") == "*m*");
  CHECK(shown[2].data.at("text/latex") == "$x$");
  CHECK(shown[3].data.at("application/json") == R"({"k": [1, null]})");
  CHECK(shown[4].data.at("image/svg+xml").starts_with("<svg"));
  CHECK(shown[5].data.at("image/png") == "iVBORw0KGgo=");
  CHECK(shown[6].is_main_result);
  CHECK(shown[6].data.at("text/html") == "<i>both</i>");
  CHECK(shown[6].data.at("text/plain") == "both");
  CHECK(result.out.empty());
}

TEST_CASE("figures of matplotlib arrive as images without being asked for", "[kernels]") {
  if (lacks("python"))
    return;
  if (!std::filesystem::exists("/usr/lib/python3/dist-packages/matplotlib"))
    return skip("python3-matplotlib is not installed");
  python_machine box;
  auto result = box.run("a", "import matplotlib.pyplot as plt\n_ = plt.plot([1, 3, 2])");
  CAPTURE(result.err);
  REQUIRE(result.exit_code() == 0);
  REQUIRE(result.ended->report.results.size() == 1);
  CHECK(result.ended->report.results[0].data.at("image/png").starts_with("iVBORw0KGgo"));
}

TEST_CASE("results beyond the bounds are counted, not sent", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  auto result = box.run("a", "from IPython.display import display\n"
                             "for i in range(150): display(i)");
  CHECK(result.ended->report.results.size() == 100);
  CHECK(result.ended->results_lost == 50);
  result = box.run("a", "display({'text/plain': 'x' * 2_000_000}, raw=True)\n"
                        "display({'text/plain': 'x' * 2_000_000}, raw=True)\n"
                        "display({'text/plain': 'x' * 8_000_000}, raw=True)");
  CHECK(result.ended->report.results.size() == 1);
  CHECK(result.ended->results_lost == 2);
  CHECK(result.ended->results_lost_bytes > 10'000'000);
  CHECK(box.run("a", "1").value() == "1");
}

TEST_CASE("magics and shell lines do what IPython has them do", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  CHECK(box.run("a", "!echo from a shell").out == "from a shell\n");
  CHECK(box.run("a", "lines = !printf 'a\\nb'\nlist(lines)").value() == "['a', 'b']");
  CHECK(box.run("a", "%%bash\necho $((6 * 7))").out == "42\n");
  CHECK(box.run("a", "%cd /tmp").exit_code() == 0);
  CHECK(box.run("a", "import os; os.getcwd()").value() == "'/tmp'");
  CHECK(box.run("a", "import asyncio\nawait asyncio.sleep(0.01)\nawait asyncio.sleep(0, 'late')")
            .value()
        == "'late'");
}

TEST_CASE("output arrives while a cell runs, and a cell takes input", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  auto asks = box.cell("a", "name = input('who? '); print('hello', name)");
  asks.stdin_open = true;
  box.send(asks);
  CHECK(box.output_until(asks.job, "who? ") == "who? ");
  box.send(guest::stdin_data{asks.job, as_bytes("you\n"), false});
  CHECK(box.gather_cell(asks.job).out == "hello you\n");
  auto reads = box.cell("a", "import sys; print(repr(sys.stdin.read()))");
  reads.stdin_open = true;
  box.send(reads);
  box.send(guest::stdin_data{reads.job, as_bytes("one\ntwo"), true});
  CHECK(box.gather_cell(reads.job).out == "'one\\ntwo'\n");
  CHECK(box.run("a", "input()").error() == "EOFError");
}

TEST_CASE("an interrupt stops a loop, a child and a waiting task, and keeps the state",
          "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  CHECK(box.run("a", "x = 5; import subprocess, asyncio, time").exit_code() == 0);
  for (const char* code : {"print('up')\nwhile True: pass", "print('up')\n!sleep 1000",
                           "print('up')\nsubprocess.run(['sleep', '1000'])",
                           "print('up')\nawait asyncio.sleep(1000)"}) {
    CAPTURE(code);
    auto cell = box.cell("a", code);
    box.send(cell);
    box.output_until(cell.job, "up");
    box.send(guest::interrupt_kernel{"a"});
    auto result = box.gather_cell(cell.job);
    CHECK(result.alive());
  }
  // When no cell runs it is nothing.
  box.send(guest::interrupt_kernel{"a"});
  CHECK(box.run("a", "x").value() == "5");
}

TEST_CASE("an interpreter that dies is told as the operating system tells it", "[kernels]") {
  if (lacks("python"))
    return;
  for (const auto& [code, exit_code, signal] :
       {std::tuple{"print('last'); import os; os._exit(7)", 7, -1},
        std::tuple{"print('last'); import os; os.kill(os.getpid(), 9)", -1, SIGKILL},
        std::tuple{"print('last'); import ctypes; ctypes.string_at(0)", -1, SIGSEGV},
        std::tuple{"print('last'); exit()", 0, -1}}) {
    CAPTURE(code);
    python_machine box;
    auto result = box.run("a", code);
    CHECK(result.out == "last\n");
    CHECK(result.exit_code() == exit_code);
    CHECK(result.signal() == signal);
    CHECK_FALSE(result.alive());
    auto ended = box.expect<guest::kernel_ended>();
    CHECK(ended.context == "a");
    CHECK(box.run("a", "1").refused);
    CHECK(box.open("a", "python").empty());
    CHECK(box.run("a", "1").value() == "1");
  }
}

TEST_CASE("closing an interpreter and ending its cell end all that it started", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  std::size_t before = box.processes();
  CHECK(box.run("a", "import subprocess\n"
                     "children = [subprocess.Popen(['sleep', '1000'], start_new_session=True) "
                     "for _ in range(5)]")
            .exit_code()
        == 0);
  auto cell = box.cell("a", "print('up')\nwhile True: pass");
  box.send(cell);
  box.output_until(cell.job, "up");
  box.send(guest::end_job{cell.job});
  auto result = box.gather_cell(cell.job);
  CHECK(result.signal() == SIGKILL);
  CHECK_FALSE(result.alive());
  box.expect<guest::kernel_ended>();
  CHECK(box.processes() < before);
  CHECK(box.open("a", "python").empty());
  box.send(guest::close_kernel{"a"});
  CHECK(*box.end_of("a").signal == SIGKILL);
}

TEST_CASE("children left in the background do not hold up their cell, nor mix into another",
          "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  auto result = box.run("a", "import subprocess, os\nos.mkfifo('f')\n"
                             "p = subprocess.Popen(['bash', '-c', 'echo now; read < f; echo late; "
                             "sleep 1000'])\n"
                             "print('done')");
  CHECK(result.out.find("done") != std::string::npos);
  CHECK(result.out.find("late") == std::string::npos);
  result =
      box.run("a", "open('f', 'w').write('go\\n')\nimport time; time.sleep(0.2); print('own')");
  CHECK(result.out == "own\n");
  // Its pipe was read all the while: it was not ended by a signal.
  CHECK(box.run("a", "p.poll()").value().empty());
}

TEST_CASE("two hundred quick cells give their answers in order", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  CHECK(box.run("a", "x = 0").exit_code() == 0);
  for (int i = 1; i <= 200; ++i) {
    auto result = box.run("a", "x += 1\nprint(x)");
    REQUIRE(result.out == std::to_string(i) + "\n");
    REQUIRE(result.ended->report.execution_count == static_cast<std::uint64_t>(i) + 1);
  }
}

TEST_CASE("a long cell reaches its interpreter whole", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  CHECK(box.run("a", "s = '" + std::string(500'000, 'x') + "'\nlen(s)").value() == "500000");
}

TEST_CASE("what an interpreter writes to the guest harms nobody but itself", "[kernels]") {
  if (lacks("python"))
    return;
  const std::string find_control =
      "import os, socket, struct\n"
      "fd = next(f for f in range(900, 2000) if os.path.exists(f'/proc/self/fd/{f}') "
      "and os.readlink(f'/proc/self/fd/{f}').startswith('socket'))\n"
      "def say(body): os.write(fd, struct.pack('<I', len(body)) + body)\n";
  for (const char* code :
       {"os.write(fd, b'\\xff' * 4096)", "say(b'?what')", "say(b'E' + b'\\xff' * 5)",
        "say(b'D\\x01\\xff\\xff')", "os.closerange(900, 1000)", "say(b'')"}) {
    CAPTURE(code);
    python_machine box;
    REQUIRE(box.open("b", "python") == "");
    auto result = box.run("a", find_control + code + "\nimport time; time.sleep(1000)");
    CHECK_FALSE(result.alive());
    CHECK(box.run("b", "1").value() == "1");
  }
  for (const char* code :
       {"say(b'E' + struct.pack('<IiIQB', 99, 0, 1, 0, 0))", "say(b'R' + struct.pack('<I', 1))",
        "say(b'P' + struct.pack('<I', 1))", "say(b't')", "say(b'f')", "say(b'Xno')",
        "say(b'D' + struct.pack('<BHI', 1, 1, 3) + b'\\xff\\xfea' + struct.pack('<I', 1) + "
        "b'\\xff')"}) {
    CAPTURE(code);
    python_machine box;
    auto result = box.run("a", find_control + code + "\n3");
    CHECK(result.alive());
    CHECK(result.value() == "3");
    CHECK(box.run("a", "4").value() == "4");
  }
}

TEST_CASE("an interpreter is refused by name when it cannot be had", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  CHECK(box.open("a", "python") == "an interpreter of this name lives");
  CHECK_FALSE(box.open("r", "rust").empty());
  CHECK_FALSE(box.open("c", "python", "/proc/nowhere").empty());
  for (int i = 1; i < 16; ++i)
    REQUIRE(box.open("more" + std::to_string(i), "python").empty());
  CHECK(box.open("last", "python") == "too many interpreters live in this machine");
  CHECK(box.run("nobody", "1").refused->reason == "no interpreter of this name lives");
}

TEST_CASE("a plain job leaves live interpreters alone", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  CHECK(box.run("a", "x = 1").exit_code() == 0);
  auto job = box.run(box.job("bash", "sleep 1000 & echo out"));
  CHECK(job.out == "out\n");
  CHECK(box.run("a", "x").value() == "1");
}

// --- the other languages -------------------------------------------------------------------------

TEST_CASE("a live Bash keeps variables, functions, options and its directory", "[kernels]") {
  if (lacks("bash"))
    return;
  machine box;
  box.expect<guest::hello>();
  REQUIRE(box.open("s", "bash") == "");
  CHECK(
      box.run("s", "x=5; f() { echo \"f:$x\"; }; set -f; cd /tmp; declare -A m=([k]=v)").exit_code()
      == 0);
  auto result = box.run("s", "f; echo * ${m[k]}; pwd; echo err >&2; (exit 7)");
  CHECK(result.out == "f:5\n* v\n/tmp\n");
  CHECK(result.err == "err\n");
  CHECK(result.exit_code() == 7);
  CHECK(result.ended->report.execution_count == 2);
  CHECK(box.run("s", "echo $?").out == "7\n");
  CHECK(box.run("s", "nosuchcommand").exit_code() == 127);
  CHECK(box.run("s", "if then").exit_code() == 2);
  CHECK(box.run("s", "set -u; echo $nothing").exit_code() == 1);
  CHECK(box.run("s", "echo $x").out == "5\n");
  auto asks = box.cell("s", "read -r line; echo got $line");
  asks.stdin_open = true;
  box.send(asks);
  box.send(guest::stdin_data{asks.job, as_bytes("this\nmore\n"), false});
  CHECK(box.gather_cell(asks.job).out == "got this\n");
  CHECK(box.run("s", "read -r line; echo $?").out == "1\n");
  CHECK(box.run("s", ": '" + std::string(200'000, 'x') + "'; echo long").out == "long\n");
}

TEST_CASE("an interrupt ends a cell of a live Bash and not the shell", "[kernels]") {
  if (lacks("bash"))
    return;
  machine box;
  box.expect<guest::hello>();
  REQUIRE(box.open("s", "bash") == "");
  CHECK(box.run("s", "x=5").exit_code() == 0);
  for (const char* code : {"echo up; sleep 1000; echo no", "echo up; while true; do :; done",
                           "f() { echo up; sleep 1000; }; f", "echo up; read -r never"}) {
    CAPTURE(code);
    auto cell = box.cell("s", code);
    cell.stdin_open = true;
    box.send(cell);
    box.output_until(cell.job, "up");
    box.send(guest::interrupt_kernel{"s"});
    auto result = box.gather_cell(cell.job);
    CHECK(result.alive());
    CHECK(result.exit_code() == 130);
    CHECK(box.run("s", "echo $x").out == "5\n");
  }
  for (int i = 1; i <= 200; ++i)
    REQUIRE(box.run("s", "echo $((++n))").out == std::to_string(i) + "\n");
  auto result = box.run("s", "echo bye; exit 9");
  CHECK(result.out == "bye\n");
  CHECK(result.exit_code() == 9);
  CHECK_FALSE(result.alive());
  CHECK(*box.end_of("s").exit_code == 9);
}

TEST_CASE("children of a live Bash do not hold up its cells", "[kernels]") {
  if (lacks("bash"))
    return;
  machine box;
  box.expect<guest::hello>();
  REQUIRE(box.open("s", "bash") == "");
  CHECK(box.run("s", "mkfifo /tmp/p; (echo now; read < /tmp/p; echo late; sleep 1000) & echo done")
            .exit_code()
        == 0);
  CHECK(box.run("s", "echo go > /tmp/p; sleep 0.2; echo own").out == "own\n");
  CHECK(box.run("s", "jobs -p | wc -l").out == "1\n");
}

TEST_CASE("a live Bash goes back to its parked copy, any number of times", "[kernels]") {
  if (lacks("bash"))
    return;
  machine box;
  box.expect<guest::hello>();
  REQUIRE(box.open("s", "bash") == "");
  CHECK(box.run("s", "x=1; f() { echo old; }; cd /tmp").exit_code() == 0);
  box.send(guest::freeze{.request = 1, .checkpoint = 4});
  CHECK(box.expect<guest::frozen>().contexts == std::vector<std::string>{"s"});
  box.send(guest::thaw{.request = 2});
  CHECK(box.expect<guest::thawed>().error.empty());
  std::set<std::string> drawn;
  for (int round = 0; round < 3; ++round) {
    CHECK(box.run("s", "x=2; f() { echo new; }; cd /; f").out == "new\n");
    box.send(guest::freeze{.request = 3});
    CHECK(box.expect<guest::frozen>().error.empty());
    box.send(guest::thaw{.request = 4, .checkpoint = 4});
    CHECK(box.expect<guest::thawed>().contexts == std::vector<std::string>{"s"});
    CHECK(box.run("s", "echo $x; f; pwd").out == "1\nold\n/tmp\n");
    drawn.insert(box.run("s", "echo $RANDOM $$").out);
    auto cell = box.cell("s", "echo up; sleep 1000");
    box.send(cell);
    box.output_until(cell.job, "up");
    box.send(guest::interrupt_kernel{"s"});
    CHECK(box.gather_cell(cell.job).exit_code() == 130);
  }
  CHECK(drawn.size() == 3);
}

TEST_CASE("a live Node keeps what its cells declare, awaits, and shows values", "[kernels]") {
  if (lacks("javascript"))
    return;
  machine box;
  box.expect<guest::hello>();
  REQUIRE(box.open("j", "javascript") == "");
  CHECK(box.run("j", "const x = 20; let y = 1; function twice(n) { return 2 * n }").exit_code()
        == 0);
  auto result = box.run("j", "console.log('out'); console.error('err'); twice(x) + y");
  CHECK(result.out == "out\n");
  CHECK(result.err == "err\n");
  CHECK(result.value() == "41");
  CHECK(box.run("j", "const z = await Promise.resolve({a: [1]}); z").value() == "{ a: [ 1 ] }");
  CHECK(box.run("j", "z.a.push(2); y = 5; undefined").value().empty());
  CHECK(box.run("j", "require('fs').readdirSync('/').includes('usr') && z.a[1] + y").value()
        == "7");
  result = box.run("j", "function boo() { throw new TypeError('bad') }\nboo()");
  CHECK(result.exit_code() == 1);
  CHECK(result.error() == "TypeError");
  CHECK(result.ended->report.error->traceback.find("at boo") != std::string::npos);
  CHECK(result.ended->report.error->traceback.find("node_kernel") == std::string::npos);
  CHECK(box.run("j", "(").error() == "SyntaxError");
  CHECK(box.run("j", "await Promise.reject(new Error('late'))").error() == "Error");
  CHECK(box.run("j", "setTimeout(() => { throw new Error('stray') }, 1); 1").value() == "1");
  CHECK(box.run("j", "await new Promise((done) => setTimeout(done, 50)); y").value() == "5");
  for (int i = 1; i <= 200; ++i)
    REQUIRE(box.run("j", "++y").value() == std::to_string(5 + i));
}

TEST_CASE("a live Node is interrupted, takes input, and its death is told", "[kernels]") {
  if (lacks("javascript"))
    return;
  machine box;
  box.expect<guest::hello>();
  REQUIRE(box.open("j", "javascript") == "");
  CHECK(box.run("j", "let x = 5").exit_code() == 0);
  for (const char* code :
       {"console.log('up'); while (true) {}", "console.log('up'); await new Promise(() => {})",
        "require('child_process').execSync('echo up; sleep 1000', {stdio: 'inherit'})"}) {
    CAPTURE(code);
    auto cell = box.cell("j", code);
    box.send(cell);
    box.output_until(cell.job, "up");
    box.send(guest::interrupt_kernel{"j"});
    auto result = box.gather_cell(cell.job);
    CHECK(result.alive());
    CHECK(result.exit_code() == 1);
    CHECK(box.run("j", "x").value() == "5");
  }
  // Each interface stays open, and reads at the end of its cell: what it reads is not the next
  // cell's.
  for (int round = 0; round < 20; ++round) {
    auto asks =
        box.cell("j", "const rl" + std::to_string(round)
                          + " = require('readline').createInterface({input: process.stdin});"
                            "await new Promise((d) => rl"
                          + std::to_string(round) + ".once('line', d))");
    asks.stdin_open = true;
    box.send(asks);
    box.send(guest::stdin_data{asks.job, as_bytes("a line\n"), false});
    CHECK(box.gather_cell(asks.job).value() == "'a line'");
  }
  auto result = box.run("j", "console.log('bye'); process.exit(7)");
  CHECK(result.out == "bye\n");
  CHECK(result.exit_code() == 7);
  CHECK_FALSE(result.alive());
}

TEST_CASE("an interrupt at any moment ends its own cell and no other", "[kernels]") {
  struct kind {
    const char* language;
    const char* set;
    const char* get;
    std::vector<const char*> endless;
  };
  for (const kind& each :
       {kind{"python",
             "x = 5",
             "print(x)",
             {"while True: pass", "import asyncio\nawait asyncio.sleep(1000)",
              "while True: print(1)"}},
        kind{"javascript",
             "var x = 5",
             "console.log(x)",
             {"while (true) {}", "await new Promise(() => {})", "while (true) console.log(1)"}},
        kind{"bash",
             "x=5",
             "echo $x",
             {"while :; do :; done", "sleep 1000", "while :; do echo 1 | cat; done"}}}) {
    if (lacks(each.language))
      continue;
    machine box;
    box.expect<guest::hello>();
    REQUIRE(box.open("a", each.language) == "");
    CHECK(box.run("a", each.set).exit_code() == 0);
    for (unsigned round = 0; round < 12; ++round) {
      auto cell = box.cell("a", each.endless[round % each.endless.size()]);
      CAPTURE(each.language, cell.code, round);
      box.send(cell);
      // At first before it begins, later a moment after.
      usleep(round / 3 * 1000);
      box.send(guest::interrupt_kernel{"a"});
      REQUIRE(box.gather_cell(cell.job).alive());
      REQUIRE(box.run("a", each.get).out == "5\n");
    }
  }
}

// --- rest ----------------------------------------------------------------------------------------

namespace {

guest::frozen freeze(machine& box, std::uint64_t checkpoint, bool force = false) {
  box.send(guest::freeze{.request = 1, .checkpoint = checkpoint, .force = force});
  return box.expect<guest::frozen>();
}

guest::thawed thaw(machine& box, std::uint64_t checkpoint) {
  box.send(guest::thaw{.request = 2, .checkpoint = checkpoint});
  return box.expect<guest::thawed>();
}

} // namespace

TEST_CASE("an interpreter goes back to its parked copy, any number of times", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  CHECK(box.run("a", "x = [1]; import os, random; os.chdir('/tmp')").exit_code() == 0);
  auto rest = freeze(box, 7);
  CHECK(rest.error.empty());
  CHECK(rest.contexts == std::vector<std::string>{"a"});
  CHECK(thaw(box, 0).contexts == std::vector<std::string>{"a"});
  std::set<std::string> drawn;
  for (int round = 0; round < 3; ++round) {
    CHECK(box.run("a", "x.append(2); y = 1; x").value() == "[1, 2]");
    CHECK(freeze(box, 0).error.empty());
    auto back = thaw(box, 7);
    CHECK(back.error.empty());
    CHECK(back.contexts == std::vector<std::string>{"a"});
    CHECK(box.run("a", "x").value() == "[1]");
    CHECK(box.run("a", "y").error() == "NameError");
    CHECK(box.run("a", "os.getcwd()").value() == "'/tmp'");
    drawn.insert(box.run("a", "random.random()").value());
    auto cell = box.cell("a", "print('up')\nwhile True: pass");
    box.send(cell);
    box.output_until(cell.job, "up");
    box.send(guest::interrupt_kernel{"a"});
    CHECK(box.gather_cell(cell.job).alive());
  }
  CHECK(drawn.size() == 3);
  // The copy is a process of its own; dropped, it is none.
  std::size_t with = box.processes();
  box.send(guest::drop_checkpoint{7});
  CHECK(box.run("a", "import time; time.sleep(0.1)").exit_code() == 0);
  CHECK(box.processes() == with - 1);
  box.send(guest::thaw{.request = 2, .checkpoint = 7});
  CHECK(box.expect<guest::kernel_ended>().context == "a");
  CHECK(box.expect<guest::thawed>().contexts.empty());
}

TEST_CASE("a copy that ends before it is parked is told, and is none", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  CHECK(box.run("a", "x = 1; import os\n"
                     "os.register_at_fork(after_in_child=lambda: os._exit(1))")
            .exit_code()
        == 0);
  auto rest = freeze(box, 5);
  CHECK(rest.error.empty());
  auto awake = thaw(box, 0);
  CHECK((rest.contexts.empty() || !awake.error.empty()));
  CHECK(awake.contexts == std::vector<std::string>{"a"});
  CHECK(box.run("a", "x").value() == "1");
  CHECK(freeze(box, 0).error.empty());
  box.send(guest::thaw{.request = 3, .checkpoint = 5});
  CHECK(box.expect<guest::kernel_ended>().context == "a");
  CHECK(box.expect<guest::thawed>().contexts.empty());
}

TEST_CASE("interpreters without a copy end when the machine goes back", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  CHECK(freeze(box, 1).error.empty());
  CHECK(thaw(box, 0).error.empty());
  REQUIRE(box.open("later", "python").empty());
  CHECK(freeze(box, 0).error.empty());
  box.send(guest::thaw{.request = 3, .checkpoint = 1});
  CHECK(box.expect<guest::kernel_ended>().context == "later");
  CHECK(box.expect<guest::thawed>().contexts == std::vector<std::string>{"a"});
  CHECK(box.run("a", "1").value() == "1");
  CHECK(box.run("later", "1").refused);
}

TEST_CASE("files that are open are opened again at the same place", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  CHECK(box.run("a", "f = open('/tmp/log', 'w'); _ = f.write('abc'); f.flush(); import os\n"
                     "r = open('/tmp/log'); r.read(1)\ninode = os.fstat(f.fileno()).st_ino")
            .exit_code()
        == 0);
  CHECK(freeze(box, 0).error.empty());
  CHECK(thaw(box, 0).error.empty());
  CHECK(box.run("a", "_ = f.write('def'); f.flush(); print(open('/tmp/log').read(), r.read())").out
        == "abcdef bcdef\n");
}

TEST_CASE("a machine does not rest while something runs in it", "[kernels]") {
  if (lacks("python"))
    return;
  python_machine box;
  auto cell = box.cell("a", "print('up')\nwhile True: pass");
  box.send(cell);
  box.output_until(cell.job, "up");
  CHECK(freeze(box, 1).error == "a cell runs in context a");
  box.send(guest::interrupt_kernel{"a"});
  CHECK(box.gather_cell(cell.job).alive());
  CHECK(box.run("a", "import subprocess; p = subprocess.Popen(['sleep', '1000'])").alive());
  CHECK(freeze(box, 1).error.starts_with("1 processes run in the background"));
  CHECK(freeze(box, 1, true).error.empty());
  CHECK(box.run(box.job("bash", "true")).refused->reason == "the machine rests");
  CHECK(thaw(box, 0).error.empty());
  CHECK(box.run("a", "p.kill(); p.wait()").alive());
  CHECK(freeze(box, 2).error.empty());
  CHECK(thaw(box, 0).error.empty());
}
