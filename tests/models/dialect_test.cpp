// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "models/dialect.hpp"
#include "models/limits.hpp"

using namespace berth;
using namespace berth::models;
using state = answer_reader::state;

namespace {

constexpr std::size_t usual = limits::mib;

std::unique_ptr<answer_reader> reader_of(const char* provider, std::size_t bytes_max = usual) {
  return dialect_of(provider).read_answer({.bytes_max = bytes_max, .id_prefix = "made_"});
}

/// What comes of a body that arrives in one piece, or cut into pieces of a size.
struct reading {
  state end;
  std::string told;
  std::string fault;
  model_answer answer;
};

reading read_with(const char* provider, std::string_view body, std::size_t piece = 0,
                  std::size_t bytes_max = usual) {
  auto reader = reader_of(provider, bytes_max);
  reading all{};
  for (std::size_t at = 0; at < body.size(); at += piece == 0 ? body.size() : piece) {
    reader->push(body.substr(at, piece == 0 ? body.size() : piece));
    all.told += reader->take_news();
  }
  all.end = reader->end();
  all.told += reader->take_news();
  all.fault = reader->fault();
  all.answer = reader->take_answer();
  return all;
}

constexpr const char* ollama_stream =
    R"json({"model":"llama3.2:3b","created_at":"x","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}
{"model":"llama3.2:3b","message":{"role":"assistant","content":"Gr\u00fc\u00dfe, "},"done":false}
{"model":"llama3.2:3b","message":{"role":"assistant","content":"wörld"},"done":false}

{"model":"llama3.2:3b","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"execute_code","arguments":{"code":"print(1)"}}}]},"done":false}
{"model":"llama3.2:3b","message":{"role":"assistant","content":"","tool_calls":[{"id":"theirs","function":{"name":"list_files","arguments":{}}}]},"done":false}
{"model":"llama3.2:3b","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":26,"eval_count":298}
)json";

constexpr const char* openai_stream =
    ": keep-alive\n\n"
    "data: {\"id\":\"1\",\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"role\":"
    "\"assistant\",\"content\":\"\",\"reasoning_content\":\"hm\"},\"finish_reason\":null}],"
    "\"usage\":null}\n\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Gr\\u00fc\\u00dfe, \"}}]}\r\n\r\n"
    "event: chunk\n"
    "data:{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"w\xC3\xB6rld\"}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_a\",\"type\":"
    "\"function\",\"function\":{\"name\":\"execute_code\",\"arguments\":\"\"}}]}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":"
    "\"{\\\"code\\\":\"}}]}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"call_b\",\"function\":{"
    "\"name\":\"list_files\",\"arguments\":\"{\"}}]}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":"
    "\"\\\"print(1)\\\"}\"}}]}}]}\n\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n"
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":26,\"completion_tokens\":298}}\n\n"
    "data: [DONE]\n\n";

ask_model question() {
  return {.call = "c",
          .model = {.model = "m", .temperature = 0.5},
          .messages = {{.role = speaker::system, .content = "Be brief."},
                       {.role = speaker::user, .content = "Add 2 and 3"}}};
}

json body_of(const char* provider, const ask_model& asked, bool stream = false,
             const std::string& base_url = "http://host/v1/") {
  model_endpoint to{.provider = provider, .base_url = base_url, .model = "usual"};
  return json::parse(dialect_of(provider).chat_body(asked, to, stream));
}

} // namespace

TEST_CASE("An answer is the same however its bytes are cut") {
  for (auto [provider, body] : {std::pair{"ollama", ollama_stream}, {"openai", openai_stream}}) {
    for (std::size_t piece = 0; piece < std::string_view{body}.size(); ++piece) {
      CAPTURE(provider, piece);
      reading all = read_with(provider, body, piece);
      REQUIRE(all.end == state::whole);
      REQUIRE(all.told == "Grüße, wörld");
      REQUIRE(all.answer.text == all.told);
      REQUIRE(all.answer.tool_calls.size() == 2);
      REQUIRE(json::parse(all.answer.tool_calls[0].arguments) == json{{"code", "print(1)"}});
      REQUIRE(all.answer.tool_calls[0].name == "execute_code");
      REQUIRE(all.answer.tool_calls[1].name == "list_files");
      REQUIRE(all.answer.finish == "tool_calls");
      REQUIRE(all.answer.usage.input_tokens == 26);
      REQUIRE(all.answer.usage.output_tokens == 298);
    }
  }
  CHECK(read_with("ollama", ollama_stream).answer.model == "llama3.2:3b");
  CHECK(read_with("ollama", ollama_stream).answer.tool_calls[0].id == "made_0");
  CHECK(read_with("ollama", ollama_stream).answer.tool_calls[1].id == "theirs");
  CHECK(read_with("openai", openai_stream).answer.model == "gpt-x");
  CHECK(read_with("openai", openai_stream).answer.tool_calls[1].id == "call_b");
  CHECK(read_with("openai", openai_stream).answer.tool_calls[1].arguments == "{");
}

TEST_CASE("A stream that stops anywhere before its end is not taken for an answer") {
  for (auto [provider, body] : {std::pair{"ollama", ollama_stream}, {"openai", openai_stream}}) {
    std::string_view all{body};
    // OpenAI's may stop where it says why it finished.
    auto last = provider == std::string_view{"ollama"} ? all.find("\"done\":true")
                                                       : all.find("\"finish_reason\":\"tool");
    for (std::size_t size = 0; size < last; ++size) {
      CAPTURE(provider, size);
      REQUIRE(read_with(provider, all.substr(0, size)).end != state::whole);
    }
  }
}

TEST_CASE("Each byte of an answer may be wrong, and reading ends") {
  for (auto [provider, body] : {std::pair{"ollama", ollama_stream}, {"openai", openai_stream}}) {
    std::string all{body};
    for (std::size_t at = 0; at < all.size(); ++at)
      for (char wrong : {'\0', '\n', '"', '}', '\xFF'}) {
        std::string changed = all;
        changed[at] = wrong;
        reading got = read_with(provider, changed, 61);
        REQUIRE((got.end != state::broken || !got.fault.empty()));
        REQUIRE(is_utf8(got.answer.text));
      }
  }
}

TEST_CASE("An answer that was not streamed is read, whichever was asked for") {
  reading ollama = read_with("ollama",
                             R"({"model":"m","message":{"role":"assistant","content":"five"},)"
                             R"("done":true,"done_reason":"length","eval_count":1})",
                             3);
  CHECK(ollama.end == state::whole);
  CHECK(ollama.answer.text == "five");
  CHECK(ollama.answer.finish == "length");
  reading openai = read_with("openai", R"( {
    "model": "m", "choices": [{"message": {"role": "assistant", "content": null, "tool_calls": [
      {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
      {"id": "b", "type": "function", "function": {"name": "g", "arguments": {"x": 1}}}]},
      "finish_reason": "tool_calls"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}})",
                             5);
  CHECK(openai.end == state::whole);
  REQUIRE(openai.answer.tool_calls.size() == 2);
  CHECK(openai.answer.tool_calls[1].arguments == R"({"x":1})");
  CHECK(openai.answer.usage.output_tokens == 4);
  CHECK(read_with("openai", R"({"choices": []})").end == state::broken);
}

TEST_CASE("What endpoints do beside the protocol is tolerated") {
  // No [DONE]; no index of calls; a name in each fragment; a refusal as text; unknown members.
  reading loose = read_with(
      "openai", "data: {\"choices\":[{\"delta\":{\"refusal\":\"No. \",\"more\":[1]}}]}\n\n"
                "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"a\",\"function\":{"
                "\"name\":\"f\",\"arguments\":\"{\"}}]}}]}\n\n"
                "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"name\":\"f\","
                "\"arguments\":\"}\"}}]}}]}\n\n"
                "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}");
  CHECK(loose.end == state::whole);
  CHECK(loose.answer.text == "No. ");
  REQUIRE(loose.answer.tool_calls.size() == 1);
  CHECK(loose.answer.tool_calls[0].arguments == "{}");
  // Numbers that are none, a reason that is missing, arguments as text.
  reading odd = read_with(
      "ollama", R"({"message":{"content":"x","tool_calls":[{"function":{"name":"f",)"
                R"("arguments":"{\"a\": "}},{"function":{}},7]},"done":true,"eval_count":-3})");
  CHECK(odd.end == state::whole);
  REQUIRE(odd.answer.tool_calls.size() == 1);
  CHECK(odd.answer.tool_calls[0].arguments == "{\"a\": ");
  CHECK(odd.answer.usage.output_tokens == 0);
  // Bytes that are no UTF-8.
  reading bytes = read_with("ollama", "{\"message\":{\"content\":\"a\xFF\"},\"done\":true}");
  CHECK(bytes.answer.text == "a\xEF\xBF\xBD");
  // Empty answers are answers.
  CHECK(
      read_with("openai", "data: {\"choices\":[{\"delta\":{\"content\":null}}]}\n\ndata: [DONE]\n")
          .answer.finish
      == "stop");
}

TEST_CASE("An error inside an answer is the endpoint's word") {
  reading ollama =
      read_with("ollama", "{\"message\":{\"content\":\"a\"}}\n{\"error\":\"out of memory\"}\n");
  CHECK(ollama.end == state::refused);
  CHECK(ollama.fault == "out of memory");
  reading openai =
      read_with("openai", "data: {\"error\":{\"message\":\"overloaded\",\"code\":null}}\n\n");
  CHECK(openai.end == state::refused);
  CHECK(openai.fault == "overloaded");
}

TEST_CASE("What is no JSON, or no object, breaks the answer with a reason") {
  for (const char* line : {"{\"broken", "[1,2]", "17", "{\"a\":tru}", "nonsense"}) {
    CAPTURE(line);
    CHECK(read_with("ollama", std::string{line} + "\n").end == state::broken);
    CHECK(read_with("openai", "data: " + std::string{line} + "\n\n").end == state::broken);
    CHECK_FALSE(read_with("ollama", std::string{line} + "\n").fault.empty());
  }
  std::string deep = "{\"message\":" + std::string(5'000, '[') + std::string(5'000, ']') + "}\n";
  CHECK(read_with("ollama", deep).end == state::broken);
  CHECK(read_with("ollama", deep).fault.find("nested deeper") != std::string::npos);
  CHECK(read_with("openai", "data: " + deep + "\n").end == state::broken);
}

TEST_CASE("An answer is bounded: its text, its lines, its arguments, its calls, its silence") {
  constexpr std::size_t bound = 4 * limits::kib;
  std::string piece = R"({"message":{"content":"0123456789€"},"done":false})"
                      "\n";
  std::string endless;
  for (std::size_t i = 0; i < bound; ++i)
    endless += piece;
  reading text = read_with("ollama", endless, 1'000, bound);
  CHECK(text.end == state::full);
  CHECK(text.answer.text.size() <= bound);
  CHECK(text.answer.text.size() > bound - 16);
  CHECK(is_utf8(text.answer.text));
  CHECK(text.told == text.answer.text);
  CHECK(text.answer.finish == "length");

  CHECK(read_with("ollama", std::string(100 * bound, 'x'), 1'000, bound).end == state::full);
  CHECK(read_with("openai", "{" + std::string(100 * bound, ' '), 1'000, bound).end == state::full);
  CHECK(read_with("openai", std::string(100 * bound, '\n'), 1'000, bound).end == state::full);
  std::string comments;
  for (std::size_t i = 0; i < 10 * bound; ++i)
    comments += ": still here\n";
  CHECK(read_with("openai", comments, 1'000, bound).end == state::full);
  std::string unending;
  for (std::size_t i = 0; i < bound; ++i)
    unending += "data: 0123456789012345678901234567890123456789\n";
  CHECK(read_with("openai", unending, 1'000, 16 * bound).end == state::broken);

  std::string arguments =
      "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\","
      "\"function\":{\"name\":\"f\",\"arguments\":\"0123456789\"}}]}}]}\n\n";
  std::string many;
  for (std::size_t i = 0; i < bound; ++i)
    many += arguments;
  reading cut = read_with("openai", many, 1'000, bound);
  CHECK(cut.end == state::full);
  CHECK(cut.answer.tool_calls.empty());

  std::string calls = R"({"message":{"tool_calls":[)";
  for (std::size_t i = 0; i <= limits::model_tool_calls_max; ++i)
    calls += std::string{i == 0 ? "" : ","} + R"({"function":{"name":"f"}})";
  CHECK(read_with("ollama", calls + "]}}\n").end == state::broken);
  CHECK(read_with("openai", "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":4000000000,"
                            "\"function\":{\"name\":\"f\"}}]}}]}\n\n")
            .end
        == state::broken);
}

TEST_CASE("What follows an answer's end is not looked at") {
  auto reader = reader_of("ollama");
  CHECK(reader->push(R"({"message":{"content":"a"},"done":true})"
                     "\nnonsense\n")
        == state::whole);
  CHECK(reader->push("more nonsense") == state::whole);
  CHECK(reader->end() == state::whole);
  CHECK(reader->take_answer().text == "a");
}

TEST_CASE("A question is put as each protocol wants it") {
  json ollama = body_of("ollama", question(), true);
  CHECK(ollama == json::parse(R"({"model": "m", "stream": true, "options": {"temperature": 0.5},
             "messages": [{"role": "system", "content": "Be brief."},
                          {"role": "user", "content": "Add 2 and 3"}]})"));
  json openai = body_of("openai", question(), true);
  CHECK(openai
        == json::parse(R"({"model": "m", "stream": true, "stream_options": {"include_usage": true},
             "temperature": 0.5,
             "messages": [{"role": "system", "content": "Be brief."},
                          {"role": "user", "content": "Add 2 and 3"}]})"));
  CHECK_FALSE(body_of("openai", question()).contains("stream"));
  CHECK(body_of("ollama", question())["stream"] == false);
  ask_model bare = question();
  bare.model = {};
  CHECK(body_of("ollama", bare)["model"] == "usual");
  CHECK_FALSE(body_of("openai", bare).contains("temperature"));
  CHECK_FALSE(body_of("ollama", bare).contains("options"));
}

TEST_CASE("Limits, JSON and tools are asked for in each protocol's own words") {
  ask_model asked = question();
  asked.model.max_tokens = 100;
  asked.context_window = 8192;
  asked.json = true;
  asked.tools =
      R"([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])";
  json ollama = body_of("ollama", asked);
  CHECK(ollama["options"] == json{{"temperature", 0.5}, {"num_predict", 100}, {"num_ctx", 8192}});
  CHECK(ollama["format"] == "json");
  CHECK(ollama["tools"][0]["function"]["name"] == "f");
  json openai = body_of("openai", asked);
  CHECK(openai["max_tokens"] == 100);
  CHECK(openai["response_format"] == json{{"type", "json_object"}});
  CHECK(openai["tools"] == ollama["tools"]);
  // OpenAI refuses the format where nobody speaks of JSON.
  CHECK(openai["messages"][0]["role"] == "system");
  asked.messages[1].content = "Answer as JSON";
  CHECK(body_of("openai", asked)["messages"].size() == 2);
  json itself = body_of("openai", asked, false, "https://api.openai.com/v1");
  CHECK(itself["max_completion_tokens"] == 100);
  CHECK_FALSE(itself.contains("max_tokens"));
  asked.tools = "[]";
  CHECK_FALSE(body_of("openai", asked).contains("tools"));
}

TEST_CASE("Tool calls and their results go back as each protocol wants them") {
  ask_model asked = question();
  asked.messages.push_back({.role = speaker::assistant,
                            .tool_calls = {{.id = "a", .name = "f", .arguments = R"({"x": 1})"},
                                           {.id = "b", .name = "g", .arguments = R"({"broken)"}}});
  asked.messages.push_back(
      {.role = speaker::tool, .content = "two", .tool_call_id = "b", .tool_name = "g"});
  asked.messages.push_back(
      {.role = speaker::tool, .content = "one", .tool_call_id = "a", .tool_name = "f"});
  json ollama = body_of("ollama", asked)["messages"];
  CHECK(ollama[2]["tool_calls"][0]
        == json{{"function", {{"name", "f"}, {"arguments", {{"x", 1}}}}}});
  CHECK(ollama[2]["tool_calls"][1]["function"]["arguments"]
        == json::object({{"unreadable", R"({"broken)"}}));
  CHECK(ollama[3] == json{{"role", "tool"}, {"content", "one"}, {"tool_name", "f"}});
  CHECK(ollama[4] == json{{"role", "tool"}, {"content", "two"}, {"tool_name", "g"}});
  json openai = body_of("openai", asked)["messages"];
  CHECK(openai[2]["content"].is_null());
  CHECK(
      openai[2]["tool_calls"][1]
      == json::parse(
          R"({"id": "b", "type": "function", "function": {"name": "g", "arguments": "{\"broken"}})"));
  CHECK(openai[3] == json{{"role", "tool"}, {"content", "one"}, {"tool_call_id", "a"}});
}

TEST_CASE("A conversation with holes is mended before a strict endpoint sees it") {
  std::vector<chat_message> all{
      {.role = speaker::tool, .content = "nobody's", .tool_call_id = "z"},
      {.role = speaker::user, .content = "go"},
      {.role = speaker::assistant, .tool_calls = {{.id = "a", .name = "f"}, {.name = "g"}}},
      {.role = speaker::tool, .content = "strange", .tool_call_id = "other"},
      {.role = speaker::user, .content = "on"},
      {.role = speaker::tool, .content = "late", .tool_call_id = "a"}};
  auto good = mended(all);
  REQUIRE(good.size() == 5);
  CHECK(good[0].content == "go");
  CHECK(good[2].tool_call_id == "a");
  CHECK(good[2].content == "(no result)");
  CHECK(good[3].tool_call_id == good[1].tool_calls[1].id);
  CHECK_FALSE(good[3].tool_call_id.empty());
  CHECK(good[4].content == "on");
  CHECK(mended(good) == good);
  CHECK(mended({}).empty());
}

TEST_CASE("Text that is no UTF-8 never makes a request that is no JSON") {
  ask_model asked = question();
  asked.messages[1].content = "a\xFF\xC3";
  CHECK(body_of("ollama", asked)["messages"][1]["content"] == "a\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST_CASE("Lists of models are read, within bounds") {
  const dialect& ollama = dialect_of("ollama");
  const dialect& openai = dialect_of("openai");
  model_endpoint at{.base_url = "http://host:1/v1"};
  CHECK(ollama.list_url(at) == "http://host:1/api/tags");
  CHECK(openai.list_url(at) == "http://host:1/v1/models");
  CHECK(ollama.chat_url(at) == "http://host:1/api/chat");
  CHECK(openai.chat_url(at) == "http://host:1/v1/chat/completions");
  auto names = ollama.read_list(R"({"models": [{"name": "a"}, {"name": 7}, 3, {"name": "b"}]})");
  REQUIRE(names);
  CHECK(*names == std::vector<std::string>{"a", "b"});
  CHECK(*openai.read_list(R"({"object": "list", "data": [{"id": "x"}]})")
        == std::vector<std::string>{"x"});
  CHECK(ollama.read_list(R"({"models": null})")->empty());
  for (const char* bad : {"", "[]", "{}", R"({"models": 3})", "<html>"})
    CHECK_FALSE(ollama.read_list(bad));
  json many;
  for (int i = 0; i < 5'000; ++i)
    many["models"].push_back({{"name", std::to_string(i)}});
  CHECK(ollama.read_list(many.dump())->size() == limits::models_listed_max);
}
