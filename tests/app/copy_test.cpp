// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/skip.hpp"

#include <filesystem>

using namespace berth::test;
namespace fs = std::filesystem;

TEST_CASE("berth cp carries files and trees both ways, whole and with their modes") {
  NEEDS_SERVER();
  server_home here;
  const server& at = shared_server();
  auto berth = [&](std::vector<std::string> arguments) {
    auto done = at.cli(std::move(arguments));
    INFO(done.err);
    CHECK(done.code == 0);
    return done.out;
  };
  REQUIRE(at.cli({"session", "new", "carried"}).out == "carried\n");
  std::string tree = here.path() + "/tree";
  fs::create_directories(tree + "/a/b");
  std::string large(5'000'001, 'x');
  write_file(tree + "/large", large);
  write_file(tree + "/a/run.sh", "echo ran");
  write_file(tree + "/a/b/new\nline\xFF", "odd");
  fs::permissions(tree + "/a/run.sh", fs::perms::owner_all);
  berth({"cp", "-r", tree, "carried:"});
  CHECK(at.cli({"run", "-l", "bash", "-s", "carried", "-"},
               "cd tree; stat -c %a a/run.sh; a/run.sh; wc -c < large; find . | wc -l")
            .out
        == "700\nran\n5000001\n7\n");
  auto counted = nlohmann::json::parse(
      berth({"cp", "--json", "-r", "carried:/work/tree", here.path() + "/back"}));
  CHECK(counted["files"] == 3);
  CHECK(counted["bytes"] == 5'000'001 + 8 + 3);
  CHECK(content_of(here.path() + "/back/large") == large);
  CHECK(content_of(here.path() + "/back/a/b/new\nline\xFF") == "odd");
  CHECK((fs::status(here.path() + "/back/a/run.sh").permissions() & fs::perms::owner_exec)
        != fs::perms::none);
  CHECK(at.cli({"cp", "-", "carried:piped"}, "from a pipe").code == 0);
  CHECK(berth({"cp", "carried:piped", "-"}) == "from a pipe");
  berth({"cp", "-r", "carried:.", here.path() + "/all"});
  CHECK(content_of(here.path() + "/all/tree/a/run.sh") == "echo ran");
  berth({"cp", "carried:piped", here.path()});
  CHECK(content_of(here.path() + "/piped") == "from a pipe");
  CHECK(at.cli({"session", "rm", "carried"}).code == 0);
}

TEST_CASE("berth cp says what it cannot copy") {
  NEEDS_SERVER();
  const server& at = shared_server();
  REQUIRE(at.cli({"session", "new", "uncarried"}).code == 0);
  at.cli({"run", "-l", "bash", "-s", "uncarried", "-"}, "mkdir d; mkfifo d/pipe; ln -s / d/link");
  auto why = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "cp");
    auto done = at.cli(std::move(arguments));
    CHECK(done.code == 125);
    return done.err;
  };
  CHECK(why({"uncarried:none", "/tmp"}).find("No such file") != std::string::npos);
  CHECK(why({"uncarried:d", "/tmp"}).find("-r") != std::string::npos);
  CHECK(why({"/etc", "uncarried:"}).find("-r") != std::string::npos);
  CHECK(why({"/etc/hostname", "/tmp"}).find("SESSION:PATH") != std::string::npos);
  CHECK(why({"/etc/hostname", "uncarried:/usr/x"}).find("/usr/x: ") != std::string::npos);
  CHECK(why({"/etc/hostname", "nobody:x"}).find("no session nobody") != std::string::npos);
  server_home here;
  auto partly = at.cli({"cp", "-r", "uncarried:d", here.path() + "/d"});
  CHECK(partly.code == 0);
  CHECK(partly.err.find("uncarried:/work/d/pipe") != std::string::npos);
  CHECK(fs::read_symlink(here.path() + "/d/link") == "/");
  // Again onto what is there: the link stays what it is, and is not written through.
  CHECK(why({"-r", "uncarried:d", here.path()}).find("link link") != std::string::npos);
  at.cli({"session", "rm", "uncarried"});
}
