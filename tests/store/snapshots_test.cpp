// SPDX-License-Identifier: Apache-2.0
#include "store/snapshots.hpp"
#include "tests/support/skip.hpp"
#include "tests/support/temp_dir.hpp"

#include <catch2/catch.hpp>
#include <sys/mount.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <random>
#include <sched.h>
#include <sstream>

using namespace berth;

namespace {

saved_state state_of(const std::string& id, const std::string& session, const std::string& base,
                     saved_kind kind = saved_kind::snapshot, bool success = false) {
  saved_state made;
  made.info.snapshot = id;
  made.info.session = session;
  made.info.parent = base;
  made.base = base;
  made.session.session = session;
  made.kind = kind;
  made.job_succeeded = success;
  return made;
}

std::string slurp(const std::string& path) {
  std::ifstream file{path, std::ios::binary};
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void spill(const std::string& path, const std::string& text) {
  std::ofstream{path, std::ios::binary | std::ios::trunc} << text;
}

std::string read_back(const owned_fd& file) {
  std::string text(1 << 20, '\0');
  ssize_t got = pread(file.get(), text.data(), text.size(), 0);
  text.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
  return text;
}

/// A store in a directory of its own.
class fixture {
public:
  fixture() { reopen(); }

  void reopen() {
    auto made = snapshots::open(dir(), bounds);
    REQUIRE(made);
    store = std::make_unique<snapshots>(std::move(*made));
  }

  std::string dir() const { return place.path() + "/snapshots"; }
  std::string archive(const std::string& id) const { return dir() + "/" + id + ".archive"; }
  std::string manifest(const std::string& id) const { return dir() + "/" + id + ".state"; }
  std::size_t files() const {
    std::filesystem::directory_iterator all{dir()};
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
  }

  expected<std::vector<std::string>> save(saved_state state, const std::string& content) {
    auto file = store->begin(state.info.snapshot);
    if (!file)
      return file.error();
    REQUIRE(write(file->get(), content.data(), content.size())
            == static_cast<ssize_t>(content.size()));
    return store->finish(state);
  }

  /// Contents of a state's chain, joined by commas, or why there is none.
  std::string restore(const std::string& id) {
    auto chain = store->open_chain(id);
    if (!chain)
      return to_refusal(chain.error()).detail;
    std::string all;
    for (const owned_fd& file : chain->files)
      all += (all.empty() ? "" : ",") + (file ? read_back(file) : "-");
    return all;
  }

  std::string damage(const std::string& id) const { return store->catalog().damage(id); }

  temp_dir place;
  snapshot_settings bounds;
  std::unique_ptr<snapshots> store;
};

} // namespace

TEST_CASE_METHOD(fixture,
                 "A saved state comes back, with those it builds on, also after a restart") {
  REQUIRE(save(state_of("a", "s-1", "", saved_kind::snapshot, true), "one"));
  REQUIRE(save(state_of("b", "s-1", "a"), "two"));
  auto empty = state_of("c", "s-1", "b", saved_kind::checkpoint);
  REQUIRE(store->finish(empty)); // nothing changed: no archive
  CHECK(empty.info.durable);
  CHECK(empty.info.durable_at_ms > 0);
  for (int round = 0; round < 2; ++round) {
    CHECK(restore("a") == "one");
    CHECK(restore("b") == "one,two");
    CHECK(restore("c") == "one,two,-");
    CHECK(store->catalog().tip("s-1")->info.snapshot == "c");
    CHECK(store->catalog().find("a")->job_succeeded);
    CHECK(store->catalog().find("a")->info.size_bytes == 3);
    CHECK(store->catalog().bytes() == 6);
    CHECK(store->catalog().last_sequence() == 3);
    reopen();
  }
  CHECK(restore("d") == "snapshot d: snapshot: there is none with the id d");
}

TEST_CASE_METHOD(fixture, "Memory that a snapshot held does not outlive the server") {
  auto state = state_of("a", "s-1", "");
  state.info.content = snapshot_content::files_and_memory;
  state.info.contexts = {"python"};
  REQUIRE(save(state, "one"));
  CHECK(store->catalog().find("a")->info.content == snapshot_content::files_and_memory);
  reopen();
  CHECK(store->catalog().find("a")->info.content == snapshot_content::files);
  CHECK(store->catalog().find("a")->info.contexts.empty());
}

TEST_CASE_METHOD(fixture, "What a crash left half written is swept") {
  REQUIRE(save(state_of("a", "s-1", ""), "one"));
  REQUIRE(store->begin("b"));                          // while an archive was written
  spill(dir() + "/c.archive", "no manifest followed"); // between archive and manifest
  spill(dir() + "/d.state.part", "half a manifest");
  CHECK(files() == 5);
  reopen();
  CHECK(files() == 2);
  CHECK(restore("a") == "one");
  CHECK(store->catalog().all().size() == 1);
  REQUIRE(save(state_of("b", "s-1", "a"), "two")); // its id is free
}

TEST_CASE_METHOD(fixture, "A given up archive leaves nothing, and its id can be used") {
  REQUIRE(store->begin("a"));
  CHECK(store->begin("a").error() == ec::already_exists);
  store->abandon("a");
  CHECK(files() == 0);
  REQUIRE(save(state_of("a", "s-1", ""), "one"));
  CHECK(store->begin("a").error() == ec::already_exists);
  CHECK(save(state_of("x", "s-1", "nobody"), "two").error() == ec::not_found);
  CHECK(files() == 2);
  for (const char* name : {"", ".", "..", "../x", "a/b", ".hidden", "nul\1"})
    CHECK(store->begin(name).error() == ec::malformed);
}

TEST_CASE_METHOD(fixture, "An archive cut short anywhere is found, and never given out") {
  REQUIRE(save(state_of("a", "s-1", ""), "0123456789"));
  REQUIRE(save(state_of("b", "s-1", "a"), "x"));
  for (std::size_t size = 0; size < 10; ++size) {
    std::filesystem::resize_file(archive("a"), size);
    CHECK(restore("b").starts_with("snapshot b: it builds on a, which is damaged: its archive"));
    reopen(); // cheaply found at once
    CHECK(damage("a") == "its archive has " + std::to_string(size) + " bytes instead of 10");
    CHECK(damage("b").starts_with("it builds on a, which is damaged"));
    CHECK(restore("a").starts_with("snapshot a: its archive has"));
  }
  std::filesystem::remove(archive("a"));
  reopen();
  CHECK(damage("a") == "its archive is missing");
  spill(archive("a"), "0123456789");
  reopen();
  CHECK(restore("b") == "0123456789,x");
  spill(archive("a"), "01234567890");
  CHECK_FALSE(store->open_chain("a"));
}

TEST_CASE_METHOD(fixture, "Any bit that flips in an archive is found before it is given out") {
  const std::string good = "what changed since the base";
  REQUIRE(save(state_of("a", "s-1", ""), good));
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    spill(archive("a"), bad);
    reopen();
    CHECK(restore("a") == "snapshot a: its archive's checksum does not match");
    CHECK(damage("a") == "its archive's checksum does not match"); // and lists tell it from now on
  }
}

TEST_CASE_METHOD(fixture, "Any bit that flips in a manifest, and any cut, is found at the start") {
  REQUIRE(save(state_of("a", "s-1", ""), "one"));
  REQUIRE(save(state_of("b", "s-1", "a"), "two"));
  const std::string good = slurp(manifest("a"));
  auto is_found = [&](const std::string& bad) {
    spill(manifest("a"), bad);
    reopen();
    return !damage("a").empty() && !damage("b").empty() && std::filesystem::exists(archive("a"));
  };
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    if (!is_found(bad))
      FAIL("bit " << bit << " flipped unseen");
  }
  for (std::size_t size = 0; size < good.size(); ++size)
    if (!is_found(good.substr(0, size)))
      FAIL("cut to " << size << " bytes unseen");
  CHECK(is_found(good + "x"));
  spill(manifest("a"), good);
  reopen();
  CHECK(restore("b") == "one,two");
  spill(manifest("c"), good); // whole, but another's
  reopen();
  CHECK(damage("c") == "its manifest is that of a");
}

TEST_CASE_METHOD(fixture, "A deleted snapshot's bytes stay while later ones need them") {
  REQUIRE(save(state_of("a", "s-1", ""), "one"));
  REQUIRE(save(state_of("b", "s-1", "a"), "two"));
  REQUIRE(save(state_of("c", "s-1", "b"), "three"));
  CHECK_FALSE(store->remove("b"));
  CHECK(store->remove("b") == ec::not_found);
  CHECK(store->catalog().snapshots("s-1").size() == 2);
  reopen();
  CHECK(store->catalog().snapshots("s-1").size() == 2);
  CHECK(restore("c") == "one,two,three");
  CHECK_FALSE(store->remove("c"));
  CHECK(files() == 2); // b went with what needed it
  CHECK(restore("a") == "one");
  CHECK_FALSE(store->remove("a"));
  CHECK(files() == 0);
  CHECK(store->remove("a") == ec::not_found);
}

TEST_CASE_METHOD(fixture, "A session's next checkpoint takes the place of the one before") {
  store->keep("s-1", true);
  REQUIRE(save(state_of("a", "s-1", ""), "one"));
  REQUIRE(save(state_of("k1", "s-1", "a", saved_kind::checkpoint), "two"));
  REQUIRE(save(state_of("k2", "s-1", "a", saved_kind::checkpoint), "two+three"));
  CHECK(files() == 4);
  CHECK(restore("k2") == "one,two+three");
  REQUIRE(save(state_of("k3", "s-1", "k2", saved_kind::checkpoint), "four"));
  CHECK(restore("k3") == "one,two+three,four");
  CHECK(store->catalog().snapshots("s-1").size() == 1);
  CHECK(store->remove("k3") == ec::not_found); // not a client's
  store->keep("s-1", false);                   // closed: only its snapshots stay
  CHECK(files() == 2);
  CHECK(restore("a") == "one");
}

TEST_CASE_METHOD(fixture, "Sessions that are over at the start keep their snapshots only") {
  REQUIRE(save(state_of("a", "s-1", ""), "one"));
  REQUIRE(save(state_of("k1", "s-1", "a", saved_kind::checkpoint), "two"));
  REQUIRE(save(state_of("k2", "s-2", "", saved_kind::checkpoint), "two"));
  spill(manifest("z"), "damaged");
  reopen();
  store->keep_only({"s-2"});
  CHECK(store->catalog().find("k1") == nullptr);
  CHECK(store->catalog().find("a") != nullptr);
  CHECK(store->catalog().tip("s-2")->info.snapshot == "k2");
  CHECK(store->catalog().find("z") != nullptr);
  CHECK_FALSE(store->remove("z"));
  CHECK_FALSE(std::filesystem::exists(manifest("z")));
}

TEST_CASE_METHOD(fixture, "A deleted snapshot that its session would wake with stays for that") {
  store->keep("s-1", true);
  REQUIRE(save(state_of("a", "s-1", ""), "one"));
  CHECK_FALSE(store->remove("a"));
  CHECK(store->catalog().snapshots("s-1").empty());
  CHECK(store->remove("a") == ec::not_found);
  reopen();
  store->keep_only({"s-1"});
  REQUIRE(store->catalog().tip("s-1") != nullptr);
  CHECK(restore("a") == "one");
  REQUIRE(save(state_of("b", "s-1", ""), "two"));
  CHECK(store->catalog().find("a") == nullptr);
  CHECK_FALSE(store->remove("b"));
  store->keep("s-1", false);
  CHECK(files() == 0);
}

TEST_CASE("Beyond the budget the oldest snapshots go, but never a live session's last good one") {
  struct small : fixture {
    small() {
      bounds.bytes_max = 100;
      bounds.per_session_max = 4;
      reopen();
    }
  } f;
  f.store->keep("s-1", true);
  std::string forty(40, 'x');
  REQUIRE(f.save(state_of("old", "closed", ""), forty));
  REQUIRE(f.save(state_of("a", "s-1", ""), forty));
  auto evicted = f.save(state_of("b", "s-2", ""), forty);
  REQUIRE(evicted);
  CHECK(*evicted == std::vector<std::string>{"old"});
  evicted = f.save(state_of("c", "s-2", ""), forty);
  REQUIRE(evicted);
  CHECK(*evicted == std::vector<std::string>{"b"}); // not a, which is the last good one of s-1
  CHECK(f.restore("a") == forty);
  CHECK(f.save(state_of("huge", "s-2", ""), std::string(101, 'x')).error() == ec::no_capacity);
  CHECK(f.save(state_of("big", "s-1", "a"), std::string(70, 'x')).error() == ec::no_capacity);
  CHECK(f.restore("a") == forty); // nothing went in vain
  CHECK(f.restore("c") == forty);
  CHECK(f.files() == 4);
}

TEST_CASE("A session keeps only so many snapshots") {
  struct small : fixture {
    small() {
      bounds.per_session_max = 3;
      reopen();
    }
  } f;
  f.store->keep("s-1", true);
  std::string base;
  for (char c = 'a'; c <= 'j'; ++c) {
    std::string id{c};
    REQUIRE(f.save(state_of(id, "s-1", base), id));
    base = id;
  }
  CHECK(f.store->catalog().snapshots("s-1").size() == 3);
  CHECK(f.restore("j") == "a,b,c,d,e,f,g,h,i,j");
  f.reopen();
  CHECK(f.store->catalog().snapshots("s-1").size() == 3);
}

TEST_CASE("A full disk fails the one snapshot and harms nothing else") {
  // In a child, which may have a small file system of its own.
  temp_dir place;
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
      _exit(77);
    mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
    if (mount("tmpfs", place.path().c_str(), "tmpfs", 0, "size=64k,mode=700") != 0)
      _exit(77);
    auto store = snapshots::open(place.path(), {});
    auto save = [&](const std::string& id, std::size_t size) -> error {
      auto file = store->begin(id);
      if (!file)
        return file.error();
      std::string content(size, 'x');
      if (write(file->get(), content.data(), size) != static_cast<ssize_t>(size)) {
        store->abandon(id); // as its owner does when the machine reports it
        return fail(ec::no_capacity, "full");
      }
      saved_state state = state_of(id, "s-1", "");
      auto done = store->finish(state);
      return done ? error{} : done.error();
    };
    if (!store || save("a", 8192))
      _exit(1);
    if (save("b", 200'000) != ec::no_capacity)
      _exit(2);
    // The archive just fits, its manifest does not.
    bool refused = false;
    for (std::size_t size = 4096; size <= 61440 && !refused; size += 4096) {
      error why = save("c", size);
      refused = static_cast<bool>(why);
      if (!refused && store->remove("c"))
        _exit(3);
    }
    if (!refused || store->catalog().find("c") != nullptr || !store->open_chain("a"))
      _exit(4);
    if (save("d", 8192) || !store->open_chain("d")) // there is room again
      _exit(5);
    auto again = snapshots::open(place.path(), {});
    _exit(again && again->catalog().all().size() == 2 && again->open_chain("a") ? 0 : 6);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
    return test::skip("no file system of its own can be mounted here");
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("Random saves, deletions, closings and restarts never lose what a state needs") {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random{seed};
    fixture f;
    std::map<std::string, std::string> content; // what each snapshot must restore to
    std::map<std::string, std::string> newest;  // of each session
    int next = 0;
    auto pick = [&](std::size_t count) { return random() % count; };
    for (int step = 0; step < 50; ++step) {
      std::string session = "s-" + std::to_string(pick(3));
      f.store->keep(session, true);
      std::string id = "i" + std::to_string(next++);
      auto known = [&] {
        auto place = content.begin();
        std::advance(place, static_cast<std::ptrdiff_t>(pick(content.size())));
        return place->first;
      };
      switch (pick(6)) {
      case 0:
        if (!content.empty()) {
          std::string gone = known();
          CHECK_FALSE(f.store->remove(gone));
          content.erase(gone);
          std::erase_if(newest, [&](const auto& item) { return item.second == gone; });
        }
        break;
      case 1:
        f.reopen();
        f.store->keep_only({"s-0", "s-1", "s-2"});
        break;
      case 2: {
        std::string base = newest.contains(session) ? newest[session] : "";
        auto point = state_of(id, session, base, saved_kind::checkpoint);
        CHECK(f.save(point, id));
        break;
      }
      default: {
        // On from the newest, or, after a rollback, from any.
        std::string base = content.empty() || pick(4) == 0 ? "" : known();
        if (pick(2) == 0 && newest.contains(session))
          base = newest[session];
        CHECK(f.save(state_of(id, session, base), id));
        content[id] = base.empty() ? id : content[base] + "," + id;
        newest[session] = id;
      }
      }
      for (const auto& [snapshot, whole] : content)
        CHECK(f.restore(snapshot) == whole);
    }
    for (const auto& [snapshot, whole] : content)
      CHECK_FALSE(f.store->remove(snapshot));
    for (int i = 0; i < 3; ++i)
      f.store->keep("s-" + std::to_string(i), false);
    CHECK(f.files() == 0);
  }
}

// --- the catalogue alone -------------------------------------------------------------------------

TEST_CASE("A chain that runs in a circle or misses a link is damage, not a hang") {
  snapshot_catalog all;
  auto put = [&](const char* id, const char* base) {
    auto state = state_of(id, "s-1", base);
    state.sequence = all.last_sequence() + 1;
    all.put(state);
  };
  put("a", "b");
  put("b", "a");
  put("c", "gone");
  CHECK(all.damage("a").find("circle") != std::string::npos);
  CHECK(all.damage("c") == "it builds on gone, which is missing");
  CHECK(all.tip("s-1") == nullptr);
}

TEST_CASE("Newest good and newest successful snapshots of live sessions are kept") {
  snapshot_catalog all;
  auto put = [&](const char* id, bool success, const char* damage = "") {
    auto state = state_of(id, "s-1", "", saved_kind::snapshot, success);
    state.sequence = all.last_sequence() + 1;
    state.info.damage = damage;
    all.put(state);
  };
  put("a", false);
  put("b", true);
  put("c", true);
  put("d", false);
  put("e", false);
  put("f", false, "damaged");
  std::vector<std::string> order;
  auto evict_all = [&](const std::set<std::string>& live) {
    order.clear();
    snapshot_catalog copy = all;
    while (auto next = copy.to_evict(live)) {
      order.push_back(*next);
      copy.erase(*next);
    }
    return order;
  };
  CHECK(evict_all({"s-1"}) == std::vector<std::string>{"a", "b", "d", "f"});
  CHECK(evict_all({}) == std::vector<std::string>{"a", "b", "c", "d", "e", "f"});
  CHECK(all.to_evict({"s-1"}, "s-2") == std::nullopt);
}

TEST_CASE("A chain that is long, or mostly kept for nobody, is better saved whole") {
  snapshot_catalog all;
  std::string base;
  auto put = [&](bool deleted, std::uint64_t bytes) {
    auto state = state_of("i" + std::to_string(all.last_sequence()), "s-1", base);
    state.sequence = all.last_sequence() + 1;
    state.deleted = deleted;
    state.archive_bytes = bytes;
    base = state.info.snapshot;
    all.put(state);
  };
  put(true, 10 * limits::mib);
  put(false, 1 * limits::mib);
  CHECK_FALSE(all.better_whole(base)); // little to gain
  put(true, 10 * limits::mib);
  put(false, 1 * limits::mib);
  CHECK(all.better_whole(base));
  put(false, 100 * limits::mib);
  CHECK_FALSE(all.better_whole(base)); // much of it is wanted
  while (all.all().size() < 128)
    put(false, 1);
  CHECK(all.better_whole(base));
  CHECK(all.better_whole("nobody"));
}
