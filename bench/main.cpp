// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_case.hpp"

#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <sstream>
#include <thread>

namespace berth::bench {

namespace {

constexpr std::array cases{
    bench_case{"oneshot_python", "print(1) in a fresh machine, against bwrap",
               measure_oneshot_python},
    bench_case{"throughput_8", "8 clients with fresh Python jobs, and what grows",
               measure_throughput},
    bench_case{"bash", "Bash in a fresh machine", measure_bash},
    bench_case{"javascript", "20 jobs a second, against bare node", measure_javascript},
    bench_case{"rust", "hello world, against bare rustc", measure_rust},
    bench_case{"go", "hello world, against bare go run", measure_go},
    bench_case{"own_path", "the server alone, with a machine that answers at once",
               measure_own_path},
    bench_case{"sessions_100", "100 idle warm sessions", measure_sessions},
    bench_case{"kernel", "cells in live Python interpreters", measure_kernels},
    bench_case{"state", "snapshots, rollback and forks", measure_state},
    bench_case{"stream_1gib", "1 GiB of output to a subscriber, every byte checked",
               measure_stream},
    bench_case{"durability", "the price of the journal on disk", measure_durability},
    bench_case{"model", "chats and workflows on a scripted model, against the bare call",
               measure_model},
    bench_case{"vm", "virtual machines by QEMU: only with an image, see BERTH_VM_DATA",
               measure_virtual_machines},
};

struct options {
  std::vector<std::string> only;
  std::string kind = "namespace";
  std::string server = (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "berth");
  bool quick = false;
  bool strict = false;
};

void print_help() {
  std::puts(
      "berth-bench [--only NAME[,NAME]] [--quick] [--kind KIND] [--strict] [--server FILE]\n"
      "Measures a server that it starts and stops itself; prints a table and a line of JSON.\n"
      "  --only NAME[,NAME]  these cases only\n"
      "  --quick             short runs, for a first look\n"
      "  --kind KIND         machine kind, default namespace\n"
      "  --strict            exit 1 when a target is missed or a case fails\n"
      "  --server FILE       the berth executable, default beside this one\n\n"
      "cases:");
  for (const auto& one : cases)
    std::printf("  %-15s %s\n", one.name, one.meaning);
}

/// Throws failure on what it does not know. False when only help was wanted.
bool parse(int argc, char** argv, options& to) {
  std::vector<std::string> words{argv + 1, argv + argc};
  for (std::size_t i = 0; i < words.size(); ++i) {
    auto value = [&] {
      if (++i == words.size())
        throw failure{words[i - 1] + " needs a value"};
      return words[i];
    };
    if (words[i] == "--help" || words[i] == "-h")
      return false;
    if (words[i] == "--quick")
      to.quick = true;
    else if (words[i] == "--strict")
      to.strict = true;
    else if (words[i] == "--kind")
      to.kind = value();
    else if (words[i] == "--server")
      to.server = std::filesystem::absolute(value());
    else if (words[i] == "--only") {
      std::istringstream names{value()};
      for (std::string name; std::getline(names, name, ',');)
        to.only.push_back(name);
    } else
      throw failure{"unknown option " + words[i] + "; --help lists them"};
  }
  for (const auto& name : to.only)
    if (std::ranges::none_of(cases, [&](const auto& one) { return name == one.name; }))
      throw failure{"unknown case " + name + "; --help lists them"};
  return true;
}

void measure(const bench_case& one, bench_context& context) {
  std::fprintf(stderr, "%s: %s\n", one.name, one.meaning);
  context.results.begin(one.name);
  try {
    one.measure(context);
  } catch (const interrupted&) {
    context.results.failed("interrupted");
  } catch (const std::exception& why) {
    context.results.failed(why.what());
  }
}

void measure_all(const options& wanted, bench_context& context) {
  for (const auto& one : cases) {
    bool named = std::ranges::find(wanted.only, one.name) != wanted.only.end();
    if ((named || wanted.only.empty()) && !stop_wanted)
      measure(one, context);
  }
  context.results.begin("stop");
  context.results.figure("left_behind", "left by stopped servers",
                         static_cast<double>(context.left.size()), "things", at_most(0));
  for (const auto& thing : context.left)
    context.results.note("  left", thing);
}

void watch_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { stop_wanted = true; };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  // What a server loses comes to its next ancestor, where it is seen.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
}

int run_bench(const options& wanted) {
  if (!std::filesystem::exists(wanted.server))
    throw failure{wanted.server + " does not exist; build it first"};
  watch_signals();
  report results;
  results.fact("commit", source_commit());
  results.fact("cores", std::thread::hardware_concurrency());
  results.fact("kernel", kernel_release());
  results.fact("kind", wanted.kind);
  results.fact("quick", wanted.quick);
  bench_context context{wanted.server, wanted.kind, wanted.quick, results};
  measure_all(wanted, context);
  std::printf("%s\n%s\n", results.table().c_str(), results.json_line().c_str());
  if (stop_wanted)
    return 130;
  return wanted.strict && !results.all_well() ? 1 : 0;
}

} // namespace

} // namespace berth::bench

int main(int argc, char** argv) {
  using namespace berth::bench;
  try {
    options wanted;
    if (!parse(argc, argv, wanted))
      return print_help(), 0;
    return run_bench(wanted);
  } catch (const std::exception& why) {
    std::fprintf(stderr, "berth-bench: %s\n", why.what());
    return 2;
  }
}
