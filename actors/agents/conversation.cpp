// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/conversation.hpp"

#include "actors/agents/agent_texts.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace berth {

namespace {

constexpr std::size_t frame_tokens = 4;
constexpr std::size_t shortened_bytes = 512;
constexpr std::string_view emptied = "[this old result is left out]";
/// What the front doors add to an answer when they show what programs gave.
constexpr std::string_view shown_results = "\n\n--- VM Execution Results ---";

std::size_t bytes_of(const said& one) {
  std::size_t sum = sizeof one;
  for (const chat_message& each : one.messages) {
    sum += sizeof each + each.content.size() + each.tool_call_id.size() + each.tool_name.size();
    for (const tool_call& call : each.tool_calls)
      sum += sizeof call + call.id.size() + call.name.size() + call.arguments.size();
  }
  return sum;
}

bool is_plain(const chat_message& message) {
  return message.role != speaker::tool && !message.content.empty();
}

bool says_the_same(const chat_message& given, const chat_message& known) {
  if (given.role != known.role)
    return false;
  if (given.content == known.content)
    return true;
  return given.role == speaker::assistant && given.content.starts_with(known.content)
         && std::string_view{given.content}.substr(known.content.size()).starts_with(shown_results);
}

/// A message as a model without tools reads it.
chat_message in_plain_text(chat_message message) {
  if (message.role == speaker::tool) {
    message.role = speaker::user;
    message.tool_call_id.clear();
    message.tool_name.clear();
  }
  for (const tool_call& call : message.tool_calls)
    message.content += (message.content.empty() ? "" : "\n") + std::string{"["} + call.name + " "
                       + call.arguments + "]";
  message.tool_calls.clear();
  return message;
}

/// The work of conversation::fit().
class fitting {
public:
  fitting(std::size_t tokens_max, const token_meter& meter)
    : tokens_max_(tokens_max)
    , meter_(meter) {}

  void take(const said& one, bool by_text) {
    for (const chat_message& each : one.messages) {
      bool is_result = each.role == speaker::tool;
      bool begins = one.begins_turn && &each == &one.messages.front();
      if (begins)
        ++turns_;
      // Where there is no call to belong to, a result is a message like others.
      bool plain = by_text || (is_result && each.tool_call_id.empty());
      lines_.push_back({plain ? in_plain_text(each) : each, turns_, is_result, 0});
      lines_.back().tokens = estimate_tokens(lines_.back().message);
      tokens_ += lines_.back().tokens;
    }
  }

  void add_prompt(std::size_t tokens) { tokens_ += tokens; }

  void fit() {
    std::size_t last_call = 0;
    std::size_t last_user = 0;
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      if (lines_[i].message.role == speaker::assistant)
        last_call = i;
      if (lines_[i].message.role == speaker::user && !lines_[i].is_result)
        last_user = i;
    }
    for (std::size_t bytes_max : {shortened_bytes, std::size_t{0}})
      for (std::size_t i = 0; i < last_call && !fits(); ++i)
        shorten(i, bytes_max);
    leave_out_turns();
    leave_out_calls(last_call, last_user);
    for (std::size_t i = 0; i < lines_.size() && !fits(); ++i)
      shorten(i, shortened_bytes);
  }

  fitted result(const std::string& system_prompt) const {
    fitted made{.messages = {},
                .estimated = tokens_,
                .turns_left_out = turns_out_,
                .results_shortened = shortened_};
    std::string prompt = system_prompt;
    if (turns_out_ + calls_out_ > 0)
      prompt += (prompt.empty() ? "[" : "\n\n[") + std::to_string(turns_out_) + " older turns and "
                + std::to_string(calls_out_)
                + " older steps of this conversation are left out here: they do not fit.]";
    if (!prompt.empty())
      made.messages.push_back({.role = speaker::system, .content = std::move(prompt)});
    for (const line& each : lines_)
      if (!each.gone)
        made.messages.push_back(each.message);
    return made;
  }

private:
  struct line {
    chat_message message;
    std::uint32_t turn = 0;
    bool is_result = false;
    std::size_t tokens = 0;
    bool gone = false;
    bool shortened = false;
  };

  bool fits() const { return meter_.tokens(tokens_) <= tokens_max_; }

  void let_go(line& one) {
    if (!one.gone)
      tokens_ -= one.tokens;
    one.gone = true;
  }

  void shorten(std::size_t at, std::size_t bytes_max) {
    line& one = lines_[at];
    if (!one.is_result || one.gone
        || one.message.content.size() <= std::max(bytes_max, emptied.size()))
      return;
    one.message.content =
        bytes_max == 0 ? std::string{emptied} : without_middle(one.message.content, bytes_max);
    tokens_ -= one.tokens;
    one.tokens = estimate_tokens(one.message);
    tokens_ += one.tokens;
    shortened_ += one.shortened ? 0 : 1;
    one.shortened = true;
  }

  void leave_out_turns() {
    for (std::uint32_t turn = lines_.empty() ? 0 : lines_.front().turn; turn < turns_ && !fits();
         ++turn) {
      bool any = false;
      for (line& each : lines_)
        if (each.turn == turn) {
          let_go(each);
          any = true;
        }
      turns_out_ += any ? 1 : 0;
    }
  }

  /// Of the last turn: what the model said and called between the user's message and its last call.
  void leave_out_calls(std::size_t last_call, std::size_t last_user) {
    for (std::size_t i = last_user + 1; i < last_call && !fits();) {
      let_go(lines_[i++]);
      while (i < last_call && lines_[i].is_result)
        let_go(lines_[i++]);
      ++calls_out_;
    }
  }

  std::size_t tokens_max_;
  const token_meter& meter_;
  std::vector<line> lines_;
  std::size_t tokens_ = 0;
  std::uint32_t turns_ = 0;
  std::uint32_t turns_out_ = 0;
  std::uint32_t calls_out_ = 0;
  std::uint32_t shortened_ = 0;
};

} // namespace

std::size_t estimate_tokens(std::string_view text) {
  std::size_t ascii = 0;
  std::size_t others = 0;
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    ascii += byte < 0x80 ? 1 : 0;
    others += byte >= 0xC0 ? 1 : 0;
  }
  return (ascii * 2 + 6) / 7 + others;
}

std::size_t estimate_tokens(const chat_message& message) {
  std::size_t sum = frame_tokens + estimate_tokens(message.content);
  for (const tool_call& call : message.tool_calls)
    sum += frame_tokens + estimate_tokens(call.name) + estimate_tokens(call.arguments);
  return sum;
}

void token_meter::correct(std::size_t estimated, std::uint64_t counted) {
  if (estimated == 0 || counted * 2 < estimated)
    return;
  constexpr double least = 0.5;
  constexpr double most = 4;
  constexpr double step_down = 0.2;
  double seen =
      std::clamp(static_cast<double>(counted) / static_cast<double>(estimated), least, most);
  factor_ = seen > factor_ ? seen : factor_ + (seen - factor_) * step_down;
}

std::size_t token_meter::tokens(std::size_t estimated) const {
  return static_cast<std::size_t>(std::ceil(static_cast<double>(estimated) * factor_));
}

void conversation::restore(std::vector<said> kept) {
  std::erase_if(kept, [](const said& each) { return each.messages.empty(); });
  std::ranges::sort(kept, {}, &said::number);
  for (said& each : kept) {
    last_number_ = each.number;
    bytes_ += bytes_of(each);
    all_.push_back(std::move(each));
  }
  keep_bounds();
}

const said& conversation::add(std::vector<chat_message> messages, bool begins_turn) {
  all_.push_back({.number = ++last_number_,
                  .begins_turn = begins_turn || all_.empty(),
                  .messages = std::move(messages)});
  bytes_ += bytes_of(all_.back());
  keep_bounds();
  return all_.back();
}

void conversation::keep_bounds() {
  auto is_over = [&] { return all_.size() > bounds_.said_max || bytes_ > bounds_.bytes_max; };
  auto let_go = [&] {
    bytes_ -= bytes_of(all_.front());
    forgotten_.push_back(all_.front().number);
    all_.pop_front();
  };
  auto turns = [&] { return std::ranges::count_if(all_, &said::begins_turn); };
  while (is_over() && turns() > 1) {
    let_go();
    while (!all_.front().begins_turn)
      let_go();
  }
}

std::vector<std::uint64_t> conversation::take_forgotten() {
  return std::exchange(forgotten_, {});
}

std::size_t conversation::already_said(const std::vector<chat_message>& given) const {
  std::vector<const chat_message*> known;
  for (const said& one : all_)
    for (const chat_message& each : one.messages)
      if (is_plain(each))
        known.push_back(&each);
  for (std::size_t size = std::min(given.size(), known.size()); size > 0; --size) {
    std::size_t from = known.size() - size;
    bool same = true;
    for (std::size_t i = 0; i < size && same; ++i)
      same = says_the_same(given[i], *known[from + i]);
    if (same)
      return size;
  }
  return 0;
}

std::vector<tool_call> conversation::open_calls() const {
  std::vector<tool_call> open;
  for (const said& one : all_)
    for (const chat_message& each : one.messages) {
      if (each.role == speaker::assistant)
        open = each.tool_calls;
      else if (each.role == speaker::tool)
        std::erase_if(open, [&](const tool_call& call) { return call.id == each.tool_call_id; });
    }
  return open;
}

std::vector<chat_message> conversation::messages() const {
  std::vector<chat_message> all;
  for (const said& one : all_)
    all.insert(all.end(), one.messages.begin(), one.messages.end());
  return all;
}

fitted conversation::fit(const std::string& system_prompt, std::size_t tokens_max,
                         const token_meter& meter, bool by_text) const {
  fitting work{tokens_max, meter};
  work.add_prompt(frame_tokens + estimate_tokens(system_prompt));
  for (const said& one : all_)
    work.take(one, by_text);
  work.fit();
  return work.result(system_prompt);
}

} // namespace berth
