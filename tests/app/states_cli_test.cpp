// SPDX-License-Identifier: Apache-2.0
#include "tests/app/support.hpp"
#include "tests/support/skip.hpp"

#include <csignal>

using namespace berth::test;

namespace {

/// The command line with arguments that must succeed; its output without the last line end.
std::string ask_berth(std::vector<std::string> arguments, std::string_view input = {}) {
  auto done = shared_server().cli(std::move(arguments), input);
  INFO(done.out << done.err);
  REQUIRE(done.code == 0);
  return done.out.substr(0, done.out.find_last_not_of('\n') + 1);
}

nlohmann::json berth_json(std::vector<std::string> arguments) {
  arguments.push_back("--json");
  return nlohmann::json::parse(ask_berth(std::move(arguments)));
}

void in_bash(const std::string& session, std::string_view code) {
  shared_server().cli({"run", "-l", "bash", "-s", session, "-"}, code);
}

} // namespace

TEST_CASE("Sessions are opened, listed, forked, paused, resumed and closed by the command line") {
  NEEDS_SERVER();
  CHECK(ask_berth({"session", "new", "mine", "--agent", "ann", "--memory", "256"}) == "mine");
  in_bash("mine", "echo kept > note");
  auto made = berth_json({"session", "fork", "mine", "-n", "2"});
  REQUIRE(made["sessions"].size() == 2);
  std::vector<std::string> close{"session", "rm", "mine"};
  for (const auto& child : made["sessions"]) {
    CHECK(child["session"] != made["sessions"][0]["parent"]);
    close.push_back(child["session"]);
    CHECK(ask_berth({"cp", close.back() + ":note", "-"}) == "kept");
  }
  CHECK(berth_json({"session", "pause", "mine"})["state"] == "paused");
  CHECK(ask_berth({"session", "ls", "--agent", "ann"}).find("paused") != std::string::npos);
  CHECK(berth_json({"session", "resume", "mine"})["state"] == "ready");
  CHECK(ask_berth({"cp", "mine:note", "-"}) == "kept");
  CHECK(ask_berth(close).find("mine\n") == 0);
  auto gone = shared_server().cli({"session", "rm", "mine"});
  CHECK(gone.code == 125);
  CHECK(gone.err.find("no session mine") != std::string::npos);
}

TEST_CASE("A session is saved and taken back by the command line, and its history is a tree") {
  NEEDS_SERVER();
  ask_berth({"session", "new", "saved"});
  in_bash("saved", "echo one > note");
  std::string base = ask_berth({"snapshot", "saved", "base", "-d", "before the mess"});
  CHECK(base.find("base") != std::string::npos);
  in_bash("saved", "rm note; exit 3");
  CHECK(shared_server().cli({"cp", "saved:note", "-"}).code == 125);
  CHECK(ask_berth({"rollback", "saved", "base"}).find(base) != std::string::npos);
  CHECK(ask_berth({"cp", "saved:note", "-"}) == "one");
  in_bash("saved", "echo two > note");
  std::string tree = ask_berth({"history", "saved"});
  INFO(tree);
  for (const char* part : {"○ start\n● ", "\n│ ◆ base", "before the mess", "\n├─● ", "exited 3",
                           "\n│   ↩ ", "back to base", "\n● ", "← now"})
    CHECK(tree.find(part) != std::string::npos);
  auto all = berth_json({"history", "saved"});
  CHECK(all["entries"].size() == 4);
  CHECK(all["snapshots"][0]["snapshot"] == base);
  std::uint64_t last = all["entries"][3]["number"];
  ask_berth({"snapshot", "saved"});
  ask_berth({"rollback", "saved", "--before", std::to_string(last)});
  CHECK(ask_berth({"cp", "saved:note", "-"}) == "one");
  ask_berth({"rollback", "saved", "--last-success", "--save"});
  CHECK(ask_berth({"cp", "saved:note", "-"}) == "two");
  CHECK(ask_berth({"snapshots", "saved"}).find("before_rollback") != std::string::npos);
  CHECK(ask_berth({"snapshots", "--delete", base}) == base);
  auto nowhere = shared_server().cli({"rollback", "saved"});
  CHECK(nowhere.code == 125);
  CHECK(nowhere.err.find("--last-success") != std::string::npos);
  ask_berth({"session", "rm", "saved"});
  CHECK(shared_server().cli({"history", "never-was"}).err.find("no session") != std::string::npos);
}

TEST_CASE("berth shell runs what is piped in, cell by cell, and keeps variables") {
  NEEDS_SERVER();
  CHECK(ask_berth({"shell", "cells"}, "x = 20\ndef f(n):\n    return n + 1\n\nf(x) * 2\n'é'\n")
        == "42\n'é'");
  CHECK(ask_berth({"shell", "cells"}, "x") == "20");
  CHECK(ask_berth({"shell", "cells", "--context", "other"}, "'x' in globals()") == "False");
  CHECK(ask_berth({"shell", "cells", "-l", "bash"}, "cd /tmp\nv=1\nif true\nthen echo $v; fi\npwd")
        == "1\n/tmp");
  CHECK(ask_berth({"shell", "cells", "-l", "js"}, "let a = [\n1,\n2]\na.length") == "2");
  auto failed = shared_server().cli({"shell", "cells"}, "1 / 0");
  CHECK(failed.code == 1);
  CHECK(failed.err.find("ZeroDivisionError") != std::string::npos);
  CHECK(shared_server().cli({"shell", "cells", "-l", "cobol"}).code == 125);
  ask_berth({"session", "rm", "cells"});
}

TEST_CASE("Ctrl-C stops the cell that runs and keeps its variables") {
  NEEDS_SERVER();
  auto shell = shared_server().cli_process({"shell", "stopped"});
  shell->write("x = 7\nimport time\nprint('up', flush=True); time.sleep(1000)\nprint(x)\n");
  REQUIRE(eventually([&] { return shell->out().find("up\n") != std::string::npos; }));
  shell->signal(SIGINT);
  shell->close_stdin();
  CHECK(shell->wait() == 0);
  CHECK(shell->out() == "up\n7\n");
  CHECK(shell->err().find("KeyboardInterrupt") != std::string::npos);
  ask_berth({"session", "rm", "stopped"});
}
