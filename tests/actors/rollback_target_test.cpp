// SPDX-License-Identifier: Apache-2.0
#include "actors/rollback_target.hpp"

#include <catch2/catch.hpp>

using namespace berth;

namespace {

/// A session's past, told in order: jobs, snapshots, rollbacks.
class past {
public:
  past& job(const std::string& id, int exit_code = 0, bool ran = true) {
    entry made;
    made.number = ++number_;
    made.result.job = id;
    made.result.state = ran ? job_state::exited : job_state::blocked;
    made.result.exit_code = exit_code;
    made.result.started_at_ms = ran ? ++clock_ : 0;
    made.result.ended_at_ms = ++clock_;
    entries_.insert(entries_.begin(), made);
    if (ran) {
      last_job_ = id;
      succeeded_ = exit_code == 0;
    }
    return *this;
  }

  past& snapshot(const std::string& id, const std::string& name = "", const char* damage = "") {
    saved_state made;
    made.info.snapshot = id;
    made.info.name = name;
    made.info.job = last_job_;
    made.info.damage = damage;
    made.job_succeeded = succeeded_;
    made.sequence = ++number_of_states_;
    states_.push_back(made);
    return *this;
  }

  past& back_to(const std::string& id) {
    entry made;
    made.number = ++number_;
    made.kind = entry_kind::rollback;
    made.result.started_at_ms = made.result.ended_at_ms = ++clock_;
    made.result.rolled_back_to = id;
    entries_.insert(entries_.begin(), made);
    for (const auto& each : states_)
      if (each.info.snapshot == id) {
        last_job_ = each.info.job;
        succeeded_ = each.job_succeeded;
      }
    return *this;
  }

  entry& latest() { return entries_.front(); }

  std::string before(std::uint64_t number) const { return text(find_before(view(), from(number))); }
  std::string after(std::uint64_t number) const { return text(find_after(view(), from(number))); }
  std::string last_success() const { return text(find_last_success(view())); }
  std::string named(const std::string& name) const { return text(find_snapshot(view(), name)); }

private:
  static std::string text(const expected<std::string>& found) {
    return found ? *found : std::string{name_of(static_cast<ec>(found.error().code()))};
  }
  std::vector<const saved_state*> view() const {
    std::vector<const saved_state*> all;
    for (const auto& each : states_)
      all.push_back(&each);
    return all;
  }
  std::vector<entry> from(std::uint64_t number) const {
    std::vector<entry> some;
    for (const auto& each : entries_)
      if (each.number <= number)
        some.push_back(each);
    if (some.empty() || some.front().number != number)
      return {};
    return some;
  }

  std::vector<entry> entries_; // newest first
  std::vector<saved_state> states_;
  std::string last_job_;
  bool succeeded_ = false;
  std::uint64_t number_ = 0;
  std::uint64_t number_of_states_ = 0;
  std::int64_t clock_ = 0;
};

} // namespace

TEST_CASE("The snapshot between two entries is after the one and before the other") {
  past told;
  told.snapshot("s0").job("a").snapshot("s1").job("b", 1).job("c").snapshot("s2");
  CHECK(told.before(1) == "s0");
  CHECK(told.after(1) == "s1");
  CHECK(told.before(2) == "s1");
  CHECK(told.after(2) == "not_found"); // nobody looked between b and c
  CHECK(told.before(3) == "not_found");
  CHECK(told.after(3) == "s2");
  CHECK(told.before(9) == "not_found");
  CHECK(told.after(0) == "not_found");
}

TEST_CASE("An entry's own snapshots come first") {
  past told;
  told.job("a").snapshot("old").snapshot("s1").job("b", 1).snapshot("s2").snapshot("s3");
  told.latest().result.snapshot_before = "s1";
  told.latest().result.snapshot_after = "s2";
  CHECK(told.before(2) == "s1");
  CHECK(told.after(2) == "s2");
  told.latest().result.snapshot_before = "evicted";
  CHECK(told.before(2) == "s1"); // the newest after a
  CHECK(told.after(1) == "old"); // the oldest after a
}

TEST_CASE("Jobs that never ran changed nothing") {
  past told;
  told.job("a").snapshot("s1").job("x", 0, false).job("y", 0, false).job("b");
  CHECK(told.before(4) == "s1");
  CHECK(told.before(3) == "s1");
  CHECK(told.after(2) == "s1");
}

TEST_CASE("After a rollback the state is that of its snapshot") {
  past told;
  told.snapshot("s0").job("a").snapshot("s1").back_to("s0").job("b").snapshot("s2");
  CHECK(told.after(2) == "s0");
  CHECK(told.before(3) == "s0");
  CHECK(told.after(3) == "s2");
  CHECK(told.before(2) == "s1");
}

TEST_CASE("Of jobs that ran side by side the one that ended last made the state") {
  past told;
  told.job("a");
  told.latest().result.ended_at_ms = 100; // still runs when b, accepted after it, has ended
  told.snapshot("s").job("b");
  told.latest().result.ended_at_ms = 50;
  told.job("c");
  CHECK(told.before(3) == "s"); // it knows a
}

TEST_CASE("The last success is the newest snapshot after a job that exited with 0") {
  past told;
  CHECK(told.last_success() == "not_found");
  told.snapshot("s0");
  CHECK(told.last_success() == "not_found"); // no job succeeded yet
  told.job("a").snapshot("s1").job("b", 1).snapshot("s2");
  CHECK(told.last_success() == "s1");
  told.back_to("s1").snapshot("s3");
  CHECK(told.last_success() == "s3");
  told.snapshot("s4", "", "damaged");
  CHECK(told.last_success() == "s3");
}

TEST_CASE("A name means the newest of that name, an id only itself") {
  past told;
  told.snapshot("s1", "x").snapshot("s2", "x").snapshot("x-3", "y").snapshot("y", "z");
  CHECK(told.named("x") == "s2");
  CHECK(told.named("y") == "y");
  CHECK(told.named("x-3") == "x-3");
  CHECK(told.named("w") == "not_found");
}
