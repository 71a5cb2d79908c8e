// SPDX-License-Identifier: Apache-2.0
#include "app/tree.hpp"

#include <catch2/catch.hpp>

using namespace berth;

namespace {

entry job(std::uint64_t number, std::string rolled_back_to = {}) {
  entry made;
  made.number = number;
  made.result.job = "j" + std::to_string(number);
  made.result.rolled_back_to = std::move(rolled_back_to);
  return made;
}

entry back(std::uint64_t number, std::string to) {
  entry made = job(number, std::move(to));
  made.kind = entry_kind::rollback;
  return made;
}

snapshot_info saved(std::string id, std::string after = {}) {
  snapshot_info made;
  made.snapshot = std::move(id);
  made.job = std::move(after);
  return made;
}

/// The drawn tree as text, each thing by its number or id.
std::string drawing(const std::vector<entry>& entries,
                    const std::vector<snapshot_info>& snapshots) {
  history_tree tree = make_tree(entries, snapshots);
  std::string all;
  for (const tree_line& line : draw(tree)) {
    auto which = static_cast<std::size_t>(line.which);
    all += line.rails;
    if (line.what == tree_line::kind::snapshot)
      all += "*" + snapshots[which].snapshot;
    else if (line.what == tree_line::kind::rollback)
      all += "<" + std::to_string(entries[which].number);
    else if (tree.nodes[which].entry < 0)
      all += "start";
    else
      all += std::to_string(entries[static_cast<std::size_t>(tree.nodes[which].entry)].number);
    all += line.what == tree_line::kind::node && line.which == tree.now ? " now\n" : "\n";
  }
  return all;
}

} // namespace

TEST_CASE("A history without rollbacks is one line of states with their snapshots") {
  CHECK(drawing({}, {}) == "start now\n");
  CHECK(drawing({job(1), job(2)}, {saved("a"), saved("b", "j1"), saved("c", "j2")})
        == "start\n"
           "│ *a\n"
           "1\n"
           "│ *b\n"
           "2 now\n"
           "  *c\n");
}

TEST_CASE("A rollback leaves its branch beside the one that grew since") {
  CHECK(drawing({job(1), job(2), job(3), back(4, "a"), job(5)}, {saved("a", "j1")})
        == "start\n"
           "1\n"
           "│ *a\n"
           "├─2\n"
           "│ 3\n"
           "│   <4\n"
           "5 now\n");
}

TEST_CASE("A branch may be come back to, and branch again") {
  CHECK(drawing({job(1), job(2), back(3, "a"), job(4), job(5), back(6, "b"), job(7)},
                {saved("a", "j1"), saved("b", "j2")})
        == "start\n"
           "1\n"
           "│ *a\n"
           "├─2\n"
           "│ │ *b\n"
           "│ │ <3\n"
           "│ 7 now\n"
           "4\n"
           "5\n"
           "  <6\n");
}

TEST_CASE("A failed job that a policy took back is a branch of its own") {
  CHECK(drawing({job(1), job(2, "a"), job(3)}, {saved("a", "j1")})
        == "start\n"
           "1\n"
           "│ *a\n"
           "├─2\n"
           "│   <2\n"
           "3 now\n");
}

TEST_CASE("What a rollback went to may be gone: then it went to the beginning") {
  CHECK(drawing({job(5), back(6, "gone"), job(7)}, {saved("old", "j2")})
        == "start\n"
           "│ *old\n"
           "├─5\n"
           "│   <6\n"
           "7 now\n");
}
