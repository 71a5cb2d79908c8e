// SPDX-License-Identifier: Apache-2.0
#include "app/client.hpp"
#include "app/commands.hpp"
#include "app/terminal.hpp"
#include "bridge/json.hpp"

#include <cstdio>

namespace berth {

namespace {

using terminal::table;
using terminal::tint;

std::string state_of_entry(const outcome& result) {
  std::string state{name_of(result.state)};
  if (result.state == job_state::exited)
    state += " " + std::to_string(result.exit_code.value_or(0));
  if (result.state == job_state::signalled)
    state += " " + std::to_string(result.signal.value_or(0));
  return state;
}

tint tint_of_entry(const outcome& result) {
  if (result.state == job_state::exited)
    return result.exit_code.value_or(1) == 0 ? tint::green : tint::red;
  return is_terminal(result.state) ? tint::red : tint::yellow;
}

void show_page(const history_page& page) {
  table rows{{"#", "WHEN", "JOB", "LANGUAGE", "ENDED", "TIME", "MEMORY", "AGENT", "CODE"}};
  for (const auto& one : page.entries) {
    const outcome& result = one.result;
    rows.add({std::to_string(one.number), terminal::moment(result.submitted_at_ms), result.job,
              result.language, state_of_entry(result), terminal::duration(result.wall_us),
              terminal::size(result.memory_peak_bytes), result.agent_id, one.code.substr(0, 200)},
             {tint::dim, tint::plain, tint::plain, tint::plain, tint_of_entry(result)});
  }
  rows.print("no job matches");
  if (page.next_before)
    std::printf("\n%zu of %llu; the next page: --before %llu\n", page.entries.size(),
                static_cast<unsigned long long>(page.total),
                static_cast<unsigned long long>(*page.next_before));
}

void show_part(const char* name, std::string_view text) {
  if (text.empty())
    return;
  std::printf("\n%s\n%.*s%s", terminal::paint(tint::bold, name).c_str(),
              static_cast<int>(text.size()), text.data(), text.back() == '\n' ? "" : "\n");
}

void show_entry(const entry& one) {
  const outcome& result = one.result;
  auto line = [](const char* name, const std::string& value) {
    if (!value.empty())
      std::printf("%-10s %s\n", name, value.c_str());
  };
  line("job", result.job);
  line("ended", terminal::paint(tint_of_entry(result), state_of_entry(result)));
  line("why", terminal::clean(result.detail));
  line("submitted", terminal::moment(result.submitted_at_ms));
  line("took", terminal::duration(result.wall_us) + ", " + terminal::duration(result.cpu_us)
                   + " of CPU, at most " + terminal::size(result.memory_peak_bytes));
  line("language", result.language + " (" + std::string{name_of(result.path)} + ")");
  line("agent", result.agent_id);
  line("session", result.session);
  line("machine", result.machine + (result.machine_kind.empty() ? "" : ", " + result.machine_kind));
  for (const auto& reason : result.verdict.reasons)
    line("verdict", terminal::clean(reason));
  show_part("code", one.code);
  show_part("stdout", {result.stdout_data.data(), result.stdout_data.size()});
  show_part("stderr", {result.stderr_data.data(), result.stderr_data.size()});
}

} // namespace

int command_history(const common_options& common, const query_history& query) {
  auto server = client::connect(common.endpoint);
  if (!server)
    return terminal::report(server.error());
  auto page = (*server)->ask<history_page>(query);
  if (!page)
    return terminal::report(page.error());
  if (common.json)
    std::printf("%s\n", json_text(to_json(*page)).c_str());
  else if (!query.job.empty() && page->entries.size() == 1)
    show_entry(page->entries.front());
  else
    show_page(*page);
  return 0;
}

} // namespace berth
