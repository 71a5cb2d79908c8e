// SPDX-License-Identifier: Apache-2.0
#include "tests/machines/fixture.hpp"

#include <algorithm>
#include <fstream>

namespace berth::test {

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
