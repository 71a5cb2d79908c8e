// SPDX-License-Identifier: Apache-2.0
#include "models/dialect.hpp"
#include "models/endpoint_url.hpp"

namespace berth::models {

namespace {

/// Arguments as Ollama wants them: an object. What a model wrote that is none is shown to it as it
/// was, so that it can see its own mistake.
json arguments_object(const std::string& text) {
  if (text.empty())
    return json::object();
  auto value = parse_json(text);
  if (value && value->is_object())
    return *value;
  return json::object({{"unreadable", text}});
}

json message_of(const chat_message& from) {
  json to{{"role", name_of(from.role)}, {"content", from.content}};
  for (const tool_call& call : from.tool_calls)
    to["tool_calls"].push_back(
        {{"function", {{"name", call.name}, {"arguments", arguments_object(call.arguments)}}}});
  if (from.role == speaker::tool && !from.tool_name.empty())
    to["tool_name"] = from.tool_name;
  return to;
}

/// One JSON object a line; the last one says `done` and what was counted.
class reader final : public answer_reader {
public:
  explicit reader(reading_bounds bounds)
    : answer_reader(std::move(bounds)) {}

private:
  bool is_whole(char) const override { return false; }
  bool may_stop() const override { return false; }

  void read_line(std::string_view line) override {
    if (line.find_first_not_of(" \t\r") == std::string_view::npos)
      return;
    if (json value; parse(line, value))
      read_whole(value);
  }

  void read_whole(const json& value) override {
    if (auto error = value.find("error"); error != value.end())
      return fail(state::refused, error_text(*error));
    if (answer_.model.empty())
      answer_.model = text_in(value, "model");
    if (auto message = value.find("message"); message != value.end() && message->is_object()) {
      add_text(text_in(*message, "content"));
      if (auto calls = message->find("tool_calls"); calls != message->end() && calls->is_array())
        for (const json& call : *calls)
          read_call(call);
    }
    auto done = value.find("done");
    if (done == value.end() || !done->is_boolean() || !done->get<bool>())
      return;
    answer_.usage.input_tokens = count_in(value, "prompt_eval_count");
    answer_.usage.output_tokens = count_in(value, "eval_count");
    answer_.finish = text_in(value, "done_reason");
    if (answer_.finish.empty())
      answer_.finish = "stop";
    if (!answer_.tool_calls.empty() && answer_.finish == "stop")
      answer_.finish = "tool_calls";
    set(state::whole);
  }

  void read_call(const json& from) {
    auto function = from.is_object() ? from.find("function") : from.end();
    if (!from.is_object() || function == from.end() || !function->is_object())
      return;
    tool_call* call = call_at(answer_.tool_calls.size());
    if (call == nullptr)
      return;
    add_to(call->id, text_in(from, "id"));
    add_to(call->name, text_in(*function, "name"));
    auto arguments = function->find("arguments");
    if (arguments == function->end() || arguments->is_null())
      add_to(call->arguments, "{}");
    else if (arguments->is_string())
      add_to(call->arguments, arguments->get_ref<const std::string&>());
    else
      add_to(call->arguments, json_text(*arguments));
  }
};

class ollama final : public dialect {
public:
  std::string chat_url(const model_endpoint& to) const override {
    return plain_url(to.base_url) + "/api/chat";
  }

  std::string chat_body(const ask_model& asked, const model_endpoint& to,
                        bool stream) const override {
    json body{{"model", asked.model.model.empty() ? to.model : asked.model.model},
              {"messages", json::array()},
              {"stream", stream}};
    for (const chat_message& each : mended(asked.messages))
      body["messages"].push_back(message_of(each));
    json options = json::object();
    if (asked.model.temperature)
      options["temperature"] = *asked.model.temperature;
    if (asked.model.max_tokens)
      options["num_predict"] = *asked.model.max_tokens;
    if (asked.context_window > 0)
      options["num_ctx"] = asked.context_window;
    if (!options.empty())
      body["options"] = std::move(options);
    if (!asked.tools.empty())
      if (auto tools = parse_json(asked.tools); tools && !tools->empty())
        body["tools"] = std::move(*tools);
    if (asked.json)
      body["format"] = "json";
    return json_text(body);
  }

  std::unique_ptr<answer_reader> read_answer(reading_bounds bounds) const override {
    return std::make_unique<reader>(std::move(bounds));
  }

  std::string list_url(const model_endpoint& to) const override {
    return plain_url(to.base_url) + "/api/tags";
  }

  decoded<std::vector<std::string>> read_list(std::string_view body) const override {
    return detail::names_in(body, "models", "name");
  }
};

} // namespace

const dialect& detail::ollama_dialect() {
  static const ollama one;
  return one;
}

} // namespace berth::models
