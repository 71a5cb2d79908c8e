// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/archive.hpp"
#include "machines/namespace/layer_restore.hpp"
#include "machines/namespace/layer_walk.hpp"
#include "machines/namespace/layers.hpp"
#include "tests/support/skip.hpp"
#include "tests/support/temp_dir.hpp"

#include <catch2/catch.hpp>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <sched.h>
#include <set>

using namespace berth;
using namespace berth::machines;
namespace fs = std::filesystem;

namespace {

using changes = std::vector<std::uint64_t>;

/// A layer_tree, and beside it what each state and each directory must stand for: the numbers of
/// the tops that were frozen, the oldest first.
struct modelled {
  modelled()
    : disk(std::make_shared<layer_disk>())
    , tree(std::make_shared<layer_dir>(disk, 0)) {}

  std::shared_ptr<layer_dir> fresh() {
    return std::make_shared<layer_dir>(disk, disk->next_number++);
  }
  changes flat(const layer_stack& stack) const {
    changes all;
    for (auto one = stack.rbegin(); one != stack.rend(); ++one) {
      const auto& has = holds.at((*one)->number());
      all.insert(all.end(), has.begin(), has.end());
    }
    return all;
  }
  void freeze(checkpoint_number checkpoint) {
    auto below = tree.stack_of_present();
    auto top = tree.top()->number();
    CHECK(flat(below) == present);
    holds[top] = {top};
    present.push_back(top);
    below.insert(below.begin(), tree.top());
    tree.froze(checkpoint, fresh(), below);
    states[checkpoint] = present;
  }
  void roll_back(checkpoint_number checkpoint) {
    tree.rolled_back(checkpoint, fresh(), tree.stack_of(checkpoint));
    present = states.at(checkpoint);
  }
  void drop(checkpoint_number checkpoint) {
    tree.drop(checkpoint);
    states.erase(checkpoint);
  }
  bool merge() {
    auto next = tree.next_merge();
    if (!next)
      return false;
    auto into = fresh();
    holds[into->number()] = flat(next->layers);
    tree.merged(*next, into);
    return true;
  }
  void check() const {
    for (const auto& [checkpoint, is] : states) {
      CHECK(flat(tree.stack_of(checkpoint)) == is);
      for (const auto& [since, was] : states) {
        bool descends = was.size() <= is.size() && std::equal(was.begin(), was.end(), is.begin());
        auto between = tree.between(since, checkpoint);
        CHECK(between.has_value() == descends);
        if (between && descends)
          CHECK(flat(*between)
                == changes(is.begin() + static_cast<std::ptrdiff_t>(was.size()), is.end()));
      }
    }
    std::set<std::uint64_t> gone{disk->garbage.begin(), disk->garbage.end()};
    CHECK(gone.size() == disk->garbage.size());
    for (const auto& one : tree.below())
      CHECK_FALSE(gone.contains(one->number()));
  }

  std::shared_ptr<layer_disk> disk;
  layer_tree tree;
  std::map<std::uint64_t, changes> holds;
  std::map<checkpoint_number, changes> states;
  changes present;
};

owned_fd open_dir(const std::string& path) {
  return owned_fd{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
}

std::string read_file(const std::string& path) {
  std::ifstream in{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, {}};
}

void put_text(const std::string& path, const std::string& text) {
  std::ofstream{path, std::ios::binary} << text;
}

/// What a tree is, as text to compare.
std::string describe(const std::string& root) {
  std::vector<std::string> lines;
  for (const auto& entry : fs::recursive_directory_iterator{root}) {
    struct stat info {};
    ::lstat(entry.path().c_str(), &info);
    std::string line = entry.path().string().substr(root.size()) + " "
                       + std::to_string(info.st_mode) + " " + std::to_string(info.st_mtim.tv_sec)
                       + "." + std::to_string(info.st_mtim.tv_nsec);
    if (S_ISREG(info.st_mode))
      line += " " + std::to_string(info.st_nlink) + " " + read_file(entry.path());
    if (S_ISLNK(info.st_mode))
      line += " -> " + fs::read_symlink(entry.path()).string();
    char value[64] = {};
    if (::lgetxattr(entry.path().c_str(), "user.note", value, sizeof value - 1) >= 0)
      line += std::string{" note "} + value;
    lines.push_back(std::move(line));
  }
  std::sort(lines.begin(), lines.end());
  return std::accumulate(lines.begin(), lines.end(), std::string{},
                         [](std::string all, const std::string& one) { return all + one + "\n"; });
}

/// Trees of directories, open.
struct opened {
  explicit opened(const std::vector<std::string>& paths) {
    for (const auto& one : paths) {
      fds.push_back(open_dir(one));
      numbers.push_back(fds.back().get());
    }
  }
  std::vector<owned_fd> fds;
  std::vector<int> numbers;
};

archive::written save(const std::vector<std::string>& trees, const std::string& to,
                      std::uint64_t bytes_max = UINT64_MAX,
                      const std::vector<std::string>& below = {}) {
  opened open{trees};
  opened rest{below};
  owned_fd file{::open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
  return archive::write({open.numbers, rest.numbers, ::geteuid() != 0}, file.get(), bytes_max);
}

/// Restores archives to layers of those numbers.
std::string restore(const std::vector<std::pair<std::string, std::uint64_t>>& archives,
                    const std::string& disk) {
  owned_fd root = open_dir(disk);
  std::vector<owned_fd> files;
  std::vector<restored_layer> layers;
  for (const auto& [path, number] : archives) {
    files.emplace_back(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    layers.push_back({files.back().get(), number});
  }
  return restore_layers({root.get(), -1, ::geteuid(), ::geteuid() != 0}, layers);
}

std::string restore(const std::string& archive, const std::string& disk) {
  return restore({{archive, 1}}, disk);
}

void make_varied(const std::string& tree) {
  fs::create_directories(tree + "/deep/er/still");
  put_text(tree + "/deep/er/file", "text");
  put_text(tree + "/empty", "");
  put_text(tree + "/" + std::string(255, 'n'), "long name");
  put_text(tree + "/line\nbreak \xff\xfe", "hostile name");
  fs::create_symlink("../nowhere/" + std::string(3000, 'x'), tree + "/link");
  ::mkfifo((tree + "/pipe").c_str(), 0640);
  fs::create_hard_link(tree + "/deep/er/file", tree + "/deep/second");
  ::chmod((tree + "/empty").c_str(), 01604);
  // Where the file system keeps them.
  for (const char* noted : {"/deep", "/empty", "/deep/er/file"})
    (void)::setxattr((tree + noted).c_str(), "user.note", noted, std::strlen(noted), 0);
  owned_fd sparse{::open((tree + "/sparse").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)};
  (void)!::pwrite(sparse.get(), "begin", 5, 0);
  (void)!::pwrite(sparse.get(), "middle", 6, 64 << 20);
  (void)!::ftruncate(sparse.get(), 128 << 20);
}

} // namespace

TEST_CASE(
    "states are made of what they were made of, whatever is merged, dropped or gone back to") {
  for (unsigned seed = 1; seed <= 40; ++seed) {
    CAPTURE(seed);
    std::mt19937 random{seed};
    modelled one;
    checkpoint_number next = 1;
    for (int step = 0; step < 120; ++step) {
      auto any = [&] {
        auto at = one.states.begin();
        std::advance(at, random() % one.states.size());
        return at->first;
      };
      switch (random() % 8) {
      case 0:
      case 1:
      case 2:
      case 3:
        one.freeze(next++);
        break;
      case 4:
        if (!one.states.empty())
          one.roll_back(any());
        break;
      case 5:
        if (!one.states.empty())
          one.drop(any());
        break;
      default:
        one.merge();
      }
      if (step % 10 == 0)
        one.check();
    }
    while (one.merge()) {
    }
    one.check();
    CHECK(one.tree.stack_of_present().size() <= stack_merged_above);
  }
}

TEST_CASE("a chain of a hundred states stands on few layers, and all of them can be told apart") {
  modelled one;
  for (checkpoint_number number = 1; number <= 100; ++number) {
    one.freeze(number);
    one.merge();
    CHECK(one.tree.stack_of_present().size() <= stack_merged_above + 1);
  }
  one.check();
  for (checkpoint_number number = 1; number < 100; ++number)
    one.drop(number);
  while (one.merge()) {
  }
  CHECK(one.tree.stack_of(100).size() == 1);
  // All that is left: the state's one layer, what is mounted, and the top.
  CHECK(one.disk->next_number - one.disk->garbage.size() <= 2 + one.tree.below().size());
}

TEST_CASE("an archive gives back what was put in: names, holes, links, times and marks") {
  temp_dir at;
  fs::create_directories(at.path() + "/tree");
  fs::create_directories(at.path() + "/disk");
  make_varied(at.path() + "/tree");
  auto written = save({at.path() + "/tree"}, at.path() + "/archive");
  CHECK(written.error == 0);
  CHECK(written.skipped == 0);
  CHECK(written.bytes == fs::file_size(at.path() + "/archive"));
  CHECK(written.bytes < 1 << 20);
  CHECK(restore(at.path() + "/archive", at.path() + "/disk").empty());
  CHECK(describe(at.path() + "/disk/1/tree") == describe(at.path() + "/tree"));
  struct stat info {};
  ::stat((at.path() + "/disk/1/tree/sparse").c_str(), &info);
  CHECK(info.st_blocks * 512 < 1 << 20);
  // Again over the same: replaced, not mixed.
  CHECK(restore(at.path() + "/archive", at.path() + "/disk").empty());
  CHECK(describe(at.path() + "/disk/1/tree") == describe(at.path() + "/tree"));
}

TEST_CASE("a mark for a name that is not there is restored only above what it hides") {
  temp_dir at;
  for (const char* dir : {"/first/kept", "/second/kept", "/disk", "/one"})
    fs::create_directories(at.path() + dir);
  put_text(at.path() + "/first/kept/gone", "text");
  if (::mknod((at.path() + "/second/kept/gone").c_str(), S_IFCHR, 0) != 0)
    return test::skip("marks of overlays need root outside a machine");
  const std::string first = at.path() + "/archive-1";
  const std::string second = at.path() + "/archive-2";
  CHECK(save({at.path() + "/first"}, first).error == 0);
  CHECK(save({at.path() + "/second"}, second, UINT64_MAX, {at.path() + "/first"}).error == 0);
  struct stat info {};
  CHECK(restore({{first, 1}, {second, 2}}, at.path() + "/disk").empty());
  REQUIRE(::lstat((at.path() + "/disk/2/tree/kept/gone").c_str(), &info) == 0);
  CHECK(is_whiteout(info));
  // In one layer there is nothing to hide.
  CHECK(restore({{first, 1}, {second, 1}}, at.path() + "/one").empty());
  CHECK(fs::is_empty(at.path() + "/one/1/tree/kept"));
  // Nor where the archive lies on nothing.
  CHECK(save({at.path() + "/second"}, second).error == 0);
  CHECK(restore({{second, 1}}, at.path() + "/one").empty());
  CHECK(fs::is_empty(at.path() + "/one/1/tree/kept"));
}

TEST_CASE("an archive that would be larger than allowed is not written on") {
  temp_dir at;
  fs::create_directories(at.path() + "/tree");
  put_text(at.path() + "/tree/large", std::string(4 << 20, 'x'));
  CHECK(save({at.path() + "/tree"}, at.path() + "/archive", 1 << 20).error == EFBIG);
  CHECK(fs::file_size(at.path() + "/archive") <= 1 << 20);
}

TEST_CASE("an archive that is cut or changed is refused, or leads nowhere but into its directory") {
  temp_dir at;
  fs::create_directories(at.path() + "/tree/a/b");
  put_text(at.path() + "/tree/a/b/c", "text");
  put_text(at.path() + "/tree/d", "more");
  fs::create_symlink("/tmp", at.path() + "/tree/out");
  fs::create_hard_link(at.path() + "/tree/d", at.path() + "/tree/e");
  save({at.path() + "/tree"}, at.path() + "/archive");
  const std::string whole = read_file(at.path() + "/archive");
  fs::create_directories(at.path() + "/other/disk");
  for (std::size_t cut = 0; cut < whole.size(); ++cut) {
    put_text(at.path() + "/bad", whole.substr(0, cut));
    CHECK_FALSE(restore(at.path() + "/bad", at.path() + "/other/disk").empty());
  }
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string changed = whole;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
    put_text(at.path() + "/bad", changed);
    (void)restore(at.path() + "/bad", at.path() + "/other/disk");
  }
  put_text(at.path() + "/bad", whole + "x");
  CHECK_FALSE(restore(at.path() + "/bad", at.path() + "/other/disk").empty());
  std::size_t beside = 0;
  for (const auto& entry : fs::directory_iterator{at.path() + "/other"})
    beside += entry.path().filename() != "disk";
  CHECK(beside == 0);
}

TEST_CASE("layers that are merged are the layers that were there") {
  if (::geteuid() != 0)
    return test::skip("marks of overlays need root outside a machine");
  temp_dir at;
  const std::string older = at.path() + "/older";
  const std::string newer = at.path() + "/newer";
  for (const char* dir : {"/older/kept", "/older/replaced", "/older/mixed", "/newer/replaced",
                          "/newer/mixed", "/newer/over-file", "/into"})
    fs::create_directories(at.path() + dir);
  put_text(older + "/kept/a", "1");
  put_text(older + "/replaced/hidden", "2");
  put_text(older + "/mixed/old", "3");
  put_text(older + "/mixed/both", "4");
  put_text(older + "/over-file", "5");
  put_text(older + "/gone", "6");
  put_text(newer + "/replaced/new", "7");
  put_text(newer + "/mixed/both", "8");
  REQUIRE(::mknod((newer + "/gone").c_str(), S_IFCHR, 0) == 0);
  owned_fd replaced = open_dir(newer + "/replaced");
  if (::fsetxattr(replaced.get(), opaque_attribute(false), "y", 1, 0) != 0)
    return test::skip("/tmp keeps no trusted attributes");
  // Marks stay where something below has their directory.
  fs::create_directories(at.path() + "/below/mixed");
  fs::create_directories(newer + "/fresh");
  for (const char* mark : {"/mixed/gone", "/replaced/gone", "/fresh/gone"})
    REQUIRE(::mknod((newer + mark).c_str(), S_IFCHR, 0) == 0);
  opened trees{{newer, older}};
  opened below{{at.path() + "/below"}};
  owned_fd into = open_dir(at.path() + "/into");
  std::uint64_t made = 0;
  REQUIRE(merge_layers({trees.numbers, below.numbers, false}, into.get(), made) == 0);
  CHECK(made == 11);
  const std::string root = at.path() + "/into";
  CHECK(read_file(root + "/kept/a") == "1");
  CHECK_FALSE(fs::exists(root + "/replaced/hidden"));
  CHECK(read_file(root + "/replaced/new") == "7");
  CHECK(read_file(root + "/mixed/old") == "3");
  CHECK(read_file(root + "/mixed/both") == "8");
  CHECK(fs::is_directory(root + "/over-file"));
  struct stat info {};
  REQUIRE(::lstat((root + "/gone").c_str(), &info) == 0);
  CHECK(is_whiteout(info));
  CHECK(::lstat((root + "/mixed/gone").c_str(), &info) == 0);
  CHECK(::lstat((root + "/replaced/gone").c_str(), &info) != 0);
  CHECK(::lstat((root + "/fresh/gone").c_str(), &info) != 0);
  for (const char* name : {"/replaced", "/over-file"}) {
    char value = 0;
    CHECK(::getxattr((root + name).c_str(), opaque_attribute(false), &value, 1) == 1);
  }
  CHECK(::getxattr((root + "/mixed").c_str(), opaque_attribute(false), nullptr, 0) < 0);
  // Shared, not copied.
  CHECK(fs::hard_link_count(root + "/kept/a") == 2);
}

TEST_CASE("a tree is removed however deep it is, and nothing beside it") {
  temp_dir at;
  put_text(at.path() + "/beside", "stays");
  fs::create_directories(at.path() + "/7/tree");
  owned_fd here = open_dir(at.path() + "/7/tree");
  for (int depth = 0; depth < 5'000; ++depth) {
    REQUIRE(::mkdirat(here.get(), "d", 0700) == 0);
    owned_fd file{::openat(here.get(), "f", O_WRONLY | O_CREAT | O_CLOEXEC, 0600)};
    here.reset(::openat(here.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  here.reset();
  owned_fd root = open_dir(at.path());
  CHECK(remove_tree(root.get(), "7", root.get()) == 0);
  CHECK(remove_tree(root.get(), "7", root.get()) == ENOENT);
  CHECK(read_file(at.path() + "/beside") == "stays");
  CHECK(std::distance(fs::directory_iterator{at.path()}, fs::directory_iterator{}) == 1);
}

TEST_CASE("who restores can do nothing but write files") {
  pid_t pid = ::fork();
  if (pid == 0) {
    if (confine_restorer() != 0)
      ::_exit(1);
    int failed = 0;
    failed += ::socket(AF_UNIX, SOCK_STREAM, 0) >= 0;
    failed += ::fork() >= 0;
    failed += ::mount("none", "/tmp", "tmpfs", 0, nullptr) == 0;
    failed += ::kill(::getppid(), 0) == 0;
    failed += ::unshare(CLONE_NEWNS) == 0;
    char* none[] = {nullptr};
    ::execve("/bin/true", none, none);
    ::_exit(failed == 0 ? 0 : 2);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  CHECK(status == 0);
}
