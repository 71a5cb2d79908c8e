// SPDX-License-Identifier: Apache-2.0
#include "guest/languages/language.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace berth::guest {

namespace {

bool python_installed() {
  return !find_tool("python3").empty();
}
bool node_installed() {
  return !find_tool("node").empty();
}
bool bash_installed() {
  return !find_tool("bash").empty();
}
bool rust_installed() {
  return !find_tool("rustc").empty();
}
bool go_installed() {
  return !find_tool("go").empty();
}

} // namespace

const std::vector<language>& all_languages() {
  static const std::vector<language> languages{
      {"python", python_installed, plan_python},
      {"javascript", node_installed, plan_javascript},
      {"bash", bash_installed, plan_bash},
      {"rust", rust_installed, plan_rust},
      {"go", go_installed, plan_go},
  };
  return languages;
}

const language* find_language(std::string_view name) {
  for (const language& each : all_languages())
    if (each.name == name)
      return &each;
  return nullptr;
}

bool exists(const std::string& path) {
  return access(path.c_str(), F_OK) == 0;
}

std::string find_tool(std::string_view name) {
  for (const char* directory : {"/usr/local/bin/", "/usr/bin/", "/bin/"}) {
    std::string path = directory + std::string{name};
    if (access(path.c_str(), X_OK) == 0)
      return path;
  }
  return {};
}

namespace {

/// What programs that speak HTTP look for, where the machine has a way out. Each of them knows
/// other spellings.
const std::map<std::string, std::string>& way_out() {
  static const std::map<std::string, std::string> env = [] {
    std::map<std::string, std::string> made;
    const char* port = std::getenv("BERTH_WAY_OUT");
    if (port == nullptr)
      return made;
    for (const char* name : {"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"})
      made[name] = std::string{"http://127.0.0.1:"} + port;
    // What a program serves itself, it reaches itself.
    for (const char* name : {"no_proxy", "NO_PROXY"})
      made[name] = "localhost,127.0.0.1,::1";
    return made;
  }();
  return env;
}

} // namespace

std::map<std::string, std::string> job_environment(const start_job& start) {
  std::map<std::string, std::string> env{
      {"PATH", "/usr/local/bin:/usr/bin:/bin"},
      {"HOME", "/home/agent"},
      {"USER", "agent"},
      {"LOGNAME", "agent"},
      {"LANG", "C.UTF-8"},
      {"TMPDIR", "/tmp"},
  };
  env.insert(way_out().begin(), way_out().end());
  for (const auto& [name, value] : start.env)
    env[name] = value;
  return env;
}

std::vector<std::string> as_words(const std::map<std::string, std::string>& env) {
  std::vector<std::string> words;
  words.reserve(env.size());
  for (const auto& [name, value] : env)
    words.push_back(name + "=" + value);
  return words;
}

std::string source_directory(workspace& files, const char* name, const std::string& code,
                             std::string& error) {
  std::string directory = files.make_directory();
  if (directory.empty() || !write_file(directory + "/" + name, code, 0600))
    error = std::string{"cannot write "} + name + ": " + std::strerror(errno);
  return directory;
}

planned plan_binary(const start_job& start, workspace& files) {
  planned result;
  result.value.path = run_path::cached;
  result.value.directory = files.make_directory();
  std::string path = result.value.directory + "/main";
  if (result.value.directory.empty()
      || !write_file(path, {start.binary.data(), start.binary.size()}, 0700)) {
    result.error = std::string{"cannot write the program: "} + std::strerror(errno);
    return result;
  }
  stage& run = result.value.stages.emplace_back();
  run.program = path;
  run.argv = {"main"};
  run.argv.insert(run.argv.end(), start.args.begin(), start.args.end());
  run.env = as_words(job_environment(start));
  run.cwd = start.cwd;
  return result;
}

std::string nul_separated(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) {
    text += word;
    text += '\0';
  }
  return text;
}

std::string json_text(std::string_view text) {
  std::string json{"\""};
  for (char c : text) {
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      constexpr const char* digits = "0123456789abcdef";
      json += "\\u00";
      json += digits[c >> 4];
      json += digits[c & 15];
    } else {
      json += c;
    }
  }
  json += '"';
  return json;
}

namespace {

bool renewed_machine = false;

} // namespace

void machine_was_renewed() {
  renewed_machine = true;
}

std::string job_description(const start_job& start, const char* name) {
  std::string json = "{\"code\":" + json_text(start.code) + ",\"args\":[";
  for (std::size_t i = 0; i < start.args.size(); ++i)
    json += (i == 0 ? "" : ",") + json_text(start.args[i]);
  json += "],\"env\":{";
  bool first = true;
  for (const auto& [key, value] : job_environment(start)) {
    json += (first ? "" : ",") + json_text(key) + ":" + json_text(value);
    first = false;
  }
  return json + "},\"cwd\":" + json_text(start.cwd) + ",\"name\":" + json_text(name)
         + (renewed_machine ? ",\"renewed\":true}" : "}");
}

} // namespace berth::guest
