// SPDX-License-Identifier: Apache-2.0
#include "tests/app/npm.hpp"

#include <filesystem>
#include <unistd.h>

namespace berth::test {

namespace fs = std::filesystem;

npm_home::npm_home(const std::string& from) {
  if (execute({"npm", "--version"}).code != 0 || ::access("/usr/bin/node", X_OK) != 0) {
    reason_ = "npm or node is not installed";
    return;
  }
  for (const auto& entry : fs::directory_iterator{from})
    fs::copy(entry.path(), home_.path(), fs::copy_options::recursive);
  install({"ci"});
}

bool npm_home::install(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"npm", "--prefix", home_.path()});
  arguments.insert(arguments.end(), {"--no-audit", "--no-fund", "--fetch-retries=1"});
  auto done = execute(std::move(arguments));
  if (done.code != 0)
    reason_ = "npm cannot install: " + done.err.substr(0, 200);
  return done.code == 0;
}

} // namespace berth::test
