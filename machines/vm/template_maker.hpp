// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/guest_channel.hpp"
#include "machines/vm/vm_engine.hpp"
#include "machines/vm/vm_state.hpp"

#include <functional>
#include <memory>
#include <set>
#include <string>

namespace berth::machines {

/// Boots a machine, has its guest bring up its interpreters, runs something in each, and freezes
/// it. On the reactor's thread.
class template_maker : public std::enable_shared_from_this<template_maker> {
public:
  struct plan {
    vm_plan of{};
    /// Languages whose interpreters shall wait.
    std::vector<std::string> warm{"bash", "python", "python_kernel", "javascript"};
    /// A Bash program to run first; may be empty.
    std::string start;
    std::chrono::milliseconds within{60'000};
  };
  /// The template, or none and why.
  using done_handler = std::function<void(std::shared_ptr<const vm_template>, std::string why)>;

  template_maker(reactor& loop, vm_engine& by, plan wanted, done_handler done)
    : loop_(loop)
    , engine_(by)
    , plan_(std::move(wanted))
    , done_(std::move(done)) {}

  void begin();

private:
  void open_channel(owned_fd socket);
  void on_frame(guest::from_guest frame);
  void after_hello();
  void run_start();
  void prepare();
  void try_next();
  void freeze();
  void finish();
  void fail(const std::string& why);
  void tell_failure(const std::string& why, const std::string& console);
  void run(const std::string& language, const std::string& code);

  reactor& loop_;
  vm_engine& engine_;
  const plan plan_;
  done_handler done_;
  std::shared_ptr<virtual_machine> process_;
  std::shared_ptr<guest_channel> channel_;
  std::shared_ptr<vm_template> made_ = std::make_shared<vm_template>();
  reactor::clock::time_point began_;
  reactor::token timer_ = 0;
  reactor::token prepare_timer_ = 0;
  bool first_ = false;
  bool starting_ = false;
  bool preparing_ = false;
  bool frozen_ = false;
  bool failing_ = false;
  std::set<std::string> awaited_;
  std::vector<std::string> to_try_;
};

/// A program of that language that does nothing; empty where there is none to run.
const char* idle_program(std::string_view language);

} // namespace berth::machines
