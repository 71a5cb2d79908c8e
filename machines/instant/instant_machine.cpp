// SPDX-License-Identifier: Apache-2.0
#include "machines/instant/instant_machine.hpp"

#include <algorithm>
#include <atomic>

namespace berth::machines {

namespace {

constexpr const char* keeps_no_files = "an instant machine keeps no files";

class instant_machine : public machine {
public:
  instant_machine(const machine_spec& spec, std::shared_ptr<machine_listener> listener)
    : limits_(spec.limits)
    , listener_(std::move(listener)) {}

  void send(const guest::to_guest& message) override {
    std::visit([&](const auto& one) { answer(one); }, message);
  }
  void set_limits(const machine_limits&) override {}
  bool warm(std::string_view) override { return false; }
  /// Its answers are as many as its jobs: there is nothing to hold back.
  void hold_output(bool) override {}
  machine_usage usage() const override { return {.disk_limit_bytes = limits_.disk_bytes}; }
  void freeze_files(checkpoint_number checkpoint) override {
    refuse(files_step::freeze, checkpoint);
  }
  void roll_back_files(checkpoint_number checkpoint) override {
    refuse(files_step::roll_back, checkpoint);
  }
  void drop_files(checkpoint_number checkpoint) override { refuse(files_step::drop, checkpoint); }
  void save_files(checkpoint_number checkpoint, checkpoint_number, std::shared_ptr<const owned_fd>,
                  std::uint64_t) override {
    refuse(files_step::save, checkpoint);
  }
  void destroy() override {
    if (!gone_.exchange(true))
      listener_->on_gone();
  }

  void say(guest::from_guest frame) {
    if (!gone_)
      listener_->on_frame(std::move(frame));
  }

private:
  void refuse(files_step step, checkpoint_number checkpoint) {
    if (!gone_)
      listener_->on_files({.step = step, .checkpoint = checkpoint, .error = keeps_no_files});
  }

  void answer(const guest::start_job& job) {
    say(guest::job_started{.job = job.job});
    std::size_t size = std::min<std::size_t>(job.code.size(), job.output_bytes);
    if (size > 0)
      say(guest::output{
          .job = job.job,
          .stream = guest::stdout_stream,
          .data = bytes(job.code.begin(), job.code.begin() + static_cast<std::ptrdiff_t>(size))});
    guest::job_ended ended;
    ended.job = job.job;
    ended.exit_code = 0;
    ended.stdout_lost = job.code.size() - size;
    say(std::move(ended));
  }
  void answer(const guest::stdin_data& input) {
    say(guest::stdin_taken{.job = input.job, .bytes_taken = input.data.size()});
  }
  /// Every job has ended already.
  void answer(const guest::end_job&) {}
  void answer(const guest::put_file& file) { say(guest::file_put{.request = file.request}); }
  void answer(const guest::get_file& file) {
    say(guest::file_data{
        .request = file.request, .failure = ec::not_found, .error = keeps_no_files});
  }
  void answer(const guest::list_dir& asked) { say(guest::dir_listed{.request = asked.request}); }
  /// What is left asks for something about a path, of which there is none.
  template <class Request>
  void answer(const Request& asked) {
    say(guest::path_done{
        .request = asked.request, .failure = ec::not_found, .error = keeps_no_files});
  }
  void answer(const guest::prepare& asked) { say(guest::warmed{.language = asked.language}); }
  void answer(const guest::open_kernel& asked) {
    say(guest::kernel_opened{.context = asked.context, .error = "an instant machine runs nothing"});
  }
  void answer(const guest::run_cell& cell) {
    say(guest::job_refused{.job = cell.job, .reason = "an instant machine runs nothing"});
  }
  void answer(const guest::interrupt_kernel&) {}
  void answer(const guest::close_kernel&) {}
  void answer(const guest::freeze& asked) { say(guest::frozen{.request = asked.request}); }
  void answer(const guest::thaw& asked) { say(guest::thawed{.request = asked.request}); }
  void answer(const guest::drop_checkpoint&) {}
  void answer(const guest::renew&) { say(guest::renewed{}); }
  void answer(const guest::limit&) {}
  void answer(const guest::ping& asked) { say(guest::pong{.request = asked.request}); }

  const machine_limits limits_;
  const std::shared_ptr<machine_listener> listener_;
  std::atomic<bool> gone_ = false;
};

} // namespace

std::shared_ptr<machine> instant_source::start(const machine_spec& spec,
                                               std::shared_ptr<machine_listener> listener) {
  auto one = std::make_shared<instant_machine>(spec, std::move(listener));
  one->say(guest::hello{});
  for (const auto& language : spec.warm)
    one->say(guest::warmed{.language = language});
  return one;
}

} // namespace berth::machines
