// SPDX-License-Identifier: Apache-2.0
#include "machines/image/build.hpp"
#include "tests/machines/image/vm.hpp"

#include <catch2/catch.hpp>

#include <filesystem>

using namespace berth;

/// The image is kept in the build directory: only a change of what is in it has it made anew, and
/// only a change of its packages takes more than a second.
TEST_CASE("An image is made out of Debian's packages, and not made again while nothing changed") {
  const machines::build_options options{
      .data_dir = test::vm_data_dir(), .lib_dir = BERTH_BUILD_DIR "/lib/berth", .kernel = "debian"};
  std::vector<std::string> steps;
  auto made = machines::build_image(options, [&](std::string_view what) {
    UNSCOPED_INFO(what);
    steps.emplace_back(what);
  });
  if (!made)
    FAIL(to_refusal(made.error()).detail);
  CHECK(made->manifest.name == "minimal");
  CHECK(made->manifest.languages == std::vector<std::string>{"python", "bash"});
  CHECK(made->manifest.files.at("root.img").bytes > 50'000'000);
  steps.clear();
  auto same =
      machines::build_image(options, [&](std::string_view what) { steps.emplace_back(what); });
  REQUIRE(same);
  CHECK(same->directory == made->directory);
  CHECK(steps.empty());
  auto found = machines::find_image(test::vm_data_dir(), "minimal");
  REQUIRE(found);
  CHECK(found->directory == std::filesystem::canonical(made->directory));
  for (const auto& entry : std::filesystem::recursive_directory_iterator{test::vm_data_dir()})
    CHECK(entry.path().string().find(".work.") == std::string::npos);
}
