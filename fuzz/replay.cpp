// SPDX-License-Identifier: Apache-2.0
#include "fuzz/targets.hpp"
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

/// Runs a target over the files of a directory, each whole, cut at each byte, and with each byte
/// changed: `replay messages corpus/messages`. For builds without libFuzzer.
int main(int argc, char** argv) {
  using target = void (*)(std::span<const char>);
  const std::pair<const char*, target> targets[] = {
      {"messages", berth::fuzz::messages},
      {"frames", berth::fuzz::frames},
      {"settings_file", berth::fuzz::settings_file},
      {"roles_config", berth::fuzz::roles_config},
      {"programs", berth::fuzz::programs},
      {"http_json", berth::fuzz::http_json},
      {"http_form", berth::fuzz::http_form},
      {"model_text", berth::fuzz::model_text},
      {"ollama_answer", berth::fuzz::ollama_answer},
      {"openai_answer", berth::fuzz::openai_answer},
      {"zmq_message", berth::fuzz::zmq_message},
      {"packets", berth::fuzz::packets},
      {"journal_log", berth::fuzz::journal_log},
      {"archives", berth::fuzz::archives},
      {"firecracker_answer", berth::fuzz::firecracker_answer},
      {"firecracker_memory", berth::fuzz::firecracker_memory},
      {"egress_request", berth::fuzz::egress_request},
  };
  target run = nullptr;
  for (auto [name, function] : targets)
    if (argc == 3 && std::strcmp(argv[1], name) == 0)
      run = function;
  if (run == nullptr) {
    std::fprintf(stderr, "usage: replay TARGET DIRECTORY\n");
    return 2;
  }
  std::size_t files = 0;
  for (const auto& seed : std::filesystem::directory_iterator{argv[2]}) {
    std::ifstream file{seed.path(), std::ios::binary};
    std::vector<char> data{std::istreambuf_iterator<char>{file}, {}};
    run(data);
    for (std::size_t at = 0; at < data.size() && at < 2048; ++at) {
      run(std::span<const char>{data}.first(at));
      std::vector<char> changed = data;
      changed[at] = static_cast<char>(changed[at] ^ (1 << at % 8));
      run(changed);
    }
    ++files;
  }
  std::printf("%s: %zu seeds replayed\n", argv[1], files);
  return files > 0 ? 0 : 1;
}
