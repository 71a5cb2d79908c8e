// SPDX-License-Identifier: Apache-2.0
#include "tests/machines/fixture.hpp"

#include <sys/wait.h>

#include <algorithm>
#include <exception>
#include <fcntl.h>
#include <fstream>

namespace berth::test {

namespace {

constexpr uid_t ordinary_id = 12345;

std::string told_as_ordinary_user(const std::function<std::string()>& test) {
  if (::setgid(ordinary_id) != 0 || ::setuid(ordinary_id) != 0)
    return "cannot change identity";
  try {
    return test();
  } catch (const std::exception& error) {
    return std::string{"it threw: "} + error.what();
  } catch (...) {
    return "it threw";
  }
}

} // namespace

ran run(machines::machine& in, heard& listener, const std::string& language,
        const std::string& code) {
  guest::start_job job;
  job.language = language;
  job.code = code;
  return run(in, listener, std::move(job));
}

ran run(machines::machine& in, heard& listener, guest::start_job job) {
  static std::uint32_t numbers = 0;
  job.job = ++numbers;
  job.output_bytes = 1 << 20;
  in.send(job);
  ran result;
  while (auto frame = listener.next_any()) {
    if (auto* output = std::get_if<guest::output>(&*frame)) {
      auto& to = output->stream == guest::stdout_stream ? result.out : result.err;
      to.append(output->data.begin(), output->data.end());
    } else if (auto* ended = std::get_if<guest::job_ended>(&*frame)) {
      if (ended->exit_code)
        result.exit_code = *ended->exit_code;
      if (ended->signal)
        result.signal = *ended->signal;
      result.ended = true;
      return result;
    } else if (auto* refused = std::get_if<guest::job_refused>(&*frame)) {
      result.err += refused->reason;
      return result;
    }
  }
  return result;
}

std::string as_ordinary_user(const std::string& lib_dir,
                             const std::function<std::string(plant&)>& test) {
  return as_ordinary_user([&] {
    plant made{test_settings(lib_dir)};
    return test(made);
  });
}

std::string as_ordinary_user(const std::function<std::string()>& test) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    return "no pipe";
  pid_t user = ::fork();
  if (user == 0) {
    std::string told = told_as_ordinary_user(test);
    bool whole = ::write(ends[1], told.data(), told.size()) == static_cast<ssize_t>(told.size());
    ::_exit(whole ? 0 : 1);
  }
  ::close(ends[1]);
  std::string told;
  char text[4096];
  for (ssize_t count = 0; (count = ::read(ends[0], text, sizeof text)) > 0;)
    told.append(text, static_cast<std::size_t>(count));
  ::close(ends[0]);
  int status = -1;
  ::waitpid(user, &status, 0);
  std::error_code error;
  std::filesystem::remove_all(runtime_dir_of(user), error);
  return status == 0 ? told
                     : "its process ended with status " + std::to_string(status) + ": " + told;
}

std::size_t processes_named(const std::string& name) {
  std::size_t count = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator{"/proc", error}) {
    std::ifstream in{entry.path() / "stat"};
    std::string stat;
    if (!std::getline(in, stat))
      continue;
    // PID (NAME) STATE; who ended is nobody, though not every host's init waits for it at once.
    auto begin = stat.find('(');
    auto end = stat.rfind(") ");
    if (begin != std::string::npos && end != std::string::npos && end + 2 < stat.size()
        && stat.substr(begin + 1, end - begin - 1) == name && stat[end + 2] != 'Z')
      ++count;
  }
  return count;
}

} // namespace berth::test
