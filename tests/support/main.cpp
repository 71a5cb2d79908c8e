// SPDX-License-Identifier: Apache-2.0
#define CATCH_CONFIG_RUNNER
#include "tests/support/skip.hpp"

#include <catch2/catch.hpp>

#include <cstdio>
#include <vector>

namespace {

std::vector<std::string> skipped;

/// Counts test cases and assertions for the one summary line that `./dev test` adds up.
struct tally : Catch::TestEventListenerBase {
  using TestEventListenerBase::TestEventListenerBase;

  void testRunEnded(const Catch::TestRunStats& stats) override {
    std::printf("berth-tests: %zu passed, %zu failed, %zu skipped\n",
                static_cast<std::size_t>(stats.totals.testCases.passed) - skipped.size(),
                static_cast<std::size_t>(stats.totals.testCases.failed), skipped.size());
    std::fflush(stdout);
  }
};

CATCH_REGISTER_LISTENER(tally)

} // namespace

namespace berth::test {

void skip(const std::string& reason) {
  std::string name = Catch::getResultCapture().getCurrentTestName();
  skipped.push_back(name);
  std::printf("SKIPPED: %s: %s\n", name.c_str(), reason.c_str());
  SUCCEED("skipped: " << reason);
}

} // namespace berth::test

int main(int argc, char** argv) {
  return Catch::Session().run(argc, argv);
}
