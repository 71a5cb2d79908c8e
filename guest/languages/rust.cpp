// SPDX-License-Identifier: Apache-2.0
#include "guest/languages/language.hpp"

#include <dirent.h>

namespace berth::guest {

namespace {

/// What is needed to call the linker without a C compiler between; found once.
struct linker_parts {
  std::string linker;
  std::string library_directory;
  std::string gcc_directory;
  std::string loader;

  bool complete() const {
    return !linker.empty() && !library_directory.empty() && !gcc_directory.empty()
           && !loader.empty();
  }
};

/// The first directory below `root` that holds `file`.
std::string directory_with(const std::string& root, const std::string& file) {
  std::string result;
  DIR* directory = opendir(root.c_str());
  if (directory == nullptr)
    return result;
  while (const dirent* entry = readdir(directory)) {
    std::string path = root + "/" + entry->d_name;
    if (entry->d_name[0] != '.' && exists(path + "/" + file)) {
      result = path;
      break;
    }
  }
  closedir(directory);
  return result;
}

linker_parts find_linker_parts() {
  linker_parts parts;
  parts.linker = find_tool("mold");
#if defined(__x86_64__)
  const std::string triple = "x86_64-linux-gnu";
  parts.loader = "/lib64/ld-linux-x86-64.so.2";
#elif defined(__aarch64__)
  const std::string triple = "aarch64-linux-gnu";
  parts.loader = "/lib/ld-linux-aarch64.so.1";
#else
  const std::string triple;
#endif
  std::string libraries = "/usr/lib/" + triple;
  if (exists(libraries + "/Scrt1.o") && exists(libraries + "/crti.o")
      && exists(libraries + "/crtn.o"))
    parts.library_directory = libraries;
  parts.gcc_directory = directory_with("/usr/lib/gcc/" + triple, "libgcc_s.so");
  return parts;
}

std::vector<std::string> compiler_words(const std::string& compiler) {
  static const linker_parts parts = find_linker_parts();
  // Not optimised, with the checks of a debug build: panics are those users know, and small
  // programs, which are most, are done soonest. Linking the shared standard library and calling
  // mold without cc between halves the time of a build.
  std::vector<std::string> words{
      compiler,          "--edition", "2021",          "--crate-name", "main",        "--color",
      "never",           "-C",        "debuginfo=0",   "-C",           "opt-level=0", "-C",
      "codegen-units=1", "-C",        "prefer-dynamic"};
  auto codegen = [&](const std::string& option) {
    words.push_back("-C");
    words.push_back(option);
  };
  if (parts.complete()) {
    codegen("linker-flavor=ld");
    codegen("linker=" + parts.linker);
    for (const char* object : {"Scrt1.o", "crti.o", "crtn.o"})
      codegen("link-arg=" + parts.library_directory + "/" + object);
    codegen("link-arg=-lc");
    codegen("link-arg=-L" + parts.library_directory);
    codegen("link-arg=-L" + parts.gcc_directory);
    codegen("link-arg=-dynamic-linker");
    codegen("link-arg=" + parts.loader);
  } else if (!parts.linker.empty()) {
    codegen("link-arg=-fuse-ld=mold");
  }
  words.insert(words.end(), {"-o", "main", "main.rs"});
  return words;
}

} // namespace

planned plan_rust(const start_job& start, workspace& files) {
  planned result;
  plan& value = result.value;
  value.directory = source_directory(files, "main.rs", start.code, result.error);
  value.compiled = value.directory + "/main";
  stage& compile = value.stages.emplace_back();
  compile.program = find_tool("rustc");
  compile.argv = compiler_words("rustc");
  compile.env = as_words(job_environment({}));
  compile.cwd = value.directory;
  compile.compiles = true;
  compile.warm = "rust";
  std::vector<std::string> words{value.directory};
  words.insert(words.end(), compile.argv.begin(), compile.argv.end());
  compile.warm_job = nul_separated(words);
  stage& run = value.stages.emplace_back();
  run.program = value.compiled;
  run.argv = {"main"};
  run.argv.insert(run.argv.end(), start.args.begin(), start.args.end());
  run.env = as_words(job_environment(start));
  run.cwd = start.cwd;
  return result;
}

} // namespace berth::guest
