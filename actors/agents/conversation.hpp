// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/model.hpp"

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

/// What was said in one conversation, and how much of it a model is sent. Plain logic.
namespace berth {

/// What was said at once, as it is kept in the store.
struct said {
  std::uint64_t number = 0;
  bool begins_turn = false;
  std::vector<chat_message> messages;

  static constexpr const char* type_name = "said";
  static constexpr auto fields() {
    return std::tuple{field("number", &said::number), field("begins_turn", &said::begins_turn),
                      field("messages", &said::messages)};
  }
  bool operator==(const said&) const = default;
};

/// Tokens of a text, by a rule of thumb: two for seven bytes of ASCII, one for each character
/// beyond it. The counts of an endpoint correct it; see token_meter.
std::size_t estimate_tokens(std::string_view text);
/// The same of a message: its text, its calls, and four for its frame.
std::size_t estimate_tokens(const chat_message& message);

/// How far the estimate is from an endpoint's counts. A count above the estimate is believed at
/// once, one below it little by little, and one below half of it not at all: endpoints leave out
/// what they had cached.
class token_meter {
public:
  void correct(std::size_t estimated, std::uint64_t counted);
  std::size_t tokens(std::size_t estimated) const;
  double factor() const { return factor_; }

private:
  double factor_ = 1;
};

/// What a model is sent of a conversation.
struct fitted {
  std::vector<chat_message> messages;
  std::size_t estimated = 0; // tokens by the rule of thumb
  std::uint32_t turns_left_out = 0;
  std::uint32_t results_shortened = 0;
};

/// The messages of a conversation, in what was said at once. Within bounds: the oldest turns go
/// first, but never the last one.
class conversation {
public:
  struct bounds {
    std::size_t said_max = 4096;
    std::size_t bytes_max = 8 * 1024 * 1024;
  };

  conversation() = default;
  explicit conversation(bounds within)
    : bounds_(within) {}

  /// Takes what a store kept, in any order.
  void restore(std::vector<said> kept);

  /// Adds what was said. The reference holds until the next change.
  const said& add(std::vector<chat_message> messages, bool begins_turn);

  /// Numbers of what was let go since the last call, for the store to forget.
  std::vector<std::uint64_t> take_forgotten();

  /// How many of these messages the conversation ends with already, tool calls and their results
  /// aside: a client may say all of it anew.
  std::size_t already_said(const std::vector<chat_message>& given) const;

  /// Calls of the last message that have no result: the turn was cut short.
  std::vector<tool_call> open_calls() const;

  /// All messages, oldest first.
  std::vector<chat_message> messages() const;
  /// Whether nobody said anything yet.
  bool empty() const { return all_.empty(); }
  std::size_t bytes() const { return bytes_; }

  /// The messages that fit `tokens_max`, behind the system prompt. What is too much goes in this
  /// order: results of tools are shortened and then emptied, oldest first, but not those after the
  /// last call; the oldest turns, whole; the oldest calls of the last turn with their results;
  /// then the last results are shortened. The system prompt, the newest message of the user and a
  /// result without its call are never touched so. What was left out is said at the end of the
  /// system prompt. `by_text`: for a model without tools, calls and results become plain text.
  fitted fit(const std::string& system_prompt, std::size_t tokens_max, const token_meter& meter,
             bool by_text) const;

private:
  void keep_bounds();

  bounds bounds_;
  std::deque<said> all_;
  std::vector<std::uint64_t> forgotten_;
  std::uint64_t last_number_ = 0;
  std::size_t bytes_ = 0;
};

} // namespace berth
