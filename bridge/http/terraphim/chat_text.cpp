// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/progress.hpp"
#include "bridge/http/terraphim/translate.hpp"
#include "config/limits.hpp"

#include <cmath>

namespace berth::http::terraphim {

namespace {

constexpr std::string_view results_headline = "--- VM Execution Results ---";

/// The text of a message: a text, or a list of parts of which the texts count.
decoded<std::string> read_content(const json& message) {
  auto content = message.find("content");
  if (content == message.end() || content->is_null())
    return std::string{};
  if (content->is_string())
    return content->get<std::string>();
  if (!content->is_array())
    return malformed{"content", "must be text, is " + detail::kind_of(*content)};
  std::string all;
  for (const auto& part : *content) {
    bool is_text = part.is_object() && part.value("type", json("text")) == "text"
                   && part.contains("text") && part["text"].is_string();
    if (!is_text)
      return malformed{"content", "only parts that are text are understood"};
    all += part["text"].get<std::string>();
  }
  return all;
}

decoded<chat_message> read_message(const json& from) {
  if (!from.is_object())
    return malformed{"", "must be a map, is " + detail::kind_of(from)};
  auto role = read_text_member(from, "role");
  if (!role)
    return role.why();
  chat_message made;
  auto who = from_name<speaker>(role->empty() ? "user" : *role);
  if (!who)
    return malformed{"role", "must be system, user, assistant or tool"};
  made.role = *who;
  auto content = read_content(from);
  if (!content)
    return content.why();
  made.content = std::move(*content);
  return made;
}

decoded<std::vector<chat_message>> read_messages(const json& body) {
  std::vector<chat_message> all;
  auto list = body.find("messages");
  if (list == body.end() || list->is_null()) {
    for (const char* name : {"message", "prompt"}) {
      auto text = read_text_member(body, name);
      if (!text)
        return text.why();
      if (!text->empty() && all.empty())
        all.push_back({.role = speaker::user, .content = std::move(*text)});
    }
    if (all.empty())
      return malformed{"messages", "is missing"};
    return all;
  }
  if (!list->is_array())
    return malformed{"messages", "must be a list, is " + detail::kind_of(*list)};
  if (list->empty() || list->size() > limits::chat_messages_max)
    return malformed{"messages", "must be 1 to " + std::to_string(limits::chat_messages_max)};
  for (std::size_t i = 0; i < list->size(); ++i) {
    auto one = read_message((*list)[i]);
    std::string place = "messages[" + std::to_string(i) + "]";
    if (!one)
      return malformed{one.why().field.empty() ? place : place + "." + one.why().field,
                       one.why().reason};
    all.push_back(std::move(*one));
  }
  return all;
}

json acts_json(const std::vector<agent_act>& acts) {
  json all = json::array();
  for (const auto& act : acts) {
    json one = to_json(act);
    if (act.ended)
      one["exit_code"] = act.ended->exit_code ? json(*act.ended->exit_code) : json(nullptr);
    all.push_back(std::move(one));
  }
  return all;
}

} // namespace

decoded<chat> read_chat(const json& body) {
  chat made;
  auto messages = read_messages(body);
  if (!messages)
    return messages.why();
  made.messages = std::move(*messages);
  for (auto [name, to] :
       {std::pair{"conversation_id", &made.conversation},
        std::pair{"conversationId", &made.conversation}, std::pair{"turn_id", &made.turn},
        std::pair{"turnId", &made.turn}, std::pair{"role", &made.role},
        std::pair{"system_prompt", &made.system_prompt}, std::pair{"model", &made.model.model}}) {
    auto text = read_text_member(body, name);
    if (!text)
      return text.why();
    if (!text->empty())
      *to = std::move(*text);
  }
  if (made.conversation.starts_with(workflow_id_prefix))
    return malformed{"conversation_id", "ids that begin with " + std::string{workflow_id_prefix}
                                            + " belong to workflows"};
  json choice = json::object();
  for (const char* name : {"temperature", "max_tokens"})
    if (auto member = body.find(name); member != body.end() && !member->is_null())
      choice[name] = *member;
  auto numbers = from_json<model_choice>(choice);
  if (!numbers)
    return numbers.why();
  made.model.temperature = numbers->temperature;
  made.model.max_tokens = numbers->max_tokens;
  if (auto wish = body.find("execute"); wish != body.end() && !wish->is_null()) {
    if (!wish->is_boolean())
      return malformed{"execute", "must be true or false, is " + detail::kind_of(*wish)};
    made.execute = wish->get<bool>();
  }
  return made;
}

std::string shown_text(const chat_reply& answer) {
  if (answer.results.empty())
    return answer.text;
  return answer.text + (answer.text.empty() ? "" : "\n\n") + std::string{results_headline} + "\n"
         + answer.results;
}

json chat_json(const chat_reply& answer) {
  std::string shown = shown_text(answer);
  bool nothing = shown.empty() && !answer.error.empty();
  json made{{"status", nothing ? "error" : "success"},
            {"message", nothing ? json(nullptr) : json(shown)},
            {"text", answer.text},
            {"results", or_null(answer.results)},
            {"model_used", or_null(answer.model)},
            {"error", nothing ? json("Chat failed: " + answer.error) : or_null(answer.error)},
            {"role", answer.role},
            {"acts", acts_json(answer.acts)},
            {"rounds", answer.rounds},
            {"cut", answer.cut},
            {"usage", to_json(answer.usage)},
            {"session", or_null(answer.session)}};
  put_twice(made, "conversation_id", answer.conversation);
  put_twice(made, "turn_id", or_null(answer.turn));
  put_twice(made, "session_id", or_null(answer.session));
  return made;
}

json chat_failed_json(const error& why, const chat& asked) {
  refusal told = to_refusal(why);
  bool no_role =
      why == ec::not_found && (told.detail.starts_with("role") || told.detail.starts_with("Role"));
  std::string text =
      no_role ? "Role '" + asked.role + "' not found" : "Chat failed: " + told.detail;
  json made{{"status", "error"},
            {"message", nullptr},
            {"model_used", nullptr},
            {"error", text},
            {"code", told.name}};
  put_twice(made, "conversation_id", or_null(asked.conversation));
  put_twice(made, "turn_id", or_null(asked.turn));
  if (told.retry_after_ms)
    made["retry_after_ms"] = *told.retry_after_ms;
  return made;
}

json event_json(const progress_event& event) {
  json made = to_json(event);
  made["timestamp"] = to_rfc3339(event.at_ms);
  if (event.usage)
    made["total_tokens"] = event.usage->input_tokens + event.usage->output_tokens;
  return made;
}

} // namespace berth::http::terraphim
