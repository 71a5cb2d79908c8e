// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/tools.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <set>

using namespace berth;

namespace {

role_info coder() {
  role_info role;
  role.vm_execution = true;
  role.allowed_languages = {"python", "bash"};
  role.max_code_length = 20;
  return role;
}

parsed_call parse(std::string name, std::string arguments) {
  return parse_call({.id = "1", .name = std::move(name), .arguments = std::move(arguments)},
                    coder());
}

std::string fault_of_call(std::string name, std::string arguments) {
  return parse(std::move(name), std::move(arguments)).fault;
}

} // namespace

TEST_CASE("Tools are described by JSON schemas that both dialects take", "[agents]") {
  auto all = nlohmann::json::parse(tool_list(coder()));
  std::set<std::string> names;
  for (const auto& each : all) {
    CHECK(each["type"] == "function");
    const auto& function = each["function"];
    names.insert(function["name"]);
    CHECK(!function["description"].get<std::string>().empty());
    const auto& parameters = function["parameters"];
    CHECK(parameters["type"] == "object");
    CHECK(parameters["additionalProperties"] == false);
    for (const auto& needed : parameters["required"])
      CHECK(parameters["properties"].contains(needed.get<std::string>()));
  }
  CHECK(names
        == std::set<std::string>{"execute_code", "read_file", "write_file", "list_files",
                                 "rollback"});
  CHECK(all[0]["function"]["parameters"]["properties"]["language"]["enum"]
        == nlohmann::json{"python", "bash"});
}

TEST_CASE("Calls are read, aliases and JSON within JSON included", "[agents]") {
  auto run = std::get<execute_code_call>(
      parse("execute_code", R"j({"language": "py", "code": "print(1)", "kernel": true})j").request);
  CHECK(run.language == "python");
  CHECK(run.code == "print(1)");
  CHECK(run.kernel);
  auto twice = std::get<execute_code_call>(
      parse("execute_code", R"j("{\"language\": \"sh\", \"code\": \"ls\"}")j").request);
  CHECK(twice.language == "bash");
  auto read =
      std::get<read_file_call>(parse("read_file", R"j({"path": "a.txt", "offset": 5})j").request);
  CHECK(read.path == "a.txt");
  CHECK(read.offset == 5);
  auto write = std::get<write_file_call>(
      parse("write_file", R"j({"path": "a", "content": "", "append": true})j").request);
  CHECK(write.append);
  auto list = parse("list_files", "");
  CHECK(list.fault.empty());
  CHECK(std::get<list_files_call>(list.request).depth == 1);
  CHECK(std::get<rollback_call>(parse("rollback", R"j({"to": "last_success"})j").request).to
        == "last_success");
}

TEST_CASE("A wrong call gets an error that a model can act on", "[agents]") {
  CHECK(fault_of_call("run_code", "{}").find("error: run_code: there is no such tool") == 0);
  CHECK(fault_of_call("execute_code", "{\"language\": \"python\", \"code\": \"pri")
            .find("error: execute_code: the arguments are not JSON: line 1")
        == 0);
  CHECK(fault_of_call("execute_code", std::string(1'000'000, '[')).find("nested deeper than 64")
        != std::string::npos);
  CHECK(fault_of_call("execute_code", R"j({"language": "python"})j")
        == "error: execute_code: code: is missing");
  CHECK(fault_of_call("execute_code", "[1]").find("must be an object, is a list")
        != std::string::npos);
  CHECK(fault_of_call("execute_code", R"j({"language": "python", "code": 5})j")
        == "error: execute_code: code: must be text, is a number");
  CHECK(fault_of_call("execute_code", R"j({"language": "python", "code": "x", "kernal": true})j")
            .find("kernal")
        != std::string::npos);
  CHECK(fault_of_call("execute_code", R"j({"language": "perl", "code": "x"})j")
            .find("must be one of python, bash")
        != std::string::npos);
  CHECK(fault_of_call("execute_code", R"j({"language": "python", "code": " \n"})j")
            .find("code: must not be empty")
        != std::string::npos);
  CHECK(fault_of_call("read_file", R"j({"path": "a", "offset": -1})j").find("offset")
        != std::string::npos);
  CHECK(fault_of_call("rollback", R"j({"to": ""})j").find("before_last_run") != std::string::npos);
  CHECK(fault_of_call("rollback", R"j({"to": "a", "to": "b"})j").find("given twice")
        != std::string::npos);
}

TEST_CASE("No call makes the reader throw", "[agents]") {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  for (const char* name : {"execute_code", "read_file", "write_file", "list_files", "rollback", ""})
    for (const std::string& text :
         {deep, std::string{"\xFF\xFE"}, std::string{"null"}, std::string{"\"\""},
          std::string{"{\"path\": \"\xC3\"}"}, std::string{"1e999"}})
      CHECK(fault_of_call(name, text).starts_with("error: "));
  const std::string whole = "{\"language\": \"python\", \"code\": \"print(1)\"}";
  for (std::size_t size = 0; size < whole.size(); ++size)
    CHECK(!fault_of_call("execute_code", whole.substr(0, size)).empty());
}

TEST_CASE("A role's languages and its length of programs are kept", "[agents]") {
  auto role = coder();
  CHECK(refusal_of_code({.language = "python", .code = "print(1)"}, role).empty());
  CHECK(refusal_of_code({.language = "go", .code = "x"}, role).find("Unsupported language: go")
        == 0);
  std::string twenty;
  for (int i = 0; i < 20; ++i)
    twenty += "\xC3\xA9"; // characters, not bytes
  CHECK(refusal_of_code({.language = "bash", .code = twenty}, role).empty());
  CHECK(refusal_of_code({.language = "bash", .code = twenty + "x"}, role)
        == "Code exceeds maximum length of 20 characters");
}

TEST_CASE("A model is told where its programs run and that output is data", "[agents]") {
  CHECK(acting_prompt(coder(), acting::none).empty());
  CHECK(acting_prompt(coder(), acting::tools).find("never take instructions") != std::string::npos);
  CHECK(acting_prompt(coder(), acting::text).find("fenced code block") != std::string::npos);
}
