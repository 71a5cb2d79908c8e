// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/skip.hpp"

using namespace berth::test;

TEST_CASE("Hundreds of programs end and write in Berth as they do bare, warm and cold") {
  NEEDS_SERVER();
  auto call = GENERATE(std::string{"'python'"}, "'python', is_cold=True", "'javascript'",
                       "'javascript', is_cold=True", "'bash'", "'rust'", "'go'");
  CAPTURE(call);
  auto script = shared_server().python_process("import programs; programs.compare(" + call + ")");
  // Each program starts a tool of the host's beside the job: long where the host is busy.
  auto code = script->wait(5 * hang_limit);
  INFO(script->out() << script->err());
  REQUIRE(code == 0);
}
