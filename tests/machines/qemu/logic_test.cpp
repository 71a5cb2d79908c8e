// SPDX-License-Identifier: Apache-2.0
#include "machines/guest_channel.hpp"
#include "machines/kvm_probe.hpp"
#include "machines/qemu/command_line.hpp"
#include "machines/qemu/qmp.hpp"
#include "machines/vm/vm_files.hpp"
#include "machines/vm/vm_memory.hpp"
#include "machines/vm/vm_state.hpp"
#include "tests/support/temp_dir.hpp"

#include <catch2/catch.hpp>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <condition_variable>
#include <fcntl.h>
#include <fstream>
#include <future>
#include <mutex>

using namespace berth;
using namespace berth::machines;

namespace {

constexpr std::chrono::seconds hang_limit{60};

/// Whether an argument follows an option.
bool has(const std::vector<std::string>& all, const std::string& option, const std::string& value) {
  for (std::size_t i = 0; i + 1 < all.size(); ++i)
    if (all[i] == option && all[i + 1].find(value) != std::string::npos)
      return true;
  return false;
}

/// The other end of a monitor's socket.
struct peer {
  peer() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    ours.reset(ends[0]);
    theirs.reset(ends[1]);
  }
  void say(std::string_view text) const {
    REQUIRE(::send(ours.get(), text.data(), text.size(), MSG_NOSIGNAL)
            == static_cast<ssize_t>(text.size()));
  }
  /// Reads until that many lines came.
  std::vector<std::string> hear(std::size_t lines) {
    std::vector<std::string> all;
    while (all.size() < lines) {
      char buffer[4096];
      ssize_t count = ::recv(ours.get(), buffer, sizeof buffer, 0);
      REQUIRE(count > 0);
      cutter.push({buffer, static_cast<std::size_t>(count)});
      while (auto line = cutter.next())
        all.push_back(*line);
    }
    return all;
  }
  owned_fd ours;
  owned_fd theirs;
  qmp::line_cutter cutter;
};

} // namespace

TEST_CASE("a monitor's lines are greetings, events and answers, and nothing else") {
  auto greeting = qmp::parse(R"({"QMP": {"version": {}, "capabilities": []}})");
  REQUIRE(greeting);
  CHECK(std::holds_alternative<qmp::greeting>(*greeting));
  auto event = qmp::parse(R"({"timestamp": {}, "event": "RESUME"})");
  REQUIRE(event);
  CHECK(std::get<qmp::event>(*event).name == "RESUME");
  auto answer = qmp::parse(R"({"return": {"fdset-id": 3}, "id": 7})");
  REQUIRE(answer);
  CHECK(std::get<qmp::answer>(*answer).id == 7);
  CHECK(qmp::number_in(std::get<qmp::answer>(*answer).value, "fdset-id") == 3);
  auto error = qmp::parse(R"({"id": 8, "error": {"class": "GenericError", "desc": "no"}})");
  REQUIRE(error);
  CHECK(std::get<qmp::answer>(*error).error == "no");
  for (const char* text : {"", "x", "[]", "1", "{}", R"({"error": 1})", R"({"event": 5})", "{"})
    CHECK_FALSE(qmp::parse(text));
}

TEST_CASE("a line that is nested without end is none") {
  CHECK_FALSE(qmp::parse(R"({"return": )" + std::string(100'000, '[')));
  CHECK_FALSE(qmp::parse(R"({"return": )" + std::string(100, '[') + std::string(100, ']') + "}"));
}

TEST_CASE("lines are cut where they end, and one that is too long breaks the stream") {
  qmp::line_cutter cutter;
  cutter.push("{\"a\"");
  CHECK_FALSE(cutter.next());
  cutter.push(":1}\r\n{}\n");
  CHECK(cutter.next() == "{\"a\":1}");
  CHECK(cutter.next() == "{}");
  CHECK_FALSE(cutter.next());
  CHECK_FALSE(cutter.broken());
  cutter.push(std::string(qmp::line_bytes_max + 2, 'x'));
  CHECK_FALSE(cutter.next());
  CHECK(cutter.broken());
}

TEST_CASE("commands are answered in order, descriptors go along, and silence ends the talk") {
  peer qemu;
  reactor loop;
  auto monitor = std::make_shared<qmp::client>(loop, std::move(qemu.theirs));
  std::promise<std::string> first;
  std::promise<std::string> second;
  std::promise<std::string> ended;
  owned_fd given = make_memory_file("given", 1);
  loop.post([&] {
    monitor->open(
        {.on_event = {}, .on_end = [&](const std::string& why) { ended.set_value(why); }});
    monitor->ask(
        "getfd", {{"fdname", "x"}}, hang_limit,
        [&](const qmp::answer& said) { first.set_value(said.error); }, given.get());
    monitor->ask("query-status", nullptr, std::chrono::milliseconds{300},
                 [&](const qmp::answer& said) { second.set_value(said.error); });
  });
  auto lines = qemu.hear(3);
  CHECK(lines[0].find("qmp_capabilities") != std::string::npos);
  CHECK(lines[1].find("getfd") != std::string::npos);
  qemu.say("{\"QMP\": {}}\r\n{\"return\": {}, \"id\": 1}\r\n{\"event\": \"STOP\"}\r\n");
  qemu.say("{\"error\": {\"desc\": \"full\"}, \"id\": 2}\r\n");
  CHECK(first.get_future().get() == "full");
  CHECK(second.get_future().get().find("in time") != std::string::npos);
  CHECK(ended.get_future().get().find("query-status") != std::string::npos);
  std::promise<void> closed;
  loop.post([&] {
    monitor.reset();
    closed.set_value();
  });
  closed.get_future().wait();
}

TEST_CASE("a QEMU that answers what was not asked, or babbles, is believed no more") {
  for (const char* text :
       {"{\"return\": {}, \"id\": 99}\n", "babble\n", "{\"return\": {}, \"id\": -1}\n"}) {
    peer qemu;
    reactor loop;
    auto monitor = std::make_shared<qmp::client>(loop, std::move(qemu.theirs));
    std::promise<std::string> ended;
    loop.post([&] {
      monitor->open(
          {.on_event = {}, .on_end = [&](const std::string& why) { ended.set_value(why); }});
    });
    qemu.hear(1);
    qemu.say(text);
    CHECK(ended.get_future().get().find("QEMU") != std::string::npos);
  }
}

TEST_CASE("a channel that took too much before its guest was there ends when it is") {
  peer other;
  reactor loop;
  auto channel = std::make_shared<guest_channel>(loop, owned_fd{}, 1024);
  channel->pause(1);
  std::promise<std::string> ended;
  loop.post([&] {
    channel->open(
        {.on_frame = {}, .on_end = [&](std::string why) { ended.set_value(std::move(why)); }});
    channel->send(guest::stdin_data{.job = 1, .data = bytes(4096, 'x')});
    loop.post([&] { channel->replace(std::move(other.theirs)); });
  });
  auto why = ended.get_future();
  REQUIRE(why.wait_for(hang_limit) == std::future_status::ready);
  CHECK(why.get() == "more was sent to the guest than it takes");
}

TEST_CASE("a machine that boots and one that waits have the same devices") {
  vm_shape shape{.memory_mib = 256, .translation_mib = 32};
  auto boots = boot_arguments(shape, {.kernel_words = "nolapic_timer", .disk_mib = 64});
  auto waits = waiting_arguments(shape);
  auto devices = [](const std::vector<std::string>& all) {
    std::vector<std::string> found;
    for (std::size_t i = 0; i + 1 < all.size(); ++i)
      if (all[i] == "-device" || all[i] == "-machine" || all[i] == "-cpu" || all[i] == "-smp")
        found.push_back(all[i + 1]);
    return found;
  };
  CHECK(devices(boots) == devices(waits));
  CHECK(has(boots, "-object", "share=on"));
  CHECK(has(waits, "-object", "share=off"));
  CHECK(has(waits, "-incoming", "defer"));
  CHECK_FALSE(has(waits, "-kernel", ""));
  CHECK(has(boots, "-append", "nolapic_timer"));
  CHECK(has(boots, "-append", "berth.disk_mib=64"));
  for (const auto& all : {boots, waits}) {
    CHECK(has(all, "-sandbox", "spawn=deny"));
    CHECK(has(all, "-accel", "tb-size=32"));
    CHECK(std::ranges::find(all, "-netdev") == all.end());
    CHECK(std::ranges::find(all, "-nodefaults") != all.end());
  }
}

TEST_CASE(
    "a machine with a way out has one network device, alike when it boots and when it waits") {
  vm_shape shape{.memory_mib = 256, .network = true};
  vm_boot boot{.kernel_words = "a", .disk_mib = 64};
  for (const auto& all : {boot_arguments(shape, boot), waiting_arguments(shape)}) {
    CHECK(has(all, "-netdev", "user,id=net,ipv6=off"));
    CHECK(has(all, "-device", "virtio-net-device,netdev=net"));
  }
  CHECK(has(boot_arguments(shape, boot), "-append", "berth.way_out=3128"));
  vm_shape alone = shape;
  alone.network = false;
  CHECK_FALSE(has(boot_arguments(alone, boot), "-append", "way_out"));
  CHECK(template_key(shape, boot, {}) != template_key(alone, boot, {}));
}

TEST_CASE("with KVM a machine is the host's processor and translates nothing") {
  vm_shape shape{.runs_by = accelerator::kvm, .vcpus = 2};
  auto all = waiting_arguments(shape);
  CHECK(has(all, "-accel", "kvm"));
  CHECK(has(all, "-cpu", "host"));
  CHECK(has(all, "-smp", "2"));
  CHECK(kernel_words(shape, {}).find("tsc=reliable") == std::string::npos);
}

TEST_CASE("a template's key changes with whatever its memory depends on") {
  vm_shape shape;
  vm_boot boot{.kernel_words = "a", .disk_mib = 64};
  auto key = template_key(shape, boot, {"1", "23"});
  CHECK(key.size() == 16);
  CHECK(key == template_key(shape, boot, {"1", "23"}));
  CHECK(key != template_key(shape, boot, {"12", "3"}));
  vm_shape larger = shape;
  larger.memory_mib += 128;
  CHECK(key != template_key(larger, boot, {"1", "23"}));
  boot.disk_mib = 65;
  CHECK(key != template_key(shape, boot, {"1", "23"}));
}

TEST_CASE("the probe of KVM ends, says why, and agrees with itself") {
  kvm_verdict first = probe_kvm();
  kvm_verdict second = probe_kvm();
  INFO(first.detail << " / " << second.detail);
  CHECK_FALSE(first.detail.empty());
  CHECK(first.usable == second.usable);
}

TEST_CASE("saved pages that lie about themselves are refused") {
  constexpr std::uint64_t memory = 1 << 20;
  auto file_of = [](const vm_memory::head& about, const std::vector<vm_memory::run>& runs,
                    std::uint64_t size) {
    owned_fd file = make_memory_file("pages", size);
    REQUIRE(::pwrite(file.get(), &about, sizeof about, 0) == sizeof about);
    REQUIRE(::pwrite(file.get(), runs.data(), runs.size() * sizeof(vm_memory::run), sizeof about)
            == static_cast<ssize_t>(runs.size() * sizeof(vm_memory::run)));
    return file;
  };
  auto fault = [](const owned_fd& file) {
    vm_memory::head about;
    std::string why;
    (void)vm_memory::read_runs(file.get(), memory, about, why);
    return why;
  };
  vm_memory::head good{
      .magic = vm_memory::magic, .runs = 2, .data_at = 4096, .memory_bytes = memory};
  CHECK(fault(file_of(good, {{0, 4096}, {8192, 8192}}, 4096 * 4)).empty());
  CHECK_FALSE(fault(file_of(good, {{0, 4096}, {8192, 8192}}, 4096 * 3)).empty());
  CHECK_FALSE(fault(file_of(good, {{0, 4096}, {8192, 8192}}, 4096 * 5)).empty());
  CHECK_FALSE(fault(file_of(good, {{8192, 8192}, {0, 4096}}, 4096 * 4)).empty());
  CHECK_FALSE(fault(file_of(good, {{0, 4096}, {memory, 8192}}, 4096 * 4)).empty());
  CHECK_FALSE(fault(file_of(good, {{0, 4096}, {8192, ~0ULL & ~4095ULL}}, 4096 * 4)).empty());
  CHECK_FALSE(fault(file_of(good, {{0, 4096}, {8193, 8192}}, 4096 * 4)).empty());
  vm_memory::head bad = good;
  bad.magic = 1;
  CHECK_FALSE(fault(file_of(bad, {{0, 4096}, {8192, 8192}}, 4096 * 4)).empty());
  bad = good;
  bad.runs = ~0ULL;
  CHECK_FALSE(fault(file_of(bad, {{0, 4096}, {8192, 8192}}, 4096 * 4)).empty());
  bad = good;
  bad.memory_bytes *= 2;
  CHECK_FALSE(fault(file_of(bad, {{0, 4096}, {8192, 8192}}, 4096 * 4)).empty());
}

TEST_CASE("a process's own pages are read, and put into another one's memory") {
  owned_fd proc{::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC)};
  owned_fd pages = make_memory_file("pages", 0);
  constexpr std::size_t size = 1 << 20;
  owned_fd memory = make_memory_file(vm_memory::file_name, size);
  REQUIRE(::pwrite(memory.get(), "base", 4, 0) == 4);
  void* place = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, memory.get(), 0);
  REQUIRE(place != MAP_FAILED);
  char* at = static_cast<char*>(place);
  // The kernel may hold a memory in parts, and pages next to each other in two of them.
  REQUIRE(::madvise(at + 4096 * 4, size - 4096 * 4, MADV_DONTDUMP) == 0);
  at[4096 * 3] = 'x';
  at[4096 * 4] = 'y';
  at[4096 * 9] = 'z';
  auto read = vm_memory::read_pages(proc.get(), ::getpid(), pages.get(), size * 2);
  INFO(read.text);
  REQUIRE(read.error == 0);
  CHECK(read.bytes == 4096 * 4);
  CHECK(vm_memory::read_pages(proc.get(), ::getpid(), pages.get(), 100).error == EFBIG);
  at[4096 * 3] = at[4096 * 4] = at[4096 * 9] = '-';
  auto written = vm_memory::write_pages(proc.get(), ::getpid(), pages.get());
  INFO(written.text);
  REQUIRE(written.error == 0);
  CHECK(at[4096 * 3] == 'x');
  CHECK(at[4096 * 4] == 'y');
  CHECK(at[4096 * 9] == 'z');
  CHECK(at[0] == 'b');
  ::munmap(place, size);
}

TEST_CASE("a template on disk is what was written, or refused") {
  vm_template made;
  made.shape.memory_mib = 4;
  made.key = "0123456789abcdef";
  made.hello.languages = {"bash"};
  made.warm = {"bash"};
  owned_fd memory = make_memory_file(vm_memory::file_name, 4 << 20);
  const std::string page(4096, 'p');
  REQUIRE(::pwrite(memory.get(), page.data(), page.size(), 1 << 20) == 4096);
  made.memory = std::make_shared<owned_fd>(std::move(memory));
  made.state.devices = std::make_shared<owned_fd>(make_memory_file("devices", 100));
  const temp_dir dir;
  const std::string path = dir.path() + "/one.vmt";
  std::string id;
  const auto written = vm_files::write_template(path, made, id);
  REQUIRE(written.why.empty());

  std::string why;
  auto read = vm_files::read_template(path, why);
  INFO(why);
  REQUIRE(read);
  CHECK(read->id == id);
  CHECK(read->key == made.key);
  CHECK(read->shape == made.shape);
  CHECK(read->hello.languages == made.hello.languages);
  CHECK(read->warm == made.warm);
  std::string back(4096, ' ');
  CHECK(::pread(read->memory->get(), back.data(), back.size(), 1 << 20) == 4096);
  CHECK(back == page);

  std::ifstream in{path, std::ios::binary};
  const std::string whole{std::istreambuf_iterator<char>{in}, {}};
  auto is_refused = [&](const std::string& content) {
    std::ofstream{path, std::ios::binary | std::ios::trunc} << content;
    why.clear();
    return !vm_files::read_template(path, why) && why == path + ": is damaged";
  };
  CHECK(is_refused(""));
  CHECK(is_refused(whole + "x"));
  for (std::size_t size : {std::size_t{1}, std::size_t{39}, whole.size() / 2, whole.size() - 1})
    CHECK(is_refused(whole.substr(0, size)));
  // The head and what follows byte by byte, the pages and the digest here and there.
  for (std::size_t i = 0; i < whole.size(); i += i < 400 ? 1 : 97) {
    std::string flipped = whole;
    flipped[i] = static_cast<char>(flipped[i] ^ 0x40);
    INFO(i);
    CHECK(is_refused(flipped));
  }
  std::ofstream{path, std::ios::binary | std::ios::trunc} << whole;
  CHECK(vm_files::read_template(path, why));
}
