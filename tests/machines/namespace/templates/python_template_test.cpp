// SPDX-License-Identifier: Apache-2.0
#include "tests/machines/namespace/templates/harness.hpp"
#include "tests/support/skip.hpp"

#include <catch2/catch.hpp>

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
