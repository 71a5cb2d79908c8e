// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/role_store.hpp"
#include "actors/agents/roles.hpp"
#include "config/role_files.hpp"
#include "tests/support/temp_dir.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>
#include <catch2/catch.hpp>
#include <sys/wait.h>

#include <csignal>
#include <fstream>
#include <random>
#include <set>
#include <thread>
#include <unistd.h>

using namespace berth;
using config::ordered;

namespace {

constexpr std::chrono::seconds hang_limit{60};

std::shared_ptr<const settings> values_in(const std::string& dir) {
  settings values;
  values.data_dir = dir;
  values.agents.roles_dir = BERTH_SOURCE_DIR "/config/roles";
  return std::make_shared<const settings>(values);
}

std::shared_ptr<const ordered> shipped() {
  auto read = config::read_role_files(BERTH_SOURCE_DIR "/config/roles");
  if (!read)
    FAIL(describe_error(read.error()));
  return std::make_shared<const ordered>(std::move(*read));
}

std::string read_text(const std::string& path) {
  std::ifstream file{path};
  return {std::istreambuf_iterator<char>{file}, {}};
}

std::string with_theme(const std::string& config, const std::string& role,
                       const std::string& theme) {
  ordered made = ordered::parse(config);
  made["roles"][role]["theme"] = theme;
  return made.dump();
}

struct real_config : caf::actor_system_config {
  real_config() {
    add_message_types<caf::id_block::berth_errors>();
    add_message_types<caf::id_block::berth_messages>();
    add_message_types<caf::id_block::berth_actors>();
  }
};

/// ROLES over a directory, in threads of its own.
struct roles_room {
  explicit roles_room(const std::string& dir) {
    auto made = spawn_roles(system, values_in(dir), shipped());
    if (!made)
      FAIL(describe_error(made.error()));
    roles = *made;
  }
  ~roles_room() {
    caf::scoped_actor self{system};
    self->monitor(roles);
    self->send_exit(roles, caf::exit_reason::user_shutdown);
    self->receive([](const caf::down_msg&) {});
  }

  template <class Reply, class Request>
  expected<Reply> ask(Request request) {
    caf::scoped_actor self{system};
    expected<Reply> answer{fail(ec::deadline, "no answer")};
    self->request(roles, hang_limit, std::move(request))
        .receive([&](Reply& reply) { answer = std::move(reply); },
                 [&](error& why) { answer = std::move(why); });
    return answer;
  }

  real_config config;
  caf::actor_system system{config};
  roles_actor roles;
};

} // namespace

TEST_CASE("Roles are found and listed, and a change survives the server") {
  temp_dir dir;
  {
    roles_room room{dir.path()};
    CHECK(room.ask<role_list>(list_roles{})->roles.size() == 26);
    CHECK(room.ask<role_info>(find_role{"qa"})->name == "QAEngineer");
    CHECK(room.ask<role_info>(find_role{"nobody"}).error() == ec::not_found);
    CHECK(room.ask<config_text>(select_role{"qa"}));
    auto before = room.ask<config_text>(get_config{});
    REQUIRE(before);
    auto after = room.ask<config_text>(set_config{with_theme(before->json, "QAEngineer", "mine")});
    REQUIRE(after);
    CHECK(room.ask<config_text>(get_config{})->json == after->json);
    CHECK(room.ask<config_text>(set_config{"{"}).error() == ec::malformed);
    CHECK(room.ask<config_text>(get_config{})->json == after->json);
  }
  roles_room again{dir.path()};
  CHECK(again.ask<role_info>(find_role{})->theme == "mine");
  CHECK(again.ask<role_list>(list_roles{})->selected_role == "QAEngineer");
}

TEST_CASE("Changes that many clients make at once are all there") {
  temp_dir dir;
  roles_room room{dir.path()};
  auto list = room.ask<role_list>(list_roles{});
  auto before = room.ask<config_text>(get_config{});
  REQUIRE(list);
  REQUIRE(before);
  std::vector<std::thread> clients;
  std::atomic<int> refused = 0;
  for (const role_info& each : list->roles)
    clients.emplace_back([&, name = each.name] {
      // Each has read the same configuration and changes a role of its own.
      auto answer = room.ask<config_text>(set_config{with_theme(before->json, name, name)});
      refused += answer ? 0 : 1;
    });
  for (auto& each : clients)
    each.join();
  CHECK(refused == 0);
  std::size_t there = 0;
  auto after = room.ask<role_list>(list_roles{});
  REQUIRE(after);
  for (const role_info& each : after->roles)
    there += each.theme == each.name ? 1 : 0;
  CHECK(there == list->roles.size());
}

TEST_CASE("A file that an editor changed comes to hold, and a bad one does not") {
  temp_dir dir;
  auto store = role_store::open(values_in(dir.path()), shipped());
  REQUIRE(store);
  const std::string path = dir.path() + "/roles_config.json";
  auto edit = [&](const std::string& text) {
    std::ofstream{path + ".new"} << text;
    std::filesystem::rename(path + ".new", path);
  };
  edit(R"({"selected_role": "qaengineer"})");
  CHECK_FALSE(store->refresh());
  CHECK(store->book().find("")->name == "QAEngineer");

  edit("{\n  \"selected_role\": oops\n}\n");
  error why = store->refresh();
  REQUIRE(why);
  CHECK(to_refusal(why).detail.starts_with(path + ": line 2, column 20"));
  CHECK_FALSE(store->refresh()); // told once
  CHECK(store->book().find("")->name == "QAEngineer");
  error refused = store->take(store->book().selected("Default"));
  CHECK(refused == ec::conflict); // what somebody edits is not overwritten
  CHECK(read_text(path).find("oops") != std::string::npos);

  edit("{}");
  CHECK_FALSE(store->refresh());
  CHECK_FALSE(store->take(store->book().selected("Default")));
  CHECK_FALSE(store->refresh()); // its own change is none
  CHECK(store->book().find("")->name == "Default");
  std::filesystem::remove(path);
  CHECK_FALSE(store->refresh());
  CHECK(store->book().find("")->name == "DevelopmentAgent");
}

TEST_CASE("A server does not start with changes that it cannot use") {
  temp_dir dir;
  std::ofstream{dir.path() + "/roles_config.json"} << "{\"roles\": 1}";
  auto store = role_store::open(values_in(dir.path()), shipped());
  REQUIRE(!store);
  CHECK(to_refusal(store.error()).detail
        == dir.path() + "/roles_config.json: roles: must be an object, is a number");
}

TEST_CASE("A change that cannot be written does not hold") {
  temp_dir dir;
  auto store = role_store::open(values_in(dir.path() + "/gone"), shipped());
  REQUIRE(store);
  CHECK(store->take(store->book().selected("Default")) == ec::store_failed);
  CHECK(store->book().find("")->name == "DevelopmentAgent");
}

TEST_CASE("Killed in the middle of a change, the file is the old one or the new one") {
  temp_dir dir;
  auto ship = shipped();
  std::mt19937 random{7};
  std::set<std::string> seen;
  for (int round = 0; round < 20; ++round) {
    int began[2];
    REQUIRE(::pipe(began) == 0);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      auto store = role_store::open(values_in(dir.path()), ship);
      for (int i = 0; store; ++i) {
        if (store->take(store->book().selected(i % 2 == 0 ? "QAEngineer" : "Default")))
          break;
        if (i == 0 && ::write(began[1], "!", 1) != 1)
          break;
      }
      _exit(1);
    }
    close(began[1]);
    char first = 0;
    CHECK(::read(began[0], &first, 1) == 1); // one change was made: from here on at any moment
    close(began[0]);
    std::this_thread::sleep_for(
        std::chrono::microseconds{std::uniform_int_distribution<int>{0, 20'000}(random)});
    kill(child, SIGKILL);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status)); // it did not end by an error of its own
    auto store = role_store::open(values_in(dir.path()), ship);
    REQUIRE(store);
    seen.insert(store->book().find("")->name);
  }
  CHECK_FALSE(seen.contains("DevelopmentAgent")); // a change that was made is there
}
