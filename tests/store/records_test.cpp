// SPDX-License-Identifier: Apache-2.0
#include "store/records.hpp"
#include "tests/support/temp_dir.hpp"

#include <catch2/catch.hpp>

using namespace berth;

namespace {

bytes raw(std::string_view text) {
  return {text.begin(), text.end()};
}

records open_at(const std::string& dir) {
  auto made = records::open(dir);
  REQUIRE(made);
  return std::move(*made);
}

std::string texts(const record_page& page) {
  std::string all;
  for (const put_record& each : page.records) {
    all.append(each.body.begin(), each.body.end());
    all += ' ';
  }
  return all;
}

} // namespace

TEST_CASE("Records of one id come in the order of their numbers, also after a reopening") {
  temp_dir dir;
  {
    records store = open_at(dir.path());
    REQUIRE_FALSE(store.put({"message", "a", 2, raw("second")}));
    REQUIRE_FALSE(store.put({"message", "a", 1, raw("first")}));
    REQUIRE_FALSE(store.put({"message", "b", 1, raw("other")}));
  }
  records store = open_at(dir.path());
  auto page = store.get({"message", "a", 0});
  REQUIRE(page);
  CHECK(texts(*page) == "first second ");
  CHECK(page->records[0].seq == 1);
  CHECK(page->damaged == 0);
}

TEST_CASE("A record with the same kind, id and number takes the place of the older one") {
  records store = open_at("");
  REQUIRE_FALSE(store.put({"workflow", "w", 0, raw("running")}));
  REQUIRE_FALSE(store.put({"workflow", "w", 0, raw("completed")}));
  CHECK(texts(*store.get({"workflow", "w", 0})) == "completed ");
}

TEST_CASE("Without an id the heads come, the one touched last first") {
  records store = open_at("");
  for (const char* id : {"a", "b", "c"})
    REQUIRE_FALSE(store.put({"workflow", id, 0, raw(id)}));
  REQUIRE_FALSE(store.put({"workflow", "a", 1, raw("not a head")}));
  REQUIRE_FALSE(store.put({"workflow", "a", 0, raw("a")}));
  CHECK(texts(*store.get({"workflow", "", 0})) == "a c b ");
  CHECK(texts(*store.get({"workflow", "", 2})) == "a c ");
}

TEST_CASE("What was dropped is gone, and nothing else") {
  records store = open_at("");
  REQUIRE_FALSE(store.put({"message", "a", 1, raw("x")}));
  REQUIRE_FALSE(store.put({"message", "b", 1, raw("y")}));
  REQUIRE_FALSE(store.drop({"message", "a"}));
  CHECK(store.get({"message", "a", 0})->records.empty());
  CHECK(texts(*store.get({"message", "b", 0})) == "y ");
}

TEST_CASE("A record that was changed on disk is left out and counted") {
  temp_dir dir;
  {
    records store = open_at(dir.path());
    REQUIRE_FALSE(store.put({"message", "a", 1, raw("good")}));
    REQUIRE_FALSE(store.put({"message", "a", 2, raw("bad")}));
  }
  auto db = sqlite::database::open(dir.path() + "/agents.db", false);
  REQUIRE(db);
  REQUIRE_FALSE(db->run("UPDATE records SET body = x'00' WHERE seq = 2"));
  records store = open_at(dir.path());
  auto page = store.get({"message", "a", 0});
  REQUIRE(page);
  CHECK(texts(*page) == "good ");
  CHECK(page->damaged == 1);
}

TEST_CASE("Several records are kept in their order, all or none") {
  temp_dir dir;
  {
    records store = open_at(dir.path());
    std::vector<put_record> all{{"message", "a", 1, raw("first")},
                                {"message", "a", 2, raw("second")},
                                {"message", "a", 1, raw("again")}};
    REQUIRE_FALSE(store.put_all(all));
    REQUIRE_FALSE(store.put_all({}));
    REQUIRE_FALSE(store.put_all(std::span{all}.first(1)));
  }
  records store = open_at(dir.path());
  auto page = store.get({"message", "a", 0});
  REQUIRE(page);
  CHECK(texts(*page) == "first second ");
}
