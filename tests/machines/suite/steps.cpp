// SPDX-License-Identifier: Apache-2.0
#include "tests/machines/suite/steps.hpp"

#include <fcntl.h>
#include <fstream>

namespace berth::test {

namespace {

/// A template is booted meanwhile: emulated, beside other work, maybe under a sanitizer.
constexpr std::chrono::seconds up_within{240};
constexpr std::uint64_t archive_max = 1ULL << 30;

} // namespace

std::string say(const running& in, const std::string& language, const std::string& code) {
  ran result = run(*in.machine, *in.listener, language, code);
  CHECK(result.ended);
  return result.out + result.err;
}

std::string bash(const running& in, const std::string& code) {
  return say(in, "bash", code);
}

std::string python(const running& in, const std::string& code) {
  return say(in, "python", code);
}

bool is_up(const running& in) {
  auto until = std::chrono::steady_clock::now() + up_within;
  while (!in.listener->next<guest::hello>())
    if (in.listener->gone_count() > 0 || std::chrono::steady_clock::now() > until)
      return false;
  return true;
}

bool answers(const running& in) {
  static std::uint32_t number = 1'000;
  in.machine->send(guest::ping{.request = ++number});
  while (auto pong = in.listener->next<guest::pong>())
    if (pong->request == number)
      return true;
  return false;
}

void check_lost(const running& one, const std::string& about) {
  CHECK(one.listener->wait_gone());
  CHECK(one.listener->lost_count() == 1);
  CHECK(one.listener->gone_count() == 1);
  CHECK_THAT(one.listener->why(), Catch::Contains(about));
}

void destroy(const running& in) {
  in.machine->destroy();
  CHECK(in.listener->wait_gone());
  CHECK(in.listener->lost_count() == 0);
  CHECK(in.listener->gone_count() == 1);
}

void rest(const running& in, machines::checkpoint_number number, bool force) {
  in.machine->send(guest::freeze{.request = 1, .checkpoint = number, .force = force});
  auto frozen = in.listener->next<guest::frozen>();
  REQUIRE(frozen);
  INFO(frozen->error);
  REQUIRE(frozen->error.empty());
}

void go_on(const running& in, machines::checkpoint_number number) {
  in.machine->send(guest::thaw{.request = 2, .checkpoint = number});
  REQUIRE(in.listener->next<guest::thawed>());
}

void freeze(const running& in, machines::checkpoint_number number) {
  rest(in, number);
  in.machine->freeze_files(number);
  auto done = in.listener->next_files(machines::files_step::freeze);
  REQUIRE(done);
  INFO(done->error);
  REQUIRE(done->error.empty());
  go_on(in);
}

void roll_back(const running& in, machines::checkpoint_number number) {
  rest(in, 0, true);
  in.machine->roll_back_files(number);
  auto done = in.listener->next_files(machines::files_step::roll_back);
  REQUIRE(done);
  INFO(done->error);
  REQUIRE(done->error.empty());
  go_on(in, number);
}

std::shared_ptr<const owned_fd> save(const running& from, machines::checkpoint_number number,
                                     machines::checkpoint_number since) {
  auto file = std::make_shared<owned_fd>(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  from.machine->save_files(number, since, file, archive_max);
  auto done = from.listener->next_files(machines::files_step::save);
  REQUIRE(done);
  INFO(done->error);
  REQUIRE(done->error.empty());
  CHECK(done->bytes > 0);
  return file;
}

void open_kernel(const running& in, const std::string& context, const std::string& language) {
  in.machine->send(guest::open_kernel{.context = context, .language = language});
  auto opened = in.listener->next<guest::kernel_opened>();
  REQUIRE(opened);
  INFO(opened->error);
  REQUIRE(opened->error.empty());
}

std::string cell(const running& in, const std::string& context, const std::string& code) {
  static std::uint32_t number = 100'000;
  in.machine->send(
      guest::run_cell{.job = ++number, .context = context, .code = code, .output_bytes = 1 << 16});
  std::string out;
  while (auto frame = in.listener->next_any()) {
    if (auto* output = std::get_if<guest::output>(&*frame))
      out.append(output->data.begin(), output->data.end());
    else if (auto* refused = std::get_if<guest::job_refused>(&*frame))
      return refused->reason;
    else if (std::holds_alternative<guest::cell_ended>(*frame))
      break;
  }
  return out;
}

std::size_t groups_of(const std::string& instance) {
  std::size_t count = 0;
  std::error_code error;
  using walk = std::filesystem::recursive_directory_iterator;
  auto options = std::filesystem::directory_options::skip_permission_denied;
  for (auto at = walk{"/sys/fs/cgroup", options, error}; at != walk{}; at.increment(error))
    if (at->is_directory(error)
        && at->path().string().find("berth-" + instance) != std::string::npos)
      ++count;
  return count;
}

std::size_t mounts_of_this_process() {
  std::ifstream in{"/proc/self/mountinfo"};
  std::size_t count = 0;
  for (std::string line; std::getline(in, line);)
    ++count;
  return count;
}

std::uint64_t memory_of_this_process() {
  std::ifstream in{"/proc/self/statm"};
  std::uint64_t size = 0;
  std::uint64_t resident = 0;
  in >> size >> resident;
  return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

bool has_ended(pid_t pid) {
  auto until = std::chrono::steady_clock::now() + hang_limit;
  for (;;) {
    std::ifstream in{"/proc/" + std::to_string(pid) + "/stat"};
    std::string stat;
    if (!std::getline(in, stat))
      return true;
    auto end = stat.rfind(") ");
    if (end == std::string::npos || stat[end + 2] == 'Z')
      return true;
    if (std::chrono::steady_clock::now() > until)
      return false;
    ::usleep(5'000);
  }
}

} // namespace berth::test
