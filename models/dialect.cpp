// SPDX-License-Identifier: Apache-2.0
#include "models/dialect.hpp"

#include "models/limits.hpp"
#include <algorithm>

namespace berth::models {

answer_reader::answer_reader(reading_bounds bounds)
  : bounds_(std::move(bounds)) {}

answer_reader::state answer_reader::push(std::string_view data) {
  if (state_ != state::reading)
    return state_;
  seen_ += data.size();
  if (seen_ > bounds_.bytes_max * limits::model_wire_overhead_max)
    set(state::full);
  if (state_ != state::reading)
    return state_;
  if (shape_ == shape::unknown) {
    std::size_t first = data.find_first_not_of(" \t\r\n");
    if (first == std::string_view::npos)
      return state_;
    shape_ = is_whole(data[first]) ? shape::whole : shape::lines;
    data.remove_prefix(first);
  }
  // A line, or a whole answer, has its members beside its text: twice the bound is room for them.
  if (buffer_.size() + data.size() > 2 * bounds_.bytes_max + limits::model_head_bytes_max
      && (shape_ == shape::whole || data.find('\n') == std::string_view::npos))
    set(state::full);
  else if (shape_ == shape::whole)
    buffer_ += data;
  else
    take_lines(data);
  return state_;
}

void answer_reader::take_lines(std::string_view data) {
  for (std::size_t end = data.find('\n'); end != std::string_view::npos && state_ == state::reading;
       end = data.find('\n')) {
    std::string_view line = data.substr(0, end);
    if (!buffer_.empty())
      line = buffer_.append(line);
    read_line(line.ends_with('\r') ? line.substr(0, line.size() - 1) : line);
    buffer_.clear();
    data.remove_prefix(end + 1);
  }
  if (state_ == state::reading)
    buffer_ += data;
}

answer_reader::state answer_reader::end() {
  if (state_ != state::reading)
    return state_;
  std::string rest = std::exchange(buffer_, {});
  if (shape_ == shape::lines && !rest.empty()) {
    read_line(rest);
  } else if (shape_ == shape::whole) {
    if (json value; parse(rest, value))
      read_whole(value);
  }
  if (may_stop())
    set(state::whole);
  return state_;
}

model_answer answer_reader::take_answer() {
  std::erase_if(answer_.tool_calls, [](const tool_call& each) { return each.name.empty(); });
  for (std::size_t i = 0; i < answer_.tool_calls.size(); ++i)
    if (answer_.tool_calls[i].id.empty())
      answer_.tool_calls[i].id = bounds_.id_prefix + std::to_string(i);
  if (state_ == state::full) {
    // Calls that were cut off must not be made.
    answer_.tool_calls.clear();
    answer_.finish = "length";
  }
  return std::move(answer_);
}

bool answer_reader::parse(std::string_view text, json& to) {
  std::string mended_text;
  if (!is_utf8(text))
    text = mended_text = to_utf8(text);
  auto value = parse_json(text, {.text_bytes = text.size(), .depth = limits::model_json_depth_max});
  if (!value) {
    fail(state::broken, "a piece of the answer " + value.why().text());
    return false;
  }
  to = std::move(*value);
  if (!to.is_object())
    fail(state::broken, "a piece of the answer is no JSON object");
  return to.is_object();
}

void answer_reader::fail(state how, std::string why) {
  if (state_ == state::reading)
    fault_ = std::move(why);
  set(how);
}

bool answer_reader::charge(std::size_t bytes) {
  kept_ += bytes;
  if (kept_ > bounds_.bytes_max)
    set(state::full);
  return kept_ <= bounds_.bytes_max;
}

void answer_reader::add_text(std::string_view text) {
  std::size_t room = bounds_.bytes_max - std::min(kept_, bounds_.bytes_max);
  if (!charge(text.size())) {
    // Not in the middle of a character.
    text = text.substr(0, room);
    while (!text.empty() && !is_utf8(text))
      text.remove_suffix(1);
  }
  answer_.text += text;
  news_ += text;
}

tool_call* answer_reader::call_at(std::size_t index) {
  if (index >= limits::model_tool_calls_max) {
    fail(state::broken,
         "the answer calls more than " + std::to_string(limits::model_tool_calls_max) + " tools");
    return nullptr;
  }
  if (index >= answer_.tool_calls.size())
    answer_.tool_calls.resize(index + 1);
  return &answer_.tool_calls[index];
}

void answer_reader::add_to(std::string& part, std::string_view text) {
  if (charge(text.size()))
    part += text;
}

std::uint64_t answer_reader::count_in(const json& from, const char* name) {
  auto member = from.find(name);
  return member != from.end() && member->is_number_unsigned() ? member->get<std::uint64_t>() : 0;
}

std::string answer_reader::text_in(const json& from, const char* name) {
  if (!from.is_object())
    return {};
  auto member = from.find(name);
  return member != from.end() && member->is_string() ? member->get<std::string>() : std::string{};
}

const dialect& dialect_of(std::string_view provider) {
  return provider == "openai" ? detail::openai_dialect() : detail::ollama_dialect();
}

std::vector<chat_message> mended(const std::vector<chat_message>& messages) {
  std::vector<chat_message> all;
  all.reserve(messages.size());
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role == speaker::tool)
      continue; // taken with its call, or nobody's
    all.push_back(messages[i]);
    auto& calls = all.back().tool_calls;
    for (std::size_t k = 0; k < calls.size(); ++k)
      if (calls[k].id.empty())
        calls[k].id = "call_" + std::to_string(i) + "_" + std::to_string(k);
    std::size_t results_end = i + 1;
    while (results_end < messages.size() && messages[results_end].role == speaker::tool)
      ++results_end;
    const std::vector<tool_call> wanted = calls;
    for (std::size_t k = 0; k < wanted.size(); ++k) {
      auto answers = [&](const chat_message& each) {
        return each.tool_call_id == messages[i].tool_calls[k].id;
      };
      auto first = messages.begin() + static_cast<std::ptrdiff_t>(i) + 1;
      auto last = messages.begin() + static_cast<std::ptrdiff_t>(results_end);
      auto found = std::find_if(first, last, answers);
      chat_message result = found != last ? *found : chat_message{.content = "(no result)"};
      result.role = speaker::tool;
      result.tool_call_id = wanted[k].id;
      result.tool_name = wanted[k].name;
      all.push_back(std::move(result));
    }
  }
  return all;
}

std::string error_text(const json& error) {
  std::string text;
  if (error.is_string())
    text = error.get<std::string>();
  else if (error.is_object() && error.contains("message") && error["message"].is_string())
    text = error["message"].get<std::string>();
  else if (!error.is_null())
    text = json_text(error);
  text = to_utf8(text);
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7F)
      c = ' ';
  if (text.size() > limits::model_refusal_text_max) {
    text.resize(limits::model_refusal_text_max);
    while (!is_utf8(text))
      text.pop_back();
  }
  return text;
}

std::string refusal_text(std::string_view body) {
  auto value = parse_json(
      body, {.text_bytes = limits::model_refusal_bytes_max, .depth = limits::model_json_depth_max});
  if (value && value->is_object()) {
    for (const char* name : {"error", "message", "detail"})
      if (auto member = value->find(name); member != value->end())
        return error_text(*member);
  }
  return error_text(json(to_utf8(body.substr(0, limits::model_refusal_bytes_max))));
}

namespace detail {

decoded<std::vector<std::string>> names_in(std::string_view body, const char* list,
                                           const char* name) {
  auto value = parse_json(
      body, {.text_bytes = limits::models_listed_bytes_max, .depth = limits::model_json_depth_max});
  if (!value)
    return malformed{"", "the list of models " + value.why().text()};
  auto all = value->is_object() ? value->find(list) : value->end();
  if (!value->is_object() || all == value->end() || !(all->is_array() || all->is_null()))
    return malformed{list, "is no list of models"};
  std::vector<std::string> names;
  for (const json& each : *all) {
    auto member = each.is_object() ? each.find(name) : each.end();
    if (each.is_object() && member != each.end() && member->is_string()
        && names.size() < limits::models_listed_max)
      names.push_back(member->get<std::string>());
  }
  return names;
}

} // namespace detail

} // namespace berth::models
