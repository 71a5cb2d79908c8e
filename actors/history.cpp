// SPDX-License-Identifier: Apache-2.0
#include "actors/history.hpp"

#include "config/languages.hpp"
#include "config/log.hpp"
#include "store/log_indexer.hpp"

#include <caf/event_based_actor.hpp>
#include <caf/exit_reason.hpp>
#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <algorithm>
#include <deque>
#include <unordered_map>

namespace berth {

namespace {

/// The READER answers queries in a thread of its own.
using reader_actor = caf::typed_actor<on<query_history>::reply<history_page>>;

/// What the HISTORY says to itself, beside its interface.
using writer_actor = history_actor::extend<
    // Commits the batch.
    caf::reacts_to<caf::flush_atom>,
    // Syncs what was written and not synced.
    caf::reacts_to<caf::tick_atom>,
    // Ends, behind all that was said before.
    caf::reacts_to<caf::close_atom>>;

query_history canonical(query_history request) {
  if (auto language = canonical_language(request.language))
    request.language = *language;
  return request;
}

caf::result<history_page> answer(journal_reader& reader, const query_history& request) {
  auto page = reader.query(canonical(request));
  if (!page) {
    if (page.error() == ec::store_failed)
      log::error("history", "a query failed", {{"why", describe_error(page.error())}});
    return page.error();
  }
  return std::move(*page);
}

class reader_state {
public:
  static constexpr const char* name = "berth.history-reader";

  reader_actor::behavior_type make_behavior(std::shared_ptr<journal_reader> reader,
                                            std::shared_ptr<log_indexer> index) {
    reader_ = std::move(reader);
    index_ = std::move(index);
    return {[this](const query_history& request) { return on_query(request); }};
  }

private:
  caf::result<history_page> on_query(const query_history& request) {
    if (error why = index_->wait_until_current(limits::index_wait_max))
      return why;
    return answer(*reader_, request);
  }

  std::shared_ptr<journal_reader> reader_;
  std::shared_ptr<log_indexer> index_;
};

reader_actor::behavior_type reader(reader_actor::stateful_pointer<reader_state> self,
                                   std::shared_ptr<journal_reader> from,
                                   std::shared_ptr<log_indexer> index) {
  return state_of(self).make_behavior(std::move(from), std::move(index));
}

/// How entries are made from what is recorded.
struct entry_rules {
  bool content = true;
  std::uint64_t output_bytes = 0;
};

/// Where records go: to the log, from which the index follows; or straight into an index in memory,
/// which ends with the server.
struct record_keeper {
  std::unique_ptr<log_writer> log;
  std::shared_ptr<log_indexer> index;
  std::unique_ptr<journal> in_memory;
  std::uint64_t next_number = 1;
};

class history_state {
public:
  static constexpr const char* name = "berth.history";

  history_state() = default;
  history_state(const history_state&) = delete;
  history_state& operator=(const history_state&) = delete;

  ~history_state() {
    close();
    if (reader_)
      caf::anon_send_exit(reader_, caf::exit_reason::user_shutdown);
  }

  writer_actor::behavior_type make_behavior(writer_actor::pointer self,
                                            std::shared_ptr<record_keeper> keeper,
                                            reader_actor queries, entry_rules rules) {
    self_ = self;
    keeper_ = std::move(keeper);
    reader_ = std::move(queries);
    rules_ = rules;
    // An exit message overtakes the mailbox; what waits there is to be on disk, too.
    self_->set_exit_handler([this](caf::exit_msg& end) {
      end_ = end.reason;
      if (end_ == caf::exit_reason::kill)
        self_->quit(end_);
      else
        self_->send(self_, caf::close_atom::value);
    });
    return {
        [this](const record_accepted& request) { return on_record_accepted(request); },
        [this](record_ended& request) { return on_record_ended(request); },
        [this](answer_run& request) { return on_answer_run(request); },
        [this](const record_session& request) { return on_record_session(request); },
        [this](const query_history& request) { return on_query(request); },
        [this](caf::flush_atom) { commit(); },
        [this](caf::tick_atom) {
          sync_is_due_ = false;
          sync();
        },
        [this](caf::close_atom) {
          close();
          self_->quit(end_);
        },
    };
  }

private:
  using promise = caf::typed_response_promise<recorded>;

  /// Who waits for the batch, and for which entry.
  struct waiting {
    promise answer;
    std::uint64_t number = 0;
  };

  /// Who waits for the batch, and for this.
  struct waiting_run {
    caf::typed_response_promise<outcome> answer;
    outcome ended;
  };

  caf::result<recorded> on_record_accepted(const record_accepted& request) {
    auto [known, is_new] = alive_.try_emplace(request.order.job, keeper_->next_number);
    if (!is_new)
      return fail(ec::already_exists, "job: " + request.order.job + " is known");
    std::uint64_t number = keeper_->next_number++;
    return add(number, accepted_record(number, request.order, rules_.content));
  }

  caf::result<recorded> on_record_ended(record_ended& request) {
    auto known = alive_.find(request.ended.job);
    if (known == alive_.end())
      return why_not_alive(request.ended.job);
    std::uint64_t number = known->second;
    alive_.erase(known);
    bound(request.ended);
    return add(number, ended_record(number, request.ended));
  }

  caf::result<outcome> on_answer_run(answer_run& request) {
    if (batch_.empty())
      return std::move(request.ended);
    auto made = self_->make_response_promise<outcome>();
    runs_.push_back({made, std::move(request.ended)});
    return made;
  }

  caf::result<recorded> on_record_session(const record_session& request) {
    return add(0, session_record(request.session));
  }

  caf::result<history_page> on_query(const query_history& request) {
    commit(); // what was recorded before the question is part of the answer
    if (reader_)
      return self_->delegate(reader_, request);
    return answer(keeper_->in_memory->reader(), request);
  }

  /// The fault of an end that ends nothing.
  error why_not_alive(const std::string& job) const {
    bool ended = std::ranges::find(ended_, job) != ended_.end();
    return ended ? fail(ec::conflict, "job: " + job + " has ended already")
                 : fail(ec::not_found, "job: none is named " + job);
  }

  /// Makes an outcome what an entry keeps of it. Redacted it is already.
  void bound(outcome& ended) {
    bound_output(ended.stdout_data, ended.stdout_truncated);
    bound_output(ended.stderr_data, ended.stderr_truncated);
    if (ended.cell)
      bound_results(*ended.cell, ended.detail);
    if (!rules_.content)
      ended.verdict.code.clear();
    ended_.push_back(ended.job);
    if (ended_.size() > ended_kept)
      ended_.pop_front();
  }

  /// Keeps the first results that fit, whole.
  void bound_results(cell_report& cell, std::string& detail) const {
    std::uint64_t room = rules_.content ? rules_.output_bytes : 0;
    std::size_t fits = 0;
    for (; fits < cell.results.size(); ++fits) {
      std::uint64_t size = 0;
      for (const auto& [mime, content] : cell.results[fits].data)
        size += mime.size() + content.size();
      if (size > room)
        break;
      room -= size;
    }
    if (fits == cell.results.size())
      return;
    detail += (detail.empty() ? "" : "; ") + std::to_string(cell.results.size() - fits)
              + " results are not kept in history";
    cell.results.resize(fits);
  }

  void bound_output(bytes& output, bool& truncated) const {
    std::uint64_t most = rules_.content ? rules_.output_bytes : 0;
    if (output.size() <= most)
      return;
    output.resize(most);
    truncated = true;
  }

  caf::result<recorded> add(std::uint64_t number, bytes record) {
    bool somebody_waits = self_->current_sender() != nullptr;
    promise made = self_->make_response_promise<recorded>();
    if (somebody_waits)
      answers_.push_back({made, number});
    batch_bytes_ += record.size();
    batch_.push_back(std::move(record));
    if (batch_.size() == 1)
      self_->send(self_, caf::flush_atom::value);
    if (batch_.size() >= limits::history_batch_max
        || batch_bytes_ >= limits::history_batch_bytes_max)
      commit();
    return made;
  }

  void commit() {
    if (batch_.empty() || !keeper_)
      return;
    std::vector<bytes> batch = std::exchange(batch_, {});
    std::vector<waiting> answers = std::exchange(answers_, {});
    std::vector<waiting_run> runs = std::exchange(runs_, {});
    batch_bytes_ = 0;
    error failed = keeper_->log ? write(batch, !answers.empty()) : error{};
    if (failed)
      log::error("history", "a batch could not be recorded",
                 {{"records", std::to_string(batch.size())}, {"why", describe_error(failed)}});
    for (waiting& next : answers) {
      if (failed) {
        // Whoever is told so gives the job up: no end of it will come.
        std::erase_if(alive_, [&](const auto& job) { return job.second == next.number; });
        next.answer.deliver(failed);
        continue;
      }
      next.answer.deliver(recorded{.number = next.number});
    }
    // Behind GATEWAY's, so that a client's next request finds it informed.
    for (waiting_run& next : runs) {
      if (failed)
        next.answer.deliver(failed);
      else
        next.answer.deliver(std::move(next.ended));
    }
    if (keeper_->in_memory)
      keep_in_memory(batch);
  }

  /// Writes a batch to the log, and puts it on disk when somebody waits for it.
  error write(const std::vector<bytes>& batch, bool somebody_waits) {
    if (error why =
            keeper_->index->wait_until_near(limits::index_lag_bytes_max, limits::index_wait_max))
      return why;
    for (const bytes& record : batch)
      keeper_->log->add(record);
    if (error why = keeper_->log->write())
      return why;
    keeper_->index->advance(keeper_->log->end(), keeper_->log->bytes_written());
    if (somebody_waits)
      return keeper_->log->sync();
    if (!std::exchange(sync_is_due_, true))
      self_->delayed_send(self_, limits::unsynced_max, caf::tick_atom::value);
    return {};
  }

  void sync() {
    if (!keeper_ || !keeper_->log)
      return;
    if (error why = keeper_->log->sync())
      log::error("history", "the log could not be synced", {{"why", describe_error(why)}});
  }

  /// Puts everything on disk and into the index, and lets go of both.
  void close() {
    if (!keeper_)
      return;
    commit();
    sync();
    keeper_->log.reset();
    if (keeper_->index)
      keeper_->index->stop();
    keeper_.reset();
  }

  void keep_in_memory(const std::vector<bytes>& batch) {
    std::vector<record_view> records;
    for (const bytes& record : batch)
      if (auto view = read_record(record))
        records.push_back(*view);
    if (error why = keeper_->in_memory->apply(records))
      log::error("history", "a batch could not be kept", {{"why", describe_error(why)}});
  }

  /// Jobs whose second end is told apart from the end of a job that never was.
  static constexpr std::size_t ended_kept = 64;

  writer_actor::pointer self_ = nullptr;
  std::shared_ptr<record_keeper> keeper_;
  reader_actor reader_;
  entry_rules rules_;
  std::vector<bytes> batch_;
  std::size_t batch_bytes_ = 0;
  std::vector<waiting> answers_;
  std::vector<waiting_run> runs_;
  /// Jobs that did not end yet, with their entries' numbers.
  std::unordered_map<std::string, std::uint64_t> alive_;
  std::deque<std::string> ended_;
  bool sync_is_due_ = false;
  error end_;
};

writer_actor::behavior_type history(writer_actor::stateful_pointer<history_state> self,
                                    std::shared_ptr<record_keeper> keeper, reader_actor queries,
                                    entry_rules rules) {
  return state_of(self).make_behavior(self, std::move(keeper), std::move(queries), rules);
}

} // namespace

expected<history_actor> spawn_history(caf::actor_system& system, journal opened,
                                      const settings& values) {
  const vm_execution_policy& policy = values.policy;
  entry_rules rules{.content = policy.history.enabled, .output_bytes = values.history_output_bytes};
  auto keeper = std::make_shared<record_keeper>();
  keeper->next_number = opened.next_number();
  reader_actor queries;
  if (opened.is_file()) {
    auto from = opened.open_reader();
    if (!from)
      return from.error();
    keeper->log = std::make_unique<log_writer>(opened.dir(), opened.log_begin().segment,
                                               limits::log_segment_bytes);
    keeper->index = std::make_shared<log_indexer>(std::move(opened));
    queries = system.spawn<caf::detached>(
        reader, std::make_shared<journal_reader>(std::move(*from)), keeper->index);
  } else {
    keeper->in_memory = std::make_unique<journal>(std::move(opened));
  }
  return history_actor{system.spawn<caf::detached>(history, keeper, queries, rules)};
}

} // namespace berth
