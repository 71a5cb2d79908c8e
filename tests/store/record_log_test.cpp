// SPDX-License-Identifier: Apache-2.0
#include "store/journal.hpp"
#include "store/log_indexer.hpp"
#include "store/record_log.hpp"
#include "tests/support/skip.hpp"
#include "tests/support/temp_dir.hpp"

#include <catch2/catch.hpp>
#include <sys/mount.h>
#include <sys/wait.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <unistd.h>

using namespace berth;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t segment_bytes = 4096;

settings in_dir(const std::string& dir) {
  settings values;
  values.data_dir = dir;
  return values;
}

std::span<const char> chars(const std::string& text) {
  return {text.data(), text.size()};
}

/// All payloads of a segment, with what lies between them skipped.
std::vector<std::string> payloads(const std::string& dir, std::uint64_t segment,
                                  int* damaged = nullptr) {
  std::vector<std::string> all;
  auto reader = log_reader::open(dir, segment);
  REQUIRE(reader);
  auto data = reader->read(log_head_bytes, reader->size() - log_head_bytes);
  REQUIRE(data);
  log_scanner scan{*data, reader->salt(), log_head_bytes};
  do {
    while (auto payload = scan.next())
      all.emplace_back(payload->begin(), payload->end());
  } while (scan.resume() && (damaged == nullptr || ++*damaged > 0));
  return all;
}

std::string file_of(const std::string& dir, std::uint64_t segment) {
  for (const auto& file : std::filesystem::directory_iterator{dir})
    if (file.path().string().ends_with(std::to_string(segment) + ".log"))
      return file.path();
  return {};
}

void flip(const std::string& file, std::uint64_t at, char mask = 1) {
  std::fstream bits{file, std::ios::in | std::ios::out | std::ios::binary};
  bits.seekg(static_cast<std::streamoff>(at));
  char byte = static_cast<char>(bits.get());
  bits.seekp(static_cast<std::streamoff>(at));
  bits.put(static_cast<char>(byte ^ mask));
}

job_order order(const std::string& job) {
  job_order made;
  made.job = job;
  made.request.code = "code of " + job;
  made.request.language = "python";
  made.submitted_at_ms = 1000;
  return made;
}

outcome ended(const std::string& job) {
  outcome made;
  made.job = job;
  made.state = job_state::exited;
  made.exit_code = 0;
  return made;
}

/// Writes a job from its acceptance to its end, or its acceptance alone.
void add_job(log_writer& log, std::uint64_t number, bool ends = true) {
  std::string job = "j" + std::to_string(number);
  log.add(accepted_record(number, order(job), true));
  if (ends)
    log.add(ended_record(number, ended(job)));
}

std::map<std::string, job_state> states(journal& from) {
  std::map<std::string, job_state> all;
  query_history query;
  query.limit = 1000;
  auto page = from.reader().query(query);
  REQUIRE(page);
  for (const entry& told : page->entries)
    all[told.result.job] = told.result.state;
  return all;
}

/// A file system of a few MiB in a directory, while it lives.
class small_disk {
public:
  explicit small_disk(const std::string& place)
    : place_(place) {
    mounted_ = ::mount("tmpfs", place.c_str(), "tmpfs", 0, "size=96m") == 0;
  }
  ~small_disk() {
    if (mounted_)
      ::umount2(place_.c_str(), MNT_DETACH);
  }
  bool is_there() const { return mounted_; }

private:
  std::string place_;
  bool mounted_ = false;
};

} // namespace

TEST_CASE("What was written to the log is read back, over many segments") {
  temp_dir dir;
  log_writer log{dir.path(), 1, segment_bytes};
  std::vector<std::string> sent;
  for (std::size_t i = 0; i < 300; ++i) {
    sent.push_back(std::string(i % 97, static_cast<char>('a' + i % 26)));
    log.add(chars(sent.back()));
    if (i % 7 == 0)
      REQUIRE_FALSE(log.write());
    if (i % 21 == 0)
      REQUIRE_FALSE(log.sync());
  }
  sent.emplace_back(3 * segment_bytes, 'z'); // larger than a segment
  log.add(chars(sent.back()));
  log.add(chars("last"));
  sent.emplace_back("last");
  REQUIRE_FALSE(log.write());
  CHECK(log.is_dirty());
  REQUIRE_FALSE(log.sync());
  CHECK_FALSE(log.is_dirty());
  std::vector<std::string> got;
  auto segments = list_segments(dir.path());
  CHECK(segments.size() > 4);
  CHECK(segments.back() == log.end().segment);
  for (std::uint64_t segment : segments)
    for (auto& payload : payloads(dir.path(), segment))
      got.push_back(std::move(payload));
  CHECK(got == sent);
}

TEST_CASE("A log cut off anywhere gives the records before the cut, and nothing else") {
  temp_dir dir;
  {
    log_writer log{dir.path(), 1, segment_bytes};
    for (const char* text : {"one", "two two", "three three three"})
      log.add(chars(text));
    REQUIRE_FALSE(log.write());
  }
  const std::vector<std::string> all{"one", "two two", "three three three"};
  std::vector<std::uint64_t> ends{log_head_bytes};
  for (const auto& text : all)
    ends.push_back(ends.back() + log_room(text.size()));
  auto reader = log_reader::open(dir.path(), 1);
  REQUIRE(reader);
  auto data = reader->read(log_head_bytes, ends.back() - log_head_bytes);
  REQUIRE(data);
  for (std::uint64_t cut = log_head_bytes; cut <= ends.back(); ++cut) {
    // Cut off, and cut off with zeros behind, as an allocated segment has them.
    for (bool zeros : {false, true}) {
      std::vector<char> torn{data->begin(),
                             data->begin() + static_cast<long>(cut - log_head_bytes)};
      if (zeros)
        torn.resize(4096);
      log_scanner scan{torn, reader->salt(), log_head_bytes};
      std::size_t found = 0;
      while (auto payload = scan.next()) {
        REQUIRE(found < all.size());
        CHECK(std::string{payload->begin(), payload->end()} == all[found++]);
      }
      // The last bytes of a record may be its padding.
      std::size_t whole = 0;
      while (whole < all.size() && ends[whole] + 16 + all[whole].size() <= cut)
        ++whole;
      if (!zeros)
        CHECK(found == whole);
      CHECK(found >= whole);
      CHECK_FALSE(scan.resume());
    }
  }
}

TEST_CASE("A flipped bit costs the record that it is in, and is counted") {
  temp_dir dir;
  {
    log_writer log{dir.path(), 1, segment_bytes};
    for (const char* text : {"one", "two two", "three three three"})
      log.add(chars(text));
    REQUIRE_FALSE(log.write());
  }
  std::string file = file_of(dir.path(), 1);
  std::uint64_t second = log_head_bytes + log_room(3);
  std::uint64_t at = GENERATE(0U, 4U, 5U, 7U, 8U, 15U, 16U, 22U);
  for (int bit = 0; bit < 8; ++bit) {
    flip(file, second + at, static_cast<char>(1 << bit));
    int damaged = 0;
    CHECK(payloads(dir.path(), 1, &damaged)
          == std::vector<std::string>{"one", "three three three"});
    CHECK(damaged == 1);
    flip(file, second + at, static_cast<char>(1 << bit));
  }
  CHECK(payloads(dir.path(), 1).size() == 3);
}

TEST_CASE("One damaged head of a segment does not matter, two do") {
  temp_dir dir;
  {
    log_writer log{dir.path(), 1, segment_bytes};
    log.add(chars("one"));
    REQUIRE_FALSE(log.write());
  }
  std::string file = file_of(dir.path(), 1);
  flip(file, 17);
  CHECK(payloads(dir.path(), 1).size() == 1);
  flip(file, 49);
  CHECK_FALSE(log_reader::open(dir.path(), 1));
}

TEST_CASE("A record inside a record is none") {
  temp_dir dir;
  log_writer log{dir.path(), 1, segment_bytes};
  log.add(chars("inner"));
  REQUIRE_FALSE(log.write());
  auto reader = log_reader::open(dir.path(), 1);
  REQUIRE(reader);
  // A program whose text is a record's bytes, from the log of another segment.
  auto bytes_of_record = reader->read(log_head_bytes, log_room(5));
  REQUIRE(bytes_of_record);
  log_writer other{dir.path(), 2, segment_bytes};
  other.add(*bytes_of_record);
  REQUIRE_FALSE(other.write());
  std::string file = file_of(dir.path(), 2);
  flip(file, log_head_bytes + 8); // the outer record is damaged: its inside is looked at
  CHECK(payloads(dir.path(), 2).empty());
}

TEST_CASE("Opening brings in what only the log holds, once") {
  temp_dir dir;
  {
    auto opened = journal::open(in_dir(dir.path()));
    REQUIRE(opened);
    log_writer log{dir.path(), opened->log_begin().segment, segment_bytes};
    for (std::uint64_t i = 1; i <= 50; ++i)
      add_job(log, i, i != 50);
    REQUIRE_FALSE(log.write());
  }
  for (int start = 0; start < 2; ++start) {
    auto opened = journal::open(in_dir(dir.path()));
    REQUIRE(opened);
    CHECK(opened->recovered().records_replayed == (start == 0 ? 99 : 0));
    CHECK(opened->recovered().records_damaged == 0);
    CHECK(opened->recovered().jobs_interrupted == (start == 0 ? 1 : 0));
    CHECK(opened->next_number() == 51);
    auto all = states(*opened);
    CHECK(all.size() == 50);
    CHECK(all.at("j49") == job_state::exited);
    CHECK(all.at("j50") == job_state::interrupted);
    CHECK(list_segments(dir.path()).empty());
  }
}

TEST_CASE("A torn end of the log is no damage, a damaged middle is told and set aside") {
  temp_dir dir;
  log_position end;
  {
    auto opened = journal::open(in_dir(dir.path()));
    REQUIRE(opened);
    log_writer log{dir.path(), opened->log_begin().segment, limits::mib};
    for (std::uint64_t i = 1; i <= 3; ++i)
      add_job(log, i);
    REQUIRE_FALSE(log.write());
    end = log.end();
    add_job(log, 4);
    REQUIRE_FALSE(log.write());
  }
  bool middle = GENERATE(false, true);
  std::string file = file_of(dir.path(), end.segment);
  if (middle)
    flip(file, log_head_bytes + 40);
  else
    std::filesystem::resize_file(file, end.offset + 20);
  auto opened = journal::open(in_dir(dir.path()));
  REQUIRE(opened);
  CHECK(opened->recovered().records_damaged == (middle ? 1 : 0));
  auto all = states(*opened);
  CHECK(all.size() == (middle ? 4 : 3)); // the end of the first tells of it without its code
  for (const auto& [job, state] : all)
    CHECK(state == job_state::exited);
  bool aside = false;
  for (const auto& each : std::filesystem::directory_iterator{dir.path()})
    aside |= each.path().extension() == ".damaged";
  CHECK(aside == middle);
}

TEST_CASE("Whenever a server is killed, each job it had on disk is there after it") {
  temp_dir dir;
  std::set<std::uint64_t> told_of; // jobs that were on disk before the server was killed
  for (int life = 0; life < 8; ++life) {
    int told[2];
    REQUIRE(pipe(told) == 0);
    pid_t child = fork();
    if (child == 0) { // a server that records as fast as it can, and tells what is on disk
      close(told[0]);
      auto opened = journal::open(in_dir(dir.path()));
      if (!opened)
        _exit(1);
      std::uint64_t number = opened->next_number();
      log_writer log{dir.path(), opened->log_begin().segment, 64 * limits::kib};
      log_indexer index{std::move(*opened)};
      for (;; ++number) {
        add_job(log, number, number % 3 != 0);
        if (log.write())
          _exit(1);
        index.advance(log.end(), log.bytes_written());
        if (number % 64 == 0 && index.wait_until_current(10s))
          _exit(1);
        if (log.sync() || ::write(told[1], &number, sizeof number) < 0)
          _exit(1);
      }
    }
    close(told[1]);
    std::uint64_t last = 0;
    std::uint64_t number = 0;
    std::uint64_t wanted = 20 + static_cast<std::uint64_t>(life) * 61;
    std::uint64_t first = 0;
    while (::read(told[0], &number, sizeof number) == static_cast<ssize_t>(sizeof number)) {
      first = first == 0 ? number : first;
      last = number;
      told_of.insert(last);
      if (last - first >= wanted)
        kill(child, SIGKILL);
    }
    close(told[0]);
    int status = 0;
    waitpid(child, &status, 0);
    REQUIRE(WIFSIGNALED(status));
    auto opened = journal::open(in_dir(dir.path()));
    REQUIRE(opened);
    CHECK(opened->recovered().records_damaged == 0);
    query_history query;
    query.limit = 1000;
    std::map<std::uint64_t, job_state> found;
    do {
      auto page = opened->reader().query(query);
      REQUIRE(page);
      for (const entry& each : page->entries) {
        CHECK(each.code == "code of " + each.result.job);
        found[each.number] = each.result.state;
      }
      query.before = page->next_before.value_or(0);
    } while (query.before != 0);
    for (std::uint64_t i = 1; i <= last; ++i) {
      REQUIRE(found.contains(i));
      // Of a job that was not told, the begin alone may have come to disk.
      bool begin_alone = !told_of.contains(i) && found[i] == job_state::interrupted;
      bool has_end = i % 3 != 0 && !begin_alone;
      CHECK(found[i] == (has_end ? job_state::exited : job_state::interrupted));
    }
  }
}

TEST_CASE("The index follows the log, and segments go when it holds them") {
  temp_dir dir;
  auto opened = journal::open(in_dir(dir.path()));
  REQUIRE(opened);
  auto reader = opened->open_reader();
  REQUIRE(reader);
  std::size_t most = 0;
  {
    log_writer log{dir.path(), opened->log_begin().segment, 64 * limits::kib};
    log_indexer index{std::move(*opened)};
    std::uint64_t number = 0;
    for (int round = 0; round < 20; ++round) {
      for (int i = 0; i < 200; ++i)
        add_job(log, ++number);
      REQUIRE_FALSE(log.write());
      index.advance(log.end(), log.bytes_written());
      if (round % 2 == 0) {
        REQUIRE_FALSE(index.wait_until_current(30s));
        CHECK(reader->query({})->total == number);
      }
      REQUIRE_FALSE(index.wait_until_near(64 * limits::kib, 30s));
      most = std::max(most, list_segments(dir.path()).size());
    }
    CHECK(most < 12); // all of it is some 25 segments
  }
  CHECK(list_segments(dir.path()).empty());
  CHECK(reader->query({})->total == 4000);
}

TEST_CASE("A full disk fails the record, not the log") {
  temp_dir place;
  small_disk disk{place.path()};
  if (!disk.is_there()) {
    test::skip("a file system of a few MiB cannot be mounted here");
    return;
  }
  constexpr std::uint64_t segment = 8 * limits::mib;
  log_writer log{place.path(), 1, segment};
  std::string filler(limits::mib, 'x');
  std::uint64_t written = 0;
  error why;
  while (!why && written < 200) {
    log.add(chars(filler));
    why = log.write();
    if (!why)
      why = log.sync();
    written += why ? 0 : 1;
  }
  REQUIRE(why == ec::store_failed);
  CHECK(written > 50);
  log.add(chars("still full"));
  CHECK(log.write());
  remove_segment(place.path(), 1);
  log.add(chars("there is room again"));
  REQUIRE_FALSE(log.write());
  REQUIRE_FALSE(log.sync());
  std::vector<std::string> all;
  int damaged = 0;
  for (std::uint64_t each : list_segments(place.path()))
    for (auto& payload : payloads(place.path(), each, &damaged))
      all.push_back(std::move(payload));
  CHECK(damaged == 0);
  CHECK(all.back() == "there is room again");
  CHECK(all.size() == written + 1 - 7); // seven such records fit into the segment that went
}
