// SPDX-License-Identifier: Apache-2.0
#include "tests/app/npm.hpp"
#include "tests/support/skip.hpp"

#include <filesystem>

using namespace berth::test;

namespace {

namespace fs = std::filesystem;

constexpr const char* examples = BERTH_SOURCE_DIR "/examples";

/// The first block of a language in the README, told where the server is.
std::string readme_block(const server& serving, const std::string& language) {
  std::string text = content_of(BERTH_SOURCE_DIR "/README.md");
  std::string fence = "```" + language + "\n";
  auto begin = text.find(fence);
  REQUIRE(begin != std::string::npos);
  begin += fence.size();
  std::string code = text.substr(begin, text.find("```", begin) - begin);
  constexpr std::string_view address = "tcp://127.0.0.1:5555";
  auto at = code.find(address);
  REQUIRE(at != std::string::npos);
  return code.replace(at, address.size(), serving.router());
}

npm_home& packages() {
  static npm_home home{std::string{examples} + "/javascript"};
  return home;
}

std::map<std::string, std::string> where(const server& serving) {
  return {{"BERTH_ENDPOINT", serving.router()}, {"BERTH_EVENTS", serving.events()}};
}

constexpr const char* numbers = "0\n1\n2\n3\n4\n";

} // namespace

TEST_CASE("The Python examples and the README's run as they are") {
  NEEDS_SERVER();
  auto& serving = shared_server();
  auto path = std::string{examples} + "/python/";
  auto request = execute({"/usr/bin/python3", path + "request.py"}, {}, where(serving));
  INFO(request.err);
  CHECK(request.out.find("hello from vm-") == 0);
  auto follow = execute({"/usr/bin/python3", path + "follow.py"}, {}, where(serving));
  INFO(follow.err);
  CHECK(follow.out == numbers);
  auto first = execute({"/usr/bin/python3", "-c", readme_block(serving, "python")});
  INFO(first.err);
  CHECK(first.out == "42\n\n");
}

TEST_CASE("The JavaScript examples and the README's run as they are, with npm's packages") {
  NEEDS_SERVER();
  if (!packages().reason().empty())
    return skip(packages().reason());
  auto& serving = shared_server();
  auto request = execute({"/usr/bin/node", packages().file("request.js")}, {}, where(serving));
  INFO(request.err);
  CHECK(request.out.find("hello from vm-") == 0);
  CHECK(request.code == 0);
  auto follow = execute({"/usr/bin/node", packages().file("follow.js")}, {}, where(serving));
  INFO(follow.err);
  CHECK(follow.out == numbers);
  write_file(packages().file("first.mjs"), readme_block(serving, "javascript"));
  auto first = execute({"/usr/bin/node", packages().file("first.mjs")});
  INFO(first.err);
  CHECK(first.out == "42\n\n");
}

TEST_CASE("The HTTP examples run as they are, over a WebSocket too") {
  NEEDS_SERVER();
  auto& serving = shared_server();
  auto path = std::string{examples} + "/http/";
  auto python = execute({"/usr/bin/python3", path + "client.py", serving.http()});
  INFO(python.err);
  CHECK(python.code == 0);
  auto shell = execute({"/bin/bash", path + "client.sh", serving.http()});
  INFO(shell.err << shell.out);
  CHECK(shell.code == 0);
  CHECK(shell.out.find("6 note.txt") != std::string::npos);
  if (!packages().reason().empty())
    return skip(packages().reason());
  // A client of Node's own where it has one, else the package that everybody uses.
  std::vector<std::string> node{"/usr/bin/node"};
  auto has_client = [](std::vector<std::string> command) {
    command.insert(command.end(), {"-e", "process.exit(globalThis.WebSocket ? 0 : 1)"});
    return execute(std::move(command)).code == 0;
  };
  if (!has_client(node) && has_client({node[0], "--experimental-websocket"}))
    node.push_back("--experimental-websocket");
  else if (!has_client(node) && !packages().install({"install", "ws"}))
    return skip(packages().reason());
  fs::copy_file(path + "client.js", packages().file("client.js"),
                fs::copy_options::overwrite_existing);
  node.insert(node.end(), {packages().file("client.js"), serving.http()});
  auto script = execute(std::move(node));
  INFO(script.err);
  CHECK(script.out == "42\n1\n2\n3\n");
  CHECK(script.code == 0);
}
