// SPDX-License-Identifier: Apache-2.0
// The runtime directory, shared by servers that come and go.
#include "machines/namespace/sweep.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <atomic>
#include <filesystem>
#include <thread>
#include <unistd.h>

using namespace berth::machines;

TEST_CASE("servers that start while others end all find a runtime directory, and leave none") {
  const std::string dir =
      (std::filesystem::temp_directory_path() / ("berth-claim-" + std::to_string(::getpid())))
          .string();
  std::atomic<int> refused{0};
  std::array<std::thread, 4> servers;
  for (auto& one : servers)
    one = std::thread{[&] {
      for (int start = 0; start < 500; ++start) {
        std::string why;
        instance_dir made = instance_dir::claim(dir, why);
        if (!made)
          ++refused;
        made.remove();
      }
    }};
  for (auto& one : servers)
    one.join();
  CHECK(refused == 0);
  CHECK_FALSE(std::filesystem::exists(dir));
}
