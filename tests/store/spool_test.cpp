// SPDX-License-Identifier: Apache-2.0
#include "store/spool.hpp"
#include "tests/support/temp_dir.hpp"

#include <catch2/catch.hpp>

#include <fstream>

using namespace berth;

namespace {

std::span<const char> view(std::string_view text) {
  return {text.data(), text.size()};
}

std::string read_all(const spool& from, const std::string& job, std::uint32_t stream,
                     std::uint64_t offset = 0) {
  auto data = from.read(job, stream, offset, 1 << 20);
  return data ? std::string{data->begin(), data->end()} : "(" + describe_error(data.error()) + ")";
}

} // namespace

TEST_CASE("What was appended is read at any offset") {
  temp_dir dir;
  auto made = spool::open(dir.path() + "/spool", 1000);
  REQUIRE(made);
  CHECK(*made->append("j", 1, view("hello ")) == 6);
  CHECK(*made->append("j", 1, view("world")) == 11);
  CHECK(*made->append("j", 2, view("error")) == 5);
  CHECK(read_all(*made, "j", 1) == "hello world");
  CHECK(read_all(*made, "j", 1, 6) == "world");
  CHECK(read_all(*made, "j", 1, 11).empty());
  CHECK(read_all(*made, "j", 1, 99).empty());
  CHECK(read_all(*made, "j", 2) == "error");
  CHECK(made->read("j", 1, 2, 3)->size() == 3);
  CHECK(made->bytes() == 16);
  CHECK(made->read("k", 1, 0, 10).error() == ec::not_found);
}

TEST_CASE("When the budget is used up the oldest output of ended jobs goes") {
  temp_dir dir;
  auto made = spool::open(dir.path(), 100);
  REQUIRE(made);
  std::string forty(40, 'x');
  REQUIRE(made->append("a", 1, view(forty)));
  REQUIRE(made->append("b", 1, view(forty)));
  made->end("b");
  made->end("a");
  REQUIRE(made->append("c", 1, view(forty)));
  CHECK(made->size("b", 1) == 0);
  CHECK(made->size("a", 1) == 40);
  CHECK(made->evicted() == 1);
  REQUIRE(made->append("c", 1, view(forty)));
  CHECK(made->size("a", 1) == 0);
  auto full = made->append("c", 1, view(forty)); // only jobs that write are left
  REQUIRE_FALSE(full);
  CHECK(full.error() == ec::no_capacity);
  CHECK(read_all(*made, "c", 1).size() == 80);
  made->remove("c");
  CHECK(made->bytes() == 0);
}

TEST_CASE("A job that ended takes no more output") {
  temp_dir dir;
  auto made = spool::open(dir.path(), 100);
  REQUIRE(made);
  REQUIRE(made->append("a", 1, view("x")));
  made->end("a");
  CHECK(made->append("a", 1, view("x")).error() == ec::conflict);
  CHECK(read_all(*made, "a", 1) == "x");
}

TEST_CASE("Opening sweeps what a dead server left, and files bear no names") {
  temp_dir dir;
  std::ofstream{dir.path() + "/output.left"} << "old";
  auto made = spool::open(dir.path(), 100);
  REQUIRE(made);
  REQUIRE(made->append("a", 1, view("x")));
  CHECK(std::filesystem::is_empty(dir.path()));
  CHECK_FALSE(spool::open("/proc/nowhere", 100));
}

TEST_CASE("More jobs than files can be open push the oldest ended ones out") {
  temp_dir dir;
  auto made = spool::open(dir.path(), limits::mib);
  REQUIRE(made);
  for (std::size_t i = 0; i < limits::spool_files_max + 10; ++i) {
    std::string job = "j" + std::to_string(i);
    REQUIRE(made->append(job, 1, view("x")));
    made->end(job);
  }
  CHECK(made->bytes() == limits::spool_files_max);
  CHECK(made->size("j0", 1) == 0);
}
