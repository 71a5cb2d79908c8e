// SPDX-License-Identifier: Apache-2.0
#include "machines/vm/template_maker.hpp"

#include <algorithm>

namespace berth::machines {

namespace {

/// How long interpreters may take to come up. One that does not is left out.
constexpr std::chrono::seconds prepared_within{30};
/// How long after the end of its channel the end of a process may be told.
constexpr std::chrono::milliseconds end_told_within{500};
/// Of the console, where a start fails.
constexpr std::size_t console_bytes = 1'500;
constexpr std::uint32_t first_job = 1;

std::uint64_t microseconds(reactor::clock::duration time) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(time).count());
}

} // namespace

const char* idle_program(std::string_view language) {
  if (language == "python")
    return "pass";
  if (language == "javascript")
    return "0";
  if (language == "bash")
    return ":";
  return "";
}

void template_maker::begin() {
  began_ = reactor::clock::now();
  process_ = engine_.start(plan_.of);
  if (!process_)
    return tell_failure("no memory for a template, or the launcher has ended", "");
  auto self = shared_from_this();
  process_->known_as("template");
  process_->tell({.on_stopped = [self] { self->fail("the machine stopped while it booted"); },
                  .on_end =
                      [self](const std::string& why, bool) {
                        if (!self->frozen_)
                          self->fail(why);
                      },
                  .on_gone = [self] { self->finish(); }});
  timer_ = loop_.after(plan_.within, [self] {
    self->timer_ = 0;
    self->fail(self->channel_ && self->channel_->greeted()
                   ? "the machine was not ready to be frozen in time"
                   : "the guest did not say hello in time");
  });
  process_->boot([self](owned_fd channel, const std::string& error) {
    if (self->failing_)
      return;
    if (!error.empty())
      return self->fail(error);
    self->open_channel(std::move(channel));
  });
}

void template_maker::open_channel(owned_fd socket) {
  channel_ = std::make_shared<guest_channel>(loop_, std::move(socket), std::size_t{1} << 20);
  std::weak_ptr<template_maker> weak = shared_from_this();
  channel_->open({.on_frame =
                      [weak](guest::from_guest frame) {
                        if (auto maker = weak.lock())
                          maker->on_frame(std::move(frame));
                      },
                  .on_end =
                      [weak](std::string why) {
                        // When the process died, that tells more, and follows.
                        auto maker = weak.lock();
                        if (maker)
                          maker->loop_.after(end_told_within, [maker, why] { maker->fail(why); });
                      }});
}

void template_maker::run(const std::string& language, const std::string& code) {
  guest::start_job job;
  job.job = first_job;
  job.language = language;
  job.code = code;
  job.output_bytes = 4096;
  channel_->send(job);
}

void template_maker::on_frame(guest::from_guest frame) {
  if (auto* hello = std::get_if<guest::hello>(&frame)) {
    made_->boot_us = microseconds(reactor::clock::now() - began_);
    made_->hello = std::move(*hello);
    return after_hello();
  }
  if (auto* warmed = std::get_if<guest::warmed>(&frame)) {
    if (preparing_ && awaited_.erase(warmed->language) > 0) {
      made_->warm.push_back(warmed->language);
      if (awaited_.empty())
        try_next();
    }
    return;
  }
  if (std::holds_alternative<guest::output>(frame) && made_->first_output_us == 0)
    made_->first_output_us = microseconds(reactor::clock::now() - began_);
  auto* ended = std::get_if<guest::job_ended>(&frame);
  bool refused = std::holds_alternative<guest::job_refused>(frame);
  if (ended == nullptr && !refused)
    return;
  if (std::exchange(first_, false))
    return run_start();
  if (!std::exchange(starting_, false))
    return try_next();
  if (refused || !ended->exit_code || *ended->exit_code != 0)
    return fail("the image's start command failed");
  prepare();
}

void template_maker::after_hello() {
  // Those of most machines: what is so already is not done again in each of them.
  const auto& usual = engine_.settings().defaults;
  channel_->send(guest::limit{.memory_bytes = usual.memory_bytes,
                              .processes = usual.processes,
                              .disk_bytes = usual.disk_bytes});
  const auto& there = made_->hello.languages;
  first_ = std::ranges::find(there, "python") != there.end();
  if (first_)
    run("python", "print(1)");
  else
    run_start();
}

void template_maker::run_start() {
  starting_ = !plan_.start.empty();
  if (starting_)
    run("bash", plan_.start);
  else
    prepare();
}

void template_maker::prepare() {
  preparing_ = true;
  for (const auto& language : plan_.warm) {
    // python_kernel is Python's.
    std::string of = language.substr(0, language.find('_'));
    if (std::ranges::find(made_->hello.languages, of) == made_->hello.languages.end())
      continue;
    awaited_.insert(language);
    channel_->send(guest::prepare{language});
    if (*idle_program(language) != '\0')
      to_try_.push_back(language);
  }
  if (awaited_.empty())
    return try_next();
  prepare_timer_ = loop_.after(prepared_within, [self = shared_from_this()] {
    self->prepare_timer_ = 0;
    self->awaited_.clear();
    self->try_next();
  });
}

/// Runs what does nothing in each language, so that its files are in the template's memory.
void template_maker::try_next() {
  preparing_ = false;
  loop_.cancel(prepare_timer_);
  if (to_try_.empty())
    return freeze();
  std::string language = to_try_.back();
  to_try_.pop_back();
  run(language, idle_program(language));
}

void template_maker::freeze() {
  // What the guest does behind its last answer, it does before the picture is taken.
  loop_.after(std::chrono::milliseconds{50}, [self = shared_from_this()] {
    if (self->failing_)
      return;
    if (self->process_->save_ends_channel())
      self->channel_->close();
    self->process_->freeze([self](const std::string& error) {
      if (!error.empty())
        return self->fail(error);
      self->frozen_ = true;
      self->channel_->close();
      self->process_->kill();
    });
  });
}

/// The process is gone, and with it the last mapping for writing.
void template_maker::finish() {
  loop_.cancel(timer_);
  loop_.cancel(prepare_timer_);
  if (!frozen_ || !done_)
    return;
  made_->shape = plan_.of.shape;
  made_->key = plan_.of.key;
  if (std::string why = process_->take_frozen(*made_); !why.empty())
    return tell_failure(why, "");
  made_->made_us = microseconds(reactor::clock::now() - began_);
  auto done = std::exchange(done_, nullptr);
  done(made_, "");
}

void template_maker::fail(const std::string& why) {
  if (std::exchange(failing_, true) || frozen_)
    return;
  auto self = shared_from_this();
  if (channel_)
    channel_->close();
  if (process_->dead())
    return tell_failure(why, "");
  process_->console([self, why](const std::string& said) {
    self->tell_failure(why, said.size() > console_bytes ? said.substr(said.size() - console_bytes)
                                                        : said);
  });
}

void template_maker::tell_failure(const std::string& why, const std::string& console) {
  loop_.cancel(timer_);
  loop_.cancel(prepare_timer_);
  if (process_)
    process_->kill();
  auto done = std::exchange(done_, nullptr);
  if (done)
    done(nullptr, why + (console.empty() ? "" : "; the console's end: " + console));
}

} // namespace berth::machines
