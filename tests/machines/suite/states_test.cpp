// SPDX-License-Identifier: Apache-2.0
// What a machine of any kind was, kept and come back to.
#include "tests/machines/suite/steps.hpp"

#include <fcntl.h>

using namespace berth;
using namespace berth::test;
using machines::files_step;

TEST_CASE("a machine goes back to what it was, under its name, as often as asked") {
  FOR_EACH_KIND(of, at);
  running one = at.start("returns");
  REQUIRE(is_up(one));
  bash(one, "echo one > /tmp/file");
  freeze(one, 1);
  CHECK(bash(one, "cat /tmp/file; echo two > /tmp/file; touch /tmp/more") == "one\n");
  freeze(one, 2);
  bash(one, "rm /tmp/file");
  roll_back(one, 1);
  CHECK(bash(one, "cat /tmp/file; ls /tmp/more 2>/dev/null | wc -l; hostname")
        == "one\n0\nreturns\n");
  std::string first = python(one, "import os; print(os.urandom(16).hex())");
  roll_back(one, 1);
  CHECK(python(one, "import os; print(os.urandom(16).hex())") != first);
  roll_back(one, 2);
  CHECK(bash(one, "cat /tmp/file; ls /tmp/more | wc -l") == "two\n1\n");

  // What was dropped, and what never was, is refused; the machine goes on.
  one.machine->drop_files(1);
  REQUIRE(one.listener->next_files(files_step::drop));
  for (machines::checkpoint_number gone : {1, 77}) {
    rest(one, 0, true);
    one.machine->roll_back_files(gone);
    auto refused = one.listener->next_files(files_step::roll_back);
    REQUIRE(refused);
    CHECK_FALSE(refused->error.empty());
    go_on(one);
  }
  CHECK(bash(one, "cat /tmp/file") == "two\n");
  destroy(one);
}

TEST_CASE("a live interpreter is what it was after a rollback") {
  FOR_EACH_KIND(of, at);
  running one = at.start("remembers");
  REQUIRE(is_up(one));
  open_kernel(one, "c", "python");
  cell(one, "c", "x = 41");
  freeze(one, 1);
  CHECK(cell(one, "c", "x += 1; print(x)") == "42\n");
  roll_back(one, 1);
  CHECK(cell(one, "c", "print(x)") == "41\n");
  destroy(one);
}

TEST_CASE("nothing rests while a program runs, and a step after it is as good") {
  FOR_EACH_KIND(of, at);
  running one = at.start("busy");
  REQUIRE(is_up(one));
  one.machine->send(guest::start_job{
      .job = 90'001, .language = "bash", .code = "echo up; sleep 1000", .output_bytes = 4096});
  REQUIRE(one.listener->next<guest::output>());
  one.machine->send(guest::freeze{.request = 7});
  auto frozen = one.listener->next<guest::frozen>();
  REQUIRE(frozen);
  CHECK_FALSE(frozen->error.empty());
  one.machine->send(guest::end_job{.job = 90'001});
  REQUIRE(one.listener->next<guest::job_ended>());
  freeze(one, 1);
  destroy(one);
}

TEST_CASE(
    "a file that a live interpreter writes to, where files alone are frozen, stands in the way") {
  FOR_EACH_KIND(of, at);
  running one = at.start("writes");
  REQUIRE(is_up(one));
  open_kernel(one, "c", "python");
  cell(one, "c", "f = open('/work/open', 'w'); f.write('x'); f.flush()");
  rest(one, 1);
  one.machine->freeze_files(1);
  auto done = one.listener->next_files(files_step::freeze);
  REQUIRE(done);
  INFO(done->error);
  CHECK(done->error.empty() == of.whole_states);
  if (!of.whole_states)
    CHECK_THAT(done->error, Catch::Contains("/work/open"));
  // As a slot does: the copy has the file open as well.
  one.machine->send(guest::drop_checkpoint{.checkpoint = 1});
  go_on(one);
  cell(one, "c", "f.write('y'); f.close()");
  CHECK(bash(one, "cat /work/open") == "xy");
  freeze(one, 2);
  destroy(one);
}

TEST_CASE("a fork begins with its parent's files and goes its own way") {
  FOR_EACH_KIND(of, at);
  running parent = at.start("parent");
  REQUIRE(is_up(parent));
  bash(parent, "echo inherited > /tmp/file");
  open_kernel(parent, "c", "python");
  cell(parent, "c", "x = 41");
  freeze(parent, 5);
  bash(parent, "echo later > /tmp/file");
  running child =
      at.start(machines::machine_spec{.id = "child", .parent = "parent", .checkpoint = 5});
  REQUIRE(is_up(child));
  CHECK(bash(child, "cat /tmp/file; hostname") == "inherited\nchild\n");
  // It has the files; a live interpreter is one machine's.
  CHECK(cell(child, "c", "print(x)") != "41\n");
  CHECK(bash(parent, "cat /tmp/file") == "later\n");
  CHECK(cell(parent, "c", "print(x)") == "41\n");
  destroy(parent);
  bash(child, "echo changed > /tmp/file");
  roll_back(child, 5);
  CHECK(bash(child, "cat /tmp/file") == "inherited\n");
  destroy(child);
}

TEST_CASE("a fork of what is not there is a lost machine that says so") {
  FOR_EACH_KIND(of, at);
  running child =
      at.start(machines::machine_spec{.id = "orphan", .parent = "nobody", .checkpoint = 5});
  CHECK(child.listener->wait_gone());
  CHECK(child.listener->lost_count() == 1);
  CHECK_FALSE(child.listener->why().empty());
}

// What pause and resume of a session are made of.
TEST_CASE("what was saved outlives its machine, and is where another begins") {
  FOR_EACH_KIND(of, at);
  running one = at.start("sleeps");
  REQUIRE(is_up(one));
  bash(one, "echo kept > /tmp/file; echo old > /work/other");
  open_kernel(one, "c", "python");
  cell(one, "c", "x = 41");
  freeze(one, 1);
  // What finds no room is refused.
  auto little = std::make_shared<owned_fd>(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  one.machine->save_files(1, 0, little, 16);
  auto refused = one.listener->next_files(files_step::save);
  REQUIRE(refused);
  CHECK_FALSE(refused->error.empty());
  auto first = save(one, 1, 0);
  bash(one, "echo new > /work/other");
  freeze(one, 2);
  auto second = save(one, 2, 1);
  destroy(one);

  running woken =
      at.start(machines::machine_spec{.id = "woken", .layers = {{1, first}, {2, second}}});
  REQUIRE(is_up(woken));
  CHECK(bash(woken, "cat /tmp/file /work/other; hostname") == "kept\nnew\nwoken\n");
  CHECK(cell(woken, "c", "print(x)") != "41\n");
  roll_back(woken, 1);
  CHECK(bash(woken, "cat /work/other") == "old\n");
  destroy(woken);
}

TEST_CASE("a saved state that is damaged is a lost machine that says so") {
  FOR_EACH_KIND(of, at);
  running one = at.start("careful");
  REQUIRE(is_up(one));
  bash(one, "head -c 100000 /dev/urandom > /work/file");
  freeze(one, 1);
  auto whole = save(one, 1, 0);
  destroy(one);
  auto size = ::lseek(whole->get(), 0, SEEK_END);
  auto is_refused = [&](const std::string& id) {
    running broken = at.start(machines::machine_spec{.id = id, .layers = {{1, whole}}});
    CHECK(broken.listener->wait_gone());
    CHECK(broken.listener->lost_count() == 1);
    CHECK_FALSE(broken.listener->why().empty());
  };
  auto flip = [&](off_t at_byte) {
    char byte = 0;
    REQUIRE(::pread(whole->get(), &byte, 1, at_byte) == 1);
    byte = static_cast<char>(byte ^ 0x10);
    REQUIRE(::pwrite(whole->get(), &byte, 1, at_byte) == 1);
  };
  flip(1);
  is_refused("head");
  flip(1);
  if (of.summed_states) {
    flip(size / 2);
    is_refused("middle");
    flip(size / 2);
  }
  REQUIRE(::ftruncate(whole->get(), size / 2) == 0);
  is_refused("cut");
  REQUIRE(::ftruncate(whole->get(), 0) == 0);
  is_refused("empty");
  running next = at.start("next");
  REQUIRE(is_up(next));
  destroy(next);
}
