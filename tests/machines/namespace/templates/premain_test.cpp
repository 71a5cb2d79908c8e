// SPDX-License-Identifier: Apache-2.0
#include "tests/machines/namespace/templates/harness.hpp"
#include "tests/support/skip.hpp"

#include <catch2/catch.hpp>

#include <unistd.h>

using namespace berth::test;

namespace {

const std::string lib = BERTH_BUILD_DIR "/lib/berth/";

std::string words(const std::vector<std::string>& list) {
  std::string text;
  for (const auto& word : list)
    text += word + '\0';
  return text;
}

/// Runs one job of a template in a machine.
job_outcome premain_run(template_process& process, bare_machine& machine,
                        const std::string& description, const std::string& input = "") {
  interpreter warm;
  auto reply = process.inject(machine, warm);
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

TEST_CASE("Any dynamically linked program can stand before its main") {
  if (!possible())
    return;
  template_process bash({"/bin/bash", "-"},
                        {"PATH=/usr/bin:/bin", "LD_PRELOAD=" + lib + "premain.so"});
  bare_machine machine;
  auto result =
      premain_run(bash, machine,
                  words({"/tmp", "bash", "-c", "echo $0 $1 $PWD [$LD_PRELOAD]; cat; exit 6", "zero",
                         "one two"}),
                  "in");
  CHECK(result.err == "");
  CHECK(result.out == "zero one two /tmp []\nin");
  CHECK(result.status == 6);
}

TEST_CASE("A forked rustc compiles a program that runs, in full confinement") {
  if (!possible())
    return;
  if (access("/usr/bin/rustc", X_OK) != 0)
    return skip("there is no /usr/bin/rustc");
  template_process rustc({"/usr/bin/rustc", "@"},
                         {"PATH=/usr/bin:/bin", "LD_PRELOAD=" + lib + "premain.so"});
  template_process bash({"/bin/bash", "-"},
                        {"PATH=/usr/bin:/bin", "LD_PRELOAD=" + lib + "premain.so"});
  bare_machine machine;
  const std::string code = "fn main() { let t = std::thread::spawn(|| 6 * 7);"
                           " println!(\"{}\", t.join().unwrap()); }";
  CHECK(premain_run(bash, machine, words({"/work", "bash", "-c", "cat > h.rs"}), code).status == 0);
  auto compiled = premain_run(
      rustc, machine,
      words({"/work", "rustc", "--edition=2021", "-C", "debuginfo=0", "-o", "h", "h.rs"}));
  CHECK(compiled.err == "");
  CHECK(compiled.status == 0);
  CHECK(premain_run(bash, machine, words({"/work", "bash", "-c", "./h"})).out == "42\n");
  auto broken = premain_run(rustc, machine, words({"/work", "rustc", "missing.rs"}));
  CHECK(broken.status == 1);
  CHECK(broken.err.find("missing.rs") != std::string::npos);
}
