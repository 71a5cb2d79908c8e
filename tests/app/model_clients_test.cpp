// SPDX-License-Identifier: Apache-2.0
#include "tests/app/npm.hpp"
#include "tests/support/model_server.hpp"
#include "tests/support/skip.hpp"

using namespace berth::test;

TEST_CASE("The scripted model server is one to the npm clients ollama and openai") {
  npm_home clients{BERTH_SOURCE_DIR "/tests/models/npm"};
  if (!clients.reason().empty())
    return skip(clients.reason());
  model_server models;
  auto done = execute({"/usr/bin/node", clients.file("check.mjs"), models.url()});
  INFO(done.out << done.err);
  CHECK(done.code == 0);
  CHECK(done.out.find("FAIL") == std::string::npos);
  CHECK(done.out.find("ok   keys") != std::string::npos);
}
