// SPDX-License-Identifier: Apache-2.0
#include "tests/machines/namespace/templates/harness.hpp"
#include "tests/support/skip.hpp"

#include <catch2/catch.hpp>

#include <unistd.h>

using namespace berth::test;

namespace {

const std::string lib = BERTH_BUILD_DIR "/lib/berth/";

template_process& node() {
  static template_process process(
      {"/usr/bin/node", "--single-threaded", "--v8-pool-size=0", lib + "node_template.js"},
      {"PATH=/usr/bin:/bin", "LD_PRELOAD=" + lib + "keepfork.so"});
  return process;
}

job_outcome node_run(const std::string& description, const std::string& input = "") {
  bare_machine machine;
  interpreter warm;
  auto reply = node().inject(machine, warm);
  INFO(reply.step);
  REQUIRE(reply.error == 0);
  REQUIRE(await_ready(warm));
  return run_job(machine, warm, description, input);
}

job_outcome node_cold(const std::string& description) {
  return run_cold({"/usr/bin/node", "/opt/berth/node_job.js", "3"}, description);
}

bool possible() {
  static const auto obstacle =
      access("/usr/bin/node", X_OK) != 0 ? "there is no /usr/bin/node" : machine_obstacle();
  if (!obstacle.empty())
    skip(obstacle);
  return obstacle.empty();
}

} // namespace

TEST_CASE("A warm Node job prints all it has and exits with its own code") {
  if (!possible())
    return;
  auto hello = node_run(describe_job("console.log('hello')"));
  CHECK(hello.out == "hello\n");
  CHECK(hello.err == "");
  CHECK(hello.status == 0);
  CHECK(node_run(describe_job("process.exit(3)")).status == 3);
  CHECK(node_run(describe_job("process.exitCode = 4")).status == 4);
  auto much = node_run(describe_job("console.log('x'.repeat(1 << 20)); process.exit(0)"));
  CHECK(much.out.size() == (1U << 20) + 1);
  auto events = node_run(describe_job("process.on('exit', (c) => console.log('exit', c));"
                                      "setTimeout(() => console.log('timer'), 5);"
                                      "Promise.resolve().then(() => console.log('promise'));"
                                      "process.nextTick(() => console.log('tick'))"));
  CHECK(events.out == "tick\npromise\ntimer\nexit 0\n");
}

TEST_CASE("A Node job's uncaught error is displayed with its source line") {
  if (!possible())
    return;
  auto failed = node_run(describe_job("const a = null;\na.b;\n"));
  CHECK(failed.status == 1);
  CHECK(failed.err.rfind("/work/main.js:2\na.b;\n  ^\n\nTypeError: ", 0) == 0);
  CHECK(failed.err.find("lib/berth") == std::string::npos);
  auto rejected = node_run(describe_job("process.on('exit', (c) => console.log('exit', c));"
                                        "Promise.reject(new Error('no'))"));
  CHECK(rejected.status == 1);
  CHECK(rejected.out == "exit 1\n");
  CHECK(rejected.err.find("Error: no\n") != std::string::npos);
  CHECK(node_run(describe_job("let x = ;")).status == 1);
  CHECK(node_run(describe_job("process.on('uncaughtException', () => {}); throw 1")).status == 0);
}

TEST_CASE("A Node job sees its own name, arguments, environment, directory and input") {
  if (!possible())
    return;
  auto seen = node_run(describe_job(R"(
const fs = require('fs');
console.log(require.main === module, __filename, process.argv.slice(1).join(), process.cwd());
console.log(JSON.stringify(process.env), process.execArgv.length, process.pid > 1);
console.log(Object.keys(require.cache).join());
console.log(fs.readFileSync('/proc/self/environ', 'utf8').replace(/\0/g, ''));
fs.writeFileSync('x.js', 'module.exports = 5');
console.log(require('./x'));
process.stdin.on('data', (text) => console.log(String(text)));
)",
                                    {"one"}, R"({"A":"b"})", "my.js", "/tmp"),
                       "typed");
  CHECK(seen.err == "");
  CHECK(seen.out
        == "true /tmp/my.js /tmp/my.js,one /tmp\n{\"A\":\"b\"} 0 true\n/tmp/my.js\n\n5\ntyped\n");
}

TEST_CASE("Node jobs draw different random numbers and start children without our library") {
  if (!possible())
    return;
  auto job = describe_job("console.log(Math.random(), require('crypto').randomUUID())");
  bare_machine machine;
  interpreter first;
  REQUIRE(node().inject(machine, first).error == 0);
  REQUIRE(await_ready(first));
  auto second = fork_interpreter(first);
  auto a = run_job(machine, second, job);
  auto b = run_job(machine, first, job);
  CHECK(a.status == 0);
  CHECK(a.out.substr(0, 8) != b.out.substr(0, 8));
  CHECK(a.out.substr(a.out.size() - 20) != b.out.substr(b.out.size() - 20));
  auto child = node_run(
      describe_job("console.log(String(require('child_process').execSync('echo [$LD_PRELOAD]')))"));
  CHECK(child.out == "[]\n\n");
}

TEST_CASE("A cold Node job runs ES modules and worker threads") {
  if (!possible())
    return;
  auto esm = node_cold(describe_job("import fs from 'fs';\nconst x = await 5;\n"
                                    "console.log(x, import.meta.url, typeof fs.open);\n",
                                    {}, "{}", "main.mjs"));
  CHECK(esm.err == "");
  CHECK(esm.out == "5 file:///work/main.mjs function\n");
  auto worker = node_cold(describe_job("const {Worker, isMainThread} = require('worker_threads');\n"
                                       "if (isMainThread) new Worker(__filename);\n"
                                       "else console.log('worker');"));
  CHECK(worker.out == "worker\n");
  CHECK(worker.status == 0);
  auto plain = node_cold(describe_job("console.log(require.main === module); process.exit(5)"));
  CHECK(plain.out == "true\n");
  CHECK(plain.status == 5);
}
