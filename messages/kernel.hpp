// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fields.hpp"

#include <array>

/// What is said about live interpreters: the named contexts of a session, the cells that run in
/// them, and what a cell shows.
namespace berth {

/// Where a context's interpreter is in its life.
enum class context_state : std::uint8_t {
  starting,
  idle,
  busy,
  /// Its process died; the next cell, or restart_context, starts a new one without its variables.
  dead,
};
inline constexpr std::array<std::string_view, 4> context_state_names{"starting", "idle", "busy",
                                                                     "dead"};
constexpr std::span<const std::string_view> enum_names(context_state) {
  return context_state_names;
}

/// One thing that a cell shows: the same content in several forms.
struct rich_result {
  std::map<std::string, std::string> data;
  bool is_main_result = false;

  static constexpr const char* type_name = "rich_result";
  static constexpr auto fields() {
    return std::tuple{
        field("data", &rich_result::data,
              "Content by MIME type; what is not text (image/png, ...) in base64."),
        opt("is_main_result", &rich_result::is_main_result,
            "Whether it is the value of the cell's last expression; else it was displayed.")};
  }
  bool operator==(const rich_result&) const = default;
};

/// What a cell raised.
struct cell_error {
  std::string name;
  std::string value;
  std::string traceback;

  static constexpr const char* type_name = "cell_error";
  static constexpr auto fields() {
    return std::tuple{field("name", &cell_error::name, "Class of the exception."),
                      field("value", &cell_error::value, "Its text."),
                      opt("traceback", &cell_error::traceback, "As the language shows it.")};
  }
  bool operator==(const cell_error&) const = default;
};

/// How a cell ended, beside its output.
struct cell_report {
  std::uint64_t execution_count = 0;
  std::vector<rich_result> results;
  maybe<cell_error> error;
  bool kernel_alive = true;

  static constexpr const char* type_name = "cell_report";
  static constexpr auto fields() {
    return std::tuple{
        field("execution_count", &cell_report::execution_count,
              "Cells that this kernel has run, this one included."),
        opt("results", &cell_report::results, "What it showed, in order, within bounds."),
        opt("error", &cell_report::error, "What it raised and nobody caught."),
        opt("kernel_alive", &cell_report::kernel_alive,
            "Whether the variables are still there; false: the kernel died with this cell.")};
  }
  bool operator==(const cell_report&) const = default;
};

/// Opens a named context in a session. Cells name it by `context`.
struct open_context {
  std::string session;
  std::string context;
  std::string language;
  std::string cwd;

  static constexpr const char* type_name = "open_context";
  static constexpr auto fields() {
    return std::tuple{
        field("session", &open_context::session, "Id, name or machine id."),
        opt("context", &open_context::context, "Name, unique in the session; default made up."),
        field("language", &open_context::language, "python, javascript or bash, or an alias."),
        opt("cwd", &open_context::cwd, "Directory it starts in; default /work.")};
  }
  bool operator==(const open_context&) const = default;
};

/// One context as it is now.
struct context_info {
  std::string session;
  std::string context;
  std::string language;
  std::string cwd;
  context_state state = context_state::starting;
  std::uint64_t execution_count = 0;
  std::int64_t created_at_ms = 0;

  static constexpr const char* type_name = "context_info";
  static constexpr auto fields() {
    return std::tuple{
        field("session", &context_info::session, "Id of the session."),
        field("context", &context_info::context, "Name."),
        field("language", &context_info::language, "Canonical name."),
        opt("cwd", &context_info::cwd, "Directory it started in."),
        field("state", &context_info::state, "Where its interpreter is."),
        field("execution_count", &context_info::execution_count, "Cells run since its start."),
        field("created_at_ms", &context_info::created_at_ms, "Unix time, ms.")};
  }
  bool operator==(const context_info&) const = default;
};

/// Lists the contexts of a session.
struct list_contexts {
  std::string session;

  static constexpr const char* type_name = "list_contexts";
  static constexpr auto fields() {
    return std::tuple{field("session", &list_contexts::session, "Id, name or machine id.")};
  }
  bool operator==(const list_contexts&) const = default;
};

/// Contexts, oldest first.
struct context_list {
  std::vector<context_info> contexts;

  static constexpr const char* type_name = "context_list";
  static constexpr auto fields() {
    return std::tuple{field("contexts", &context_list::contexts, "Oldest first.")};
  }
  bool operator==(const context_list&) const = default;
};

/// Ends a context's interpreter, with the cell that runs in it, and starts a new one.
struct restart_context {
  std::string session;
  std::string context;

  static constexpr const char* type_name = "restart_context";
  static constexpr auto fields() {
    return std::tuple{field("session", &restart_context::session, "Id, name or machine id."),
                      field("context", &restart_context::context, "Name.")};
  }
  bool operator==(const restart_context&) const = default;
};

/// Ends a context and forgets it.
struct close_context {
  std::string session;
  std::string context;

  static constexpr const char* type_name = "close_context";
  static constexpr auto fields() {
    return std::tuple{field("session", &close_context::session, "Id, name or machine id."),
                      field("context", &close_context::context, "Name.")};
  }
  bool operator==(const close_context&) const = default;
};

/// The context is gone.
struct context_closed {
  std::string session;
  std::string context;

  static constexpr const char* type_name = "context_closed";
  static constexpr auto fields() {
    return std::tuple{field("session", &context_closed::session, "Id of the session."),
                      field("context", &context_closed::context, "Name.")};
  }
  bool operator==(const context_closed&) const = default;
};

/// Stops the cell that runs in a context and keeps its variables. The cell's `run` answers.
struct interrupt {
  std::string session;
  std::string context;

  static constexpr const char* type_name = "interrupt";
  static constexpr auto fields() {
    return std::tuple{field("session", &interrupt::session, "Id, name or machine id."),
                      field("context", &interrupt::context, "Name.")};
  }
  bool operator==(const interrupt&) const = default;
};

/// The interpreter was told.
struct interrupt_sent {
  std::string session;
  std::string context;
  bool was_busy = false;

  static constexpr const char* type_name = "interrupt_sent";
  static constexpr auto fields() {
    return std::tuple{field("session", &interrupt_sent::session, "Id of the session."),
                      field("context", &interrupt_sent::context, "Name."),
                      field("was_busy", &interrupt_sent::was_busy, "Whether a cell ran.")};
  }
  bool operator==(const interrupt_sent&) const = default;
};

} // namespace berth
