// SPDX-License-Identifier: Apache-2.0
#include "app/show.hpp"

namespace berth {

namespace {

/// Output of a job that the server no longer streams, as far as history kept it.
int show_past(client& server, const common_options& common, const std::string& job) {
  query_history query;
  query.job = job;
  auto page = server.ask<history_page>(query);
  if (!page)
    return terminal::report(page.error());
  if (page->entries.empty())
    return terminal::report("there is no job " + job + "; `berth history` lists past ones");
  const outcome& past = page->entries.front().result;
  if (common.json) {
    print_json(past);
    return 0;
  }
  write_all(1, past.stdout_data);
  write_all(2, past.stderr_data);
  if (past.stdout_truncated || past.stderr_truncated)
    terminal::report("history keeps the beginning of long output only");
  if (std::string said = ending_of(past); !said.empty())
    terminal::report(said);
  return 0;
}

} // namespace

int command_logs(const common_options& common, const std::string& job, bool follow) {
  auto server = client::connect(common.endpoint);
  if (!server)
    return terminal::report(server.error());
  berth::read next;
  next.job = job;
  next.wait_ms = follow ? client::news_wait_ms : 0;
  for (;;) {
    auto slice = (*server)->ask<output_slice>(next, client::silence_max);
    if (!slice && slice.error() == ec::not_found && next.stdout_offset + next.stderr_offset == 0)
      return show_past(**server, common, job);
    if (!slice)
      return terminal::report(slice.error());
    bool quiet = slice->stdout_data.empty() && slice->stderr_data.empty();
    if (common.json && (!quiet || slice->ended)) {
      print_json(*slice);
    } else if (!write_all(1, slice->stdout_data) || !write_all(2, slice->stderr_data)) {
      return 0; // Nobody reads any more, as in `berth logs | head`.
    }
    if (slice->ended) {
      if (std::string said = ending_of(*slice->ended); !common.json && !said.empty())
        terminal::report(said);
      return 0;
    }
    if (!follow && quiet)
      return 0;
    next.stdout_offset = slice->stdout_offset + slice->stdout_data.size();
    next.stderr_offset = slice->stderr_offset + slice->stderr_data.size();
  }
}

} // namespace berth
