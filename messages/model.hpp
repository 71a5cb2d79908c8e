// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fields.hpp"

#include <array>

/// What is said to and about language models.
namespace berth {

/// Who speaks in a conversation.
enum class speaker : std::uint8_t { system, user, assistant, tool };
inline constexpr std::array<std::string_view, 4> speaker_names{"system", "user", "assistant",
                                                               "tool"};
constexpr std::span<const std::string_view> enum_names(speaker) {
  return speaker_names;
}

/// A tool that a model wants to be called.
struct tool_call {
  std::string id;
  std::string name;
  std::string arguments;

  static constexpr const char* type_name = "tool_call";
  static constexpr auto fields() {
    return std::tuple{field("id", &tool_call::id, "The model's own; its result bears it."),
                      field("name", &tool_call::name, "Of the tool."),
                      field("arguments", &tool_call::arguments,
                            "JSON text as the model wrote it; may be broken.")};
  }
  bool operator==(const tool_call&) const = default;
};

/// One message of a conversation.
struct chat_message {
  speaker role = speaker::user;
  std::string content;
  std::vector<berth::tool_call> tool_calls;
  std::string tool_call_id;
  std::string tool_name;

  static constexpr const char* type_name = "chat_message";
  static constexpr auto fields() {
    return std::tuple{
        field("role", &chat_message::role, "Who speaks."),
        field("content", &chat_message::content, "Text."),
        opt("tool_calls", &chat_message::tool_calls, "What an assistant wants to be called."),
        opt("tool_call_id", &chat_message::tool_call_id, "Which call this is the result of."),
        opt("tool_name", &chat_message::tool_name, "Which tool this is the result of.")};
  }
  bool operator==(const chat_message&) const = default;
};

/// What calls of models used.
struct model_usage {
  std::uint64_t input_tokens = 0;
  std::uint64_t output_tokens = 0;
  double cost_usd = 0;
  std::uint32_t calls = 0;

  static constexpr const char* type_name = "model_usage";
  static constexpr auto fields() {
    return std::tuple{
        field("input_tokens", &model_usage::input_tokens, "As the endpoint counted them."),
        field("output_tokens", &model_usage::output_tokens, "As the endpoint counted them."),
        field("cost_usd", &model_usage::cost_usd, "By the configured price; 0 without one."),
        field("calls", &model_usage::calls, "Requests that were answered.")};
  }
  bool operator==(const model_usage&) const = default;
};

/// Which model, where, and how it is asked.
struct model_choice {
  std::string provider;
  std::string base_url;
  std::string model;
  maybe<double> temperature;
  maybe<std::uint32_t> max_tokens;

  static constexpr const char* type_name = "model_choice";
  static constexpr auto fields() {
    return std::tuple{
        opt("provider", &model_choice::provider, "ollama or openai; empty: the role's."),
        opt("base_url", &model_choice::base_url,
            "Where it is served; empty: the role's. Only configured endpoints are reached."),
        opt("model", &model_choice::model, "Name of the model; empty: the role's."),
        opt("temperature", &model_choice::temperature, "0 to 2; absent: the role's."),
        opt("max_tokens", &model_choice::max_tokens, "Tokens of a reply; absent: the role's.")};
  }
  bool operator==(const model_choice&) const = default;
};

/// Asks which models there are.
struct list_models {
  static constexpr const char* type_name = "models";
  static constexpr auto fields() { return std::tuple{}; }
  bool operator==(const list_models&) const = default;
};

/// One endpoint of models as it is now.
struct endpoint_info {
  std::string provider;
  std::string base_url;
  bool reachable = false;
  std::vector<std::string> models;
  std::string detail;
  std::uint32_t calls_alive = 0;
  std::uint32_t calls_waiting = 0;
  std::uint64_t calls_total = 0;
  std::uint64_t failures_total = 0;
  std::string key_variable;
  bool has_key = false;

  static constexpr const char* type_name = "endpoint_info";
  static constexpr auto fields() {
    return std::tuple{
        field("provider", &endpoint_info::provider, "ollama or openai."),
        field("base_url", &endpoint_info::base_url, "Where it is."),
        field("reachable", &endpoint_info::reachable, "Whether it answered just now."),
        opt("models", &endpoint_info::models, "Names it serves."),
        opt("detail", &endpoint_info::detail, "Why it did not answer."),
        field("calls_alive", &endpoint_info::calls_alive, "Calls on their way."),
        field("calls_waiting", &endpoint_info::calls_waiting, "Calls that wait for a place."),
        field("calls_total", &endpoint_info::calls_total, "Since the server started."),
        field("failures_total", &endpoint_info::failures_total, "Calls that failed in the end."),
        opt("key_variable", &endpoint_info::key_variable,
            "Environment variable that is to hold its key; empty: none is sent."),
        opt("has_key", &endpoint_info::has_key, "Whether it does.")};
  }
  bool operator==(const endpoint_info&) const = default;
};

/// Every configured endpoint.
struct model_list {
  std::vector<endpoint_info> endpoints;

  static constexpr const char* type_name = "model_list";
  static constexpr auto fields() {
    return std::tuple{field("endpoints", &model_list::endpoints, "In the order of the settings.")};
  }
  bool operator==(const model_list&) const = default;
};

} // namespace berth
