// SPDX-License-Identifier: Apache-2.0
#include "app/show.hpp"
#include "app/tree.hpp"

#include <algorithm>

namespace berth {

namespace {

using terminal::table;
using terminal::tint;

/// How a job ended, in a word or two: `exited 0`, `signalled 9`, `timed_out`.
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

/// The first line of a program, as far as it tells what it is.
std::string headline(const std::string& code) {
  std::size_t from = code.find_first_not_of(" \t\r\n");
  if (from == std::string::npos)
    return {};
  std::string first = terminal::clean(code.substr(from, code.find('\n', from) - from));
  return first.size() + from < code.find_last_not_of(" \t\r\n") + 1 ? first + " …" : first;
}

std::string line_of_entry(const entry& one) {
  const outcome& result = one.result;
  std::string number = std::to_string(one.number);
  return terminal::paint(tint::bold, number) + "  " + result.language + "  "
         + terminal::paint(tint_of_entry(result), state_of_entry(result)) + "  "
         + terminal::duration(result.wall_us) + "  " + headline(one.code);
}

std::string line_of_snapshot(const snapshot_info& one) {
  std::string text = "◆ " + terminal::paint(tint::cyan, one.snapshot);
  if (!one.description.empty())
    text += " \"" + terminal::clean(one.description) + "\"";
  text += ", " + std::string{name_of(one.content)} + ", " + terminal::size(one.size_bytes);
  if (!one.damage.empty())
    text += ", " + terminal::paint(tint::red, "damaged: " + terminal::clean(one.damage));
  else if (!one.durable)
    text += ", not yet on disk";
  return text;
}

std::string line_of_rollback(const entry& one) {
  std::string text = "↩ " + std::to_string(one.number) + "  ";
  text += terminal::moment(one.result.ended_at_ms) + "  back to ";
  return text + terminal::paint(tint::cyan, one.result.rolled_back_to);
}

void show_tree(const std::vector<entry>& entries, const std::vector<snapshot_info>& snapshots,
               std::uint64_t older) {
  history_tree tree = make_tree(entries, snapshots);
  for (const tree_line& each : draw(tree)) {
    auto place = static_cast<std::size_t>(each.which);
    std::string text;
    if (each.what == tree_line::kind::snapshot) {
      text = line_of_snapshot(snapshots[place]);
    } else if (each.what == tree_line::kind::rollback) {
      text = line_of_rollback(entries[place]);
    } else {
      int entry = tree.nodes[place].entry;
      if (entry >= 0)
        text = "● " + line_of_entry(entries[static_cast<std::size_t>(entry)]);
      else
        text = older == 0 ? "○ start" : "○ " + std::to_string(older) + " older entries";
      if (each.which == tree.now)
        text += terminal::paint(tint::yellow, "  ← now");
    }
    std::printf("%s%s\n", terminal::paint(tint::dim, each.rails).c_str(),
                terminal::cut(text).c_str());
  }
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
    print_json(*page);
  else if (!query.job.empty() && page->entries.size() == 1)
    show_entry(page->entries.front());
  else
    show_page(*page);
  return 0;
}

int command_tree(const common_options& common, const std::string& session, std::uint32_t limit) {
  auto server = client::connect(common.endpoint);
  if (!server)
    return terminal::report(server.error());
  // Of a session that is open by any of its names, of a closed one by its id.
  auto open = (*server)->ask<session_list>(list_sessions{.agent_id = {}, .session = session});
  if (!open)
    return terminal::report(open.error());
  query_history query;
  query.session = open->sessions.empty() ? session : open->sessions.front().session;
  query.limit = limit == 0 ? 1000 : limit;
  auto page = (*server)->ask<history_page>(query);
  if (!page)
    return terminal::report(page.error());
  auto saved =
      (*server)->ask<snapshot_list>(list_snapshots{.session = query.session, .agent_id = {}});
  if (!saved)
    return terminal::report(saved.error());
  if (open->sessions.empty() && page->entries.empty() && saved->snapshots.empty())
    return terminal::report("there is no session " + session
                            + ", and none in history; `berth sessions` lists the open ones");
  std::ranges::reverse(page->entries);
  if (common.json) {
    json all = to_json(*page);
    all["session"] = query.session;
    all["snapshots"] = to_json(*saved)["snapshots"];
    std::printf("%s\n", json_text(all).c_str());
    return 0;
  }
  show_tree(page->entries, saved->snapshots, page->total - page->entries.size());
  return 0;
}

} // namespace berth
