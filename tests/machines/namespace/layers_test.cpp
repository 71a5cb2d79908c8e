// SPDX-License-Identifier: Apache-2.0
#include "machines/namespace/layers.hpp"
#include "machines/namespace/sweep.hpp"
#include "tests/machines/fixture.hpp"
#include "tests/support/skip.hpp"

#include <sys/mman.h>
#include <sys/sendfile.h>

#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <map>
#include <poll.h>
#include <random>
#include <set>

using namespace berth;
using namespace berth::test;
using machines::checkpoint_number;
using machines::files_step;

namespace {

const std::string real_lib = std::string{BERTH_BUILD_DIR} + "/lib/berth";

/// Changes a machine's writable places at random, by a seed: everything a program may do to its
/// tree, with names that a careless reader trips over.
constexpr const char* change_script = R"py(
import os, random, shutil, sys
random.seed(int(SEED))
places = ["/work", "/home/agent", "/tmp", "/var/tmp", "/dev/shm"]
names = ["a", "b", "c d", "e\nf", "g" * 255, os.fsdecode(b"\xff\xfe"), ".wh.h", "-r"]
def everything():
    found = []
    for place in places:
        for at, dirs, files in os.walk(place):
            if at.startswith("/tmp/.berth"):
                dirs[:] = []
                continue
            dirs[:] = [d for d in dirs if not (at == "/tmp" and d.startswith(".berth"))]
            found += [os.path.join(at, n) for n in dirs + files]
    return found
def somewhere():
    dirs = places + [p for p in everything() if os.path.isdir(p) and not os.path.islink(p)]
    return os.path.join(random.choice(dirs), random.choice(names))
def anything(test):
    found = [p for p in everything() if test(p)]
    return random.choice(found) if found else None
def remove(path):
    if os.path.isdir(path) and not os.path.islink(path): shutil.rmtree(path)
    elif os.path.lexists(path): os.remove(path)
regular = lambda p: os.path.isfile(p) and not os.path.islink(p)
def write():
    path = somewhere(); remove(path)
    with open(path, "wb") as f: f.write(random.randbytes(random.choice([0, 1, 4096, 70000])))
def overwrite():
    if path := anything(regular):
        with open(path, "r+b") as f: f.seek(random.randrange(100)); f.write(b"over")
def append():
    if path := anything(regular):
        with open(path, "ab") as f: f.write(b"appended")
def cut():
    if path := anything(regular): os.truncate(path, random.randrange(5000))
def delete():
    if path := anything(lambda p: True): remove(path)
def make_dir():
    path = somewhere(); remove(path); os.mkdir(path)
def replace_dir():
    if path := anything(lambda p: os.path.isdir(p) and not os.path.islink(p)):
        shutil.rmtree(path); os.mkdir(path)
        open(os.path.join(path, "fresh"), "w").close()
def rename():
    if path := anything(lambda p: True):
        to = somewhere()
        if (to + "/").startswith(path + "/") or (path + "/").startswith(to + "/"): return
        remove(to)
        try: os.rename(path, to)
        except OSError as error:
            if error.errno != 18: raise  # a directory that was there at the last state
def link():
    path = somewhere(); remove(path); os.symlink(random.choice(["a", "/etc/passwd", "x/../y"]), path)
def mode():
    if path := anything(lambda p: not os.path.islink(p)):
        os.chmod(path, random.choice([0o700, 0o755, 0o750]) if os.path.isdir(path) else
                 random.choice([0o600, 0o755, 0o4711, 0o640]))
def sparse():
    path = somewhere(); remove(path)
    with open(path, "wb") as f: f.seek(5 << 20); f.write(b"end")
def pipe():
    path = somewhere(); remove(path); os.mkfifo(path)
def second_name():
    if path := anything(regular):
        to = somewhere()
        if not os.path.lexists(to):
            try: os.link(path, to)
            except OSError as error:
                if error.errno != 18: raise  # /dev/shm is a mount of its own
def tag():
    if path := anything(lambda p: regular(p) or os.path.isdir(p) and not os.path.islink(p)):
        try: os.setxattr(path, "user." + random.choice("ab/"), random.randbytes(random.randrange(9)))
        except OSError as error:
            if error.errno != 95: raise  # a kernel whose tmpfs keeps none
for _ in range(random.randrange(3, 12)):
    random.choice([write, write, overwrite, append, cut, delete, make_dir, replace_dir, rename,
                   link, mode, sparse, pipe, second_name, tag])()
)py";

/// Says all that is in the writable places: names, kinds, modes, times, contents.
constexpr const char* describe_script = R"py(
import hashlib, os, stat
lines = []
for place in ["/work", "/home/agent", "/tmp", "/var/tmp", "/dev/shm"]:
    for at, dirs, files in os.walk(place):
        dirs[:] = [d for d in dirs if not (at == "/tmp" and d.startswith(".berth"))]
        for name in dirs + files:
            path = os.path.join(at, name)
            info = os.lstat(path)
            what = ""
            if stat.S_ISREG(info.st_mode): what = hashlib.md5(open(path, "rb").read()).hexdigest()
            if stat.S_ISLNK(info.st_mode): what = os.readlink(path)
            for name in sorted(os.listxattr(path, follow_symlinks=False)):
                what += f" {name}={os.getxattr(path, name, follow_symlinks=False).hex()}"
            lines.append((path, oct(info.st_mode), info.st_uid, info.st_mtime_ns, what))
for line in sorted(lines): print(ascii(line))
)py";

/// Why this host keeps no states, or nothing: an ordinary user's tmpfs may lack attributes.
std::string why_no_states(const plant& made) {
  if (!made.source)
    return "no machine can be made here: " + made.problem;
  for (const auto& line : made.source->isolation())
    if (line.starts_with("states of files: ") && line.find("layers") == std::string::npos)
      return line;
  return {};
}

bool no_states(const plant& made) {
  std::string why = why_no_states(made);
  if (!why.empty())
    skip(why);
  return !why.empty();
}

bool forks_share(const plant& made) {
  for (const auto& line : made.source->isolation())
    if (line.find("which forks share") != std::string::npos)
      return true;
  return false;
}

/// A machine and what it says, with its steps as calls that wait.
struct box {
  box(plant& in, const std::string& named, machines::machine_limits limits = {},
      std::vector<std::string> warm = {})
    : box(in, machines::machine_spec{.id = named, .limits = limits, .warm = std::move(warm)}) {}
  box(plant& in, const machines::machine_spec& spec)
    : id(spec.id)
    , listener(std::make_shared<heard>())
    , machine(in.source->start(spec, listener)) {}
  ~box() { end(); }

  bool up() { return listener->next<guest::hello>().has_value(); }
  void end() {
    machine->destroy();
    listener->wait_gone();
  }
  std::string wait(files_step step) {
    auto done = listener->next_files(step);
    last = done.value_or(machines::files_done{});
    return done ? done->error : "the machine is gone: " + listener->why();
  }
  std::string freeze(checkpoint_number number) {
    return at_rest([&] { return freeze_busy(number); });
  }
  std::string roll_back(checkpoint_number number) {
    return at_rest([&] { return roll_back_busy(number); });
  }
  /// Without asking the guest, which refuses while a job runs.
  std::string freeze_busy(checkpoint_number number) {
    machine->freeze_files(number);
    return wait(files_step::freeze);
  }
  std::string roll_back_busy(checkpoint_number number) {
    machine->roll_back_files(number);
    return wait(files_step::roll_back);
  }
  /// The guest lets go of what stands in the tree, as it does for a slot.
  std::string at_rest(const std::function<std::string()>& step) {
    machine->send(guest::freeze{.request = ++requests});
    auto rests = listener->next<guest::frozen>();
    if (!rests || !rests->error.empty())
      return rests ? rests->error : "the machine is gone: " + listener->why();
    std::string why = step();
    machine->send(guest::thaw{.request = ++requests});
    auto on = listener->next<guest::thawed>();
    return on || !why.empty() ? why : "the guest does not go on: " + listener->why();
  }
  std::string drop(checkpoint_number number) {
    machine->drop_files(number);
    return wait(files_step::drop);
  }
  std::string save(checkpoint_number number, checkpoint_number since,
                   const std::shared_ptr<const owned_fd>& to,
                   std::uint64_t bytes_max = UINT64_MAX) {
    machine->save_files(number, since, to, bytes_max);
    return wait(files_step::save);
  }
  std::string bash(const std::string& code) {
    guest::start_job job;
    job.language = "bash";
    job.code = code;
    ran result = test::run(*machine, *listener, std::move(job));
    return result.out + result.err + (result.ended ? "" : "(did not end)");
  }
  std::string python(const std::string& code) {
    ran result = test::run(*machine, *listener, "python", code);
    return result.err + result.out + (result.ended ? "" : "(did not end)");
  }
  /// Starts a job in Python that takes input.
  void start(const std::string& code) {
    guest::start_job job;
    job.job = started_job;
    job.language = "python";
    job.code = code;
    job.cwd = "/";
    job.stdin_open = true;
    job.output_bytes = 1 << 20;
    machine->send(job);
  }
  void type(const std::string& text) {
    machine->send(guest::stdin_data{.job = started_job, .data = bytes(text.begin(), text.end())});
  }
  /// Waits until a job wrote that, and nothing else.
  bool says(const std::string& text) {
    std::string said;
    while (said.size() < text.size()) {
      auto output = listener->next<guest::output>();
      if (!output)
        return false;
      said.append(output->data.begin(), output->data.end());
    }
    return said == text;
  }
  std::string change(std::uint64_t seed) {
    return python("SEED = " + std::to_string(seed) + change_script);
  }
  std::string tree() { return python(describe_script); }

  /// No number that test::run gives.
  static constexpr std::uint32_t started_job = 900;

  std::string id;
  std::shared_ptr<heard> listener;
  std::shared_ptr<machines::machine> machine;
  machines::files_done last;
  std::uint32_t requests = 0;
};

std::shared_ptr<const owned_fd> memory_file() {
  return std::make_shared<const owned_fd>(::memfd_create("archive", MFD_CLOEXEC));
}

/// Random changes, freezes, rollbacks, drops, saves with restores, and forks of one session's
/// files; what the tree must be is remembered as text at each freeze.
class walk {
public:
  walk(plant& made, unsigned seed)
    : made_(made)
    , random_(seed)
    , name_("walk-" + std::to_string(seed)) {}

  /// Returns what went wrong, with all that was done before.
  std::string run(int steps) {
    one_ = std::make_unique<box>(made_, name_);
    if (!one_->up())
      return "no hello: " + one_->listener->why();
    for (int i = 0; i < steps; ++i)
      if (std::string why = step(); !why.empty())
        return log_ + "\n" + why;
    return {};
  }

private:
  struct saved {
    std::string tree;
    checkpoint_number since = 0;
    std::shared_ptr<const owned_fd> archive;
  };

  checkpoint_number any() {
    auto at = known_.begin();
    std::advance(at, random_() % known_.size());
    return *at;
  }
  static std::string same(const std::string& now, const std::string& then) {
    return now == then ? "" : "the tree is\n" + now + "and was\n" + then;
  }

  std::string step() {
    auto kind = known_.empty() ? random_() % 5 : random_() % 12;
    if (kind < 3) {
      std::uint64_t with = random_();
      log_ += " change(" + std::to_string(with) + ")";
      return one_->change(with);
    }
    return kind < 6    ? freeze()
           : kind < 9  ? roll_back()
           : kind == 9 ? drop()
                       : begin_anew(kind == 10);
  }

  std::string freeze() {
    checkpoint_number number = next_++;
    log_ += " freeze(" + std::to_string(number) + ")";
    std::string before = one_->tree();
    if (auto error = one_->freeze(number); !error.empty())
      return error;
    if (auto wrong = same(one_->tree(), before); !wrong.empty())
      return wrong;
    checkpoint_number since = known_.contains(base_) ? base_ : 0;
    auto file = memory_file();
    if (auto error = one_->save(number, since, file); !error.empty())
      return "save: " + error;
    states_[number] = {before, since, file};
    known_.insert(number);
    base_ = number;
    return {};
  }

  std::string roll_back() {
    base_ = any();
    log_ += " roll_back(" + std::to_string(base_) + ")";
    auto error = one_->roll_back(base_);
    return error.empty() ? same(one_->tree(), states_.at(base_).tree) : error;
  }

  std::string drop() {
    checkpoint_number gone = any();
    log_ += " drop(" + std::to_string(gone) + ")";
    known_.erase(gone);
    auto error = one_->drop(gone);
    std::string again = one_->drop(gone);
    return error.empty() && again.empty() ? "it could be dropped twice" : error;
  }

  /// Goes on in another machine: with what was saved, or with a fork.
  std::string begin_anew(bool restored) {
    base_ = any();
    log_ += (restored ? " restore(" : " fork(") + std::to_string(base_) + ")";
    if (!restored && !forks_share(made_))
      return {};
    machines::machine_spec spec{
        .id = name_ + "-" + std::to_string(++others_), .limits = {}, .warm = {}};
    std::set<checkpoint_number> known;
    if (restored) {
      for (checkpoint_number at = base_; at != 0; at = states_.at(at).since) {
        spec.layers.insert(spec.layers.begin(), {at, states_.at(at).archive});
        known.insert(at);
      }
    } else {
      spec.parent = one_->id;
      spec.checkpoint = base_;
      known.insert(base_);
    }
    auto other = std::make_unique<box>(made_, spec);
    if (!other->up())
      return "no hello: " + other->listener->why();
    // The one before goes, whoever leans on its disk.
    one_ = std::move(other);
    known_ = std::move(known);
    return same(one_->tree(), states_.at(base_).tree);
  }

  plant& made_;
  std::mt19937 random_;
  std::string name_;
  std::string log_;
  std::unique_ptr<box> one_;
  std::map<checkpoint_number, saved> states_;
  std::set<checkpoint_number> known_;
  checkpoint_number base_ = 0;
  checkpoint_number next_ = 1;
  int others_ = 0;
};

} // namespace

TEST_CASE("whatever is done to files, a state gives back all of them and nothing else") {
  plant made{test_settings(real_lib)};
  if (no_states(made))
    return;
  for (unsigned seed = 1; seed <= 3; ++seed)
    CHECK(walk(made, seed).run(40) == "");
}

TEST_CASE("an ordinary user's machines keep states as root's do") {
  if (::geteuid() != 0)
    return skip("the other tests run as an ordinary user already");
  std::string told = as_ordinary_user(real_lib, [](plant& made) {
    std::string why = why_no_states(made);
    return why.empty() ? walk(made, 7).run(40) : "skip: " + why;
  });
  if (told.starts_with("skip: "))
    return skip(told.substr(6));
  CHECK(told == "");
}

TEST_CASE("a live interpreter reads and writes in the new tree, and finds no way out of it") {
  auto settings = test_settings(real_lib);
  settings.templates = {"python"};
  plant made{settings};
  if (no_states(made))
    return;
  box one{made, "live"};
  REQUIRE(one.up());
  // The template comes up beside the first machine.
  for (int i = 0; i < 1'000 && !one.machine->warm("python"); ++i)
    ::usleep(20'000);
  REQUIRE(one.listener->next<guest::warmed>());
  one.start(R"(
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for line in sys.stdin:
    try: print(eval(line), flush=True)
    except OSError as error: print(error.errno, flush=True)
)");
  auto ask = [&](const std::string& expression) {
    one.type(expression + "\n");
    std::string said;
    while (!said.ends_with('\n')) {
      auto output = one.listener->next<guest::output>();
      if (!output)
        return "gone: " + one.listener->why();
      said.append(output->data.begin(), output->data.end());
    }
    return said;
  };
  CHECK(ask("open('/work/a', 'w').write('first')") == "5\n");
  REQUIRE(one.freeze_busy(1) == "");
  CHECK(ask("open('/work/a').read()") == "first\n");
  CHECK(ask("open('/work/a', 'w').write('second')") == "6\n");
  CHECK(ask("os.listdir('/work')") == "['a']\n");
  CHECK(ask("open('/dev/shm/s', 'w').write('x') + os.stat('/proc/self').st_nlink * 0") == "1\n");
  CHECK(ask("[os.stat(p).st_size > 0 for p in ('/usr/bin/python3', '/etc/passwd')]")
        == "[True, True]\n");
  REQUIRE(one.roll_back_busy(1) == "");
  CHECK(ask("open('/work/a').read()") == "first\n");
  CHECK(ask("os.listdir('/dev/shm')") == "[]\n");
  // The walls around the new tree are those of the old one.
  for (const char* attempt :
       {"open('/etc/x', 'w')", "open('/usr/x', 'w')", "open('/dev/x', 'w')", "open('/opt/x', 'w')",
        "os.mknod('/tmp/n', 0o020666, os.makedev(1, 3))", "os.chroot('/tmp')",
        "os.listdir('/proc/1/root')", "os.listdir('/../../house')",
        "open('/proc/sys/kernel/hostname', 'w')"}) {
    CAPTURE(attempt);
    std::string said = ask(attempt);
    CHECK((said == "1\n" || said == "2\n" || said == "13\n" || said == "17\n" || said == "30\n"));
  }
  CHECK(ask("os.path.exists('/house') or os.path.exists('/machine') or os.path.exists('/next')")
        == "False\n");
  CHECK(ask("libc.mount(b'x', b'/tmp', b'tmpfs', 0, None)") == "-1\n");
  CHECK(ask("libc.unshare(0x10000000)") == "-1\n");
  CHECK(ask("open('/proc/self/mountinfo').read().count(' / / ')") == "1\n");
}

TEST_CASE("a state is refused while a file is open for writing, and says whose") {
  plant made{test_settings(real_lib)};
  if (no_states(made))
    return;
  box one{made, "writer"};
  REQUIRE(one.up());
  one.start("import sys\nf = open('/work/held', 'w')\nprint('held', flush=True)\n"
            "sys.stdin.readline()\nf.write('late'); f.close()\nprint('closed', flush=True)\n"
            "sys.stdin.readline()\n");
  REQUIRE(one.says("held\n"));
  std::string why = one.freeze_busy(1);
  CHECK_THAT(why, Catch::Contains("/work/held open for writing"));
  // It is as it was: the file can be written, and be frozen then.
  one.type("\n");
  REQUIRE(one.says("closed\n"));
  REQUIRE(one.freeze_busy(1) == "");
  one.type("\n");
  REQUIRE(one.listener->next<guest::job_ended>());
  CHECK(one.bash("cat /work/held; echo more >> /work/held") == "late");
  REQUIRE(one.roll_back(1) == "");
  CHECK(one.bash("cat /work/held") == "late");
}

TEST_CASE("a hundred states in a row, and back to the first") {
  plant made{test_settings(real_lib)};
  if (no_states(made))
    return;
  box one{made, "chain"};
  REQUIRE(one.up());
  for (checkpoint_number number = 1; number <= 100; ++number) {
    REQUIRE(one.bash("echo " + std::to_string(number) + " > /work/last; touch /work/f"
                     + std::to_string(number))
            == "");
    REQUIRE(one.freeze(number) == "");
  }
  CHECK(one.bash("ls /work | wc -l; cat /work/last") == "101\n100\n");
  REQUIRE(one.roll_back(1) == "");
  CHECK(one.bash("ls /work; cat /work/last") == "f1\nlast\n1\n");
  REQUIRE(one.roll_back(64) == "");
  CHECK(one.bash("ls /work | wc -l; cat /work/last") == "65\n64\n");
  // What changed between any two can be saved, whatever was merged.
  auto file = memory_file();
  CHECK(one.save(60, 50, file) == "");
  CHECK(one.last.bytes < 4096);
  CHECK(one.save(50, 60, file) == "the state does not descend from the other");
}

TEST_CASE("what no state needs is freed") {
  plant made{test_settings(real_lib)};
  if (no_states(made))
    return;
  box one{made, "freed", {.memory_bytes = 0, .processes = 0, .disk_bytes = 64 << 20}};
  REQUIRE(one.up());
  for (checkpoint_number number = 1; number <= 12; ++number) {
    CAPTURE(number);
    REQUIRE(one.bash("head -c 20M /dev/urandom > /work/large 2>&1") == "");
    REQUIRE(one.freeze(number) == "");
    if (number > 1)
      REQUIRE(one.drop(number - 1) == "");
    // The merge and what it frees come behind: a step after the merge they are gone.
    for (int i = 0; i < 2'000 && one.machine->usage().disk_bytes > 21 << 20; ++i) {
      ::usleep(10'000);
      if (i % 4 == 3)
        REQUIRE(one.roll_back(number) == "");
    }
    CHECK(one.machine->usage().disk_bytes <= 21 << 20);
  }
}

TEST_CASE("a disk that is full can be frozen, and gone back on") {
  plant made{test_settings(real_lib)};
  if (no_states(made))
    return;
  box one{made, "full", {.memory_bytes = 0, .processes = 0, .disk_bytes = 8 << 20}};
  REQUIRE(one.up());
  REQUIRE(one.freeze(1) == "");
  const std::string fill = "head -c 20M /dev/zero > /work/large 2>/dev/null; mkdir /work/d; i=0; "
                           "while : > /work/d/$((i++)); do :; done 2>/dev/null";
  one.bash(fill);
  REQUIRE(one.roll_back(1) == "");
  CHECK(one.bash("ls /work; echo x > /work/x; cat /work/x") == "x\n");
  one.bash(fill);
  REQUIRE(one.freeze(2) == "");
  CHECK(one.bash("ls /work") == "d\nlarge\nx\n");
  // As long as somebody wants that state, it is what the disk is full of.
  REQUIRE(one.roll_back(1) == "");
  REQUIRE(one.drop(2) == "");
  for (int i = 0; i < 1'000 && one.machine->usage().disk_bytes > 1 << 20; ++i)
    ::usleep(20'000);
  CHECK(one.bash("ls /work; echo x > /work/x; cat /work/x") == "x\n");
}

TEST_CASE("an archive that is damaged, or does not fit, is a lost machine that says so") {
  plant made{test_settings(real_lib)};
  if (no_states(made))
    return;
  auto archive = memory_file();
  {
    box one{made, "source"};
    REQUIRE(one.up());
    REQUIRE(one.bash("head -c 4M /dev/zero > /work/zeros; echo x > /work/x") == "");
    REQUIRE(one.freeze(1) == "");
    CHECK(one.save(1, 0, memory_file(), 1 << 20) == "the archive would be larger than allowed");
    REQUIRE(one.save(1, 0, archive) == "");
    CHECK(one.last.bytes > 4 << 20);
  }
  machines::machine_spec small{.id = "small",
                               .limits = {.memory_bytes = 0, .processes = 0, .disk_bytes = 2 << 20},
                               .warm = {}};
  small.layers = {{1, archive}};
  box one{made, small};
  CHECK_FALSE(one.up());
  CHECK_THAT(one.listener->why(), Catch::Contains("No space left"));
  auto cut = memory_file();
  for (off_t at = 0, size = 1 << 20; at < size;) {
    ssize_t count =
        ::sendfile(cut->get(), archive->get(), &at, static_cast<std::size_t>(size - at));
    REQUIRE(count > 0);
  }
  machines::machine_spec damaged{.id = "damaged", .limits = {}, .warm = {}};
  damaged.layers = {{1, cut}};
  box other{made, damaged};
  CHECK_FALSE(other.up());
  CHECK_THAT(other.listener->why(), Catch::Contains("it is cut off"));
  CHECK(other.listener->lost_count() == 1);
}

TEST_CASE("a machine that is refused leaves its archives closed") {
  auto settings = test_settings(real_lib);
  settings.machines_max = 1;
  plant made{settings};
  if (no_states(made))
    return;
  box only{made, "only"};
  REQUIRE(only.up());
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  owned_fd writing{ends[1]};
  {
    machines::machine_spec wanted{.id = "refused", .limits = {}, .warm = {}};
    wanted.layers = {{1, std::make_shared<const owned_fd>(ends[0])}};
    box refused{made, wanted};
    CHECK_FALSE(refused.up());
    CHECK_THAT(refused.listener->why(), Catch::Contains("as many machines as uids"));
  }
  // A pipe whose last reading end was closed says so.
  pollfd unread{writing.get(), 0, 0};
  CHECK(::poll(&unread, 1, 20'000) == 1);
}

TEST_CASE("forks have their parent's files and share nothing they write") {
  plant made{test_settings(real_lib)};
  if (no_states(made))
    return;
  if (!forks_share(made))
    return skip("this kernel's tmpfs maps no ids");
  auto parent = std::make_unique<box>(made, "parent");
  REQUIRE(parent->up());
  REQUIRE(parent->bash("mkdir /work/d; echo old > /work/d/f; head -c 8M /dev/zero > /work/large")
          == "");
  REQUIRE(parent->freeze(1) == "");
  REQUIRE(parent->bash("echo later > /work/later") == "");
  auto fork = [&](const std::string& id, const std::string& from, checkpoint_number at) {
    machines::machine_spec spec{.id = id, .limits = {}, .warm = {}};
    spec.parent = from;
    spec.checkpoint = at;
    return std::make_unique<box>(made, spec);
  };
  auto left = fork("left", "parent", 1);
  auto right = fork("right", "parent", 1);
  REQUIRE(left->up());
  REQUIRE(right->up());
  CHECK(left->bash("ls /work; stat -c %U /work/d/f; hostname") == "d\nlarge\nagent\nleft\n");
  CHECK(left->machine->usage().disk_bytes < 1 << 20);
  CHECK(left->bash("echo left > /work/d/f; rm /work/large; cat /work/d/f") == "left\n");
  CHECK(right->bash("cat /work/d/f; stat -c %s /work/large") == "old\n8388608\n");
  CHECK(parent->bash("cat /work/d/f") == "old\n");
  REQUIRE(left->freeze(2) == "");
  // The parent goes, and with it the states its children do not lean on.
  parent.reset();
  CHECK(right->bash("cat /work/d/f") == "old\n");
  auto grandchild = fork("grandchild", "left", 2);
  REQUIRE(grandchild->up());
  left.reset();
  CHECK(grandchild->bash("cat /work/d/f; ls /work; echo own > /work/d/f") == "left\nd\n");
  REQUIRE(grandchild->freeze(3) == "");
  REQUIRE(grandchild->roll_back(2) == "");
  CHECK(grandchild->bash("cat /work/d/f") == "left\n");
  auto orphan = fork("orphan", "parent", 1);
  CHECK_FALSE(orphan->up());
  CHECK_THAT(orphan->listener->why(), Catch::Contains("to fork from is not there"));
  auto unknown = fork("unknown", "right", 9);
  CHECK_FALSE(unknown->up());
  CHECK_THAT(unknown->listener->why(), Catch::Contains("no such state"));
}

TEST_CASE("steps that make no sense are refused, and the machine goes on") {
  plant made{test_settings(real_lib)};
  if (no_states(made))
    return;
  box one{made, "senseless"};
  REQUIRE(one.up());
  CHECK(one.roll_back(5) == "there is no such state");
  CHECK(one.drop(5) == "there is no such state");
  CHECK(one.save(5, 0, memory_file()) == "there is no such state");
  CHECK(one.freeze(0) == "a state of that number is there");
  REQUIRE(one.freeze(1) == "");
  CHECK(one.freeze(1) == "a state of that number is there");
  CHECK(one.save(1, 0, nullptr) != "");
  CHECK(one.bash("echo on") == "on\n");
}

/// Something to save and merge, and all of it begun.
void keep_busy(box& one) {
  REQUIRE(one.bash("head -c 30M /dev/urandom > /work/large; mkdir /work/d; touch /work/d/{1..999}")
          == "");
  for (checkpoint_number number = 1; number < 20; ++number) {
    one.machine->freeze_files(number);
    one.machine->save_files(number, 0, memory_file(), UINT64_MAX);
  }
}

bool nobody_works_on_files() {
  // Other servers of this host may be at it, too, but not all the time.
  for (int i = 0; i < 3'000; ++i, ::usleep(10'000))
    if (processes_named("berth-files") == 0)
      return true;
  return false;
}

TEST_CASE("a machine that ends in the middle of its steps leaves nothing") {
  plant made{test_settings(real_lib)};
  if (no_states(made))
    return;
  for (int round = 0; round < 8; ++round) {
    box one{made, "ends-" + std::to_string(round)};
    REQUIRE(one.up());
    keep_busy(one);
    ::usleep(static_cast<useconds_t>(round) * 2'000);
  }
  CHECK(nobody_works_on_files());
}

TEST_CASE("a spawner that is killed in the middle of steps takes all who work on files along") {
  for (int round = 0; round < 4; ++round) {
    auto settings = test_settings(real_lib);
    plant made{settings};
    if (no_states(made))
      return;
    auto one = std::make_unique<box>(made, "killed-" + std::to_string(round));
    REQUIRE(one->up());
    keep_busy(*one);
    ::usleep(static_cast<useconds_t>(round) * 3'000);
    ::kill(made.spawner_pid, SIGKILL);
    CHECK(one->listener->wait_gone());
    CHECK(nobody_works_on_files());
    one.reset();
    made.source.reset();
    made.loop.reset();
    machines::swept found = machines::sweep(settings.runtime_dir);
    CHECK(found.instances == 1);
    CHECK(found.left == 0);
  }
}
