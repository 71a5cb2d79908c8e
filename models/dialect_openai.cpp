// SPDX-License-Identifier: Apache-2.0
#include "models/dialect.hpp"
#include "models/endpoint_url.hpp"
#include "models/limits.hpp"
#include <algorithm>

namespace berth::models {

namespace {

json message_of(const chat_message& from) {
  json to{{"role", name_of(from.role)}, {"content", from.content}};
  if (from.role == speaker::tool)
    to["tool_call_id"] = from.tool_call_id;
  if (from.tool_calls.empty())
    return to;
  if (from.content.empty())
    to["content"] = nullptr;
  for (const tool_call& call : from.tool_calls)
    to["tool_calls"].push_back(
        {{"id", call.id},
         {"type", "function"},
         {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  return to;
}

/// OpenAI wants the word in the conversation when the answer is to be JSON.
bool says_json(const std::vector<chat_message>& messages) {
  constexpr std::string_view word = "json";
  auto same = [](char a, char b) { return (a | 0x20) == b; };
  return std::ranges::any_of(messages, [&](const chat_message& each) {
    return !std::ranges::search(each.content, word, same).empty();
  });
}

/// Events whose data is a chunk; the last one's is [DONE]. A body that is one object is an answer
/// that was not streamed.
class reader final : public answer_reader {
public:
  explicit reader(reading_bounds bounds)
    : answer_reader(std::move(bounds)) {}

private:
  bool is_whole(char first) const override { return first == '{'; }
  // Some endpoints leave out [DONE].
  bool may_stop() const override { return !answer_.finish.empty(); }

  void read_line(std::string_view line) override {
    if (line.empty())
      return dispatch();
    if (!line.starts_with("data:"))
      return; // comments, names of events
    line.remove_prefix(line.starts_with("data: ") ? 6 : 5);
    if (has_data_)
      data_ += '\n';
    // Bounded as a line is, because an event of many lines is no smaller than they are.
    if (data_.size() + line.size() > limits::model_refusal_bytes_max && !data_.empty())
      return fail(state::broken, "an event of the answer has too many lines");
    data_ += line;
    has_data_ = true;
    // No endpoint splits its JSON over lines, and the last event may lack its empty line.
    if (line.ends_with('}') || line == "[DONE]")
      dispatch();
  }

  void dispatch() {
    if (!has_data_)
      return;
    has_data_ = false;
    std::string data = std::exchange(data_, {});
    if (data == "[DONE]") {
      if (answer_.finish.empty())
        answer_.finish = answer_.tool_calls.empty() ? "stop" : "tool_calls";
      return set(state::whole);
    }
    if (json value; parse(data, value))
      read_chunk(value, "delta");
  }

  void read_whole(const json& value) override {
    read_chunk(value, "message");
    if (answer_.finish.empty())
      fail(state::broken, "the answer has no choice that ended");
    set(state::whole);
  }

  void read_chunk(const json& value, const char* part) {
    if (auto error = value.find("error"); error != value.end() && !error->is_null())
      return fail(state::refused, error_text(*error));
    if (answer_.model.empty())
      answer_.model = text_in(value, "model");
    if (auto usage = value.find("usage"); usage != value.end() && usage->is_object()) {
      answer_.usage.input_tokens = count_in(*usage, "prompt_tokens");
      answer_.usage.output_tokens = count_in(*usage, "completion_tokens");
    }
    auto choices = value.find("choices");
    if (choices == value.end() || !choices->is_array() || choices->empty())
      return;
    const json& choice = choices->front();
    if (auto said = choice.is_object() ? choice.find(part) : choice.end();
        choice.is_object() && said != choice.end() && said->is_object())
      read_said(*said);
    if (std::string finish = text_in(choice, "finish_reason"); !finish.empty())
      answer_.finish = finish;
  }

  void read_said(const json& said) {
    add_text(text_in(said, "content"));
    add_text(text_in(said, "refusal"));
    auto calls = said.find("tool_calls");
    if (calls == said.end() || !calls->is_array())
      return;
    for (const json& call : *calls)
      if (call.is_object())
        read_call(call);
  }

  /// A call, or a fragment of one: the index says of which. Endpoints that give no index begin a
  /// call with its id.
  void read_call(const json& from) {
    std::string id = text_in(from, "id");
    std::size_t index = answer_.tool_calls.size();
    if (auto given = from.find("index"); given != from.end() && given->is_number_unsigned())
      index = given->get<std::size_t>();
    else if (id.empty() && index > 0)
      --index;
    tool_call* call = call_at(index);
    if (call == nullptr)
      return;
    if (call->id.empty())
      add_to(call->id, id);
    auto function = from.find("function");
    if (function == from.end() || !function->is_object())
      return;
    if (call->name.empty())
      add_to(call->name, text_in(*function, "name"));
    auto arguments = function->find("arguments");
    if (arguments == function->end() || arguments->is_null())
      return;
    add_to(call->arguments,
           arguments->is_string() ? arguments->get<std::string>() : json_text(*arguments));
  }

  std::string data_;
  bool has_data_ = false;
};

/// Below the base as it is configured; see model_endpoint::base_url.
std::string url_of(const model_endpoint& to, std::string_view what) {
  std::string url = openai_base(to.base_url);
  url += what;
  if (!to.api_version.empty())
    url += "?api-version=" + to.api_version;
  return url;
}

class openai final : public dialect {
public:
  std::string chat_url(const model_endpoint& to) const override {
    return url_of(to, "/chat/completions");
  }

  std::string chat_body(const ask_model& asked, const model_endpoint& to,
                        bool stream) const override {
    json body{{"model", asked.model.model.empty() ? to.model : asked.model.model},
              {"messages", json::array()}};
    if (asked.json) {
      body["response_format"] = {{"type", "json_object"}};
      if (!says_json(asked.messages))
        body["messages"].push_back(
            {{"role", "system"}, {"content", "Answer with one JSON object and nothing else."}});
    }
    for (const chat_message& each : mended(asked.messages))
      body["messages"].push_back(message_of(each));
    if (stream) {
      body["stream"] = true;
      body["stream_options"] = {{"include_usage", true}};
    }
    if (asked.model.temperature)
      body["temperature"] = *asked.model.temperature;
    // OpenAI itself takes the new name only, for its newest models; others know the old one.
    bool new_name = normal_url(to.base_url) == "https://api.openai.com";
    if (asked.model.max_tokens)
      body[new_name ? "max_completion_tokens" : "max_tokens"] = *asked.model.max_tokens;
    if (!asked.tools.empty())
      if (auto tools = parse_json(asked.tools); tools && !tools->empty())
        body["tools"] = std::move(*tools);
    return json_text(body);
  }

  std::unique_ptr<answer_reader> read_answer(reading_bounds bounds) const override {
    return std::make_unique<reader>(std::move(bounds));
  }

  std::string list_url(const model_endpoint& to) const override { return url_of(to, "/models"); }

  decoded<std::vector<std::string>> read_list(std::string_view body) const override {
    return detail::names_in(body, "data", "id");
  }
};

} // namespace

const dialect& detail::openai_dialect() {
  static const openai one;
  return one;
}

} // namespace berth::models
