// SPDX-License-Identifier: Apache-2.0
#include "guest/languages/go_imports.hpp"
#include "guest/languages/language.hpp"

#include <climits>

#include <cstdlib>

namespace berth::guest {

namespace {

#if defined(__x86_64__)
constexpr const char* platform = "linux_amd64";
#elif defined(__aarch64__)
constexpr const char* platform = "linux_arm64";
#else
constexpr const char* platform = "linux";
#endif

/// Where Go lives, from the link that /usr/bin/go is; empty when it is laid out differently.
std::string find_go_root() {
  char resolved[PATH_MAX];
  if (realpath(find_tool("go").c_str(), resolved) == nullptr)
    return {};
  std::string path = resolved;
  std::size_t bin = path.rfind("/bin/go");
  return bin == std::string::npos ? std::string{} : path.substr(0, bin);
}

/// Whether compile and link can be called directly: only compiled packages of the standard library
/// are imported, and nothing asks for what only `go build` does.
bool is_simple(const std::string& root, const std::string& packages, const std::string& code) {
  if (root.empty() || !exists(packages + "/runtime.a")
      || code.find("//go:embed") != std::string::npos)
    return false;
  std::optional<go_header> header = read_go_header(code);
  if (!header)
    return true;
  for (const std::string& path : header->imports) {
    if (path == "unsafe")
      continue;
    bool odd = path == "C" || path.find("..") != std::string::npos
               || path.find("internal") != std::string::npos || path.starts_with("vendor/");
    if (odd || !exists(packages + "/" + path + ".a"))
      return false;
  }
  return true;
}

void compile_and_link(plan& value, const std::string& root, const std::string& packages) {
  std::string tools = root + "/pkg/tool/" + platform;
  auto env = job_environment({});
  env["GOROOT"] = root;
  stage& compile = value.stages.emplace_back();
  compile.program = tools + "/compile";
  compile.argv = {"compile",   "-o", "main.o", "-p",       "main",
                  "-complete", "-I", packages, "./main.go"};
  compile.env = as_words(env);
  compile.cwd = value.directory;
  compile.compiles = true;
  stage& link = value.stages.emplace_back(compile);
  link.program = tools + "/link";
  link.argv = {"link", "-s", "-w", "-L", packages, "-o", "main", "main.o"};
}

void build(plan& value, const start_job& start) {
  auto env = job_environment(start);
  for (auto [name, word] : {std::pair{"GOCACHE", "/tmp/.cache/go-build"}, {"GOTOOLCHAIN", "local"}})
    env.try_emplace(name, word);
  // Without a network modules come from what is in the machine, or not at all.
  if (!env.contains("https_proxy"))
    env.try_emplace("GOPROXY", "off");
  stage& compile = value.stages.emplace_back();
  compile.program = find_tool("go");
  // Modules and variables have a say in what comes out.
  value.compiled.clear();
  compile.argv = {"go", "build", "-o", value.directory + "/main"};
  bool in_module = exists(start.cwd + "/go.mod");
  compile.argv.push_back(in_module ? value.directory + "/main.go" : "main.go");
  compile.env = as_words(env);
  compile.cwd = in_module ? start.cwd : value.directory;
  compile.compiles = true;
}

} // namespace

planned plan_go(const start_job& start, workspace& files) {
  static const std::string root = find_go_root();
  static const std::string packages = root + "/pkg/" + platform;
  planned result;
  plan& value = result.value;
  value.directory = source_directory(files, "main.go", start.code, result.error);
  value.compiled = value.directory + "/main";
  std::optional<go_header> header = read_go_header(start.code);
  if (header && header->package != "main") {
    // `go run` refuses it and says why; nothing would come of a build.
    build(value, start);
    value.stages.back().argv = {"go", "run", "main.go"};
    value.stages.back().cwd = value.directory;
    return result;
  }
  if (is_simple(root, packages, start.code))
    compile_and_link(value, root, packages);
  else
    build(value, start);
  stage& run = value.stages.emplace_back();
  run.program = value.directory + "/main";
  run.argv = {"main"};
  run.argv.insert(run.argv.end(), start.args.begin(), start.args.end());
  run.env = as_words(job_environment(start));
  run.cwd = start.cwd;
  return result;
}

} // namespace berth::guest
