// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/progress.hpp"
#include "messages/roles.hpp"
#include "messages/workflow.hpp"

/// What agents, models and workflows say to each other and no client sees.
namespace berth {

/// To MODEL: ask a model. Tokens go to the progress stream as they come.
struct ask_model {
  std::string call;
  model_choice model;
  std::vector<chat_message> messages;
  std::string tools;
  bool json = false;
  std::uint32_t context_window = 0;
  std::uint64_t timeout_ms = 0;
  std::string progress;
  std::string step;

  static constexpr const char* type_name = "ask_model";
  static constexpr auto fields() {
    return std::tuple{
        field("call", &ask_model::call, "Names it for cancel_model; unique."),
        field("model", &ask_model::model, "Every member filled in but max_tokens."),
        field("messages", &ask_model::messages, "The whole conversation."),
        opt("tools", &ask_model::tools, "JSON text: the list of tools; empty: none."),
        opt("json", &ask_model::json, "The answer is to be one JSON value."),
        opt("context_window", &ask_model::context_window, "Tokens; 0: the endpoint's own."),
        opt("timeout_ms", &ask_model::timeout_ms, "Of the whole call; 0: the endpoint's."),
        opt("progress", &ask_model::progress, "Stream for its tokens; empty: none."),
        opt("step", &ask_model::step, "Step for its events.")};
  }
  bool operator==(const ask_model&) const = default;
};

/// What a model answered.
struct model_answer {
  std::string text;
  std::vector<tool_call> tool_calls;
  std::string model;
  std::string finish;
  model_usage usage;
  std::uint32_t attempts = 1;

  static constexpr const char* type_name = "model_answer";
  static constexpr auto fields() {
    return std::tuple{
        field("text", &model_answer::text),
        opt("tool_calls", &model_answer::tool_calls),
        field("model", &model_answer::model),
        opt("finish", &model_answer::finish, "stop, length, tool_calls or the endpoint's word."),
        field("usage", &model_answer::usage),
        opt("attempts", &model_answer::attempts)};
  }
  bool operator==(const model_answer&) const = default;
};

/// To MODEL: close a call's connection; its ask_model answers with an error.
struct cancel_model {
  std::string call;

  static constexpr const char* type_name = "cancel_model";
  static constexpr auto fields() { return std::tuple{field("call", &cancel_model::call)}; }
  bool operator==(const cancel_model&) const = default;
};

/// To PROGRESS: something happened. `seq` and `at_ms` are filled in there.
struct note_progress {
  progress_event event;

  static constexpr const char* type_name = "note_progress";
  static constexpr auto fields() { return std::tuple{field("event", &note_progress::event)}; }
  bool operator==(const note_progress&) const = default;
};

/// To ROLES: the role of a name; empty: the selected one.
struct find_role {
  std::string role;

  static constexpr const char* type_name = "find_role";
  static constexpr auto fields() { return std::tuple{opt("role", &find_role::role)}; }
  bool operator==(const find_role&) const = default;
};

/// To RECORDS: make a record durable. Records of one kind and id are ordered by `seq`; one with the
/// same seq replaces it.
struct put_record {
  std::string kind;
  std::string id;
  std::uint64_t seq = 0;
  bytes body;

  static constexpr const char* type_name = "put_record";
  static constexpr auto fields() {
    return std::tuple{field("kind", &put_record::kind, "conversation, message or workflow."),
                      field("id", &put_record::id), opt("seq", &put_record::seq),
                      field("body", &put_record::body, "An encoded message.")};
  }
  bool operator==(const put_record&) const = default;
};

/// To RECORDS: read records of a kind.
struct get_records {
  std::string kind;
  std::string id;
  std::uint32_t limit = 0;

  static constexpr const char* type_name = "get_records";
  static constexpr auto fields() {
    return std::tuple{
        field("kind", &get_records::kind),
        opt("id", &get_records::id, "Only of this id, by seq; empty: all ids, newest first."),
        opt("limit", &get_records::limit, "At most so many; 0: the store's bound.")};
  }
  bool operator==(const get_records&) const = default;
};

/// Records as they were put.
struct record_page {
  std::vector<put_record> records;
  std::uint64_t damaged = 0;

  static constexpr const char* type_name = "record_page";
  static constexpr auto fields() {
    return std::tuple{field("records", &record_page::records),
                      opt("damaged", &record_page::damaged, "Left out: checksums do not match.")};
  }
  bool operator==(const record_page&) const = default;
};

/// To RECORDS: forget the records of an id.
struct drop_records {
  std::string kind;
  std::string id;

  static constexpr const char* type_name = "drop_records";
  static constexpr auto fields() {
    return std::tuple{field("kind", &drop_records::kind), field("id", &drop_records::id)};
  }
  bool operator==(const drop_records&) const = default;
};

} // namespace berth
