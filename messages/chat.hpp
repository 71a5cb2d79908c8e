// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/job.hpp"
#include "messages/model.hpp"

/// What is said to agents.
namespace berth {

/// Says something to an agent and answers when it has answered.
struct chat {
  std::string conversation;
  std::string role;
  std::vector<chat_message> messages;
  model_choice model;
  std::string system_prompt;
  bool execute = false;
  std::string progress;
  std::string step;
  std::string turn;

  static constexpr const char* type_name = "chat";
  static constexpr auto fields() {
    return std::tuple{
        opt("conversation", &chat::conversation,
            "Goes on with this one, or begins it; empty: a new one, whose id the reply has."),
        opt("role", &chat::role, "Who answers; empty: the conversation's, else the selected."),
        field("messages", &chat::messages,
              "What is new, oldest first. Those that the conversation ends with already are not "
              "said twice. Tool messages are the server's own."),
        opt("model", &chat::model, "Other than the role's."),
        opt("system_prompt", &chat::system_prompt, "Instead of the role's."),
        opt("execute", &chat::execute,
            "Runs the programs of the last message, each once, in the order of the text, without "
            "asking a model."),
        opt("progress", &chat::progress,
            "Events go to this workflow's stream; empty: to the conversation's."),
        opt("step", &chat::step, "Step of the workflow, for its events."),
        opt("turn", &chat::turn,
            "Names this chat, for cancel_chat; unique in the conversation; empty: a new id, which "
            "the reply has.")};
  }
  bool operator==(const chat&) const = default;
};

/// One thing that an agent did on its machine.
struct agent_act {
  std::string tool;
  std::string language;
  std::string code;
  maybe<outcome> ended;
  std::string told;
  std::string refused;
  double confidence = 1;

  static constexpr const char* type_name = "agent_act";
  static constexpr auto fields() {
    return std::tuple{
        field("tool", &agent_act::tool,
              "execute_code, read_file, write_file, list_files or rollback."),
        opt("language", &agent_act::language, "Of a program."),
        opt("code", &agent_act::code, "The program, or the path."),
        opt("ended", &agent_act::ended, "How the program ended; absent: nothing ran."),
        opt("told", &agent_act::told, "What the model was told of it."),
        opt("refused", &agent_act::refused, "Why it was not done; empty: it was."),
        opt("confidence", &agent_act::confidence,
            "That a program in a text is meant to be run, 0 to 1.")};
  }
  bool operator==(const agent_act&) const = default;
};

/// What an agent answered.
struct chat_reply {
  std::string conversation;
  std::string turn;
  std::string role;
  std::string text;
  std::string results;
  std::string model;
  std::string session;
  model_usage usage;
  std::uint32_t rounds = 0;
  std::vector<agent_act> acts;
  bool cut = false;
  std::string error;

  static constexpr const char* type_name = "chat_reply";
  static constexpr auto fields() {
    return std::tuple{
        field("conversation", &chat_reply::conversation, "Id; go on with it."),
        opt("turn", &chat_reply::turn, "The chat's."),
        field("role", &chat_reply::role, "Who answered."),
        field("text", &chat_reply::text, "The model's last word."),
        opt("results", &chat_reply::results, "What the programs gave, as text for a human."),
        field("model", &chat_reply::model, "The model that answered."),
        opt("session", &chat_reply::session, "Where its programs ran; empty: none ran."),
        field("usage", &chat_reply::usage, "Of all rounds."),
        field("rounds", &chat_reply::rounds, "Calls of the model."),
        opt("acts", &chat_reply::acts, "What it did, in order."),
        opt("cut", &chat_reply::cut, "Whether a bound ended the rounds before the model did."),
        opt("error", &chat_reply::error,
            "Why there is no answer, or why it is not whole; empty: all is well.")};
  }
  bool operator==(const chat_reply&) const = default;
};

/// Ends a turn; its chat answers.
struct cancel_chat {
  std::string conversation;
  std::string turn;

  static constexpr const char* type_name = "cancel_chat";
  static constexpr auto fields() {
    return std::tuple{field("conversation", &cancel_chat::conversation, "Id."),
                      opt("turn", &cancel_chat::turn,
                          "Only this chat, at its turn or waiting for it; empty: the one that is "
                          "under way.")};
  }
  bool operator==(const cancel_chat&) const = default;
};

/// The turn is ending; `was_busy` is false when there was none.
struct chat_cancelled {
  std::string conversation;
  bool was_busy = false;
  std::string turn;

  static constexpr const char* type_name = "chat_cancelled";
  static constexpr auto fields() {
    return std::tuple{field("conversation", &chat_cancelled::conversation, "Id."),
                      field("was_busy", &chat_cancelled::was_busy, "Whether a turn was ended."),
                      opt("turn", &chat_cancelled::turn, "Which one was.")};
  }
  bool operator==(const chat_cancelled&) const = default;
};

/// Lists conversations, or gives one with what was said.
struct list_conversations {
  std::string conversation;
  std::uint32_t limit = 100;

  static constexpr const char* type_name = "list_conversations";
  static constexpr auto fields() {
    return std::tuple{opt("conversation", &list_conversations::conversation,
                          "Only this one, with its messages; empty: all, without."),
                      opt("limit", &list_conversations::limit, "At most so many, 1 to 1000.")};
  }
  bool operator==(const list_conversations&) const = default;
};

/// One conversation.
struct conversation_info {
  std::string conversation;
  std::string role;
  std::string session;
  bool busy = false;
  std::uint32_t turns = 0;
  std::int64_t created_at_ms = 0;
  std::int64_t last_used_at_ms = 0;
  model_usage usage;
  std::vector<chat_message> messages;

  static constexpr const char* type_name = "conversation_info";
  static constexpr auto fields() {
    return std::tuple{
        field("conversation", &conversation_info::conversation, "Id."),
        field("role", &conversation_info::role, "Who answers."),
        opt("session", &conversation_info::session, "Its session; empty: none yet."),
        field("busy", &conversation_info::busy, "Whether a turn is under way."),
        field("turns", &conversation_info::turns, "Turns that ended."),
        field("created_at_ms", &conversation_info::created_at_ms, "Unix time, ms."),
        field("last_used_at_ms", &conversation_info::last_used_at_ms, "Unix time, ms."),
        field("usage", &conversation_info::usage, "Of all its turns."),
        opt("messages", &conversation_info::messages, "What was said, oldest first.")};
  }
  bool operator==(const conversation_info&) const = default;
};

/// Conversations, last used first.
struct conversation_list {
  std::vector<conversation_info> conversations;

  static constexpr const char* type_name = "conversation_list";
  static constexpr auto fields() {
    return std::tuple{
        field("conversations", &conversation_list::conversations, "Last used first.")};
  }
  bool operator==(const conversation_list&) const = default;
};

/// Forgets a conversation and closes its session.
struct close_conversation {
  std::string conversation;

  static constexpr const char* type_name = "close_conversation";
  static constexpr auto fields() {
    return std::tuple{field("conversation", &close_conversation::conversation, "Id.")};
  }
  bool operator==(const close_conversation&) const = default;
};

/// The conversation is gone.
struct conversation_closed {
  std::string conversation;

  static constexpr const char* type_name = "conversation_closed";
  static constexpr auto fields() {
    return std::tuple{field("conversation", &conversation_closed::conversation, "Id.")};
  }
  bool operator==(const conversation_closed&) const = default;
};

} // namespace berth
